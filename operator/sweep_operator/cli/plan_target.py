"""`scalingsweep plan --target N:D --budget HOURS`: the ladder to climb, what it will know, and a manifest of it.

Owns the reading of the wish, the plan as one document and the manifest written from it. The design is
`sweep_analysis.plan`'s; whether the manifest is sound is acceptance's, asked before it is written.
"""

import argparse
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep_analysis.flops import six_nd
from sweep_analysis.recipe import Data, Training, resolve, shape_of, whole_batches
from sweep_analysis.rung import Run
from sweep_analysis.scale import format_scale
from sweep_operator import budget
from sweep_operator.acceptance import Refused, accept
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.output import write
from sweep_operator.cli.plan_around import (
    MOST_JUMP,
    around_words,
    fleet_of,
    hours,
    labels,
    priced,
    progress,
    short,
    size,
    surroundings,
    wall,
)
from sweep_operator.live.table import flops as in_flops
from sweep_operator.live.table import percent, table
from sweep_operator.manifest import ManifestError, understand
from sweep_operator.policy import Policy

if TYPE_CHECKING:
    from sweep_analysis.plan.ladder import Design, Step

DIAGNOSIS = 1.0 - budget.DIAGNOSIS_SHARE
"""Share of the budget that the rungs may take; the rest is for experiments that explain one."""
SMALL = 1_000_000
"""Parameters below which models are trained as the laptop ladder trains them."""
OTHER_BUDGETS = (0.25, 0.5, 2.0, 4.0)


