"""`scalingsweep backtest`: replay forecasts over ladders whose outcome is known.

Owns the reading of options and the printed forms; the protocol stands in `sweep_analysis.backtest`. Needs no
Kubernetes client.
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.output import add_output, write

if TYPE_CHECKING:  # numpy and scipy are loaded when the command runs, not for --help
    from sweep_analysis.backtest import Report, Row
    from sweep_analysis.ladders import Ladder

SHARED = "SCALINGSWEEP_SHARED"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of `backtest`."""
    parser.add_argument("records", type=Path, nargs="*", help="CSV, JSON lines or Parquet; one ladder a file")
    parser.add_argument(
        "--published",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FOLDER",
        help=f"the published ladders, as files in FOLDER (default: ${SHARED}/data, or ../shared/data)",
    )
    parser.add_argument(
        "--columns",
        type=_columns,
        default={},
        metavar="NAME=COLUMN,…",
        help="where the files have other names: parameters=N,tokens=D,loss=L[,rung=R][,run=ID]",
    )
    parser.add_argument("--confidence", type=_share, default=0.95, help="of the intervals scored (default: 0.95)")
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Replay, summarise, print."""
    from sweep_analysis.backtest import replay, report

    if not options.records and options.published is None:
        raise InputError("name a file of records, or --published for the published ladders")
    ladders = [_ladder(path, options.columns) for path in options.records]
    if options.published is not None:
        ladders += _published(options.published)
    scores, abstained = [], 0
    for ladder in ladders:
        found, declined = replay(ladder, confidence=options.confidence)
        scores += found
        abstained += declined
    summary = report(scores, abstained, confidence=options.confidence)
    if summary is None:
        rungs = ", ".join(f"{ladder.name}: {len(ladder.rungs)} rungs" for ladder in ladders)
        raise InputError(
            f"nothing to score ({rungs}): a forecast needs three earlier rungs with at least four records of three"
            " sizes at two token/parameter ratios"
        )
    if options.output == "table":
        print(table(summary))
    else:
        write(summary.to_json(), options.output)
    return Exit.DONE


def table(summary: "Report") -> str:
    """The summary for people; widths and errors in percent of loss."""
    head = ("", "forecasts", "covered", "95 % interval", "frontier", "median width", "score", "median error")
    rows = [
        head,
        _cells("all", summary),
        *(_cells(f"  {row.group}", row) for row in summary.by_origin if len(summary.by_origin) > 1),
        *(_cells(f"  {row.group} past rungs", row) for row in summary.by_past_rungs),
        *(_cells(f"  jump {row.group}", row) for row in summary.by_jump),
        *(_cells("far targets" if row.group == "all" else f"  far, {row.group}", row) for row in summary.far),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    declined = f"{summary.abstained} rungs were not forecast for want of sizes or ratios before them."
    return "\n".join(
        [f"Intervals at {100 * summary.confidence:g} %; far: 10 to 300 times the compute", *lines, declined]
    )


def _cells(name: str, row: "Row | Report") -> tuple[str, ...]:
    return (
        name,
        str(row.forecasts),
        f"{row.coverage:.1%}",
        f"{row.coverage_low:.1%}–{row.coverage_high:.1%}",
        f"{row.frontier_coverage:.1%}",
        f"{row.median_width:.2%}",
        f"{row.interval_score:.2%}",
        f"{row.median_error:.2%}",
    )


def _ladder(path: Path, columns: dict[str, str]) -> "Ladder":
    from sweep_analysis.ladders import Ladder
    from sweep_analysis.outlook import rungs_of
    from sweep_analysis.table import read

    try:
        return Ladder(path.stem, path.name, rungs_of(read(path, columns=columns or None)))
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from None


def _published(folder: Path) -> "Iterable[Ladder]":
    from sweep_analysis.ladders import published, thin

    if folder == Path():
        shared = os.environ.get(SHARED)
        folder = Path(shared) / "data" if shared else Path("..") / "shared" / "data"
    try:
        return [variant for ladder in published(folder) for variant in (ladder, *thin(ladder))]
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} is missing: --published needs the folder with the published runs;"
            f" name it, or set {SHARED}"
        ) from None


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    for name, sign, value in pairs:
        if not (name.strip() and sign and value.strip()):
            raise argparse.ArgumentTypeError(f"{name!r} is not NAME=COLUMN; for example parameters=N,tokens=D,loss=L")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; 0.95 is usual")
    return value
