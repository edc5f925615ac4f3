"""What the operator asks of the analysis: a forecast before a rung, a verdict after it, the law, the target's outlook.

Owns the translation between the resources and the statistics, and decides nothing itself. Pure, a few milliseconds
a call, and called at transitions only.
"""

from collections.abc import Iterable, Sequence

from sweep_analysis.fit import Interval, fit
from sweep_analysis.flops import six_nd
from sweep_analysis.forecast import Forecast, NoForecast, Point, forecast, planned_records, points_of, unidentified
from sweep_analysis.gate import Evidence, Thresholds, Verdict, judge
from sweep_analysis.phases import read
from sweep_analysis.posterior import believe
from sweep_analysis.record import Failure, Record
from sweep_analysis.rung import Run
from sweep_analysis.scale import format_scale
from sweep_operator import budget
from sweep_operator.api import RungState, RungStatus, ScalingRun, ScalingSweep, SweepSpec, TargetStatus
from sweep_operator.api.status import Law
from sweep_operator.evidence import observed_records
from sweep_operator.imports import records_of
from sweep_operator.names import run_name

History = tuple[tuple[Record, ...], ...]


def history_of(sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> History:
    """Accepted ladder records of the promoted rungs, in the ladder's order; diagnosis and superseded ones left out."""
    return tuple(
        _evidence(sweep, rung, runs)
        for rung in sweep.status.rungs
        if rung.state is RungState.PROMOTED and rung.name != "target"
    )


def _evidence(sweep: ScalingSweep, rung: RungStatus, runs: Sequence[ScalingRun]) -> tuple[Record, ...]:
    """A judged rung's records: those of its runs, and of runs that somebody deleted what the status keeps."""
    standing = runs_of(sweep, rung, runs)
    if rung.observed is None or len(standing) == len(rung.judged):
        return tuple(record for run in standing for record in run.status.accepted)
    by_run: dict[str, tuple[Record, ...]] = {}
    for record in observed_records(rung.observed):
        by_run[record.run.uid] = (*by_run.get(record.run.uid, ()), record)
    by_run |= {run.metadata.uid: run.status.accepted for run in standing}
    return tuple(record for records in by_run.values() for record in records)


def known(sweep: ScalingSweep, history: History) -> list[tuple[Point, ...]]:
    """What a forecast rests on: imported records, as if a rung before the first, then the ladder's own."""
    return [points_of(rung) for rung in (records_of(sweep.status.imports), *history) if rung]


def runs_of(sweep: ScalingSweep, rung: RungStatus, runs: Iterable[ScalingRun]) -> tuple[ScalingRun, ...]:
    """The children that train this revision's judged runs, in the order of the plan."""
    by_name = {run.metadata.name: run for run in runs}
    names = (run_name(sweep, rung.name, rung.revision, run) for run in rung.judged)
    return tuple(by_name[name] for name in names if name in by_name)


def thresholds_of(spec: SweepSpec, rungs: int) -> Thresholds:
    """The thresholds of a ladder of so many rungs, as the first forecast fixes them."""
    gate = spec.gate
    return Thresholds(
        confidence=gate.confidence,
        tolerance=gate.tolerance,
        max_half_width=gate.max_half_width,
        judged_rungs=max(1, rungs - gate.warmup_rungs),
        max_loss=spec.target.max_loss,
        learning_rate_factors=gate.diagnose.learning_rate_factors,
        replicates=gate.diagnose.replicates,
    )


def forecast_of(sweep: ScalingSweep, history: History, runs: Sequence[Run]) -> Forecast | NoForecast:
    """What imported records and the past rungs say of planned runs, record by record."""
    at, owners = planned_records(runs)
    spec = sweep.spec
    return forecast(known(sweep, history), at, confidence=spec.gate.confidence, law=spec.law, runs=owners)


def _judged_by(outcome: Forecast | NoForecast, history: History) -> Forecast | NoForecast:
    """The forecast as the gate takes it: one that the ladder's own records could not have made judges nothing."""
    own = [point for rung in history for point in points_of(rung)]
    refusal = unidentified(own)
    if isinstance(outcome, NoForecast) or refusal is None:
        return outcome
    reason, message = refusal
    message = f"of the ladder's own, which alone judge a rung: {message}"
    return NoForecast(reason=reason, message=message, evidence=outcome.evidence, records=len(own))


def verdict_of(
    sweep: ScalingSweep,
    rung: RungStatus,
    children: Sequence[ScalingRun],
    history: History,
    *,
    warmup: bool,
    target: Run,
    may_diagnose: bool,
) -> Verdict:
    """Judge a rung whose runs (and experiments, if any) have all ended; it asks for more only where it may."""
    assert rung.forecast is not None, "a rung is judged only after its forecast was written"
    thresholds = rung.forecast.thresholds
    if not may_diagnose:
        thresholds = thresholds.changed(learning_rate_factors=(), replicates=0)
    by_name = {child.metadata.name: child for child in children}
    planned = runs_of(sweep, rung, children)
    failures: dict[str, Failure] = {
        child.spec.run.content_digest: child.status.failures[-1]
        for child in planned
        if not child.status.accepted and child.status.failures
    }
    diagnosis: list[tuple[Run, Record | Failure]] = []
    for experiment in rung.experiments:
        child = by_name[run_name(sweep, rung.name, rung.revision, experiment)]
        diagnosis.extend((experiment, record) for record in child.status.accepted)
        if not child.status.accepted and child.status.failures:
            diagnosis.append((experiment, child.status.failures[-1]))
    return judge(
        Evidence(
            rung=rung.name,
            planned=rung.judged,
            records=tuple(record for child in planned for record in child.status.accepted),
            earlier=history,
            failures=failures,
            imported=records_of(sweep.status.imports),
            forecast=_judged_by(rung.forecast.outcome, history),
            thresholds=thresholds,
            warmup=warmup,
            target=None if rung.name == "target" else (float(target.parameters), float(target.tokens[-1])),
            budget=None,  # affordability is asked before the next rung starts, since a budget may be raised meanwhile
            diagnosis=tuple(diagnosis),
            retuned_from=tuple(
                r.runs[0].learning_rate_factor
                for r in sweep.status.rungs
                if r.name == rung.name and r.state is RungState.SUPERSEDED
            ),
        )
    )


def law_of(sweep: ScalingSweep, history: History) -> Law | None:
    """The law fitted on imported records and all promoted rungs, or None while these are too few.

    Phase and pattern are read off the ladder alone.
    """
    if sum(len(rung) for rung in history) < 3:
        return None
    spec, evidence = sweep.spec, known(sweep, history)
    reading = read([points_of(rung) for rung in history if rung])
    return Law(
        name=spec.law,
        parameters=believe(evidence).constants(spec.gate.confidence),
        records=sum(len(rung) for rung in evidence),
        fit_status=_fit_status(spec, evidence),
        phase=reading.phase,
        pattern=reading.pattern,
    )


def target_outlook(sweep: ScalingSweep, history: History, target: Run, children: Sequence[ScalingRun]) -> TargetStatus:
    """What the target will reach and cost, by all that is known."""
    spec = sweep.spec
    flops = six_nd(target.parameters, target.tokens[-1])
    outlook = TargetStatus(flops=flops)
    cost = budget.cost_of(spec.training, [target], children)
    if cost.gpu_seconds is not None:
        low, value, high = (seconds / 3600 for seconds in cost.gpu_seconds)
        outlook = outlook.changed(gpu_hours=Interval(value=value, low=low, high=high))
    expected = forecast_of(sweep, history, [target])
    if isinstance(expected, NoForecast):
        return outlook.changed(message=expected.message)
    at = expected.predictions[0]
    optimal_parameters, optimal_tokens = believe(known(sweep, history)).split(
        flops, spec.gate.confidence, inference_tokens=float(spec.target.inference_tokens or 0)
    )
    return outlook.changed(
        prediction=Interval(value=at.loss, low=at.low, high=at.high),
        jump=expected.jump,
        optimal_parameters=optimal_parameters,
        optimal_tokens=optimal_tokens,
    )


def _fit_status(spec: SweepSpec, evidence: Sequence[Sequence[Point]]) -> str:
    """Whether the records alone would pin the law down; the posterior always can."""
    points = [point for rung in evidence for point in rung]
    columns = {
        "parameters": [point.parameters for point in points],
        "tokens": [point.tokens for point in points],
        "loss": [point.loss for point in points],
    }
    return str(fit(columns, law=spec.law).status)


def forecast_sentence(outcome: Forecast | NoForecast) -> str:
    """What was written down, for a person: the rung's lowest forecast loss with its interval, or why there is none."""
    if isinstance(outcome, NoForecast):
        return f"not judged: {outcome.message}"
    best = min(outcome.predictions, key=lambda p: p.loss)
    return (
        f"{best.loss:.4f} nats/token [{best.low:.4f}, {best.high:.4f}] at {format_scale(best.parameters)} parameters,"
        f" {format_scale(best.tokens)} tokens"
    )
