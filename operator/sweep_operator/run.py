"""One training run as a pure decision: which attempt, whether to start or stop it, which of its records count.

Owns the states of a run, what counts as a failure, and which records are valid. It reads frozen inputs and returns
either one new status or one thing to do, never both.

    Queued ── attempt starts ──▶ Running ── its records accepted, its processes gone ──▶ Succeeded
    Running ── lost to the machine, or asked to stop ──▶ Waiting ── wanted ──▶ next attempt
    Queued ── paused before it began ──▶ Waiting
    Running ── failed, may be retried ──▶ Waiting ── after a back-off ──▶ next attempt
    Running ── failed, may not ──▶ Failed ── retryToken ──▶ Waiting
    Waiting, Failed ── the records of an attempt that was given up arrive after all ──▶ Succeeded
    any ── the sweep is aborted ──▶ Aborted, once its processes are gone

An attempt that cannot start (no node, no image) or has gone silent is told to end, and the reason is kept with it.
The first attempt is open from the run's creation on and needs no write of its own, so that a run that is paused before
it began is written down as Waiting; each later attempt is written down before it starts, and so is a first one where
the sweep has a retryToken: a run of which nothing was written began before there was one, and has yet to answer it.
That an attempt runs is written down once it has lasted, or its trainer has spoken: a short run would cost the API
server more for such news than for all the rest.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sweep_analysis.record import Failure, FailureReason, Record
from sweep_analysis.scale import format_scale
from sweep_operator.api import Attempt, RunState, RunStatus, ScalingRun, ScalingSweep, SweepSpec
from sweep_operator.budget import trained_tokens
from sweep_operator.clusters import PAUSED, Cause, Ending, Event, Workload, WorkloadState
from sweep_operator.conditions import timestamp
from sweep_operator.run_conditions import conditions_of

FINAL = {FailureReason.DIVERGED, FailureReason.BAD_CONFIGURATION, FailureReason.RECORD_REFUSED}
"""Failures that a retry would only repeat."""
KEPT_ATTEMPTS, KEPT_FAILURES = 20, 10
ACCOUNTING_SECONDS = 10.0
"""What a running attempt uses is written down in steps of this, at least, and of a tenth of what it used so far."""
BUDGET_STEP = 0.01
"""Where a budget bounds it: in steps of this share of what is left, so that they grow finer as the end comes near."""
FLOPS_STEPS = 20
"""FLOPs of a running attempt are counted in so many steps, or every report of progress would be a write."""
QUIET_SECONDS = 120.0
"""A run is not called silent by its own time stamps alone: for so long we must have heard nothing ourselves."""
STOPPING_SECONDS = 5.0
"""How often an attempt that was told to end is looked at, though its end is news of its own."""
LAST_WORDS_SECONDS = 15.0
"""How long a trainer that has handed in its last record takes to end: one write then says both."""
WORTH_TELLING_SECONDS = 60.0
"""A wait shorter than this is not worth a write."""
LONGEST_BACK_OFF_SECONDS = 300.0
UNJUDGED_SECONDS = 0.25
"""How soon is asked again whether an edited spec was accepted, which its sweep's own pass is about to say."""
RUNNING_SECONDS = ACCOUNTING_SECONDS
"""For so long an attempt that has said nothing runs before that is worth a write; what it used is written down then."""


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
    cause: Cause = PAUSED
    """Why, where it is told to stop."""
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
    run = _begun(sweep, run, workload, now)
    counted = run.changed(status=_with_records(run, workload))
    decision = _decide(sweep, counted, workload, now)
    status = decision.status
    if decision.do is Do.NOTHING and _ends_soon(counted, workload, now):
        return RunDecision(requeue_seconds=LAST_WORDS_SECONDS)
    if status is None and counted.status != run.status:
        decision, status = RunDecision(status=counted.status), counted.status
    if status is None:
        return decision
    conditions = conditions_of(status, workload, run.metadata.generation, now)
    return replace(decision, status=status.changed(conditions=conditions))


