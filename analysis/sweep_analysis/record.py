"""A record says what came out: the loss of one model at one token count, with all that makes it comparable.

Owns the wire forms between trainer and operator: the record (version 1), the progress of a run, and the failure that
ended an attempt. Judges nothing.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.measure import DomainLoss, TaskResult
from sweep_analysis.rung import Purpose


class RunReference(Document):
    """The run, attempt and configuration that a record belongs to."""

    uid: str = Field(min_length=1, max_length=64)
    """Of the ScalingRun."""
    attempt: int = Field(ge=1)
    """Of the run; an earlier one's record is refused."""
    config_digest: str = Field(max_length=80)
    """As in the run's spec."""


class ParameterCounts(Document):
    """N by three conventions; the first is the one that laws are fitted on unless a sweep says otherwise."""

    total: int = Field(gt=0)
    """All trainable parameters."""
    non_embedding: int = Field(gt=0)
    """Without the embedding and the output projection."""
    active: int = Field(gt=0)
    """Parameters that one token passes through; equals total for a dense model."""
    untrained: int = Field(default=0, ge=0, exclude_if=lambda count: not count)
    """Numbers that stand among the weights and that the loss does not reach, such as an indexer's: in no other count,
    nor in N."""


class FlopCounts(Document):
    """C, training FLOPs from the first step to this record, by both conventions."""

    six_nd: float = Field(gt=0, alias="sixND")
    """6·N·D, N counting all parameters."""
    detailed: float = Field(gt=0)
    """Of the matrix products, attention included."""


class Curve(Document):
    """Where the learning curve lies, and its digest."""

    uri: str = Field(max_length=1024)
    """Where it lies."""
    digest: str = Field(max_length=80)
    """Of its content."""


class Record(Document):
    """One measured point of the law: L(N, D)."""

    api_version: Literal["scalingsweep.dev/record-v1"] = "scalingsweep.dev/record-v1"
    """The version of this form."""
    run: RunReference
    purpose: Purpose
    parameters: ParameterCounts
    tokens: int = Field(gt=0)
    """D, training tokens seen, repeated ones included."""
    unique_tokens: int = Field(gt=0)
    """Distinct training tokens among them."""
    epochs: float = Field(gt=0)
    """D divided by the tokens the training set holds, at least."""
    flops: FlopCounts
    seed: int = Field(ge=0)
    """As in the run."""
    loss: float = Field(gt=0)
    """Validation cross-entropy, nats per token."""
    validation_digest: str = Field(max_length=80)
    """Of the validation set; losses on others are not compared."""
    tokenizer_digest: str = Field(max_length=80)
    """Of the tokenizer; nats per token of others are not compared."""
    gpu_seconds: float = Field(ge=0)
    """Device time of this attempt up to this record (a process slot on a machine without GPUs)."""
    curve: Curve | None = None
    evaluations: tuple[TaskResult, ...] = Field(default=(), max_length=64, exclude_if=lambda results: not results)
    """Downstream tasks, measured on the same weights."""
    domains: tuple[DomainLoss, ...] = Field(default=(), max_length=64, exclude_if=lambda losses: not losses)
    """Loss and reading of each source, where a mixture has several."""
    context_length: int | None = Field(default=None, gt=0)
    """Tokens of a sequence."""
    attention: str | None = Field(default=None, max_length=128)
    """The attention kernel and its version."""
    start_digest: str | None = Field(default=None, max_length=80)
    """Of the weights that training began from, as they were read; none where they were random."""
    steps_saved: float | None = Field(default=None, ge=0, lt=1)
    """Share of the optimizer steps of separate runs, one a token count, that the run's common trunk saves; none where
    it has one count."""
    trainer_version: str = Field(max_length=64)
    """Name and version of the trainer."""
    finished_at: str = Field(max_length=40)
    """RFC 3339, UTC."""


