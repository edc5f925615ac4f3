"""The port between the reconcilers and the place where runs happen; one contract suite runs on every adapter.

Owns the `Cluster` protocol and its few values. Adapters: `local` (processes on this machine) and `kubernetes` (Jobs).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sweep_analysis.record import FailureReason, RecordSet
from sweep_operator.api import Imports, RunStatus, ScalingRun, ScalingSweep, SweepStatus, WorkloadReference


class Conflict(Exception):  # noqa: N818 - the word of the Kubernetes API
    """The document changed since it was read; the pass is quietly run again."""


class NameTaken(Exception):  # noqa: N818 - a finding, not a fault of the program
    """An object of the child's name stands there and is not ours; the text says which, and what to do."""


class NotNow(Exception):  # noqa: N818 - a finding, not a fault of the program
    """The place takes nothing more at present and may later (a quota, remains of a deleted namesake): ask again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """CamelCase, for a condition."""
        self.message = message


class Unavailable(Exception):  # noqa: N818 - a finding, not a fault of the program
    """What the spec names cannot be had here, or makes no sense; the text says what, and what would be right."""


class StartRefused(Exception):  # noqa: N818 - a finding, not a fault of the program
    """The place does not take the attempt as it is described (an invalid template, a forbidden account)."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class WorkloadState(StrEnum):
    """Whether the processes of one attempt exist."""

    ABSENT = "Absent"
    """Never started, as far as anyone can tell."""
    PENDING = "Pending"
    RUNNING = "Running"
    ENDED = "Ended"


class Ending(StrEnum):
    """How an attempt's processes ended."""

    COMPLETED = "Completed"
    INTERRUPTED = "Interrupted"
    """Checkpointed because we asked."""
    PREEMPTED = "Preempted"
    """Lost to the machine: a killed driver, a drained node, a higher priority. Not a failure of the run."""
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Workload:
    """What the cluster knows of one attempt at one run."""

    state: WorkloadState
    ending: Ending | None = None
    reason: FailureReason | None = None
    """For a failed ending, as told from the evidence (exit status, signal, the trainer's own failure document). For a
    pending workload: what keeps it from ever starting, so that waiting on is no use."""
    message: str = ""
    waiting: str = ""
    """What a pending workload waits for: a CamelCase reason, explained by `message`."""
    created_at: str | None = None
    """When its place was asked for it, where that is kept there."""
    scheduled_at: str | None = None
    """When it was given its place, before images are fetched and processes start."""
    started_at: str | None = None
    ended_at: str | None = None
    gpu_seconds: float = 0.0
    """Allocated devices times time, up to now or to the end."""
    node: str = ""
    reference: WorkloadReference | None = None
    """The object that carries the attempt out, where there is one beside its processes."""
    quiet_seconds: float = math.inf
    """For how long, by our own clock, nothing new was heard of it: clocks on other machines may be wrong."""
    left: tuple[RecordSet, ...] = ()
    """What its processes left behind where only the cluster finds it; it counts like what they reported themselves."""


ABSENT = Workload(WorkloadState.ABSENT)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt is told to end; it is kept with the attempt, so that whoever sees the end knows."""

    reason: FailureReason | None = None
    """The failure as which the end counts; None where it is no fault of the run."""
    message: str = ""


PAUSED = Cause(message="the sweep wants it to pause")


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling a person, once; reasons are those of conditions and verdicts."""

    reason: str
    message: str
    rung: str = ""
    run: str = ""
    warning: bool = False


class Cluster(Protocol):
    """Documents, workloads and events. Every call may raise OSError; every write is safe to repeat."""

    def sweep(self, key: str) -> ScalingSweep | None:
        """The sweep with its status, or None when it was deleted. `key` is namespace/name."""

    def runs(self, sweep: ScalingSweep) -> Sequence[ScalingRun]:
        """All runs the sweep owns, with the trainers' progress and records in their status."""

    def imported(self, sweep: ScalingSweep) -> Imports:
        """What `spec.records` names, as it is now. Raises Unavailable."""

    def create_run(self, run: ScalingRun) -> None:
        """Create it; a run of that name with the same owner and spec counts as success.

        Raises NameTaken when that name is somebody else's, NotNow when the place has no room for it.
        """

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        """Replace the status of the sweep as read. Raises Conflict when it changed meanwhile."""

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        """Replace the operator's part of the run's status. Raises Conflict when it changed meanwhile."""

    def workload(self, run: ScalingRun, attempt: int) -> Workload:
        """What is known of that attempt's processes.

        Raises Conflict when it has ended and the run, as it was read, is older than what its trainer told last.
        """

    def start(self, sweep: ScalingSweep, run: ScalingRun, attempt: int) -> None:
        """Start the attempt's processes; starting what was started already does nothing.

        Raises StartRefused when it can never start as described, NameTaken when its name is somebody else's, NotNow
        when the place has no room for it.
        """

    def stop(self, run: ScalingRun, attempt: int, cause: Cause = PAUSED) -> None:
        """Ask the attempt's processes to checkpoint and end; may be repeated, and insists after a grace period.

        The first cause is the one that counts: an attempt stopped as a failure ends Failed with its reason, any other
        ends Interrupted, unless it was complete before.
        """

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        """Show an event. Never raises; an event lost with a crash is not repeated."""