def newest_attempt(run: ScalingRun) -> int:
    """The attempt that a workload is asked about or started for: the first, where none was written down yet."""
    return max(1, run.status.attempt)


def _begun(sweep: ScalingSweep, run: ScalingRun, workload: Workload, now: datetime) -> ScalingRun:
    """The run with its first attempt open, where it is there or wanted and was not written down yet."""
    if run.status.attempt or (workload.state is WorkloadState.ABSENT and not _starts_unwritten(sweep, run)):
        return run
    at = workload.created_at or workload.started_at or timestamp(now)
    return run.changed(status=_opened(run.status, at, run.status.retry_token))


def _starts_unwritten(sweep: ScalingSweep, run: ScalingRun) -> bool:
    """Whether a run without attempts may begin its first before that is written down."""
    untouched = run.status.state is RunState.QUEUED and not run.status.accepted
    return untouched and wanted_of(sweep) is Wanted.RUN and not sweep.spec.retry_token


def _opened(status: RunStatus, at: str, retry_token: str) -> RunStatus:
    """The status with its next attempt open, which answers that token."""
    attempt = Attempt(attempt=status.attempt + 1, started_at=at)
    return _with_attempts(status, (*status.attempts, attempt)).changed(
        attempt=attempt.attempt,
        state=RunState.QUEUED,
        workload=None,
        not_before=None,
        retry_token=retry_token,
    )


def _ends_soon(run: ScalingRun, workload: Workload, now: datetime) -> bool:
    """Whether the last record has just come, so that the attempt's end can be written with it."""
    if workload.state is not WorkloadState.RUNNING or len(run.status.accepted) < len(run.spec.run.tokens):
        return False
    last = max(datetime.fromisoformat(record.finished_at) for record in run.status.accepted)
    return timedelta(0) <= now - last < timedelta(seconds=LAST_WORDS_SECONDS)


def _decide(sweep: ScalingSweep, run: ScalingRun, workload: Workload, now: datetime) -> RunDecision:
    """The next step, where every valid record has been accepted."""
    wanted = wanted_of(sweep)
    status = run.status
    last = status.attempts[-1] if status.attempts else None
    if last is not None and last.ended_at is None:
        return _open(sweep, run, last, workload, wanted, now)
    complete = len(status.accepted) == len(run.spec.run.tokens)
    if status.finished and not (complete and status.state is RunState.FAILED):
        return _finished(sweep, run, wanted)
    if complete:  # the last words of an attempt that was given up, however late they come
        succeeded = status.changed(state=RunState.SUCCEEDED)
        return RunDecision(status=succeeded, events=_ending_events(run, succeeded))
    if wanted is Wanted.ABORT:
        return RunDecision(status=status.changed(state=RunState.ABORTED))
    if wanted is Wanted.PAUSE:
        if status.attempt == 0 and status.state is RunState.QUEUED:  # else nothing tells that no attempt is on its way
            return RunDecision(status=status.changed(state=RunState.WAITING))
        return RunDecision()
    if status.not_before is not None:
        wait = (datetime.fromisoformat(status.not_before) - now).total_seconds()
        if 0 < wait <= LONGEST_BACK_OFF_SECONDS:  # a longer one was written by a clock that was ahead
            return RunDecision(requeue_seconds=max(0.01, wait))
    return RunDecision(status=_opened(status, timestamp(now), sweep.spec.retry_token))


def _finished(sweep: ScalingSweep, run: ScalingRun, wanted: Wanted) -> RunDecision:
    token = sweep.spec.retry_token
    if run.status.state is RunState.FAILED and wanted is Wanted.RUN and token != run.status.retry_token:
        revived = run.status.changed(state=RunState.WAITING, counted_failures=0, not_before=None, retry_token=token)
        return RunDecision(status=revived)
    return RunDecision()


