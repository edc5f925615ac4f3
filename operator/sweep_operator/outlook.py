"""Conditions, phase and progress of a sweep, derived: what a person, `kubectl wait` and an alert look at.

Owns the words of Accepted, Progressing, Suspended, AwaitingApproval, Consistent, Finished and Succeeded, and what of a
status is worth a write. It derives and never decides: no condition is input to a transition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sweep_analysis.gate import Outcome, Reason
from sweep_operator.acceptance import Refused
from sweep_operator.api import (
    TARGET,
    RungProgress,
    RungState,
    RungStatus,
    RunState,
    ScalingRun,
    ScalingSweep,
    Spent,
    SweepStatus,
)
from sweep_operator.clusters import Event
from sweep_operator.conditions import timestamp, with_condition
from sweep_operator.printed import printed
from sweep_operator.run_conditions import waits

Truth = Literal["True", "False", "Unknown"]

OBSTACLES = frozenset({"NameTaken", "QuotaExceeded", "NamespaceTerminating", "NamesakeLeaving"})
"""Reasons for which a child could not be created, or a run's workload not be started, for now."""
PROGRESS_SECONDS = 10.0
"""A status that differs in nothing but spend and progress is written at most so often."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps the sweep from going on although nothing is wrong with it."""

    reason: str
    message: str


