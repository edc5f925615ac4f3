"""Conditions of a run, derived from its state: what a person, `kubectl wait` and an alert look at.

Owns the words of Queued, Running, Preempted and Succeeded. It derives and never decides: no condition is input to a
transition of the run.
"""

from datetime import datetime
from typing import Literal

from sweep_operator.api import Condition, RunState, RunStatus
from sweep_operator.clusters import Ending, Workload
from sweep_operator.conditions import with_condition

Truth = Literal["True", "False", "Unknown"]


def conditions_of(status: RunStatus, workload: Workload, generation: int, now: datetime) -> tuple[Condition, ...]:
    """The conditions that follow from a status about to be written and from what was seen of the newest attempt."""
    conditions = status.conditions
    for kind, truth, reason, message in (
        _queued(status, workload),
        _running(status, workload),
        _preempted(status, workload),
        _succeeded(status),
    ):
        old = next((c for c in conditions if c.type == kind), None)
        if kind == "Preempted" and truth == "False" and old is None:
            continue  # it never was: nothing to take back
        if old is not None and (old.status, old.reason) == (truth, reason) and not message:
            continue
        conditions = with_condition(conditions, kind, truth, reason, message, generation, now)
    return conditions


def waits(status: RunStatus) -> Condition | None:
    """The condition that says what a queued run waits for, where it waits for anything worth telling."""
    queued = next((c for c in status.conditions if c.type == "Queued" and c.status == "True"), None)
    return queued if queued is not None and queued.reason != "Opened" else None


def _queued(status: RunStatus, workload: Workload) -> tuple[str, Truth, str, str]:
    if status.state is RunState.QUEUED:
        return "Queued", "True", workload.waiting or "Opened", workload.message if workload.waiting else ""
    return "Queued", "False", status.state, ""


def _running(status: RunStatus, workload: Workload) -> tuple[str, Truth, str, str]:
    if status.state is RunState.RUNNING:
        return "Running", "True", "Running", f"on {workload.node}" if workload.node else ""
    return "Running", "False", status.state, ""


def _preempted(status: RunStatus, workload: Workload) -> tuple[str, Truth, str, str]:
    """True from the loss of an attempt until the next one runs."""
    last = status.attempts[-1] if status.attempts else None
    if last is not None and last.outcome == Ending.PREEMPTED:
        return "Preempted", "True", "LostToTheMachine", f"attempt {last.attempt}: {workload.message}"
    if last is not None and status.state is RunState.QUEUED:
        before = next((c for c in status.conditions if c.type == "Preempted"), None)
        if before is not None:
            return "Preempted", before.status, before.reason, ""
    return "Preempted", "False", "Resumed", ""


def _succeeded(status: RunStatus) -> tuple[str, Truth, str, str]:
    if status.state is RunState.SUCCEEDED:
        return "Succeeded", "True", "RecordsAccepted", ""
    if status.state is RunState.FAILED and status.failures:
        return "Succeeded", "False", status.failures[-1].reason, status.failures[-1].message
    if status.finished:
        return "Succeeded", "False", status.state, ""
    return "Succeeded", "Unknown", status.state, ""