def _open(
    sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, wanted: Wanted, now: datetime
) -> RunDecision:
    """An attempt is open: start what was promised, watch it, end it, or write down how it ended."""
    if workload.state is WorkloadState.ABSENT:
        complete = len(run.status.accepted) == len(run.spec.run.tokens)
        if wanted is Wanted.RUN and not complete:
            return _start(sweep)
        over = Workload(WorkloadState.ENDED, Ending.COMPLETED if complete else Ending.INTERRUPTED)
        closed = _closed(sweep, run, attempt, over, wanted, now)
        return RunDecision(status=closed, events=_ending_events(run, closed) if complete else ())
    if workload.state is WorkloadState.ENDED:
        closed = _closed(sweep, run, attempt, workload, wanted, now)
        return RunDecision(status=closed, events=_ending_events(run, closed))
    if wanted is not Wanted.RUN:
        return _stop(PAUSED)
    if workload.state is WorkloadState.PENDING:
        return _pending(sweep.spec, run, attempt, workload, now)
    return _running(sweep, run, attempt, workload, now)


def _start(sweep: ScalingSweep) -> RunDecision:
    """Start it, if the spec as it stands was accepted; one that was refused is looked at again when it changes."""
    accepted = sweep.status.condition("Accepted")
    if accepted is None or sweep.status.observed_generation != sweep.metadata.generation:
        return RunDecision(requeue_seconds=UNJUDGED_SECONDS)
    if accepted.status != "True":
        return RunDecision()
    return RunDecision(do=Do.START)


def _stop(cause: Cause) -> RunDecision:
    """Tell it to end; told again now and then, for a request that was lost."""
    return RunDecision(do=Do.STOP, cause=cause, requeue_seconds=STOPPING_SECONDS)


def _pending(spec: SweepSpec, run: ScalingRun, attempt: Attempt, workload: Workload, now: datetime) -> RunDecision:
    """Nothing runs yet: wait, tell what for once that is worth it, and give up where waiting is no use."""
    if workload.reason is not None:
        return _stop(Cause(workload.reason, workload.message))
    since = max(datetime.fromisoformat(at) for at in (attempt.started_at, workload.created_at or attempt.started_at))
    waited = (now - since).total_seconds()  # not while its spec, or a quota, kept it from being created
    status = run.status
    placed = workload.reference is not None
    if placed and waited > spec.limits.pending_seconds:
        said = f"pending for more than limits.pendingSeconds ({spec.limits.pending_seconds}): {workload.message}"
        return _stop(Cause(FailureReason.UNSCHEDULABLE, said))
    requeue = max(0.01, spec.limits.pending_seconds - waited + 0.01)
    if status.state is not RunState.QUEUED:
        return RunDecision(requeue_seconds=requeue)  # its pod is being replaced in what we know, or is just leaving
    if workload.waiting and (waited >= WORTH_TELLING_SECONDS or not placed):
        told = next((c.reason for c in status.conditions if c.type == "Queued"), "")
        if told != workload.waiting or status.workload != workload.reference:
            return RunDecision(status=status.changed(workload=workload.reference))
        return RunDecision(requeue_seconds=requeue)
    if waited < WORTH_TELLING_SECONDS:
        requeue = min(requeue, WORTH_TELLING_SECONDS - waited + 0.01)
    return RunDecision(requeue_seconds=requeue)


