"""One training run as a pure decision: which attempt, whether to start or stop it, which of its records count.

Owns the states of a run, what counts as a failure, and which records are valid. It reads frozen inputs and returns
either one new status or one thing to do, never both.

    Queued ── attempt opened ──▶ Running ── its records accepted, its processes gone ──▶ Succeeded
    Running ── lost to the machine, or asked to stop ──▶ Waiting ── wanted ──▶ next attempt
    Running ── failed, may be retried ──▶ Waiting ── after a back-off ──▶ next attempt
    Running ── failed, may not ──▶ Failed ── retryToken ──▶ Waiting
    any ── the sweep is aborted ──▶ Aborted, once its processes are gone
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sweep_analysis.record import Failure, FailureReason, Record
from sweep_analysis.scale import format_scale
from sweep_operator.api import Attempt, RunState, RunStatus, ScalingRun, ScalingSweep, SweepSpec
from sweep_operator.budget import trained_tokens
from sweep_operator.clusters import Ending, Event, Workload, WorkloadState
from sweep_operator.conditions import timestamp

FINAL = {FailureReason.DIVERGED, FailureReason.BAD_CONFIGURATION, FailureReason.RECORD_REFUSED}
"""Failures that a retry would only repeat."""
KEPT_ATTEMPTS, KEPT_FAILURES = 20, 10
ACCOUNTING_SECONDS = 10.0
"""GPU-seconds of a running attempt are persisted in steps of this."""
FLOPS_STEPS = 20
"""FLOPs of a running attempt are persisted in so many steps, or every report of progress would be a write."""


class Wanted(StrEnum):
    """What the sweep wants of its runs."""

    RUN = "Run"
    PAUSE = "Pause"
    ABORT = "Abort"


class Do(StrEnum):
    """The one thing a pass may ask of the cluster for a run."""

    NOTHING = "Nothing"
    START = "Start"
    STOP = "Stop"


@dataclass(frozen=True, slots=True)
class RunDecision:
    """One new status, or one thing to do, or a time to look again."""

    status: RunStatus | None = None
    do: Do = Do.NOTHING
    events: tuple[Event, ...] = ()
    requeue_seconds: float | None = None


def wanted_of(sweep: ScalingSweep) -> Wanted:
    """What a sweep wants of its runs, from its spec and from a budget that ran out."""
    if sweep.spec.abort:
        return Wanted.ABORT
    finished = sweep.status.condition("Finished")
    over_budget = finished is not None and finished.status == "True" and finished.reason == "OverBudget"
    return Wanted.PAUSE if sweep.spec.suspend or over_budget else Wanted.RUN


def decide(sweep: ScalingSweep, run: ScalingRun, workload: Workload, now: datetime) -> RunDecision:
    """The next step of a run; `workload` is what is known of its newest attempt."""
    wanted = wanted_of(sweep)
    counted = _with_records(sweep, run)
    if counted != run.status:
        return RunDecision(status=counted)
    status = run.status
    last = status.attempts[-1] if status.attempts else None
    if last is not None and last.ended_at is None:
        return _running(sweep, run, last, workload, wanted, now)
    if status.finished:
        return _finished(sweep, run, wanted)
    if wanted is Wanted.ABORT:
        return RunDecision(status=status.changed(state=RunState.ABORTED))
    if wanted is Wanted.PAUSE:
        return RunDecision()
    if status.not_before is not None and timestamp(now) < status.not_before:
        wait = (datetime.fromisoformat(status.not_before) - now).total_seconds()
        return RunDecision(requeue_seconds=max(0.01, wait))
    attempt = Attempt(attempt=status.attempt + 1, started_at=timestamp(now))
    opened = _with_attempts(status, (*status.attempts, attempt)).changed(
        attempt=attempt.attempt, state=RunState.QUEUED, not_before=None, retry_token=sweep.spec.retry_token
    )
    return RunDecision(status=opened)


def _finished(sweep: ScalingSweep, run: ScalingRun, wanted: Wanted) -> RunDecision:
    token = sweep.spec.retry_token
    if run.status.state is RunState.FAILED and wanted is Wanted.RUN and token != run.status.retry_token:
        revived = run.status.changed(state=RunState.WAITING, counted_failures=0, not_before=None, retry_token=token)
        return RunDecision(status=revived)
    return RunDecision()


def _running(
    sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, wanted: Wanted, now: datetime
) -> RunDecision:
    """An attempt is open: start what was promised, watch it, end it, or write down how it ended."""
    status = run.status
    if workload.state is WorkloadState.ABSENT:
        if wanted is Wanted.RUN:
            return RunDecision(do=Do.START)
        return RunDecision(
            status=_closed(sweep, run, attempt, Workload(WorkloadState.ENDED, Ending.INTERRUPTED), wanted, now)
        )
    if workload.state is WorkloadState.ENDED:
        closed = _closed(sweep, run, attempt, workload, wanted, now)
        return RunDecision(status=closed, events=_ending_events(run, closed))
    if wanted is not Wanted.RUN or _silent(sweep.spec, run, attempt, workload.started_at, now):
        return RunDecision(do=Do.STOP, requeue_seconds=1.0)
    state = RunState.QUEUED if workload.state is WorkloadState.PENDING else RunState.RUNNING
    seconds = workload.gpu_seconds
    if state is not status.state or seconds - attempt.gpu_seconds >= ACCOUNTING_SECONDS:
        watched = attempt.changed(gpu_seconds=max(seconds, attempt.gpu_seconds))
        return RunDecision(status=_with_attempts(status, (*status.attempts[:-1], watched)).changed(state=state))
    return RunDecision(requeue_seconds=ACCOUNTING_SECONDS)


def _silent(spec: SweepSpec, run: ScalingRun, attempt: Attempt, since: str | None, until: datetime) -> bool:
    """Whether an attempt that runs `since` then had reported no step for longer than the sweep bears, at `until`."""
    if since is None:
        return False
    progress = run.status.progress
    signs = [attempt.started_at, since]
    if progress is not None and progress.attempt == attempt.attempt:
        signs.append(progress.last_updated)
    return until - datetime.fromisoformat(max(signs)) > timedelta(seconds=spec.limits.progress_seconds)


def _closed(
    sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, wanted: Wanted, now: datetime
) -> RunStatus:
    """The status after an attempt whose processes are gone."""
    status = run.status
    failure = _failure(sweep, run, attempt, workload, wanted, now)
    complete = len(status.accepted) == len(run.spec.run.tokens)
    outcome = "Succeeded" if complete else failure.reason if failure else str(workload.ending)
    ended = attempt.changed(
        ended_at=workload.ended_at or timestamp(now),
        outcome=outcome,
        gpu_seconds=max(workload.gpu_seconds, attempt.gpu_seconds),
    )
    status = _with_attempts(status, (*status.attempts[:-1], ended))
    status = status.changed(flops=max(status.flops, _flops(sweep, run)))
    if complete:
        return status.changed(state=RunState.SUCCEEDED)
    if wanted is Wanted.ABORT:
        return status.changed(state=RunState.ABORTED)
    if failure is None:
        return status.changed(state=RunState.WAITING)
    counted = status.counted_failures + 1
    status = status.changed(failures=(*status.failures, failure)[-KEPT_FAILURES:], counted_failures=counted)
    if failure.reason in FINAL or counted > sweep.spec.retry.limit:
        return status.changed(state=RunState.FAILED)
    return status.changed(state=RunState.WAITING, not_before=timestamp(now + _back_off(run, counted)))


def _failure(
    sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, wanted: Wanted, now: datetime
) -> Failure | None:
    """The failure that counts, or None for an end that is not the run's fault."""
    reason, message = workload.reason, workload.message
    if workload.ending is Ending.COMPLETED:
        due = sorted(set(run.spec.run.tokens) - {record.tokens for record in run.status.accepted})
        if not due:
            return None
        reason = FailureReason.RECORD_REFUSED
        message = f"the trainer ended without a valid record at {', '.join(format_scale(t) for t in due)} tokens"
        if run.status.refused_records:
            message += f"; {run.status.refused_records} records were refused"
    elif workload.ending is Ending.INTERRUPTED and wanted is Wanted.RUN:
        ended = datetime.fromisoformat(workload.ended_at) if workload.ended_at else now
        if not _silent(sweep.spec, run, attempt, workload.started_at, ended):
            return None
        reason, message = FailureReason.NO_PROGRESS, f"no step in {sweep.spec.limits.progress_seconds} s"
    elif workload.ending is not Ending.FAILED:
        return None
    return Failure(
        attempt=attempt.attempt,
        reason=reason or FailureReason.CRASHED,
        message=(message or "the trainer ended without saying why")[:1024],
        at=timestamp(now),
    )