def plan_target(options: argparse.Namespace) -> Exit:
    """Design, rehearse, print, write. Raises InputError."""
    from sweep_analysis.plan.ladder import SMALLEST, TooLittleError, best_ladder, even
    from sweep_analysis.plan.needs import plateau
    from sweep_analysis.plan.prior import assume
    from sweep_analysis.plan.rehearsal import rehearse

    N, D = _target(options.target)
    if options.budget is None:
        raise InputError("--target needs --budget, the GPU-hours that the ladder may take, such as --budget 5000h")
    allowed, fleet = hours(options.budget), fleet_of(options)
    smallest = size(options.smallest, "smallest") if options.smallest is not None else max(SMALLEST, N // 5000)
    training = _training(options, smallest)
    _refuse_to_overwrite(options)
    ceiling = fleet.flops(allowed * DIAGNOSIS)
    law, goal = assume(), (float(N), float(D))
    with progress("design") as told:
        flops = ceiling
        while True:
            try:
                design = best_ladder(goal, flops, law.expected, smallest=smallest, told=told)
                needed = plateau(law, *_before_last(design), half_width=_last_half_width(design, law.expected)).step
                last = design.steps[-1].largest / design.steps[-2].largest
                if needed is not None and last < needed:
                    design = best_ladder(goal, flops, law.expected, smallest=smallest, least_step=needed, told=told)
            except TooLittleError as error:
                raise InputError(_too_little(options, fleet, smallest, error)) from None
            rungs = _rungs(training, design.steps)
            exact = _exact(design, rungs)
            if exact.flops <= ceiling:
                break
            flops *= 0.98 * min(1.0, ceiling / exact.flops)  # sizes that can be built came out a little larger
        target = _run(training, N, (D,))
        usual = even(goal, exact.flops)
    with progress("rehearsal") as told:
        mine = rehearse(exact, goal, told=told)
        theirs = rehearse(usual, goal, told=told)
    # where money is left over, more of it is no question, and less is asked of what would be spent
    sated = exact.flops < 0.8 * ceiling
    shares = [share * (exact.flops / ceiling if sated else 1.0) for share in OTHER_BUDGETS if share < 1 or not sated]
    others = [_at_other_budget(goal, ceiling, share, law.expected, smallest) for share in shares]
    document = _document(training, rungs, target, options) | {
        "forecast": mine.to_json(),
        "evenSpacing": {"rungs": len(usual.steps), "step": 10.0, "ratio": theirs.half_width / mine.half_width}
        | theirs.to_json(),
        "otherBudgets": [
            {"gpuHours": allowed * share, "halfWidth": math.expm1(half)}
            for share, half in zip(shares, others, strict=True)
            if half is not None
        ],
    }
    document |= priced(fleet, training, rungs, target)
    document |= surroundings(options, law, rungs, target)
    total = fleet.hours(document["flops"])
    document |= {"gpuHours": total.to_json(), "budgetGpuHours": allowed}
    if options.labels or options.pilot:
        document["labels"] = labels(options)
    if options.write_to is not None:
        _write_manifest(options, training, rungs, target, allowed, document)
    if options.output == "table":
        _print(document, options)
    else:
        write(document, options.output)
    return Exit.DONE


def _target(text: str) -> tuple[int, int]:
    first, colon, second = text.partition(":")
    N = size(first, "target")
    if not colon or not second:
        raise InputError(
            f"--target {text}: tokens are missing; write parameters:tokens,"
            f" such as {first}:{format_scale(20.0 * N)} for 20 tokens per parameter"
        )
    D = size(second, "target")
    if not 0.1 <= D / N <= 100_000:
        raise InputError(f"--target {text}: {D / N:.3g} tokens per parameter; between 0.1 and 100,000 would be right")
    return N, D


def _training(options: argparse.Namespace, smallest: int) -> Training:
    """The recipe that sizes are resolved with: as the manifest will say it."""
    names = options.data or ["Classics"]
    if "Classics" in names and len(names) > 1:
        raise InputError("--data: name Classics or text files, not both")
    length = (2048 if smallest >= SMALL else 128) if options.sequence_length is None else options.sequence_length
    if not 8 <= length <= 65_536:
        raise InputError(f"--sequence-length {length}: between 8 and 65536 would be right")
    return Training.model_validate(
        {
            "data": Data(corpus="Classics") if names == ["Classics"] else Data(files=tuple(names)),
            "sequence_length": length,
            "precision": "bf16" if smallest >= SMALL else "fp32",
            **({"learning_rate": _step_law(20.0)} if smallest >= SMALL else {}),
        }
    )


def _step_law(ratio: float) -> dict[str, float | int]:
    """1.79·N^−.713·D^.307 (Li et al. 2025, arXiv:2503.04715) at D = ratio·N, as a power of N alone."""
    return {"peak": float(f"{1.79 * ratio**0.307 * 1e9**-0.406:.3g}"), "at_parameters": 10**9, "exponent": -0.406}


def _run(training: Training, parameters: float, tokens: Sequence[float], seed: int = 0) -> Run:
    try:
        exact = shape_of(training, round(parameters)).parameters
    except ValueError as error:
        raise InputError(f"{format_scale(parameters)} parameters: {error}") from None
    return Run(parameters=exact, tokens=whole_batches(training, tuple(round(t) for t in tokens)), seed=seed)


def _rungs(training: Training, steps: "Sequence[Step]") -> list[tuple[str, tuple[Run, ...]]]:
    """Rungs as acceptance would resolve them, named after their sizes."""
    rungs: list[tuple[str, tuple[Run, ...]]] = []
    for i, step in enumerate(steps):
        exact = shape_of(training, round(step.parameters)).parameters
        tokens = [ratio * exact for ratio in step.ratios]
        name = format_scale(float(f"{exact:.2g}")).lower().replace(".", "-")
        if any(name == other for other, _ in rungs):
            name = f"{name}-{i + 1}"
        rungs.append((name, tuple(_run(training, exact, tokens, seed) for seed in range(step.seeds))))
    return rungs


def _exact(design: "Design", rungs: Sequence[tuple[str, tuple[Run, ...]]]) -> "Design":
    """The design at the sizes and token counts that will be trained."""
    from sweep_analysis.plan.ladder import Design, Step

    return Design(
        tuple(Step(float(r[0].parameters), tuple(t / r[0].parameters for t in r[0].tokens), len(r)) for _, r in rungs),
        design.half_width,
    )


def _before_last(design: "Design") -> tuple[float, float]:
    step = design.steps[-2]
    return step.parameters, step.parameters * step.ratios[-1]


def _last_half_width(design: "Design", law: Any) -> float:
    """Of the forecast of the last rung's largest record, ln L."""
    from sweep_analysis.plan.ladder import criterion

    last = design.steps[-1]
    if len(design.steps) < 4:
        return 0.0
    return criterion(design.steps[:-1], (last.parameters, last.parameters * last.ratios[-1]), law)


def _at_other_budget(goal: tuple[float, float], flops: float, share: float, law: Any, smallest: int) -> float | None:
    from sweep_analysis.plan.ladder import TooLittleError, best_ladder

    try:
        return best_ladder(goal, flops * share, law, smallest=smallest).half_width
    except TooLittleError:
        return None


def _too_little(options: argparse.Namespace, fleet: Any, smallest: int, error: Any) -> str:
    least = fleet.hours(error.least).value / DIAGNOSIS
    return (
        f"--budget {options.budget} is too small for three rungs from {format_scale(smallest)} parameters up:"
        f" {least:.2g}h on {fleet.device.name} would be the least (or begin lower with --smallest)"
    )


def _document(
    training: Training, rungs: Sequence[tuple[str, tuple[Run, ...]]], target: Run, options: argparse.Namespace
) -> dict[str, Any]:
    rows = [_row(training, name, runs) for name, runs in rungs]
    total = sum(row["flops"]["sixND"] for row in rows)
    for row in rows:
        row["share"] = row["flops"]["sixND"] / total
    largest = max(run.parameters * run.tokens[-1] for _, runs in rungs for run in runs)
    return {
        "rungs": rows,
        "target": _row(training, "target", (target,)),
        "flops": total,
        "jump": target.parameters * target.tokens[-1] / largest,
    }


def _row(training: Training, name: str, runs: tuple[Run, ...]) -> dict[str, Any]:
    trained = [budget.trained_tokens(training, run) for run in runs]
    recipes = [resolve(training, run.parameters, run.tokens, run.learning_rate_factor) for run in runs]
    return {
        "name": name,
        "parameters": runs[0].parameters,
        "tokens": list(runs[0].tokens),
        "tokensPerParameter": [tokens / runs[0].parameters for tokens in runs[0].tokens],
        "seeds": len(runs),
        "flops": {
            "sixND": sum(six_nd(run.parameters, t) for run, t in zip(runs, trained, strict=True)),
            "detailed": sum(recipe.flops_detailed(t) for recipe, t in zip(recipes, trained, strict=True)),
        },
    }


def _print(document: dict[str, Any], options: argparse.Namespace) -> None:
    header = ("RUNG", "PARAMETERS", "TOKENS PER PARAMETER", "SEEDS", "FLOPS (6ND)", "FLOPS (DETAILED)", "SHARE")
    rows = [
        (
            row["name"],
            f"{row['parameters']:,}",
            ", ".join(f"{ratio:.3g}" for ratio in row["tokensPerParameter"]),
            str(row["seeds"]),
            in_flops(row["flops"]["sixND"]),
            in_flops(row["flops"]["detailed"]),
            percent(row.get("share")),
        )
        for row in (*document["rungs"], document["target"])
    ]
    print(table(header, rows, right=(1, 3, 4, 5, 6)))
    told, usual, spent = document["forecast"], document["evenSpacing"], document["gpuHours"]
    far = f"; beyond {MOST_JUMP:g}x no interval was calibrated" if document["jump"] > MOST_JUMP else ""
    over = document["budgetGpuHours"] - spent["value"]
    print(
        f"\nladder   {short(spent['value'])} of {short(document['budgetGpuHours'])} GPU-hours expected"
        f"{wall(spent['value'], options.gpus)}; the target is {document['jump']:.3g} times its largest run{far}"
    )
    if over > 0.24 * document["budgetGpuHours"]:
        print(
            "         the rest would buy next to nothing: no run may take more than a quarter of the target's compute"
        )
    print(
        f"forecast ±{100 * told['halfWidth']:.2g} % of the target's loss"
        f" ({100 * told['halfWidthLow']:.2g} to {100 * told['halfWidthHigh']:.2g} over {told['climbs']} simulated"
        f" climbs, {100 * told['coverage']:.0f} % covered)"
    )
    print(
        f"         an even ladder at the same price ({usual['rungs']} rungs, {usual['step']:g}x steps, three ratios):"
        f" ±{100 * usual['halfWidth']:.2g} %, {usual['ratio']:.2f} times as wide"
    )
    if document["otherBudgets"]:
        bought = ", ".join(
            f"±{100 * o['halfWidth']:.2g} % for {short(o['gpuHours'])} h" for o in document["otherBudgets"]
        )
        print(f"         by the design's criterion: {bought}")
    print("\n".join(around_words(document)))
    if options.write_to is not None:
        print(f"\nwritten  {options.write_to}; next: scalingsweep lint {options.write_to}")
        if not options.data:
            print("         it reads the built-in corpus Classics (9.2 MB); name your own text with --data")


# --- the manifest ----------------------------------------------------------------------------------------------------


def _refuse_to_overwrite(options: argparse.Namespace) -> None:
    if options.write_to is not None and options.write_to.exists() and not options.force:
        raise InputError(f"--manifest {options.write_to} exists already; name another file, or add --force")


def _write_manifest(
    options: argparse.Namespace,
    training: Training,
    rungs: Sequence[tuple[str, tuple[Run, ...]]],
    target: Run,
    allowed: float,
    document: dict[str, Any],
) -> None:
    path: Path = options.write_to
    manifest = _manifest(path, training, rungs, target, allowed, document, options)
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(manifest, text)
    head = (
        f"# Written by: scalingsweep plan --target {options.target} --budget {options.budget}"
        f" --gpu {options.gpu or 'h100'}\n"
        f"# Expected: ±{100 * document['forecast']['halfWidth']:.2g} % of the target's loss after the last rung.\n"
    )
    try:
        path.write_text(head + text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--manifest {path}: {error.strerror or error}") from None


def _manifest(
    path: Path,
    training: Training,
    rungs: Sequence[tuple[str, tuple[Run, ...]]],
    target: Run,
    allowed: float,
    document: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The ScalingSweep; its warm-up is the shortest that acceptance takes. Raises InputError."""
    widest = 1.5 * document["forecast"]["halfWidth"]
    serving = {} if options.inference_tokens is None else {"inferenceTokens": options.inference_tokens}
    for warmup in range(2, len(rungs) + 1):
        manifest = {
            "apiVersion": "scalingsweep.dev/v1alpha1",
            "kind": "ScalingSweep",
            "metadata": {"name": f"to-{format_scale(float(f'{target.parameters:.2g}')).lower().replace('.', '-')}"},
            "spec": {
                "target": {"parameters": target.parameters, "tokens": target.tokens[-1]} | serving,
                "ladder": {"rungs": [_listed(name, runs) for name, runs in rungs]},
                "gate": {"warmupRungs": warmup, "maxHalfWidth": min(0.5, max(0.05, float(f"{widest:.2g}")))},
                "budget": {"gpuHours": allowed},
                "training": _plain(training),
            },
        }
        try:
            verdict = accept(understand(path, manifest).sweep, Policy())
        except ManifestError as error:
            raise InputError(f"--manifest {path}: {error}") from None
        if not isinstance(verdict, Refused):
            return manifest
        if verdict.reason != "WarmupTooShort":
            raise InputError(f"--manifest {path}: {verdict.reason}: {verdict.message}")
    raise InputError(f"--manifest {path}: no forecast could be made before the last rung; raise --budget")


def _listed(name: str, runs: tuple[Run, ...]) -> dict[str, Any]:
    first = runs[0]
    ratios = [float(f"{tokens / first.parameters:.6g}") for tokens in first.tokens]
    seeds = {"seeds": [run.seed for run in runs]} if len(runs) > 1 else {}
    return {"name": name, "runs": [{"parameters": first.parameters, "tokensPerParameter": ratios, **seeds}]}


def _plain(training: Training) -> dict[str, Any]:
    """What of the recipe differs from its defaults."""
    return training.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
