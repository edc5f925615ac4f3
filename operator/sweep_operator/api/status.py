"""ScalingSweep.status: what the operator has seen, forecast and decided. Nothing in it is edited by a user."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sweep_analysis.document import Document
from sweep_analysis.fit import Interval
from sweep_analysis.forecast import Forecast, NoForecast
from sweep_analysis.gate import Thresholds, Verdict
from sweep_analysis.rung import Run, judged
from sweep_operator.api.workload import Placement

Time = Annotated[str, Field(max_length=40)]
"""RFC 3339, UTC."""
Digest = Annotated[str, Field(max_length=80)]
"""`sha256:…`"""


class Condition(Document):
    """A Kubernetes condition: one fact about the object, whether it holds, why, and since when."""

    type: str = Field(max_length=64)
    """What is said, such as Succeeded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = Field(max_length=128)
    """Why, in one documented word."""
    message: str = Field(default="", max_length=2048)
    """Why, in a sentence with its numbers, and what would be right."""
    observed_generation: int = 0
    """The generation of the spec that this was said of."""
    last_transition_time: Time = ""
    """When `status` last changed."""


class RungState(StrEnum):
    """Where a rung stands; the state diagram is above `ladder.decide`."""

    PENDING = "Pending"
    FORECAST = "Forecast"
    RUNNING = "Running"
    DIAGNOSING = "Diagnosing"
    HELD = "Held"
    PROMOTED = "Promoted"
    STOPPED = "Stopped"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"


class RungForecast(Document):
    """What was expected of a rung and by which thresholds it is judged; written before its runs, never rewritten."""

    time: Time
    """When it was written."""
    outcome: Forecast | NoForecast
    """The forecast, or why nothing could be forecast."""
    thresholds: Thresholds
    """By which the rung is judged, whatever the spec says later."""


class Spent(Document):
    """What was used so far: failed attempts and diagnosis included."""

    flops: float = 0.0
    """6·N·D over all steps trained."""
    gpu_seconds: float = 0.0
    """Allocated devices times the time they were held."""
    diagnosis_flops: float = 0.0
    """Of the FLOPs, those of diagnosis runs."""
    diagnosis_gpu_seconds: float = 0.0
    """Of the GPU-seconds, those of diagnosis runs."""


class RungProgress(Document):
    """How far a rung is, its diagnosis runs included; written at most every ten seconds."""

    total: int
    """Runs of the rung."""
    done: int = 0
    """Runs that succeeded."""
    running: int = 0
    """Runs with an open attempt."""
    failed: int = 0
    """Runs that failed for good."""
    share: float = 0.0
    """Of the rung's FLOPs that was trained, in steps of 0.05; 1 once every run has ended."""
    eta_seconds: float | None = None
    """Until its last run ends, as the trainers expect; None while that cannot be told."""
    last_updated: Time = ""
    """When this was written."""


_Count = Annotated[int, Field(gt=0, le=2**53)]
_MOST_RECORDS = 1024
"""64 runs of 16 token counts."""


class Observed(Document):
    """The records that a rung was judged on, by columns; they outlive the runs that they came from."""

    uids: tuple[Annotated[str, Field(max_length=64)], ...] = Field(max_length=64)
    """Of the runs."""
    runs: tuple[Annotated[int, Field(ge=0, lt=64)], ...] = Field(max_length=_MOST_RECORDS)
    """Which of them each record is of, counted from 0."""
    parameters: tuple[_Count, ...] = Field(max_length=_MOST_RECORDS)
    """N."""
    tokens: tuple[_Count, ...] = Field(max_length=_MOST_RECORDS)
    """D."""
    loss: tuple[Annotated[float, Field(gt=0)], ...] = Field(max_length=_MOST_RECORDS)
    """Nats per token."""
    unique_tokens: tuple[_Count, ...] = Field(max_length=_MOST_RECORDS)
    """Distinct training tokens among D."""
    validation_digest: Digest = ""
    """Of the validation set."""
    tokenizer_digest: Digest = ""
    """Of the tokenizer."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        columns = (self.runs, self.parameters, self.tokens, self.loss, self.unique_tokens)
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns differ in length")
        if any(run >= len(self.uids) for run in self.runs):
            raise ValueError("a record is of a run that is not named")
        return self


class RungStatus(Document):
    """One revision of one rung: re-running a rung makes a new revision, and both are kept."""

    name: str = Field(max_length=12)
    """As in the ladder, or `target`."""
    revision: int = Field(default=1, ge=1)
    """1, and one more each time the rung was retuned and run again."""
    state: RungState = RungState.PENDING
    """Where the rung stands."""
    runs: tuple[Run, ...] = Field(default=(), max_length=64)
    """The runs as resolved: exact parameter counts, whole batches."""
    forecast: RungForecast | None = None
    """Written before the rung's first run exists, and never changed."""
    placement: Placement | None = None
    """Where its runs are put: as the spec had it when the forecast was written."""
    experiments: tuple[Run, ...] = Field(default=(), max_length=64)
    """Diagnosis runs that were asked for."""
    verdict: Verdict | None = None
    """What the gate said of the rung, with every check's outcome and numbers."""
    approved: Digest | None = None
    """Digest of the verdict that a person accepted; latched."""
    progress: RungProgress | None = None
    """From the first run on."""
    loss: float | None = None
    """Lowest accepted validation loss, nats per token."""
    observed: Observed | None = None
    """The records that it was judged on; evidence for later forecasts although its runs be deleted."""
    spent: Spent = Spent()
    """On this revision of the rung."""
    started_at: Time | None = None
    """When its first runs were asked for."""
    finished_at: Time | None = None
    """When it was judged for the last time."""

    @property
    def judged(self) -> tuple[Run, ...]:
        """The runs that are forecast and judged: those of the target's context length."""
        return judged(self.runs)


