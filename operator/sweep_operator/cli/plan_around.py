"""What `plan` says around a ladder: prices, memory per GPU, splits, plateau, data, labels, each with its assumption.

Owns the reading of those options and the words of the answers. The arithmetic is `sweep_analysis.plan`'s.
"""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep_analysis.flops import six_nd
from sweep_analysis.forecast import Point
from sweep_analysis.recipe import Training, resolve
from sweep_analysis.rung import Run
from sweep_analysis.scale import format_scale, parse_scale
from sweep_operator.api import ScalingSweep
from sweep_operator.cli.errors import InputError
from sweep_operator.cli.ladder import open_ladder
from sweep_operator.live.table import duration, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep_analysis.plan.devices import Fleet
    from sweep_analysis.plan.ladder import Step
    from sweep_analysis.plan.prior import Assumed

MOST_JUMP = 300.0
"""Compute of a target over the ladder's largest run up to which intervals were calibrated."""

History = Sequence[Sequence[Point]]


def size(text: str, flag: str) -> int:
    """A Scale of the command line. Raises InputError."""
    try:
        return parse_scale(text)
    except ValueError as error:
        raise InputError(f"--{flag}: {error}") from None


def hours(text: str) -> float:
    """`5000h` or `200d` as GPU-hours. Raises InputError."""
    match = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[0-9]+)?)\s*(h|d)\s*", text)
    value = float(match[1].replace(",", "").replace("_", "")) * (24.0 if match[2] == "d" else 1.0) if match else 0.0
    if not (0 < value < 1e12):
        raise InputError(f"--budget {text}: it is GPU-hours or GPU-days, such as 5000h or 200d")
    return value


def fleet_of(options: argparse.Namespace) -> "Fleet":
    """The devices to price on. Raises InputError."""
    from sweep_analysis.plan.devices import MFU, Fleet, device_of

    try:
        device = device_of("h100" if options.gpu is None else options.gpu)
        mfu = MFU if options.mfu is None else _mfu(options.mfu)
        if options.price is not None and not (0 < options.price < 1e6):
            raise ValueError(f"--price {options.price:g}: dollars of one GPU-hour are greater than zero")
        if options.gpus is not None and not 0 < options.gpus <= 1_000_000:
            raise ValueError(f"--gpus {options.gpus}: at least one GPU must train")
        return Fleet(device, mfu, options.price, options.gpus)
    except ValueError as error:
        text = str(error)
        raise InputError(text if text.startswith("--") else f"--{'gpu' if 'GPU' in text else 'mfu'}: {text}") from None


def _mfu(text: str) -> tuple[float, float]:
    parts = text.split(":")
    try:
        low, high = (float(p.rstrip("%")) / (100.0 if p.endswith("%") else 1.0) for p in (parts[0], parts[-1]))
    except ValueError:
        low = high = math.nan
    if len(parts) > 2 or not 0 < low <= high <= 1:
        raise ValueError(f"--mfu {text}: a range within 0 to 1, lower end first, such as 0.3:0.45")
    return low, high


def history_in(workdir: Path | None, sweep: ScalingSweep) -> History:
    """Records of the ladder in the folder (this sweep's own when None), rung by rung after what it imported; empty
    where there is none."""
    folder = Path(sweep.metadata.name) if workdir is None else workdir
    if workdir is None and not (folder / "sweep.json").exists():
        return ()
    from sweep_operator.judgement import history_of, known

    store, standing = open_ladder(folder)
    return known(standing, history_of(standing, store.runs()))


def law_of(history: History, compute: float) -> "Assumed | None":
    """The ladder's posterior where it can forecast, else published laws, else (far below their data) None."""
    from sweep_analysis.forecast import unidentified
    from sweep_analysis.plan.prior import LEAST_COMPUTE, assume, posterior

    points = [point for rung in history for point in rung]
    if points and unidentified(points) is None:
        return posterior(history)
    return assume() if compute >= LEAST_COMPUTE else None


def around(
    options: argparse.Namespace,
    training: Training,
    steps: Sequence[tuple[str, tuple[Run, ...]]],
    target: Run,
    history: History = (),
    served: int | None = None,
) -> dict[str, Any]:
    """Everything said around a ladder, as one document; `served`: the manifest's own inferenceTokens."""
    N, D = target.parameters, target.tokens[-1]
    C = six_nd(N, D)
    document: dict[str, Any] = {}
    if any(asked is not None for asked in (options.gpu, options.gpus, options.mfu, options.price)):
        document |= priced(fleet_of(options), training, steps, target)
    law = law_of(history, C)
    if law is not None:
        document |= surroundings(options, law, steps, target, served)
    else:
        asked = next(
            (flag for flag in ("corpus_tokens", "inference_tokens") if getattr(options, flag) is not None), None
        )
        if asked:
            raise InputError(
                f"--{asked.replace('_', '-')}: no law is known at {C:.2g} FLOPs, far below published runs;"
                " climb the ladder first, then name it with --workdir"
            )
    if options.labels or options.pilot:
        document["labels"] = labels(options)
    return document