def _back_off(run: ScalingRun, failures: int) -> timedelta:
    """Two seconds doubling to five minutes, spread by up to half so that many runs do not return at once."""
    digest = hashlib.sha256(f"{run.metadata.name}/{failures}".encode()).digest()
    spread = 1 - digest[0] / 512
    return timedelta(seconds=min(300.0, 2.0 * 2 ** (failures - 1)) * spread)


def _ending_events(run: ScalingRun, closed: RunStatus) -> tuple[Event, ...]:
    last = closed.attempts[-1]
    name, rung = run.metadata.name, run.spec.rung
    if closed.state is RunState.SUCCEEDED:
        losses = ", ".join(f"{r.loss:.4f} at {format_scale(r.tokens)} tokens" for r in closed.accepted)
        parameters = format_scale(run.spec.run.parameters)
        return (Event("RunSucceeded", f"{parameters} parameters, seed {run.spec.run.seed}: {losses}", rung, name),)
    if len(closed.failures) and closed.failures[-1].attempt == last.attempt:
        failure = closed.failures[-1]
        again = "" if closed.state is RunState.FAILED else "; it will be tried again"
        return (Event(failure.reason, failure.message + again, rung, name, warning=True),)
    return (Event("RunStopped", f"attempt {last.attempt}: {last.outcome}", rung, name),)


