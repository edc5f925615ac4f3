"""ScalingRun: one training run, created by the operator, with one record for each token count."""

from collections import Counter
from enum import StrEnum
from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.record import Failure, Progress, Record, RecordSet
from sweep_analysis.rung import Run
from sweep_operator.api.status import Condition, Digest, Time
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

    sweep: str = Field(max_length=63)
    """Name of the sweep that the run belongs to."""
    sweep_uid: str = Field(max_length=64)
    """And its UID: another sweep of the same name is another sweep."""
    rung: str = Field(max_length=12)
    """The rung, or `target`."""
    revision: int = Field(ge=1)
    """Of the rung."""
    run: Run
    """What is trained; its digest is part of the run's name."""
    config_digest: Digest
    """Of the resolved hyperparameters and the recipe's data; the run can be repeated from it and the sweep's recipe."""
    placement: Placement = Placement()
    """As it was when the run was created."""


class Attempt(Document):
    """One try at a run, and what it used."""

    attempt: int = Field(ge=1)
    """1 and upwards; fences what an earlier attempt still reports."""
    started_at: Time
    """When it was opened."""
    scheduled_at: Time | None = None
    """When it was given its place: its pod was scheduled, or its process started where there are no pods."""
    ended_at: Time | None = None
    """When it was known to have ended: nothing of it runs any more."""
    outcome: str = Field(default="", max_length=64)
    """Succeeded, Preempted, Interrupted or a failure's reason."""
    gpu_seconds: float = 0.0
    """Allocated devices times the time they were held."""


class WorkloadReference(Document):
    """The object that carries out the newest attempt."""

    kind: str = Field(max_length=63)
    """Such as Job."""
    name: str = Field(max_length=253)
    """In the run's own namespace."""
    uid: str = Field(max_length=64)
    """Another object of the same name is not it."""


class RunStatus(Document):
    """`progress` and `records` are the trainer's, everything else the operator's."""

    progress: Progress | None = None
    """Where the run stands, as the trainer last said."""
    records: tuple[RecordSet, ...] = Field(default=(), max_length=256)
    """As reported, one set for each attempt."""
    state: RunState = RunState.QUEUED
    """Where the run stands, as the operator sees it."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Queued, Running, Succeeded, and Preempted once it ever was: derived from the state, never read by a decision."""
    attempt: int = 0
    """The newest attempt; 0 before the first."""
    workload: WorkloadReference | None = None
    """Of the newest attempt, once it was seen: it is never made a second time."""
    attempts: tuple[Attempt, ...] = Field(default=(), max_length=32)
    """The newest twenty; of older ones there is `earlierGpuSeconds` and `earlierOutcomes`."""
    earlier_gpu_seconds: float = 0.0
    """Of attempts that are no longer listed."""
    earlier_outcomes: dict[str, int] = Field(default_factory=dict, max_length=32)
    """Of attempts that are no longer listed: how many ended so."""
    accepted: tuple[Record, ...] = Field(default=(), max_length=16)
    """Keyed by tokens: each valid record copied once; no later attempt undoes it."""
    failures: tuple[Failure, ...] = Field(default=(), max_length=16)
    """Those that count, the newest ten."""
    counted_failures: int = 0
    """Failures of ours so far; preemptions are not among them."""
    refused_records: int = 0
    """Reported, and not a valid record of this run."""
    refusal: str = Field(default="", max_length=1024)
    """Why the newest of them was not taken."""
    retry_token: str = Field(default="", max_length=64)
    """The sweep's retryToken that this run has answered."""
    not_before: Time | None = None
    """No new attempt before this time (back-off)."""
    flops: float = 0.0
    """6·N·D over all steps trained."""

    @property
    def finished(self) -> bool:
        return self.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.ABORTED)

    @property
    def gpu_seconds(self) -> float:
        """Over all attempts."""
        return self.earlier_gpu_seconds + sum(a.gpu_seconds for a in self.attempts)

    @property
    def outcomes(self) -> Counter[str]:
        """How many of all attempts ended in each way; no number ever falls."""
        return Counter(self.earlier_outcomes) + Counter(a.outcome for a in self.attempts if a.ended_at)


class ScalingRun(Document):
    """One training run of a sweep."""

    api_version: Literal["scalingsweep.dev/v1alpha1"] = "scalingsweep.dev/v1alpha1"
    kind: Literal["ScalingRun"] = "ScalingRun"
    metadata: Metadata
    spec: RunSpec
    """What to train, for whom; never changed."""
    status: RunStatus = RunStatus()
    """What became of it."""
