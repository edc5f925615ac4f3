"""ScalingRun: one training run, created by the operator, with one record for each token count."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.record import Failure, Progress, Record, RecordSet
from sweep_analysis.rung import Run
from sweep_operator.api.status import Condition
from sweep_operator.api.sweep import Metadata
from sweep_operator.api.workload import Placement


class RunState(StrEnum):
    """Where a run stands; the state diagram is above `run.decide`."""

    QUEUED = "Queued"
    RUNNING = "Running"
    WAITING = "Waiting"
    """Between two attempts, or while the sweep is suspended."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ABORTED = "Aborted"


class RunSpec(Document):
    """Immutable: what to train, for whom."""

    sweep: str
    sweep_uid: str
    rung: str
    revision: int = Field(ge=1)
    run: Run
    config_digest: str
    """Of the resolved hyperparameters and the recipe's data; the run can be repeated from it and the sweep's recipe."""
    placement: Placement = Placement()
    """As it was when the run was created."""


class Attempt(Document):
    """One try at a run, and what it used."""

    attempt: int = Field(ge=1)
    started_at: str
    ended_at: str | None = None
    outcome: str = ""
    """Succeeded, Preempted, Interrupted or a failure's reason."""
    gpu_seconds: float = 0.0


class WorkloadReference(Document):
    """The object that carries out the newest attempt."""

    kind: str = Field(max_length=63)
    name: str = Field(max_length=253)
    uid: str = Field(max_length=64)


class RunStatus(Document):
    """`progress` and `records` are the trainer's, everything else the operator's."""

    progress: Progress | None = None
    records: tuple[RecordSet, ...] = ()
    """As reported, one set for each attempt."""
    state: RunState = RunState.QUEUED
    conditions: tuple[Condition, ...] = ()
    """Queued, Running, Succeeded, and Preempted once it ever was: derived from the state, never read by a decision."""
    attempt: int = 0
    workload: WorkloadReference | None = None
    """Of the newest attempt, once it was seen: it is never made a second time."""
    attempts: tuple[Attempt, ...] = ()
    """The newest twenty; what older ones used is in `earlierGpuSeconds`."""
    earlier_gpu_seconds: float = 0.0
    accepted: tuple[Record, ...] = ()
    """Keyed by tokens: each valid record copied once; no later attempt undoes it."""
    failures: tuple[Failure, ...] = ()
    """Those that count, the newest ten."""
    counted_failures: int = 0
    refused_records: int = 0
    """Reported, and not a valid record of this run."""
    refusal: str = Field(default="", max_length=1024)
    """Why the newest of them was not taken."""
    retry_token: str = ""
    """The sweep's retryToken that this run has answered."""
    not_before: str | None = None
    """No new attempt before this time (back-off)."""
    flops: float = 0.0

    @property
    def finished(self) -> bool:
        return self.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.ABORTED)

    @property
    def gpu_seconds(self) -> float:
        """Over all attempts."""
        return self.earlier_gpu_seconds + sum(a.gpu_seconds for a in self.attempts)


class ScalingRun(Document):
    """One training run of a sweep."""

    api_version: Literal["scalingsweep.dev/v1alpha1"] = "scalingsweep.dev/v1alpha1"
    kind: Literal["ScalingRun"] = "ScalingRun"
    metadata: Metadata
    spec: RunSpec
    status: RunStatus = RunStatus()