def _with_attempts(status: RunStatus, attempts: tuple[Attempt, ...]) -> RunStatus:
    """The status with its newest attempts, what older ones used kept as a sum."""
    dropped, kept = attempts[:-KEPT_ATTEMPTS], attempts[-KEPT_ATTEMPTS:]
    earlier = status.earlier_gpu_seconds + sum(a.gpu_seconds for a in dropped)
    return status.changed(attempts=kept, earlier_gpu_seconds=earlier)


def _with_records(sweep: ScalingSweep, run: ScalingRun) -> RunStatus:
    """The status with each valid record accepted once, the others counted, and the FLOPs of the steps trained."""
    status = run.status
    accepted = {record.tokens: record for record in status.accepted}
    refused = 0
    for reported in status.records:
        for record in reported.records:
            if objection_to(record, reported.attempt, run):
                refused += 1
            else:
                accepted.setdefault(record.tokens, record)
    flops = max(status.flops, _flops(sweep, run, steps_of=FLOPS_STEPS))
    return status.changed(
        accepted=tuple(accepted[tokens] for tokens in sorted(accepted)), refused_records=refused, flops=flops
    )


def _flops(sweep: ScalingSweep, run: ScalingRun, steps_of: int | None = None) -> float:
    """6·N·D of the steps trained, as progress tells; rounded down to 1/`steps_of` of the run where that is given."""
    progress = run.status.progress
    if progress is None:
        return 0.0
    share = min(1.0, progress.step / progress.steps)
    if steps_of is not None:
        share = math.floor(share * steps_of) / steps_of
    return share * 6.0 * run.spec.run.parameters * trained_tokens(sweep.spec.training, run.spec.run)


def objection_to(record: Record, reported_attempt: int, run: ScalingRun) -> str | None:
    """Why a reported record is not one of this run's, or None. A stale attempt's record counts if it is this run's."""
    spec = run.spec
    for what, got, due in (
        ("run", record.run.uid, run.metadata.uid),
        ("configuration", record.run.config_digest, spec.config_digest),
        ("purpose", record.purpose, spec.run.purpose),
        ("parameter count", record.parameters.total, spec.run.parameters),
        ("seed", record.seed, spec.run.seed),
    ):
        if got != due:
            return f"its {what} is {got}, not {due}"
    if record.tokens not in spec.run.tokens:
        return f"no record is due at {record.tokens} tokens"
    if not 1 <= record.run.attempt <= min(reported_attempt, run.status.attempt):
        return f"it names attempt {record.run.attempt} of {run.status.attempt}"
    return None