def priced(
    fleet: "Fleet", training: Training, steps: Sequence[tuple[str, tuple[Run, ...]]], target: Run
) -> dict[str, Any]:
    """GPU-hours, price and memory of every rung and of the target, by the assumptions."""
    from sweep_analysis.memory import lightest
    from sweep_operator.budget import trained_tokens

    rows = []
    for name, runs in [*steps, ("target", (target,))]:
        spent = fleet.hours(sum(six_nd(run.parameters, trained_tokens(training, run)) for run in runs))
        cost = fleet.cost(spent)
        largest = max(runs, key=lambda run: run.parameters)
        shape = resolve(training, largest.parameters, largest.tokens, largest.learning_rate_factor).shape
        fit = lightest(shape, training.sequence_length, fleet.device.memory, fleet.gpus)
        rows.append(
            {
                "name": name,
                "gpuHours": spent.to_json(),
                "dollars": cost.to_json() if cost else None,
                "memory": None
                if fit.memory is None
                else {**fit.memory.to_json(), "totalBytes": fit.memory.total_bytes},
                "setting": fit.message,
            }
        )
    return {"prices": rows, "assumptions": fleet.assumptions(), **({"gpus": fleet.gpus} if fleet.gpus else {})}


def surroundings(
    options: argparse.Namespace,
    law: "Assumed",
    steps: Sequence[tuple[str, tuple[Run, ...]]],
    target: Run,
    served: int | None = None,
) -> dict[str, Any]:
    """What follows from the law: splits, plateau, exponents, repeated data."""
    from sweep_analysis.plan import needs
    from sweep_analysis.plan.ladder import criterion

    N, D = float(target.parameters), float(target.tokens[-1])
    rungs = [_step_of(runs) for _, runs in steps]
    top = _top(steps)
    half = criterion(rungs[:-1], top, law.expected) if len(rungs) > 3 else 0.0
    inference = size(options.inference_tokens, "inference-tokens") if options.inference_tokens is not None else served
    jump = N * D / (top[0] * top[1])
    document: dict[str, Any] = {
        "law": law.source,
        "splits": needs.splits(law, N, D, inference).to_json(),
        "plateau": needs.plateau(law, *_bottom_of_last(rungs), half_width=half).to_json(),
        "exponent": needs.exponent_error(law, N, D, max(jump, 1.0)).to_json(),
    }
    if len(rungs) > 1:
        document["plateau"]["lastStep"] = rungs[-1].largest / rungs[-2].largest
    if options.corpus_tokens is not None:
        corpus = size(options.corpus_tokens, "corpus-tokens")
        document["data"] = needs.repetition(law, N, D, float(corpus)).to_json()
    return document


def _step_of(runs: Sequence[Run]) -> "Step":
    from sweep_analysis.plan.ladder import Step

    largest = max(runs, key=lambda run: run.parameters)
    ratios = tuple(tokens / largest.parameters for tokens in largest.tokens)
    return Step(float(largest.parameters), ratios, sum(run.parameters == largest.parameters for run in runs))


def _top(steps: Sequence[tuple[str, tuple[Run, ...]]]) -> tuple[float, float]:
    """(N, D) of the ladder's largest record."""
    run = max((run for _, runs in steps for run in runs), key=lambda run: run.parameters * run.tokens[-1])
    return float(run.parameters), float(run.tokens[-1])


def _bottom_of_last(rungs: Sequence["Step"]) -> tuple[float, float]:
    """(N, D) from which the last step is made."""
    step = rungs[-2] if len(rungs) > 1 else rungs[-1]
    return step.parameters, step.parameters * step.ratios[-1]