def _running(sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, now: datetime) -> RunDecision:
    """It runs: write that down once, what it uses in steps, and end it when it has been silent for too long."""
    status, limit = run.status, sweep.spec.limits.progress_seconds
    silent = (now - _last_sign(run, attempt, workload)).total_seconds()
    if silent < 0 and math.isfinite(workload.quiet_seconds):
        silent = workload.quiet_seconds  # another's clock is ahead of ours, so what we hear ourselves decides
    quiet = min(limit, QUIET_SECONDS) - workload.quiet_seconds
    if silent > limit and quiet <= 0:
        return _stop(Cause(FailureReason.NO_PROGRESS, f"no step in {limit} s (limits.progressSeconds)"))
    flops = max(status.flops, _flops(sweep, run, steps_of=FLOPS_STEPS))
    seconds = max(workload.gpu_seconds, attempt.gpu_seconds)
    seconds_step, flops_step = _accounting_steps(sweep, attempt)
    due = seconds - attempt.gpu_seconds >= seconds_step or flops - status.flops >= flops_step
    progress = status.progress
    spoke = progress is not None and progress.attempt == attempt.attempt
    untold = status.state is not RunState.RUNNING
    if due or (untold and (spoke or workload.quiet_seconds >= RUNNING_SECONDS)):
        watched = attempt.changed(gpu_seconds=seconds, scheduled_at=attempt.scheduled_at or workload.scheduled_at)
        noted = _with_attempts(status, (*status.attempts[:-1], watched))
        return RunDecision(
            status=noted.changed(state=RunState.RUNNING, flops=flops, workload=workload.reference or status.workload)
        )
    if untold:
        return RunDecision(requeue_seconds=RUNNING_SECONDS - workload.quiet_seconds + 0.01)
    devices = max(1, run.spec.placement.gpus_per_node)
    account = (attempt.gpu_seconds + seconds_step - seconds) / devices
    return RunDecision(requeue_seconds=max(0.1, min(max(limit - silent, quiet) + 0.01, account)))


def _accounting_steps(sweep: ScalingSweep, attempt: Attempt) -> tuple[float, float]:
    """By how many device-seconds and by how many FLOPs an attempt must have grown to be worth a write."""
    spec, spent = sweep.spec.budget, sweep.status.spent
    seconds, flops = attempt.gpu_seconds / 10, math.inf
    if spec.gpu_hours is not None:
        seconds = min(seconds, BUDGET_STEP * (spec.gpu_hours * 3600 - spent.gpu_seconds))
    if spec.flops is not None:
        flops = max(0.0, BUDGET_STEP * (spec.flops - spent.flops)) or math.inf
    return max(ACCOUNTING_SECONDS, seconds), flops


def _last_sign(run: ScalingRun, attempt: Attempt, workload: Workload) -> datetime:
    """When a running attempt last gave a sign of life: a step, or its start."""
    progress = run.status.progress
    signs = [attempt.started_at, workload.started_at or attempt.started_at]
    if progress is not None and progress.attempt == attempt.attempt:
        signs.append(progress.last_updated)
    return max(datetime.fromisoformat(sign) for sign in signs)


def _closed(
    sweep: ScalingSweep, run: ScalingRun, attempt: Attempt, workload: Workload, wanted: Wanted, now: datetime
) -> RunStatus:
    """The status after an attempt whose processes are gone."""
    status = run.status
    failure = _failure(run, attempt, workload, now)
    complete = len(status.accepted) == len(run.spec.run.tokens)
    outcome = "Succeeded" if complete else failure.reason if failure else str(workload.ending)
    ended = attempt.changed(
        scheduled_at=attempt.scheduled_at or workload.scheduled_at,
        ended_at=workload.ended_at or timestamp(now),
        outcome=outcome,
        gpu_seconds=max(workload.gpu_seconds, attempt.gpu_seconds),
    )
    status = _with_attempts(status, (*status.attempts[:-1], ended))
    status = status.changed(flops=max(status.flops, _flops(sweep, run)), workload=workload.reference or status.workload)
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


def _failure(run: ScalingRun, attempt: Attempt, workload: Workload, now: datetime) -> Failure | None:
    """The failure that counts, or None for an end that is not the run's fault."""
    reason, message = workload.reason, workload.message
    if workload.ending is Ending.COMPLETED:
        due = sorted(set(run.spec.run.tokens) - {record.tokens for record in run.status.accepted})
        if not due:
            return None
        reason = FailureReason.RECORD_REFUSED
        message = f"the trainer ended without a valid record at {', '.join(format_scale(t) for t in due)} tokens"
        if run.status.refused_records:
            message += f"; {run.status.refused_records} were refused, the last because {run.status.refusal}"
    elif workload.ending is not Ending.FAILED:
        return None
    return Failure(
        attempt=attempt.attempt,
        reason=reason or FailureReason.CRASHED,
        message=(message or "the trainer ended without saying why")[:1024],
        node=workload.node,
        at=timestamp(now),
    )


