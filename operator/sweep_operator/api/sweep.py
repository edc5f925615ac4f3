"""ScalingSweep: what a user applies. A ladder of rungs, the target they climb to, and the rules of the climb."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from sweep_analysis.document import Document, digest_of
from sweep_analysis.recipe import Training
from sweep_analysis.scale import Scale, format_scale
from sweep_operator.api.status import SweepStatus
from sweep_operator.api.workload import Placement, Runtime, Storage

API_VERSION = "scalingsweep.dev/v1alpha1"
TARGET = "target"
"""The name under which the target stands beside the rungs; no rung may take it."""

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(b <= a for a, b in pairwise(values)):
        raise ValueError("the values must increase")
    return values


MAX_SEED = 2**31 - 1
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...], Field(min_length=1, max_length=16)]

TokensPerParameter = Annotated[
    tuple[Annotated[float, Field(gt=0, le=100_000)], ...],
    Field(min_length=1, max_length=8),
    AfterValidator(_ascending),
]


class Metadata(Document):
    """The part of Kubernetes' object metadata that is used; the rest is carried along untouched."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """It becomes a label of every child, hence the limit."""
    namespace: str = Field(default="default", max_length=63, pattern=_DNS_LABEL)
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Target(Document):
    """The training run that the ladder climbs towards."""

    parameters: Scale
    """N, all trainable parameters."""
    tokens: Scale
    """D, training tokens."""
    max_loss: float | None = Field(default=None, gt=0)
    """Nats per token above which the target is not worth its cost."""
    inference_tokens: Scale | None = None
    """Tokens that the target will serve; they move the best split of its compute towards smaller models."""
    launch: Literal["Never", "Approval", "Automatic"] = "Never"
    """Whether the operator may start the target itself: never, after a person's approval, or by its own rule."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Of the target's run."""
    placement: Placement | None = None
    """Where the target is trained, where that differs from the sweep's placement."""


class RungRuns(Document):
    """Runs of one size: one for each seed, with a record at each token count."""

    parameters: Scale
    """N, all trainable parameters; the nearest shape that can be built is trained."""
    tokens_per_parameter: TokensPerParameter
    """D / N of each record, increasing."""
    seeds: Seeds = (0,)
    """A run for each."""
    learning_rate_factor: float = Field(default=1.0, gt=0, le=1000)
    """Multiplies the recipe's learning rate for these runs."""
    sequence_length: int | None = Field(default=None, ge=8, le=65_536)
    """Context in tokens; the recipe's when left out. Runs of another are trained with the rung and never judged."""


class RungSpec(Document):
    """One step of the ladder."""

    name: str = Field(max_length=12, pattern=_DNS_LABEL)
    """Lower-case letters, digits and '-'; part of the names of its runs."""
    runs: tuple[RungRuns, ...] = Field(min_length=1, max_length=64)
    """Trained together and judged together; at most 64 runs, every seed counted."""
    placement: Placement | None = None
    """Where this rung's runs are put, where that differs from the sweep's placement."""


class Generate(Document):
    """A ladder by rule: sizes evenly spaced in log N."""

    from_: Scale = Field(alias="from")
    """N of the first rung."""
    to: Scale
    """N of the last rung."""
    rungs: int = Field(ge=2, le=32)
    """How many."""
    tokens_per_parameter: TokensPerParameter
    """D / N of each record, increasing."""
    seeds: Seeds = (0,)
    """A run for each, on every rung."""

    @model_validator(mode="after")
    def _grows(self) -> "Generate":
        if self.to <= self.from_:
            raise ValueError(
                f"the ladder must grow: to ({format_scale(self.to)}) is not above from ({format_scale(self.from_)})"
            )
        return self


