"""A ladder at one moment, as numbers a person reads: one row a rung, the target, what was spent, what is left.

Owns the derivation of these from specs and statuses; the terminal, the tables and the metrics all draw from it.
Pure but for the count of this machine's cores: no clock, no screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweep_analysis.forecast import Forecast
from sweep_analysis.gate import Verdict
from sweep_analysis.rung import Run
from sweep_operator import budget
from sweep_operator.api import TARGET, RungState, RungStatus, RunState, ScalingRun, ScalingSweep
from sweep_operator.clusters.local.memory import cores
from sweep_operator.names import run_name

OBSERVED = "ObservedAsPredicted"
"""The gate's check that compares a rung with its forecast; its numbers are shown."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A loss with its interval, nats per token."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RungRow:
    """One revision of a rung, or the target."""

    name: str
    revision: int
    state: str
    runs: int
    done: int
    running: int
    failed: int
    loss: float | None
    """Geometric mean over the records so far, nats per token: the statistic that the gate judges."""
    forecast: Expected | None
    """Of the same mean, over the planned records."""
    deviation: float | None
    """Observed over predicted, less one."""
    verdict: Verdict | None
    share: float
    """Share of the rung's training that is done."""
    tokens_per_second: float
    """Of all its running runs together."""
    left_seconds: float | None
    """Until its last run ends, where that can be told."""
    flops: float
    gpu_seconds: float
    finished: bool
    """Whether its runs have all ended and were judged."""
    diagnosing: int
    """Experiments that were asked for."""

    @property
    def title(self) -> str:
        """The rung's name, with its revision from the second on."""
        return self.name if self.revision == 1 else f"{self.name} (revision {self.revision})"


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole ladder."""

    name: str
    phase: str
    rows: tuple[RungRow, ...]
    target: Expected | None
    """What the target is expected to reach by all that is known."""
    target_jump: float | None
    target_observed: float | None
    flops: float
    gpu_seconds: float
    training_seconds: float
    """Of the GPU-seconds, those inside training steps."""
    left_seconds: float | None
    """Until the ladder ends, at the prices measured so far."""


def picture_of(sweep: ScalingSweep, runs: Sequence[ScalingRun], slots: int) -> Picture:
    """The ladder as it stands; `slots` is how many runs go on at once."""
    by_name = {run.metadata.name: run for run in runs}
    rows = tuple(_row(sweep, rung, by_name, runs, slots) for rung in sweep.status.rungs)
    open_rows = [r for r in rows if r.state not in (RungState.PROMOTED, RungState.SUPERSEDED)]
    lefts = [r.left_seconds for r in open_rows]
    target = sweep.status.target
    return Picture(
        name=sweep.metadata.name,
        phase=sweep.status.phase,
        rows=rows,
        target=Expected(target.prediction.value, target.prediction.low, target.prediction.high)
        if target.prediction
        else None,
        target_jump=target.jump,
        target_observed=target.observed,
        flops=sweep.status.spent.flops,
        gpu_seconds=sweep.status.spent.gpu_seconds,
        training_seconds=sum(r.status.progress.training_seconds for r in runs if r.status.progress),
        left_seconds=None if any(s is None for s in lefts) else sum(s for s in lefts if s is not None),
    )


def slots_of(sweep: ScalingSweep) -> int:
    """How many runs go on at once: as the sweep says, or one a core of this machine."""
    return sweep.spec.limits.parallelism or cores()


def expected_mean(forecast: Forecast) -> Expected:
    """The forecast of the geometric mean over the planned records."""
    mean = math.exp(sum(math.log(p.loss) for p in forecast.predictions) / len(forecast.predictions))
    width = 1 + forecast.half_width
    return Expected(mean, mean / width, mean * width)


def _row(
    sweep: ScalingSweep,
    rung: RungStatus,
    by_name: dict[str, ScalingRun],
    measured: Sequence[ScalingRun],
    slots: int,
) -> RungRow:
    due = (*rung.runs, *rung.experiments)
    children = {run: by_name.get(run_name(sweep, rung.name, rung.revision, run)) for run in due}
    planned = [children[run] for run in rung.judged]
    losses = [record.loss for child in planned if child for record in child.status.accepted]
    states = [child.status.state for child in children.values() if child]
    numbers = next((c.numbers for c in rung.verdict.checks if c.name == OBSERVED), {}) if rung.verdict else {}
    forecast: Expected | None = None
    if {"predicted", "low", "high"} <= numbers.keys():
        forecast = Expected(numbers["predicted"], numbers["low"], numbers["high"])
    elif rung.forecast and isinstance(rung.forecast.outcome, Forecast):
        forecast = expected_mean(rung.forecast.outcome)
    mean = math.exp(sum(map(math.log, losses)) / len(losses)) if losses else None
    open_state = rung.state not in (RungState.PROMOTED, RungState.SUPERSEDED, RungState.HELD, RungState.STOPPED)
    flops = sum(run.flops for run in due)
    return RungRow(
        name=rung.name,
        revision=rung.revision,
        state=rung.state,
        runs=len(due),
        done=states.count(RunState.SUCCEEDED),
        running=states.count(RunState.RUNNING),
        failed=states.count(RunState.FAILED),
        loss=numbers.get("observed", mean),
        forecast=forecast,
        deviation=math.expm1(numbers["deviation"]) if "deviation" in numbers else None,
        verdict=rung.verdict if rung.name != TARGET or rung.finished_at or rung.state is RungState.HELD else None,
        share=sum(run.flops * _share(children[run]) for run in due) / flops if flops else 0.0,
        tokens_per_second=sum(
            child.status.progress.tokens_per_second
            for child in children.values()
            if child and child.status.progress and child.status.state is RunState.RUNNING
        ),
        left_seconds=_left(sweep, children, measured, slots) if open_state else 0.0,
        flops=rung.spent.flops,
        gpu_seconds=rung.spent.gpu_seconds,
        finished=rung.finished_at is not None,
        diagnosing=len(rung.experiments),
    )


def _share(child: ScalingRun | None) -> float:
    """How much of a run is done."""
    if child is None:
        return 0.0
    if child.status.finished:
        return 1.0
    progress = child.status.progress
    return min(1.0, progress.step / progress.steps) if progress else 0.0


def _left(
    sweep: ScalingSweep, children: dict[Run, ScalingRun | None], measured: Sequence[ScalingRun], slots: int
) -> float | None:
    """Until the last of these runs ends: what remains, packed into the slots; None while nothing was measured."""
    remaining: list[float] = []
    for run, child in children.items():
        share = _share(child)
        if share >= 1.0:
            continue
        progress = child.status.progress if child else None
        if child and child.status.state is RunState.RUNNING and progress and progress.eta_seconds is not None:
            remaining.append(progress.eta_seconds)
            continue
        cost = budget.cost_of(sweep.spec.training, (run,), measured).gpu_seconds
        if cost is None:
            return None
        remaining.append(cost[1] * (1 - share))
    if not remaining:
        return 0.0
    return max(*remaining, sum(remaining) / max(1, slots)) if len(remaining) > 1 else remaining[0]