def _back_off(run: ScalingRun, failures: int) -> timedelta:
    """Two seconds doubling to the longest, spread by up to half so that many runs do not return at once."""
    digest = hashlib.sha256(f"{run.metadata.name}/{failures}".encode()).digest()
    spread = 1 - digest[0] / 512
    return timedelta(seconds=min(LONGEST_BACK_OFF_SECONDS, 2.0 * 2 ** (failures - 1)) * spread)


def _ending_events(run: ScalingRun, closed: RunStatus) -> tuple[Event, ...]:
    name, rung = run.metadata.name, run.spec.rung
    if closed.state is RunState.SUCCEEDED:
        losses = ", ".join(f"{r.loss:.4f} at {format_scale(r.tokens)} tokens" for r in closed.accepted)
        what = run.spec.run
        context = f", context {what.sequence_length:,}" if what.sequence_length is not None else ""
        said = f"{format_scale(what.parameters)} parameters, seed {what.seed}{context}: {losses}"
        return (Event("RunSucceeded", said, rung, name),)
    last = closed.attempts[-1]
    if len(closed.failures) and closed.failures[-1].attempt == last.attempt:
        failure = closed.failures[-1]
        again = "" if closed.state is RunState.FAILED else "; it will be tried again"
        return (Event(failure.reason, failure.message + again, rung, name, warning=True),)
    return (Event("RunStopped", f"attempt {last.attempt}: {last.outcome}", rung, name),)


def _with_attempts(status: RunStatus, attempts: tuple[Attempt, ...]) -> RunStatus:
    """The status with its newest attempts; of older ones is kept what they used and how many ended in which way."""
    dropped, kept = attempts[:-KEPT_ATTEMPTS], attempts[-KEPT_ATTEMPTS:]
    seconds = status.earlier_gpu_seconds + sum(a.gpu_seconds for a in dropped)
    outcomes = dict(status.earlier_outcomes)
    for attempt in dropped:
        outcomes[attempt.outcome] = outcomes.get(attempt.outcome, 0) + 1
    return status.changed(attempts=kept, earlier_gpu_seconds=seconds, earlier_outcomes=outcomes)


def _with_records(run: ScalingRun, workload: Workload) -> RunStatus:
    """The status with each valid record accepted once and the others counted, those left in the workload included."""
    status = run.status
    accepted = {record.tokens: record for record in status.accepted}
    refused, refusal = 0, ""
    for reported in (*status.records, *workload.left):
        if reported.refused is not None:
            refused, refusal = refused + reported.refused.documents, reported.refused.reason
        for record in reported.records:
            objection = objection_to(record, reported.attempt, run)
            if objection:
                refused, refusal = refused + 1, objection
            else:
                accepted.setdefault(record.tokens, record)
    return status.changed(
        accepted=tuple(accepted[tokens] for tokens in sorted(accepted)),
        refused_records=max(refused, status.refused_records),
        refusal=refusal or status.refusal,
    )


def _flops(sweep: ScalingSweep, run: ScalingRun, steps_of: int | None = None) -> float:
    """6·N·D of the steps trained, as progress tells; rounded down to 1/`steps_of` of the run where that is given."""
    progress = run.status.progress
    if progress is None:  # an own trainer that reports no steps: what its records say
        return max((record.flops.six_nd for record in run.status.accepted), default=0.0)
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
        ("context length", record.context_length, spec.run.sequence_length or record.context_length),
    ):
        if got != due:
            return f"its {what} is {got}, not {due}"
    if record.tokens not in spec.run.tokens:
        return f"no record is due at {record.tokens} tokens"
    if not 1 <= record.run.attempt <= min(reported_attempt, run.status.attempt):
        return f"it names attempt {record.run.attempt} of {run.status.attempt}"
    return None