class Ladder(Document):
    """Exactly one of rungs and generate; at most 32 rungs of 64 runs each."""

    rungs: tuple[RungSpec, ...] = Field(default=(), max_length=32)
    """Each larger than the one before it."""
    generate: Generate | None = None
    """Resolved once, when the sweep is accepted."""

    @model_validator(mode="after")
    def _one_form(self) -> "Ladder":
        if bool(self.rungs) == (self.generate is not None):
            raise ValueError("name exactly one of rungs and generate")
        seen: set[str] = set()
        for rung in self.rungs:
            if rung.name in seen:
                raise ValueError(f"two rungs are named {rung.name!r}; every rung needs a name of its own")
            if rung.name == TARGET:
                raise ValueError("'target' is the name of the target itself; name the rung otherwise")
            seen.add(rung.name)
        sizes = [max(r.parameters for r in rung.runs) for rung in self.rungs]
        for before, after, rung in zip(sizes, sizes[1:], self.rungs[1:], strict=False):
            if after <= before:
                raise ValueError(
                    f"rung {rung.name!r} ({format_scale(after)}) is not larger than the one before it"
                    f" ({format_scale(before)}); sizes must increase"
                )
        return self


class Diagnose(Document):
    """What to try before a rung is called inconsistent."""

    learning_rate_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.25, 4.0), max_length=4)
    """Other learning rates for the run that is off, as multiples of its own."""
    replicates: int = Field(default=1, ge=0, le=4)
    """Further seeds of the run that is off."""


class Gate(Document):
    """When a rung counts as consistent with the law."""

    confidence: float = Field(default=0.95, ge=0.5, le=0.999)
    """Of the prediction interval."""
    tolerance: float = Field(default=0.01, ge=0, le=0.5)
    """A relative deviation smaller than this never holds a rung."""
    max_half_width: float = Field(default=0.05, gt=0, le=0.5)
    """A forecast wider than this is too ignorant to promote on."""
    warmup_rungs: int = Field(default=2, ge=0, le=8)
    """First rungs that nothing can forecast yet: promoted, but never called consistent."""
    promotion: Literal["Automatic", "Manual"] = "Automatic"
    """Manual: every rung waits for an approval."""
    diagnose: Diagnose = Diagnose()
    """What to try before a rung is called inconsistent; never more than 5 % of the budget."""


class Approval(Document):
    """A person's yes to one verdict; without the digest of that very verdict it has no effect."""

    rung: str = Field(max_length=12)
    """A rung's name, or `target` for the launch."""
    verdict: str = Field(default="", max_length=80)
    """`sha256:…` of the verdict that is accepted, as it stands in status.rungs."""


class Budget(Document):
    """What the sweep may spend in all, the target and every retry included."""

    gpu_hours: float | None = Field(default=None, gt=0)
    """Allocated devices times container time (a process slot on a machine without GPUs)."""
    flops: Scale | None = None
    """6·N·D over everything trained."""


class Retry(Document):
    """Failures of ours; preemptions are not counted."""

    limit: int = Field(default=3, ge=0, le=100)
    """Retries of one run."""
    max_failed_runs: int = Field(default=1, ge=0, le=64)
    """Runs of one rung that may stay failed before the sweep fails."""


class Limits(Document):
    """Bounds on what happens at once and on how long silence is borne."""

    parallelism: int | None = Field(default=None, ge=1, le=1024)
    """Runs at once; as many as there are cores on one machine when left out."""
    progress_seconds: int = Field(default=3600, ge=10)
    """A run that reports no step for so long is ended and retried."""
    pending_seconds: int = Field(default=86_400, ge=10)
    """A run whose pod is not scheduled for so long has failed."""
    ttl_seconds_after_finished: int = Field(default=86_400, ge=0)
    """A finished run's Job and its pods (their logs with them) are kept for so long."""