class Law(Document):
    """The law by which forecasts are made, after the newest promoted rung."""

    name: str = Field(max_length=40)
    """As in spec.law."""
    parameters: dict[str, Interval] = Field(max_length=16)
    """Posterior constants, each with its interval."""
    records: int
    """How many records it rests on."""
    fit_status: str = Field(max_length=40)
    """Of a fit to the records alone, without prior: whether they pin the law down by themselves."""
    phase: str = Field(max_length=40)
    """ColdStart, Scaling or Plateau."""
    pattern: str = Field(max_length=40)
    """How the ladder scales: Ordinal, Emergent, OutOfData, OutOfCompute or Slow."""


class TargetStatus(Document):
    """What the target is expected to reach and to cost, by all that is known so far."""

    prediction: Interval | None = None
    """Loss, nats per token."""
    jump: float | None = None
    """The target's compute over the largest compute measured."""
    flops: float = 0.0
    """6·N·D of the target."""
    gpu_hours: Interval | None = None
    """Still to come for the target."""
    optimal_parameters: Interval | None = None
    """N of the best split: compute-optimal, or with inferenceTokens the one that reaches the same loss for the fewest
    FLOPs of training and serving."""
    optimal_tokens: Interval | None = None
    """D of that split."""
    observed: float | None = None
    """The target's loss, once it was trained; nats per token."""
    message: str = Field(default="", max_length=2048)
    """Why the target is not forecast, or not launched."""


MAX_IMPORTED = 4096


class Imports(Document):
    """Records of earlier runs as they were read, once, before the first forecast; by columns, an entry for each."""

    digest: Digest
    """Of all that follows."""
    parameters: tuple[_Count, ...] = Field(min_length=1, max_length=MAX_IMPORTED)
    """N."""
    tokens: tuple[_Count, ...] = Field(min_length=1, max_length=MAX_IMPORTED)
    """D."""
    loss: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, max_length=MAX_IMPORTED)
    """Nats per token."""
    runs: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, max_length=MAX_IMPORTED)
    """Which training run, counted from 0: records of one share their noise."""
    unique_tokens: tuple[_Count, ...] = Field(default=(), max_length=MAX_IMPORTED)
    """Distinct training tokens among D; none where nobody stated them."""
    validation_digest: Digest = ""
    """Of the validation set, as whole records state it."""
    tokenizer_digest: Digest = ""
    """Of the tokenizer, as whole records state it."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        lengths = {len(column) for column in (self.parameters, self.tokens, self.loss, self.runs)}
        if len(lengths) > 1 or (self.unique_tokens and len(self.unique_tokens) not in lengths):
            raise ValueError("the columns differ in length")
        return self

    @property
    def records(self) -> int:
        """How many."""
        return len(self.loss)


class Printed(Document):
    """What `kubectl get` prints: short texts, derived from the rest and read by nothing."""

    rung: str = Field(default="", max_length=40)
    """The rung that is being climbed."""
    runs: str = Field(default="", max_length=40)
    """Of that rung's runs: done / all."""
    loss: str = Field(default="", max_length=40)
    """Lowest loss of that rung, nats per token."""
    forecast: str = Field(default="", max_length=80)
    """What the lowest loss of that rung was forecast to be, with its interval."""
    verdict: str = Field(default="", max_length=80)
    """Of that rung."""
    target: str = Field(default="", max_length=80)
    """The target's loss: as forecast, with its interval, or as observed."""
    gpu_hours: str = Field(default="", max_length=40)
    """Spent so far."""


class SweepStatus(Document):
    """Everything known of a sweep."""

    observed_generation: int = 0
    """The generation of the spec that this status follows from."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Accepted, Progressing, Suspended, AwaitingApproval, Consistent, Finished and Succeeded."""
    frozen: dict[str, Digest] = Field(default_factory=dict, max_length=16)
    """Digests of the frozen parts of the spec, by field, from the first forecast on."""
    imports: Imports | None = None
    """Records of earlier runs (spec.records), written with the first forecast."""
    rungs: tuple[RungStatus, ...] = Field(default=(), max_length=128)
    """In the order of the ladder, revisions of a rung one after another; the target last, under the name `target`."""
    law: Law | None = None
    """The law that forecasts are made by."""
    target: TargetStatus = TargetStatus()
    """What the target will reach and cost."""
    spent: Spent = Spent()
    """By the whole sweep."""
    printed: Printed | None = None
    """For `kubectl get`."""
    phase: str = Field(default="Pending", max_length=40)
    """Derived from the conditions for the printed column only."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition stands at True."""
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"
