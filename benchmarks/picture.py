"""The README's picture, from a finished ladder: python benchmarks/picture.py WORKDIR docs/images/laptop.svg"""

import sys
from pathlib import Path

import matplotlib as mpl

from sweep_analysis.figures import law_figure
from sweep_operator.report.gather import gather
from sweep_operator.report.plots import bands, measured, target_point


def main(workdir: Path, picture: Path) -> int:
    """Draw the law, its band, the records and the target, as the report does."""
    ladder = gather(workdir)
    records = measured(ladder)
    band, lines = bands(ladder, records)
    figure = law_figure(records, band=band, lines=lines, target=target_point(ladder))
    mpl.rcParams["svg.hashsalt"] = "scalingsweep"  # the same ladder gives the same file
    figure.savefig(picture, format="svg", facecolor="white", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