class RecordsSource(Document):
    """Records of earlier runs, as JSON lines or CSV, by the name's ending: whole records as trainers report them, or
    rows with parameters, tokens and loss. On a cluster they lie in a ConfigMap, on one machine in a file."""

    config_map: str | None = Field(default=None, min_length=1, max_length=253)
    """Name of a ConfigMap in the sweep's namespace."""
    key: str = Field(default="records.jsonl", min_length=1, max_length=253)
    """Of the ConfigMap."""
    file: str | None = Field(default=None, min_length=1, max_length=1024)
    """Path of a file, from the manifest's folder."""

    @model_validator(mode="after")
    def _one_place(self) -> "RecordsSource":
        if (self.config_map is None) == (self.file is None):
            raise ValueError("name exactly one of configMap and file")
        return self


class SweepSpec(Document):
    """The declared wish. Frozen from the first forecast on: law, gate, training, storage, records, and all that makes
    the target but its launch and its placement."""

    suspend: bool = False
    """True: running runs checkpoint and stop, nothing new starts."""
    abort: bool = False
    """True, for good: everything stops, results stay."""
    retry_token: str = Field(default="", max_length=64)
    """A changed value retries failed runs once."""
    target: Target
    """The training run that the ladder climbs towards."""
    ladder: Ladder
    """The rungs, listed or by rule."""
    law: Literal["Chinchilla"] = "Chinchilla"
    """The law that is fitted and forecast by; one that gates must identify its exponents from the ladder's design."""
    records: tuple[RecordsSource, ...] = Field(default=(), max_length=16, exclude_if=lambda sources: not sources)
    """Earlier runs that the law is fitted to from the first forecast on; read once, before it, and kept in the status.
    They sharpen forecasts and never promote a rung: the gate counts the ladder's own records."""
    gate: Gate = Gate()
    """When a rung counts as consistent with the law."""
    approvals: tuple[Approval, ...] = Field(default=(), max_length=64)
    """A person's yes to single verdicts; latched in the status."""
    budget: Budget = Budget()
    """What the sweep may spend in all."""
    retry: Retry = Retry()
    """How often what failed is tried again."""
    limits: Limits = Limits()
    """Bounds on what happens at once and on how long silence is borne."""
    training: Training
    """The recipe of every run."""
    placement: Placement = Placement()
    """Where runs are put; on one machine they are processes there."""
    runtime: Runtime = Runtime()
    """What runs in a run's pod; on one machine it is the trainer installed there."""
    storage: Storage | None = None
    """Where checkpoints are kept; without it they live in the pod and a lost pod starts its run over."""

    def placement_of(self, rung: str) -> Placement:
        """The placement of a rung (or of the target, by its name): its own fields over the sweep's."""
        own = next((r.placement for r in self.ladder.rungs if r.name == rung), None)
        own = self.target.placement if rung == TARGET else own
        if own is None:
            return self.placement
        return self.placement.changed(**{field: getattr(own, field) for field in own.model_fields_set})

    @property
    def frozen_part(self) -> dict[str, str]:
        """Digests, by field, of what no edit may change once a forecast has been written."""
        parts: dict[str, Any] = {
            "law": self.law,
            "gate": self.gate.to_json(),
            "training": self.training.to_json(),
            "target": self.target.changed(launch="Never", placement=None).to_json(),
            "ladder.generate": self.ladder.generate.to_json() if self.ladder.generate else None,
            "storage": self.storage.to_json() if self.storage else None,
        }
        if self.records:  # left out otherwise, as it was before there was such a field
            parts["records"] = [source.to_json() for source in self.records]
        return {field: digest_of(value) for field, value in parts.items()}


class ScalingSweep(Document):
    """A ladder of rungs, each a few training runs larger than the last, and the target they climb to."""

    api_version: Literal["scalingsweep.dev/v1alpha1"] = "scalingsweep.dev/v1alpha1"
    kind: Literal["ScalingSweep"] = "ScalingSweep"
    metadata: Metadata
    spec: SweepSpec
    """What is wished; the operator never writes it."""
    status: SweepStatus = SweepStatus()
    """What the operator has seen, forecast and decided."""
