"""Forecasts from very few records: one or two a rung, of three to six rungs of published ladders.

    python benchmarks/few_records.py [--data FOLDER] --further FOLDER [--write]

Each case is drawn with a fixed seed: a ladder of the origin, where in it the climb begins, how many rungs are behind,
one or two runs of each; the whole next rung is scored. S1, version 3 and version 4 forecast the same cases. Prints the
table; --write puts it into docs/forecasts.md.
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import classics
import numpy as np
from further_ladders import further

from sweep_analysis.backtest import LEAST_RECORDS, Method
from sweep_analysis.forecast import Point
from sweep_analysis.ladders import Ladder, published

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "forecasts.md"
CASES = 220
"""Drawn for each origin; those of fewer records than a forecast takes are left out."""
COUNTS = ((4, 6), (7, 12))

Case = tuple[str, Sequence[Sequence[Point]]]
"""The origin, and the rungs, of which the last is to be forecast."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("SCALINGSWEEP_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", help="folder of the four origins' runs")
    parser.add_argument("--further", type=Path, required=True, help="folder of the six further origins' runs")
    parser.add_argument("--write", action="store_true", help="rewrite the table of docs/forecasts.md")
    options = parser.parse_args()
    try:
        ladders = [*published(options.data), *further(options.further)]
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: name the folder of the published runs", file=sys.stderr)
        return 2
    text = table(drawn(ladders))
    print(text)
    if options.write:
        before, _, rest = DOCS.read_text().partition("<!-- few records -->\n")
        _, _, after = rest.partition("<!-- /few records -->")
        DOCS.write_text(f"{before}<!-- few records -->\n{text}\n<!-- /few records -->{after}")
    return 0


def drawn(ladders: Sequence[Ladder], *, cases: int = CASES, seed: int = 0) -> list[Case]:
    """So many cases of each origin, less those that a forecast would be refused for."""
    chance = random.Random(seed)  # noqa: S311  # draws cases and keeps no secret
    found: list[Case] = []
    for origin in dict.fromkeys(ladder.origin for ladder in ladders):
        there = [ladder for ladder in ladders if ladder.origin == origin]
        for _ in range(cases):
            rungs, behind = chance.choice(there).rungs, chance.choice((3, 4, 5, 6))
            if len(rungs) <= behind:
                continue
            first = chance.randrange(len(rungs) - behind)
            past = [
                chance.sample(rung, min(len(rung), chance.choice((1, 2)))) for rung in rungs[first : first + behind]
            ]
            if sum(map(len, past)) >= LEAST_RECORDS:
                found.append((origin, [*past, rungs[first + behind]]))
    return found


def coverage(cases: Sequence[Case], method: Method) -> list[tuple[str, int, float, float]]:
    """Origin, past records, share of the rung covered and median full width (ln loss) of every case not declined."""
    told = []
    for origin, rungs in cases:
        foretold = method(rungs).foretell(len(rungs) - 1, rungs[-1], 0.95)
        if foretold is not None:
            off = np.abs(np.log([p.loss for p in rungs[-1]]) - foretold.mean)
            width = float(np.median(2.0 * foretold.half_widths))
            told.append((origin, sum(map(len, rungs[:-1])), float(np.mean(off <= foretold.half_widths)), width))
    return told


def table(cases: Sequence[Case]) -> str:
    origins = tuple(dict.fromkeys(origin for origin, _ in cases))
    lines = [f"| method | past records | cases | covered | median width | {' | '.join(origins)} |"]
    lines.append("|---" * (5 + len(origins)) + "|")
    for name, method in classics.VERSIONS.items():
        told = coverage(cases, method)
        for low, high in COUNTS:
            here = [row for row in told if low <= row[1] <= high]
            shares = [[covered for origin, _, covered, _ in here if origin == o] for o in origins]
            each = " | ".join(f"{np.mean(share):.2f}" if len(share) >= 10 else "" for share in shares)
            lines.append(
                f"| {name} | {low}–{high} | {len(here)} | {np.mean([row[2] for row in here]):.3f} |"
                f" {np.median([row[3] for row in here]):.2%} | {each} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
