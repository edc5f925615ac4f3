"""A cluster in memory where training is a formula: the port's third adapter, for tests of the ladder.

Time is a number that tests advance. A run's loss comes from a `World`; what goes wrong is a script of the test's.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sweep_analysis.flops import six_nd
from sweep_analysis.record import (
    FailureReason,
    FlopCounts,
    ParameterCounts,
    Progress,
    Record,
    RecordSet,
    RunReference,
)
from sweep_analysis.rung import Run
from sweep_analysis.table import Text
from sweep_operator.api import Imports, RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.clusters import ABSENT, PAUSED, Cause, Conflict, Ending, Event, Unavailable, Workload, WorkloadState
from sweep_operator.conditions import timestamp
from sweep_operator.imports import imports_of
from sweep_operator.policy import Policy
from sweep_operator.reconcile import reconcile
from sweep_operator.run import newest_attempt

START = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process ended here; what was written before stays."""


def healthy(run: Run, tokens: int) -> float:
    """A Chinchilla law at laptop scale with seed noise of 0.2 %, and what a wrong learning rate costs."""
    digest = sha256(f"{run.parameters}/{tokens}/{run.seed}/{run.learning_rate_factor}".encode()).digest()
    noise = (int.from_bytes(digest[:4], "big") / 2**32 - 0.5) * 0.007
    law = 0.6 + 60 * run.parameters**-0.34 + 230 * tokens**-0.39
    detuned = abs(run.learning_rate_factor - 1) if 0.1 < run.learning_rate_factor < 3 else 1.0
    return law * (1 + noise) * (1 + 0.05 * min(1.0, detuned))


@dataclass(frozen=True)
class Outcome:
    """How an attempt ends."""

    ending: Ending = Ending.COMPLETED
    reason: FailureReason | None = None
    message: str = ""
    share: float = 1.0
    """How much of the run was trained by then."""


def _stopped(cause: Cause) -> Outcome:
    """How an attempt ends that was told to."""
    return Outcome(Ending.FAILED if cause.reason else Ending.INTERRUPTED, cause.reason, cause.message)


@dataclass
class World:
    """What training gives and what goes wrong."""

    loss: Callable[[Run, int], float] = healthy
    outcome: Callable[[ScalingRun, int], Outcome] = lambda run, attempt: Outcome()
    flops_per_second: float = 1e10
    silent_seconds: float = 0.0
    """For so long after its start an attempt has said nothing yet."""


