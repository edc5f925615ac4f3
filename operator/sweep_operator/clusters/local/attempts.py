"""One attempt at a run, as it is written down, and how it ended, told from the evidence.

Owns `attempts/<n>.json` and the reading of exit status, signals and the trainer's failure document into a `Workload`.
"""

import re
import signal
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sweep_analysis.document import Document
from sweep_analysis.record import ExitStatus, Failure, FailureReason
from sweep_operator.clusters import PAUSED, Cause, Ending, Workload, WorkloadState
from sweep_operator.clusters.local.processes import Ended, Identity


class Asked(StrEnum):
    """Why a trainer was told to stop."""

    STOP = "Stop"
    """The reconcilers wanted its attempt to end."""
    LEAVING = "Leaving"
    """The driver itself leaves; that says nothing about the run."""


class AttemptFile(Document):
    """What was started, where, and how it ended; written before anybody is told of either."""

    attempt: int
    host: str
    pid: int
    process_start: float
    """Start time of the process as the kernel tells it; with the pid it names one process for good."""
    started_at: str
    ended_at: str | None = None
    exit_status: int | None = None
    """Negative: the signal that ended it. Absent after the end: nobody saw it."""
    ending: Ending | None = None
    reason: FailureReason | None = None
    message: str = ""
    gpu_seconds: float = 0.0
    """Wall seconds of the process: it holds one slot of this machine."""
    peak_bytes: int = 0

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.process_start)

    def workload(self, now: datetime) -> Workload:
        """The port's view of the attempt."""
        if self.ended_at is None:
            elapsed = (now - datetime.fromisoformat(self.started_at)).total_seconds()
            return Workload(
                WorkloadState.RUNNING,
                scheduled_at=self.started_at,
                started_at=self.started_at,
                gpu_seconds=max(0.0, elapsed),
            )
        return Workload(
            WorkloadState.ENDED,
            ending=self.ending,
            reason=self.reason,
            message=self.message,
            scheduled_at=self.started_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            gpu_seconds=self.gpu_seconds,
        )


def how_it_ended(
    ended: Ended,
    *,
    asked: Asked | None,
    failure: Failure | None,
    log: Path,
    memory_ran_out: bool,
    cause: Cause = PAUSED,
) -> tuple[Ending, FailureReason | None, str]:
    """Ending, reason and a sentence.

    `asked`: on whose behalf it was told to stop, if it was; `cause`: for what. `failure`: the trainer's own words.
    `memory_ran_out`: the kernel ended some process for want of memory while this one ran.
    """
    status = ended.status
    if status == ExitStatus.DONE:
        return Ending.COMPLETED, None, ""
    if failure is not None:
        return Ending.FAILED, failure.reason, failure.message
    if status is None:
        return Ending.PREEMPTED, None, ended.message
    if asked and (status < 0 or status == ExitStatus.INTERRUPTED):
        killed = status == -signal.SIGKILL
        how = "stopped without a last checkpoint" if killed else "checkpointed and stopped"
        if asked is Asked.LEAVING:
            return Ending.PREEMPTED, None, f"{how}: the driver was told to leave"
        if cause.reason is not None:
            return Ending.FAILED, cause.reason, cause.message
        return Ending.INTERRUPTED, None, how
    if status == ExitStatus.INTERRUPTED:
        return Ending.PREEMPTED, None, "asked to stop by somebody else"
    if status < 0:
        name = signal.Signals(-status).name
        if status == -signal.SIGKILL and memory_ran_out:
            peak = f" (its peak was {ended.peak_bytes / 2**30:.1f} GiB)" if ended.peak_bytes else ""
            return Ending.FAILED, FailureReason.OUT_OF_MEMORY, f"the kernel ended it for want of memory{peak}"
        return Ending.FAILED, FailureReason.KILLED, f"ended by {name}, which this program did not send; log: {log}"
    reason = FailureReason.BAD_CONFIGURATION if status == ExitStatus.BAD_CONFIGURATION else FailureReason.CRASHED
    last = ended.message or last_line(log)
    return Ending.FAILED, reason, f"exit status {status}" + (f": {last}" if last else "") + f"; log: {log}"


def last_line(log: Path) -> str:
    """What the log says last, at most 300 characters: the newest line that names an error, or the last line."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = (line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line))
    return next(errors, lines[-1] if lines else "")[:300]
