"""The series of one sweep: a pure function of it and its runs.

Owns which numbers are shown; `families` owns what they are called.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sweep_analysis.record import FailureReason
from sweep_operator.api import TARGET, RungState, RungStatus, RunState, ScalingRun, ScalingSweep
from sweep_operator.budget import cost_of
from sweep_operator.live.picture import Expected, Picture, RungRow, picture_of, slots_of

Series = dict[str, list[tuple[tuple[str, ...], float]]]
"""Family: the values of its labels, and the sample."""
Names = tuple[str, ...]
_CLOSED = (RungState.PROMOTED, RungState.SUPERSEDED)
_TRUTH = {"True": 1.0, "False": 0.0, "Unknown": -1.0}


@dataclass(frozen=True, slots=True)
class Observed:
    """One sweep and its runs, as they stand at the moment of a scrape."""

    sweep: ScalingSweep
    runs: Sequence[ScalingRun]


Slots = Callable[[ScalingSweep], int]
"""How many runs of a sweep go on at once; expected times depend on it."""


def slots_of_a_cluster(sweep: ScalingSweep) -> int:
    """As many as the sweep allows; where it sets no limit, all that a rung may hold."""
    return sweep.spec.limits.parallelism or 64


def series_of(observed: Observed, *, of_runs: bool = False, slots: Slots = slots_of) -> Series:
    """Every sample of a sweep, by family; `of_runs` adds those of each run that is not finished."""
    sweep, runs = observed.sweep, observed.runs
    names = (sweep.metadata.namespace, sweep.metadata.name)
    picture = picture_of(sweep, runs, slots(sweep))
    series = _Samples()
    _standing(series, sweep, picture, names)
    by_rung: dict[tuple[str, int], list[ScalingRun]] = {}
    for run in runs:
        by_rung.setdefault((run.spec.rung, run.spec.revision), []).append(run)
    for rung, row in zip(sweep.status.rungs, picture.rows, strict=True):
        _rung(series, rung, row, by_rung.get((rung.name, rung.revision), []), names)
    _verdicts(series, picture, names)
    _law(series, sweep, names)
    _target(series, sweep, picture, names)
    _cost(series, sweep, runs, names)
    _attempts(series, runs, sweep.status.is_true("Finished"), names)
    if of_runs:
        for run in runs:
            if not run.status.finished:
                _run(series, run, names)
    return series.by_family


class _Samples:
    """Samples by family; one without a value is not kept."""

    def __init__(self) -> None:
        self.by_family: Series = {}

    def add(self, family: str, value: float | None, *labels: str) -> None:
        if value is not None:
            self.by_family.setdefault(family, []).append((labels, value))

    def bounded(self, family: str, unit: str, expected: Expected | None, *labels: str) -> None:
        """A number with its interval."""
        if expected:
            stem = family.removesuffix(f"_{unit}")
            self.add(family, expected.value, *labels)
            self.add(f"{stem}_low_{unit}", expected.low, *labels)
            self.add(f"{stem}_high_{unit}", expected.high, *labels)


def _standing(series: _Samples, sweep: ScalingSweep, picture: Picture, names: Names) -> None:
    series.add("sweep_created_timestamp_seconds", _seconds(sweep.metadata.creation_timestamp), *names)
    series.add("sweep_phase", 1.0, *names, sweep.status.phase)
    for condition in sweep.status.conditions:
        series.add("sweep_condition", _TRUTH[condition.status], *names, condition.type, condition.reason)
    held = next((rung for rung in sweep.status.rungs if rung.state is RungState.HELD and rung.verdict), None)
    if held and held.verdict and sweep.status.is_true("AwaitingApproval"):
        series.add("sweep_awaiting_approval", 1.0, *names, held.name, held.verdict.reason)
    series.add("sweep_eta_seconds", picture.left_seconds, *names)


def _rung(series: _Samples, rung: RungStatus, row: RungRow, runs: Sequence[ScalingRun], names: Names) -> None:
    labels = (*names, row.name, str(row.revision))
    running = [run for run in runs if run.status.state is RunState.RUNNING]
    series.add("rung_state", 1.0, *labels, row.state)
    for state, count in Counter(run.status.state for run in runs).items():
        series.add("rung_runs", float(count), *labels, state)
    if rung.runs:
        series.add("rung_parameters", float(max(run.parameters for run in rung.judged)), *labels)
        series.add("rung_compute_flops", max(6.0 * run.parameters * max(run.tokens) for run in rung.judged), *labels)
    series.add("rung_loss_nats", row.loss, *labels)
    series.bounded("rung_forecast_loss_nats", "nats", row.forecast, *labels)
    series.add("rung_deviation_ratio", row.deviation, *labels)
    series.add("rung_progress_ratio", row.share, *labels)
    if row.state not in _CLOSED:
        series.add("rung_eta_seconds", row.left_seconds, *labels)
        waiting = [_opened(run) for run in runs if run.status.state is RunState.QUEUED]
        series.add("rung_waiting_since_timestamp_seconds", _smallest(waiting), *labels)
    if running:
        reports = [run.status.progress for run in running if run.status.progress]
        series.add("rung_training_loss_nats", _mean(report.loss for report in reports), *labels)
        series.add("rung_tokens_per_second", row.tokens_per_second, *labels)
        series.add("rung_mfu_ratio", _mean(report.mfu for report in reports), *labels)
        signs = [_seconds(rung.started_at), *map(_opened, running)]
        signs += [_seconds(report.last_updated) for report in reports]
        series.add("rung_progress_timestamp_seconds", max((s for s in signs if s is not None), default=None), *labels)
    series.add("rung_flops", rung.spent.flops, *labels)
    series.add("rung_gpu_seconds", rung.spent.gpu_seconds, *labels)


def _verdicts(series: _Samples, picture: Picture, names: Names) -> None:
    verdicts = Counter((row.verdict.outcome, row.verdict.reason) for row in picture.rows if row.verdict)
    for (outcome, reason), count in sorted(verdicts.items()):
        series.add("verdicts", float(count), *names, outcome, reason)


def _law(series: _Samples, sweep: ScalingSweep, names: Names) -> None:
    law = sweep.status.law
    if law is None:
        return
    series.add("law_info", 1.0, *names, law.name, law.fit_status, law.phase, law.pattern)
    series.add("law_records", float(law.records), *names, law.name)
    for parameter, interval in law.parameters.items():
        series.add("law_parameter", interval.value, *names, law.name, parameter)
        series.add("law_parameter_low", interval.low, *names, law.name, parameter)
        series.add("law_parameter_high", interval.high, *names, law.name, parameter)


def _target(series: _Samples, sweep: ScalingSweep, picture: Picture, names: Names) -> None:
    target = sweep.status.target
    series.bounded("target_forecast_loss_nats", "nats", picture.target, *names)
    series.add("target_loss_nats", target.observed, *names)
    series.add("target_max_loss_nats", sweep.spec.target.max_loss, *names)
    series.add("target_jump_ratio", target.jump, *names)
    series.add("target_flops", target.flops or None, *names)
    if target.gpu_hours:
        hours = target.gpu_hours
        expected = Expected(hours.value * 3600, hours.low * 3600, hours.high * 3600)
        series.bounded("target_gpu_seconds", "gpu_seconds", expected, *names)


def _cost(series: _Samples, sweep: ScalingSweep, runs: Sequence[ScalingRun], names: Names) -> None:
    spent, budget = sweep.status.spent, sweep.spec.budget
    series.add("flops", spent.flops, *names)
    series.add("gpu_seconds", spent.gpu_seconds, *names)
    series.add("diagnosis_gpu_seconds", spent.diagnosis_gpu_seconds, *names)
    if budget.flops is not None:
        series.add("budget_flops", float(budget.flops), *names)
        series.add("budget_left_flops", budget.flops - spent.flops, *names)
        series.add("budget_spent_ratio", spent.flops / budget.flops if budget.flops else None, *names, "flops")
    if budget.gpu_hours is not None:
        seconds = budget.gpu_hours * 3600
        series.add("budget_gpu_seconds", seconds, *names)
        series.add("budget_left_gpu_seconds", seconds - spent.gpu_seconds, *names)
        series.add("budget_spent_ratio", spent.gpu_seconds / seconds if seconds else None, *names, "gpu_seconds")
    done = {(run.spec.rung, run.spec.revision, run.spec.run) for run in runs if run.status.finished}
    due = [
        run
        for rung in sweep.status.rungs
        if rung.name != TARGET and rung.state not in _CLOSED
        for run in (*rung.runs, *rung.experiments)
        if (rung.name, rung.revision, run) not in done
    ]
    cost = cost_of(sweep.spec.training, due, runs)
    series.add("remaining_flops", cost.flops, *names)
    if cost.gpu_seconds:
        low, value, high = cost.gpu_seconds
        series.bounded("remaining_gpu_seconds", "gpu_seconds", Expected(value, low, high), *names)


def _attempts(series: _Samples, runs: Sequence[ScalingRun], finished: bool, names: Names) -> None:
    outcomes: Counter[str] = sum((run.status.outcomes for run in runs), Counter())
    for reason in FailureReason:  # from zero on, while there may be more: else the first of a reason is no increase
        if outcomes[reason] or not finished:
            series.add("run_failures", float(outcomes[reason]), *names, reason)
    series.add("run_preemptions", float(outcomes["Preempted"]), *names)
    series.add("run_attempts", float(sum(run.status.attempt for run in runs)), *names)
    series.add("run_restarts", float(sum(max(0, run.status.attempt - 1) for run in runs)), *names)
    series.add("queue_wait_seconds", _mean(map(_waited, runs)), *names)


def _run(series: _Samples, run: ScalingRun, names: Names) -> None:
    labels = (*names, run.spec.rung, run.metadata.name)
    status, progress = run.status, run.status.progress
    series.add("run_state", 1.0, *labels, status.state)
    series.add("run_attempt", float(status.attempt), *labels)
    series.add("run_gpu_seconds", status.gpu_seconds, *labels)
    if progress:
        series.add("run_progress_ratio", min(1.0, progress.step / progress.steps), *labels)
    if progress and status.state is RunState.RUNNING:
        series.add("run_training_loss_nats", progress.loss, *labels)
        series.add("run_tokens_per_second", progress.tokens_per_second, *labels)
        series.add("run_mfu_ratio", progress.mfu, *labels)
        series.add("run_eta_seconds", progress.eta_seconds, *labels)


def _opened(run: ScalingRun) -> float | None:
    """When the newest attempt was opened, or the run created."""
    attempts = run.status.attempts
    return _seconds(attempts[-1].started_at if attempts else run.metadata.creation_timestamp)


def _waited(run: ScalingRun) -> float | None:
    """From the opening of the newest attempt until it was scheduled; None where that is not known (yet)."""
    newest = run.status.attempts[-1] if run.status.attempts else None
    opened, scheduled = _opened(run), _seconds(newest.scheduled_at) if newest else None
    return max(0.0, scheduled - opened) if opened is not None and scheduled is not None else None


def _seconds(time: str | None) -> float | None:
    """Unix time of a timestamp."""
    return datetime.fromisoformat(time).timestamp() if time else None


def _smallest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