@dataclass
class SimulatedCluster:
    """Implements `Cluster`. `writes_left` kills the process after so many writes, to be revived by the test."""

    stored: ScalingSweep
    world: World = field(default_factory=World)
    now: datetime = START
    children: dict[str, ScalingRun] = field(default_factory=dict)
    workloads: dict[tuple[str, int], Workload] = field(default_factory=dict)
    stopping: dict[tuple[str, int], Cause] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    started: list[tuple[str, int]] = field(default_factory=list)
    writes_left: int | None = None
    texts: dict[str, str] = field(default_factory=dict)
    """What may be imported, by the file's name."""

    def _wrote(self, what: str) -> None:
        self.writes.append(what)
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left <= 0:
                self.writes_left = None
                raise Killed(what)

    def sweep(self, key: str) -> ScalingSweep | None:
        return self.stored if key == "default/" + self.stored.metadata.name else None

    def runs(self, sweep: ScalingSweep) -> list[ScalingRun]:
        return [self._with_report(child) for child in self.children.values()]

    def imported(self, sweep: ScalingSweep) -> Imports:
        names = [source.file or "" for source in sweep.spec.records]
        missing = [name for name in names if name not in self.texts]
        if missing:
            raise Unavailable(f"there is no file {missing[0]}")
        return imports_of([Text(name, self.texts[name]) for name in names])

    def create_run(self, run: ScalingRun) -> None:
        if run.metadata.name not in self.children:
            uid = str(uuid.uuid5(uuid.NAMESPACE_OID, run.metadata.name))
            self.children[run.metadata.name] = run.changed(metadata=run.metadata.changed(uid=uid))
            self._wrote(f"create {run.metadata.name}")

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        if sweep is not self.stored:
            raise Conflict(sweep.metadata.name)
        self.stored = sweep.changed(status=SweepStatus.model_validate(status.to_json()))
        self._wrote("sweep status")

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        self.children[run.metadata.name] = run.changed(status=RunStatus.model_validate(status.to_json()))
        self._wrote(f"run status {run.metadata.name}")

    def workload(self, run: ScalingRun, attempt: int) -> Workload:
        key = (run.metadata.name, attempt)
        known = self.workloads.get(key, ABSENT)
        if known.state is not WorkloadState.RUNNING:
            return known
        outcome, due = self._plan(run, attempt)
        seconds = (self.now - datetime.fromisoformat(known.started_at or "")).total_seconds()
        if key in self.stopping:
            outcome, due = _stopped(self.stopping[key]), min(seconds, due)
        if seconds < due:
            return replace(known, gpu_seconds=seconds, quiet_seconds=seconds)
        ended = timestamp(datetime.fromisoformat(known.started_at or "") + timedelta(seconds=due))
        return replace(
            known,
            state=WorkloadState.ENDED,
            ending=outcome.ending,
            reason=outcome.reason,
            message=outcome.message,
            ended_at=ended,
            gpu_seconds=due,
        )

    def start(self, sweep: ScalingSweep, run: ScalingRun, attempt: int) -> None:
        key = (run.metadata.name, attempt)
        if key not in self.workloads:
            self.workloads[key] = Workload(WorkloadState.RUNNING, started_at=timestamp(self.now))
            self.started.append(key)
            self._wrote(f"start {run.metadata.name} {attempt}")

    def stop(self, run: ScalingRun, attempt: int, cause: Cause = PAUSED) -> None:
        self.stopping.setdefault((run.metadata.name, attempt), cause)

    @property
    def busy(self) -> bool:
        """Whether an attempt runs, or its end was not written down yet."""
        return any(not self._closed(*key) for key in self.workloads)

    def next_end(self) -> float:
        """Seconds until the next attempt ends by itself."""
        waits = [60.0]
        for (name, attempt), known in self.workloads.items():
            if not self._closed(name, attempt):
                _, due = self._plan(self.children[name], attempt)
                elapsed = (self.now - datetime.fromisoformat(known.started_at or "")).total_seconds()
                waits.append(due - elapsed)
        return max(0.05, min(waits))

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        self.events.append(event)

    def _closed(self, name: str, attempt: int) -> bool:
        """Whether the status tells how the attempt ended; all but the newest have."""
        attempts = self.children[name].status.attempts
        newest = attempts[-1] if attempts else None
        return newest is not None and (attempt < newest.attempt or newest.ended_at is not None)

    def _plan(self, run: ScalingRun, attempt: int) -> tuple[Outcome, float]:
        outcome = self.world.outcome(run, attempt)
        whole = sum(six_nd(run.spec.run.parameters, t) for t in run.spec.run.tokens) / self.world.flops_per_second
        return outcome, whole * outcome.share

    def _with_report(self, run: ScalingRun) -> ScalingRun:
        """The run with what its trainers have reported by now."""
        sets, progress = [], None
        for attempt in range(1, newest_attempt(run) + 1):
            known = self.workload(run, attempt)
            if known.state is WorkloadState.ABSENT:
                continue
            if known.state is WorkloadState.RUNNING and known.gpu_seconds < self.world.silent_seconds:
                continue
            done = known.state is WorkloadState.ENDED and known.ending is Ending.COMPLETED
            if done:
                losses = {tokens: self.world.loss(run.spec.run, tokens) for tokens in run.spec.run.tokens}
                records = tuple(record_of(run, attempt, *measured, self.now) for measured in losses.items())
                sets.append(RecordSet(attempt=attempt, records=records))
            step = 100 if done else 50
            at = known.ended_at or timestamp(self.now)
            progress = Progress(attempt=attempt, step=step, steps=100, tokens=step * 100, last_updated=at)
        return run.changed(status=run.status.changed(records=tuple(sets), progress=progress))


def record_of(run: ScalingRun, attempt: int, tokens: int, loss: float, now: datetime) -> Record:
    """A valid record of the run's attempt."""
    what = run.spec.run
    return Record(
        run=RunReference(uid=run.metadata.uid, attempt=attempt, config_digest=run.spec.config_digest),
        purpose=what.purpose,
        parameters=ParameterCounts(total=what.parameters, non_embedding=what.parameters, active=what.parameters),
        tokens=tokens,
        unique_tokens=tokens,
        epochs=1.0,
        flops=FlopCounts(six_nd=six_nd(what.parameters, tokens), detailed=six_nd(what.parameters, tokens)),
        seed=what.seed,
        loss=loss,
        validation_digest="sha256:v",
        tokenizer_digest="sha256:t",
        gpu_seconds=1.0,
        context_length=what.sequence_length,
        trainer_version="0",
        finished_at=timestamp(now),
    )


def settle(cluster: SimulatedCluster, policy: Policy | None = None) -> float:
    """Pass after pass until nothing changes at this moment; returns the seconds until something will."""
    for _ in range(1000):
        key = "default/" + cluster.stored.metadata.name
        progressed = reconcile(cluster, key, cluster.now, policy or Policy())
        if not progressed.changed:
            return min(cluster.next_end(), progressed.requeue_seconds or 60.0)
    raise AssertionError("the reconcilers do not come to rest")


def climb(cluster: SimulatedCluster, policy: Policy | None = None) -> SweepStatus:
    """Let time pass until the sweep comes to rest: finished, waiting for a person, suspended or refused."""
    for _ in range(500):
        wait = settle(cluster, policy)
        status = cluster.stored.status
        if status.phase not in ("Pending", "Forecast", "Running", "Diagnosing") and not cluster.busy:
            return status
        cluster.now += timedelta(seconds=wait)
    raise AssertionError(f"the sweep does not end: {cluster.stored.status.phase}")


def pass_time(cluster: SimulatedCluster, seconds: float) -> None:
    """Let so much time pass, with a look every tenth of it."""
    for _ in range(10):
        settle(cluster)
        cluster.now += timedelta(seconds=seconds / 10)
    settle(cluster)