def labels(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Label counts of each metric. Raises InputError."""
    from sweep_analysis.plan.labels import labels_for, parse_metric

    if not options.labels:
        raise InputError("--pilot: say which metric it should reach with --labels, such as --labels accuracy=0.9")
    if options.pilot and not options.pilot.is_file():
        raise InputError(f"--pilot {options.pilot}: there is no such file")
    try:
        return [labels_for(parse_metric(text), options.pilot).to_json() for text in options.labels]
    except ValueError as error:
        raise InputError(f"--labels: {error}") from None


# --- words -----------------------------------------------------------------------------------------------------------


def around_words(document: dict[str, Any]) -> list[str]:
    """The lines of a table's foot."""
    lines: list[str] = []
    if "prices" in document:
        lines += ["", price_table(document)]
    if "splits" in document:
        lines += ["", *_law_words(document)]
    lines += [*_data_words(document), *_label_words(document), *_assumption_words(document)]
    return lines


def price_table(document: dict[str, Any]) -> str:
    """GPU-hours, dollars and memory of each rung."""
    header = ("RUNG", "GPU-HOURS", "DOLLARS", "MEMORY/GPU", "SETTING")
    rows = []
    for row in document["prices"]:
        memory = row["memory"]
        rows.append(
            (
                row["name"],
                ranged(row["gpuHours"]),
                ranged(row["dollars"]) if row["dollars"] else "-",
                f"{memory['totalBytes'] / 1e9:.3g} GB" if memory else "-",
                f"{memory['gpus']} x, {row['setting']}" if memory else row["setting"],
            )
        )
    return table(header, rows, right=(1, 2, 3))


def _law_words(document: dict[str, Any]) -> Iterable[str]:
    splits, plateau, exponent = document["splits"], document["plateau"], document["exponent"]
    yield (
        f"split    compute-optimal at the target's FLOPs: {sized(splits['optimalParameters'])} parameters on"
        f" {sized(splits['optimalTokens'])} tokens; the target's own split costs"
        f" {100 * splits['excessLoss']['value']:.2g} % of loss against it"
    )
    if "servedParameters" in splits:
        yield (
            f"serving  the same loss with least training and inference: {sized(splits['servedParameters'])} parameters"
            f" on {sized(splits['servedTokens'])} tokens, {100 * splits['servedSaving']:.0f} % fewer FLOPs in all"
        )
    fall = f"loss falls {100 * plateau['perDoubling']:.2g} % per doubling of compute at the last rung"
    if "step" not in plateau:
        yield f"plateau  {fall}; no step up to 100x would show one against {100 * plateau['visible']:.2g} %"
    else:
        short = plateau.get("lastStep", math.inf) < plateau["step"]
        yield (
            f"plateau  {fall}; the smallest step that could show one is {plateau['step']:.2g}x"
            + (f" (this ladder's last step is {plateau['lastStep']:.2g}x" if "lastStep" in plateau else "")
            + (": too short)" if short else ")" if "lastStep" in plateau else "")
        )
    yield (
        f"exponent 1 % error in the exponent of N*(C) moves the split by {100 * exponent['split']:.2g} % and wastes"
        f" {100 * exponent['flops']:.2g} % of the target's FLOPs; in alpha and beta it moves the forecast by"
        f" {100 * exponent['loss']:.2g} %"
    )
    yield f"law      {document['law']}"


def _data_words(document: dict[str, Any]) -> Iterable[str]:
    if "data" not in document:
        return
    data = document["data"]
    held, needed = format_scale(data["corpusTokens"]), format_scale(data["tokens"])
    if data["missing"] == 0:
        yield f"data     the target reads {needed} distinct tokens once; the corpus holds {held}"
        return
    excess = data["excessLoss"]
    yield (
        f"data     the target needs {needed} tokens and the corpus holds {held}: {data['epochs']:.3g} epochs, worth"
        f" {sized(data['effectiveTokens'])} fresh tokens, {100 * excess['value']:.2g} % of loss"
        f" ({100 * excess['low']:.2g} to {100 * excess['high']:.2g}); {format_scale(data['missing'])} are missing"
    )


def _label_words(document: dict[str, Any]) -> Iterable[str]:
    for entry in document.get("labels", ()):
        metric = entry["metric"]
        name = f"{metric['name']} {metric['value']:g}"
        line = f"labels   {name} is measured within ±{metric['halfWidth']:g} (95 %) by {entry['measuredBy']:,} labels"
        if "reachedBy" in entry:
            line += f", and reached by {sized(entry['reachedBy'])} examples"
        yield line + (f" ({entry['message']})" if entry.get("message") else "")


def _assumption_words(document: dict[str, Any]) -> Iterable[str]:
    if "assumptions" not in document:
        return
    gpu, mfu, price = (document["assumptions"][key] for key in ("gpu", "mfu", "dollarsPerGpuHour"))
    yield ""
    peak = f"{gpu['peakFlopsPerSecond'] / 1e12:,.0f} TFLOP/s"
    yield f"assumed  {gpu['value']}: {peak} ({gpu['source']}; --gpu)"
    yield f"         MFU {mfu['low']:g} to {mfu['high']:g} ({mfu['source']}; --mfu)"
    dollars = "no price" if price["value"] is None else f"${price['value']:g} a GPU-hour"
    yield f"         {dollars} ({price['source'] if price['value'] is not None else 'none known'}; --price)"


def ranged(value: dict[str, float]) -> str:
    """`4,083 [3,800, 5,440]`."""
    return f"{short(value['value'])} [{short(value['low'])}, {short(value['high'])}]"


def sized(value: dict[str, float]) -> str:
    """`7B [6.1B, 8.2B]`."""
    return f"{format_scale(value['value'])} [{format_scale(value['low'])}, {format_scale(value['high'])}]"


def short(value: float) -> str:
    """Three digits, or whole with thousands apart."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def wall(gpu_hours: float, gpus: int | None) -> str:
    """How long that takes on so many GPUs; empty without a number of them."""
    return f", {duration(3600 * gpu_hours / gpus)} on {gpus:,} GPUs" if gpus else ""


@contextmanager
def progress(label: str) -> "Iterator[Callable[[float], None]]":
    """A bar on the terminal of the error stream, nothing in a pipe; yields what is told the share done."""
    import sys

    shown = sys.stderr.isatty()

    def told(share: float) -> None:
        if shown:
            filled = round(24 * min(share, 1.0))
            print(f"\r{label} {'█' * filled}{'░' * (24 - filled)} {100 * share:3.0f} %", end="", file=sys.stderr)

    try:
        yield told
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