def obstacle_of(status: SweepStatus) -> Obstacle | None:
    """The obstacle that a status shows, if it shows one."""
    progressing = status.condition("Progressing")
    if progressing is None or progressing.reason not in OBSTACLES:
        return None
    return Obstacle(progressing.reason, progressing.message)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a condition will say."""

    kind: str
    status: Truth
    reason: str
    message: str = ""


def summarise(
    sweep: ScalingSweep,
    status: SweepStatus,
    children: Sequence[ScalingRun],
    now: datetime,
    *,
    refused: Refused | None = None,
    over_budget: str | None = None,
    obstacle: Obstacle | None = None,
) -> tuple[SweepStatus, tuple[Event, ...]]:
    """The status with conditions and phase that follow from it, and an event for each ending that is new."""
    busy = any(_busy(child) for child in children)
    findings = [
        _Finding("Accepted", "False", refused.reason, refused.message)
        if refused
        else _Finding("Accepted", "True", "Valid"),
        _suspended(sweep, busy=busy),
        _awaiting(sweep, status),
        _consistent(status),
    ]
    ending = _ending(sweep, status, busy=busy, over_budget=over_budget)
    if ending:
        findings.append(_Finding("Finished", "True", ending.reason, ending.message))
        succeeded: Truth = "True" if ending.reason == "Succeeded" else "False"
        findings.append(_Finding("Succeeded", succeeded, ending.reason, ending.message))
    else:
        findings.append(_Finding("Finished", "False", "Climbing"))
        findings.append(_Finding("Succeeded", "Unknown", "Climbing"))
    findings.append(_progressing(status, findings, obstacle or _of_a_child(children)))
    conditions = status.conditions
    for f in findings:
        conditions = with_condition(conditions, f.kind, f.status, f.reason, f.message, sweep.metadata.generation, now)
    new = status.changed(
        conditions=conditions,
        observed_generation=sweep.metadata.generation,
        printed=printed(status),
        phase=_phase(findings),
    )
    return new, _events(sweep.status, new)


def _busy(child: ScalingRun) -> bool:
    """Whether an attempt is still open, so that something may be running; the first is open before it is written."""
    status = child.status
    implied = status.attempt == 0 and status.state is RunState.QUEUED
    return implied or any(attempt.ended_at is None for attempt in status.attempts[-1:])


def _suspended(sweep: ScalingSweep, *, busy: bool) -> _Finding:
    if not sweep.spec.suspend:
        return _Finding("Suspended", "False", "NotSuspended")
    if busy:
        return _Finding("Suspended", "False", "Checkpointing", "running runs are writing a checkpoint")
    return _Finding("Suspended", "True", "Suspended", "set spec.suspend to false to go on")


def _waiting(status: SweepStatus) -> RungStatus | None:
    return next((r for r in status.rungs if r.state in (RungState.HELD, RungState.STOPPED)), None)


def _awaiting(sweep: ScalingSweep, status: SweepStatus) -> _Finding:
    rung = _waiting(status)
    if rung is None or rung.state is not RungState.HELD or rung.verdict is None:
        return _Finding("AwaitingApproval", "False", "NothingToApprove")
    message = f"{rung.name}: {rung.verdict.message}"
    given = [approval.verdict for approval in sweep.spec.approvals if approval.rung == rung.name]
    if given:
        named = "another verdict" if any(given) else "no verdict"
        message += f"; the approval given names {named} and has no effect: this one's digest is {rung.verdict.digest}"
    return _Finding("AwaitingApproval", "True", rung.verdict.reason, message)


def _consistent(status: SweepStatus) -> _Finding:
    """Of the newest rung that was judged; the launch verdict of a target not yet trained is no judgement of the law."""
    judged = [
        r
        for r in status.rungs
        if r.verdict
        and r.verdict.outcome is not Outcome.NOT_JUDGED
        and (r.name != TARGET or r.finished_at)
        and r.state is not RungState.SUPERSEDED
    ]
    if not judged:
        return _Finding("Consistent", "Unknown", "NothingJudged", "no rung has been judged yet")
    verdict = judged[-1].verdict
    assert verdict is not None
    truth: dict[Outcome, Truth] = {Outcome.PASS: "True", Outcome.FAIL: "False"}
    return _Finding(
        "Consistent", truth.get(verdict.outcome, "Unknown"), verdict.reason, f"{judged[-1].name}: {verdict.message}"
    )


_ENDINGS = {Reason.TARGET_OUT_OF_REACH: "NotWorthIt", Reason.OVER_BUDGET: "OverBudget"}


def _ending(sweep: ScalingSweep, status: SweepStatus, *, busy: bool, over_budget: str | None) -> _Finding | None:
    """Why the sweep is over, as far as it is; a raised budget, an approval or a retry may still take it up again."""
    if sweep.spec.abort:
        return None if busy else _Finding("Finished", "True", "Aborted", "spec.abort is set; results stay")
    if over_budget:
        return _Finding("Finished", "True", "OverBudget", over_budget)
    for rung in status.rungs:
        if rung.state is RungState.FAILED:
            return _Finding(
                "Finished", "True", "Failed", f"rung {rung.name}: too many runs failed; see their failures, then retry"
            )
        if rung.state is RungState.STOPPED and rung.verdict:
            reason = _ENDINGS.get(rung.verdict.reason, "Inconsistent")
            return _Finding("Finished", "True", reason, f"{rung.name}: {rung.verdict.message}")
    if status.rungs and all(r.state in (RungState.PROMOTED, RungState.SUPERSEDED) for r in status.rungs):
        last = status.rungs[-1].name
        return _Finding(
            "Finished", "True", "Succeeded", "the target was trained" if last == TARGET else "every rung was judged"
        )
    return None


def _of_a_child(children: Sequence[ScalingRun]) -> Obstacle | None:
    """What a queued run meets when its workload is to be started."""
    for child in children:
        waiting = waits(child.status)
        if waiting is not None and waiting.reason in OBSTACLES:
            return Obstacle(waiting.reason, f"{child.metadata.name}: {waiting.message}")
    return None


def _progressing(status: SweepStatus, findings: Sequence[_Finding], obstacle: Obstacle | None) -> _Finding:
    for kind in ("Finished", "Suspended", "AwaitingApproval"):
        stopped = next(f for f in findings if f.kind == kind)
        if stopped.status == "True":
            return _Finding("Progressing", "False", stopped.reason if kind == "Finished" else kind, stopped.message)
    if findings[0].status == "False":
        return _Finding("Progressing", "False", findings[0].reason, findings[0].message)
    if obstacle is not None:
        return _Finding("Progressing", "False", obstacle.reason, obstacle.message)
    rung = next((r for r in status.rungs if r.state not in (RungState.PROMOTED, RungState.SUPERSEDED)), None)
    return _Finding("Progressing", "True", rung.state if rung else "Pending", f"rung {rung.name}" if rung else "")


def _phase(findings: Sequence[_Finding]) -> str:
    """One word for the printed column."""
    truth = {f.kind: f for f in findings}
    if truth["Finished"].status == "True":
        return truth["Finished"].reason
    if truth["Accepted"].status == "False":
        return "Refused"
    for kind in ("Suspended", "AwaitingApproval"):
        if truth[kind].status == "True":
            return kind
    return truth["Progressing"].reason


def _events(before: SweepStatus, after: SweepStatus) -> tuple[Event, ...]:
    """One event for each of these conditions that has just become true, or false in the case of Accepted."""
    events = []
    for kind, truth in (
        ("Accepted", "False"),
        ("Finished", "True"),
        ("AwaitingApproval", "True"),
        ("Suspended", "True"),
        ("Progressing", "False"),
    ):
        old, new = before.condition(kind), after.condition(kind)
        if kind == "Progressing" and (new is None or new.reason not in OBSTACLES):
            continue
        if new and new.status == truth and (old is None or (old.status, old.reason) != (new.status, new.reason)):
            good = new.reason in ("Succeeded", "Suspended", "Aborted")
            reason = {"AwaitingApproval": "AwaitingApproval"}.get(kind, new.reason)
            events.append(Event(reason, new.message, warning=not good))
    return tuple(events)


def progress_of(rung: RungStatus, children: Sequence[ScalingRun | None], now: datetime) -> RungProgress:
    """How far a rung is; `children` has one entry for each of its runs, None for those that do not exist yet.

    Returns what the rung has already where nothing but the time left has changed.
    """
    present = [child for child in children if child is not None]
    states = [child.status.state for child in present]
    whole = sum(run.flops for run in (*rung.runs, *rung.experiments))
    trained = sum(child.spec.run.flops * _share(child) for child in present)
    left = [child.status.progress for child in present if child.status.state is RunState.RUNNING]
    ends = [progress.eta_seconds if progress is not None else None for progress in left]
    waiting = len(children) - sum(child.status.finished for child in present) - len(left)
    known = [seconds for seconds in ends if seconds is not None]
    new = RungProgress(
        total=len(children),
        done=states.count(RunState.SUCCEEDED),
        running=states.count(RunState.RUNNING),
        failed=states.count(RunState.FAILED),
        share=int(20 * trained / whole + 1e-9) / 20,
        eta_seconds=round(max(known)) if known and len(known) == len(ends) and not waiting else None,
        last_updated=timestamp(now),
    )
    old = rung.progress
    if old is not None and _without_times(old) == _without_times(new):
        return old
    return new


def _without_times(progress: RungProgress) -> RungProgress:
    return progress.model_copy(update={"eta_seconds": None, "last_updated": ""})


def _share(child: ScalingRun) -> float:
    """How much of a run is trained; one that has ended has nothing left to train."""
    if child.status.finished:
        return 1.0
    progress = child.status.progress
    return min(1.0, progress.step / progress.steps) if progress is not None else 0.0


def may_wait(before: SweepStatus, after: SweepStatus, now: datetime) -> float | None:
    """For how many seconds the new status need not be written, or None when it should be at once."""
    if _bare(before) != _bare(after):
        return None
    written = max((rung.progress.last_updated for rung in before.rungs if rung.progress is not None), default=None)
    climbing = any(rung.state in (RungState.RUNNING, RungState.DIAGNOSING) for rung in after.rungs)
    if written is None or not climbing:
        return None
    left = PROGRESS_SECONDS - (now - datetime.fromisoformat(written)).total_seconds()
    return left if left > 0 else None


def _bare(status: SweepStatus) -> SweepStatus:
    """The status without spend and progress, and without what is printed of them."""
    rungs = tuple(rung.model_copy(update={"spent": Spent(), "progress": None}) for rung in status.rungs)
    return status.model_copy(update={"spent": Spent(), "rungs": rungs, "printed": None})
