"""`scalingsweep plan --workdir DIR`, `plan NAME`: after a rung, the runs that tell most of the target for their price.

Owns the reading of the ladder and the table of proposals. The forecasts are `sweep_analysis.plan.following`'s; what a
manifest trains next changes only when its author changes it.
"""

import argparse
from typing import Any

from sweep_analysis.forecast import NoForecast
from sweep_analysis.recipe import Training, shape_of, whole_batches
from sweep_analysis.rung import Run
from sweep_operator import budget
from sweep_operator.acceptance import Refused, accept
from sweep_operator.api import RungState, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.output import write
from sweep_operator.cli.placing import place_of
from sweep_operator.cli.plan_around import around, around_words, progress
from sweep_operator.judgement import history_of, known
from sweep_operator.live.table import duration, percent, table
from sweep_operator.live.table import flops as in_flops
from sweep_operator.manifest import ManifestError, read_policy


def plan_next(options: argparse.Namespace) -> Exit:
    """Show the proposals. Raises InputError."""
    from sweep_analysis.plan.following import propose
    from sweep_analysis.plan.ladder import Step

    place = place_of(options)
    sweep, children = place.sweep(), place.runs()
    name = options.workdir or options.name
    try:
        policy = read_policy(options.policy)
    except ManifestError as error:
        raise InputError(str(error)) from None
    verdict = accept(sweep, policy)
    if isinstance(verdict, Refused):
        raise InputError(f"{name}: {verdict.reason}: {verdict.message}")
    promoted = history_of(sweep, children)
    history = known(sweep, promoted)
    if not any(promoted):
        raise InputError(
            f"{name}: no rung has been promoted yet, so nothing is known;"
            " plan its manifest instead: scalingsweep plan SWEEP.yaml"
        )
    training, target = sweep.spec.training, verdict.target
    done = {r.name for r in sweep.status.rungs if r.state is RungState.PROMOTED}
    planned = next((rung for rung in verdict.rungs if rung.name not in done), None)
    steps = []
    if planned is not None:
        first = max(planned.judged, key=lambda run: run.parameters)
        alike = sum(run.parameters == first.parameters for run in planned.judged)
        steps = [Step(float(first.parameters), tuple(t / first.parameters for t in first.tokens), alike)]
    with progress("proposals") as told:
        answer = propose(
            history,
            (float(target.parameters), float(target.tokens[-1])),
            confidence=sweep.spec.gate.confidence,
            most_flops=_flops_left(sweep, children),
            exact=lambda N: shape_of(training, round(N)).parameters,
            planned=steps,
            told=told,
        )
    if isinstance(answer, NoForecast):
        raise InputError(f"{name}: no forecast yet ({answer.reason}): {answer.message}")
    document: dict[str, Any] = {"sweep": sweep.metadata.name, "promoted": sorted(done - {"target"})} | answer.to_json()
    for proposal in document["proposals"]:
        proposal["gpuSeconds"] = _seconds(training, proposal, children)
        proposal["planned"] = bool(steps) and proposal["parameters"] == round(steps[0].parameters)
    document["nextPlanned"] = planned.name if planned else None
    document |= around(options, training, [(r.name, r.judged) for r in verdict.rungs], target, history)
    if options.output == "table":
        _print(document)
    else:
        write(document, options.output)
    return Exit.DONE


def _flops_left(sweep: ScalingSweep, children: Any) -> float | None:
    if sweep.spec.budget.flops is None:
        return None
    return float(max(0.0, sweep.spec.budget.flops - budget.spent_on(children).flops))


def _seconds(training: Training, proposal: dict[str, Any], children: Any) -> float | None:
    """Device seconds at this ladder's own prices."""
    N = proposal["parameters"]
    tokens = tuple(round(ratio * N) for ratio in proposal["tokensPerParameter"])
    runs = [Run(parameters=N, tokens=whole_batches(training, tokens), seed=k) for k in range(proposal["seeds"])]
    cost = budget.cost_of(training, runs, children)
    return cost.gpu_seconds[1] if cost.gpu_seconds else None


def _print(document: dict[str, Any]) -> None:
    now = document["loss"]
    print(
        f"now      target {now['value']:.4f} nats/token [{now['low']:.4f}, {now['high']:.4f}],"
        f" ±{100 * document['halfWidth']:.2g} %, {document['jump']:.3g} times the largest run so far\n"
    )
    if not document["proposals"]:
        print("No run short of half the target's compute, and within what is left of the budget, would tell more.")
        print("\n".join(around_words(document)))
        return
    header = ("PARAMETERS", "TOKENS PER PARAMETER", "SEEDS", "FLOPS (6ND)", "GPU-TIME", "FORECAST", "TARGET AFTER", "")
    best = max(p["narrowing"] for p in document["proposals"])
    rows = [
        (
            f"{p['parameters']:,}",
            ", ".join(f"{ratio:.3g}" for ratio in p["tokensPerParameter"]),
            str(p["seeds"]),
            in_flops(p["flops"]),
            duration(p["gpuSeconds"]),
            f"{p['loss']['value']:.4f} [{p['loss']['low']:.4f}, {p['loss']['high']:.4f}]",
            f"±{percent(p['halfWidth'])}",
            " ".join(
                words
                for words, true in (
                    ("← most for its price", p["narrowing"] == best),
                    ("← planned next", p["planned"]),
                )
                if true
            ),
        )
        for p in document["proposals"]
    ]
    print(table(header, rows, right=(0, 2, 3, 4, 6)))
    print("\nEach row narrows the target's forecast more than every cheaper one; all are one rung, trained next.")
    print("\n".join(around_words(document)))