class Progress(Document):
    """Where a run stands; written every few seconds, the last one wins."""

    attempt: int = Field(ge=1)
    """That reports."""
    step: int = Field(ge=0)
    """Optimizer steps done."""
    steps: int = Field(ge=1)
    """Steps of the whole run, decay branches included."""
    tokens: int = Field(ge=0)
    """Training tokens seen."""
    loss: float | None = None
    """Training loss, nats per token, averaged over the last steps."""
    gradient_norm: float | None = Field(default=None, ge=0)
    """Of the last step, before clipping."""
    learning_rate: float | None = Field(default=None, ge=0)
    """Of the last step."""
    tokens_per_second: float = Field(default=0.0, ge=0)
    """Training speed, over the last steps."""
    mfu: float | None = Field(default=None, ge=0)
    """Model FLOPs utilisation: 6·N·tokens/s over the devices' peak; None where no peak is known, as on a CPU."""
    memory_bytes: int | None = Field(default=None, ge=0)
    """The most that the reporting process has held: of its GPU, or resident on a CPU."""
    data_wait: float | None = Field(default=None, ge=0, le=1)
    """Share of this attempt's training time that was spent waiting for batches."""
    rewinds: int | None = Field(default=None, ge=1)
    """How often the run went back to a checkpoint and left batches out, after a spike of the loss."""
    eta_seconds: float | None = Field(default=None, ge=0)
    """Until the run ends, as the trainer expects."""
    phase: Literal["Starting", "Training", "Evaluating", "Checkpointing", "Done"] = "Training"
    """What the trainer is doing."""
    training_seconds: float = Field(default=0.0, ge=0)
    """Time spent inside training steps, all attempts together."""
    last_updated: str = Field(max_length=40)
    """When this was written; RFC 3339, UTC."""


class FailureReason(StrEnum):
    """Why an attempt ended without its records. Each is shown unchanged wherever the failure is."""

    DIVERGED = "Diverged"
    """The loss became infinite, NaN, or far above its start."""
    BAD_CONFIGURATION = "BadConfiguration"
    """The run cannot start as it is described; a retry would fail the same way."""
    DATA_UNAVAILABLE = "DataUnavailable"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNWRITABLE = "StorageUnwritable"
    CHECKPOINT_UNREADABLE = "CheckpointUnreadable"
    """The newest checkpoint is missing, damaged or of another configuration; the run starts over."""
    OUT_OF_MEMORY = "OutOfMemory"
    NO_PROGRESS = "NoProgress"
    """No step was reported for longer than the sweep's limit."""
    RECORD_REFUSED = "RecordRefused"
    """What the trainer reported is not a valid record of this run."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """The image's name is wrong, or no registry gives it to the node."""
    UNSCHEDULABLE = "Unschedulable"
    """No node took the pod for longer than limits.pendingSeconds; the message is the scheduler's own sentence."""
    KILLED = "Killed"
    """A signal ended the process; nobody of ours sent it."""
    CRASHED = "Crashed"
    """The trainer ended with an error of its own."""


class Failure(Document):
    """The end of an attempt, in words."""

    attempt: int = Field(ge=1)
    """That ended."""
    reason: FailureReason
    message: str = Field(max_length=1024)
    """One sentence, with what to do."""
    node: str = Field(default="", max_length=253)
    """Where the attempt ran."""
    at: str = Field(default="", max_length=40)
    """When it ended; RFC 3339, UTC."""


class Refused(Document):
    """Documents of an own trainer that were not taken, and why the newest was not."""

    documents: int = Field(ge=1)
    """How many, so far."""
    reason: str = Field(max_length=1024)
    """Why the newest of them."""


class RecordSet(Document):
    """All records of one attempt; always the complete set, so that a later write never drops an earlier record."""

    attempt: int = Field(ge=1)
    """That measured them."""
    records: tuple[Record, ...] = Field(max_length=16)
    """One for each token count reached."""
    failure: Failure | None = None
    """Why the attempt ended without its records; on one machine this is a file of its own."""
    refused: Refused | None = None
    """What the reporter beside an own trainer could not take."""


class ExitStatus:
    """How a trainer process ends."""

    DONE = 0
    CRASHED = 1
    BAD_CONFIGURATION = 2
    FAILED = 3
    """A `failure` was written and says why."""
    INTERRUPTED = 75
    """Checkpointed on request; the same order continues it."""
