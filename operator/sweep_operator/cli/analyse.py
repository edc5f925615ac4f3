"""`scalingsweep fit` and `scalingsweep forecast`: the analysis alone, on a file of records.

Owns the reading of options and the printed forms. The statistics are `sweep_analysis`'s; needs no Kubernetes client.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.output import add_output, write

LAW = "Chinchilla"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of `fit` or `forecast`."""
    parser.add_argument("records", type=Path, help="CSV, JSON lines or Parquet; a row a record")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--law", help="which law (default: Chinchilla); a wrong name lists all")
    if name == "fit":
        which.add_argument(
            "--choose",
            action="store_true",
            help="the law that would have forecast the records' own last rungs best, and why not the others",
        )
    parser.add_argument(
        "--columns",
        type=_columns,
        default={},
        metavar="NAME=COLUMN,…",
        help="where the file has other names: parameters=N,tokens=D,loss=L[,rung=R][,run=ID]",
    )
    parser.add_argument("--confidence", type=_share, default=0.95, help="of intervals (default: 0.95)")
    parser.add_argument("--drop-missing", action="store_true", help="leave out rows without a needed value")
    add_output(parser)
    if name == "forecast":
        parser.add_argument(
            "--at",
            type=_at,
            required=True,
            metavar="NAME=VALUE,…",
            help="the run asked about: parameters=7B,tokens=140B",
        )
        parser.set_defaults(execute=_forecast)
        return
    parser.add_argument("--delta", type=float, help="width of the Huber loss's quadratic part (default: the law's own)")
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="REFITS",
        help="take intervals from that many refits (default: 0, none)",
    )
    parser.set_defaults(execute=_fit)


def _fit(options: argparse.Namespace) -> int:
    from sweep_analysis.bootstrap import bootstrap
    from sweep_analysis.choose import choose
    from sweep_analysis.fit import fit
    from sweep_analysis.present import text_of

    if options.bootstrap and options.bootstrap < 100:
        raise InputError(f"--bootstrap {options.bootstrap}: a percentile needs at least 100 refits")
    reading = {"columns": options.columns, "missing": "drop" if options.drop_missing else "refuse"}
    choice = None
    try:
        if options.choose:
            choice = choose(options.records, **reading)
        law = choice.law if choice else options.law or LAW
        result = fit(options.records, law, delta=options.delta, confidence=options.confidence, **reading)
        if options.bootstrap and result.usable:
            result = bootstrap(result, options.bootstrap).applied(result)
    except ValueError as error:
        raise InputError(str(error)) from None
    document, text = result.to_json(), text_of(result)
    if choice:
        document["candidates"] = [candidate.to_json() for candidate in choice.candidates]
        text = f"{choice}\n\n{text}"
    _show(document, text, options.output)
    if options.output != "table":
        for note in ([] if result.status == "Converged" else [result.message]) + list(result.warnings):
            print(f"scalingsweep fit: {note}", file=sys.stderr)
    return Exit.DONE if result.usable else Exit.BAD_INPUT


def _forecast(options: argparse.Namespace) -> int:
    from sweep_analysis.fit import Outlook, fit

    try:
        result = fit(
            options.records,
            options.law or LAW,
            columns=options.columns,
            confidence=options.confidence,
            missing="drop" if options.drop_missing else "refuse",
        )
        told = result.forecast(**options.at)
    except KeyError as error:
        raise InputError(f"--at: {error.args[0]}") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    if not isinstance(told, Outlook):
        raise InputError(f"{options.records}: no forecast ({told.reason}): {told.message}")
    loss = told.loss
    at = ", ".join(f"{name} {value:.4g}" for name, value in options.at.items())
    text = (
        f"{result.form.response} {loss.value:.4f}  [{loss.low:.4f}, {loss.high:.4f}] at {100 * loss.confidence:g} %\n"
        f"at {at}: {told.jump:.3g} times the largest compute of {result.records} records; {told.law}"
    )
    _show(told.to_json(), text, options.output)
    for note in result.warnings:
        print(f"scalingsweep forecast: {note}", file=sys.stderr)
    return Exit.DONE


def _show(document: dict[str, Any], text: str, form: str) -> None:
    if form == "table":
        print(text)
    else:
        write(document, form)


def _pairs(text: str, example: str) -> dict[str, str]:
    pairs = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not (sign and name.strip() and value.strip()):
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=VALUE; for example {example}")
        if name.strip() in pairs:
            raise argparse.ArgumentTypeError(f"{name.strip()} is given twice")
        pairs[name.strip()] = value.strip()
    return pairs


def _columns(text: str) -> dict[str, str]:
    return _pairs(text, "parameters=N,tokens=D,loss=L")


def _at(text: str) -> dict[str, float]:
    from sweep_analysis.scale import parse_scale

    values = {}
    for name, value in _pairs(text, "parameters=7B,tokens=140B").items():
        try:
            values[name] = float(value)
        except ValueError:
            try:
                values[name] = float(parse_scale(value))
            except ValueError as error:
                raise argparse.ArgumentTypeError(f"{name}: {error}") from None
    return values


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; 0.95 is usual")
    return value
