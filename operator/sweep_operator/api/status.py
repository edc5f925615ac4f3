"""ScalingSweep.status: what the operator has seen, forecast and decided. Nothing in it is edited by a user."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.fit import Interval
from sweep_analysis.forecast import Forecast, NoForecast
from sweep_analysis.gate import Thresholds, Verdict
from sweep_analysis.rung import Run


class Condition(Document):
    """A Kubernetes condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=128)
    message: str = Field(default="", max_length=2048)
    observed_generation: int = 0
    last_transition_time: str = ""


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

    time: str
    outcome: Forecast | NoForecast
    thresholds: Thresholds


class Spent(Document):
    """What was used so far: failed attempts and diagnosis included."""

    flops: float = 0.0
    """6·N·D over all steps trained."""
    gpu_seconds: float = 0.0
    diagnosis_flops: float = 0.0
    diagnosis_gpu_seconds: float = 0.0


class RungStatus(Document):
    """One revision of one rung: re-running a rung makes a new revision, and both are kept."""

    name: str
    revision: int = 1
    state: RungState = RungState.PENDING
    runs: tuple[Run, ...] = ()
    """The runs as resolved: exact parameter counts, whole batches."""
    forecast: RungForecast | None = None
    experiments: tuple[Run, ...] = ()
    """Diagnosis runs that were asked for."""
    verdict: Verdict | None = None
    approved: str | None = None
    """Digest of the verdict that a person accepted; latched."""
    loss: float | None = None
    """Lowest accepted validation loss, nats per token."""
    spent: Spent = Spent()
    started_at: str | None = None
    finished_at: str | None = None


class Law(Document):
    """The law by which forecasts are made, after the newest promoted rung."""

    name: str
    parameters: dict[str, Interval]
    """Posterior constants, each with its interval."""
    records: int
    fit_status: str
    """Of a fit to the records alone, without prior: whether they pin the law down by themselves."""
    phase: str
    pattern: str


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
    """N of the compute-optimal split of the same compute."""
    optimal_tokens: Interval | None = None
    observed: float | None = None
    message: str = ""


class SweepStatus(Document):
    """Everything known of a sweep."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    frozen: dict[str, str] = Field(default_factory=dict)
    """Digests of the frozen parts of the spec, by field, from the first forecast on."""
    rungs: tuple[RungStatus, ...] = ()
    """In the order of the ladder, revisions of a rung one after another; the target last, under the name `target`."""
    law: Law | None = None
    target: TargetStatus = TargetStatus()
    spent: Spent = Spent()
    phase: str = "Pending"
    """Derived from the conditions for the printed column only."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition stands at True."""
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"
