"""The platform's own rules, which bind the people who write sweeps; part of the operator's configuration.

Owns the policy document and the question whether a sweep violates it. A violation is `Accepted=False`,
reason `PolicyViolation`. What a pod template may hold is `pod_template.py`'s.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document
from sweep_analysis.gate import Outcome
from sweep_analysis.rung import Rung
from sweep_operator import pod_template
from sweep_operator.api import TARGET, Placement, RungState, RungStatus, ScalingSweep, SweepSpec

Word = Annotated[str, Field(min_length=1, max_length=253)]


class Pool(Document):
    """A dearer part of the cluster, for rungs that come after enough passes. Named by exactly one of its first three
    fields."""

    node_selector: dict[str, Word] | None = Field(default=None, min_length=1, max_length=16)
    """Whoever asks for nodes with all of these labels names the pool."""
    priority_class_name: Word | None = None
    """Whoever asks for this priority names the pool."""
    gpus_per_run: int | None = Field(default=None, ge=1)
    """Whoever asks for so many GPUs a run, or more, names the pool."""
    requires: int = Field(ge=1, le=32)
    """Consecutive rungs, right before, that must have been judged and have passed."""

    @model_validator(mode="after")
    def _one_name(self) -> "Pool":
        if sum(v is not None for v in (self.node_selector, self.priority_class_name, self.gpus_per_run)) != 1:
            raise ValueError("name a pool by exactly one of nodeSelector, priorityClassName and gpusPerRun")
        return self

    def named_by(self, placement: Placement) -> str | None:
        """The words of a placement that name this pool, or None."""
        if self.node_selector is not None:
            if self.node_selector.items() <= placement.node_selector.items():
                return "nodeSelector " + ", ".join(f"{k}={v}" for k, v in sorted(self.node_selector.items()))
        elif self.priority_class_name is not None:
            if placement.priority_class_name == self.priority_class_name:
                return f"priorityClassName {self.priority_class_name}"
        elif self.gpus_per_run is not None and placement.gpus_per_node >= self.gpus_per_run:
            return f"gpusPerNode {placement.gpus_per_node}"
        return None


class Policy(Document):
    """What a platform team may bound. Of the gate and the ladder everything is allowed that is left out; of pods
    nothing is, beyond what is harmless."""

    max_tolerance: float | None = Field(default=None, ge=0)
    """Largest `gate.tolerance`."""
    max_half_width: float | None = Field(default=None, gt=0)
    """Largest `gate.maxHalfWidth`."""
    min_confidence: float | None = Field(default=None, ge=0.5, le=0.999)
    """Smallest `gate.confidence`."""
    min_rungs: int = Field(default=1, ge=1, le=32)
    """Fewest rungs of a ladder."""
    min_span: float = Field(default=1.0, ge=1)
    """Smallest ratio between the compute of the ladder's largest and smallest run."""
    launch: tuple[Literal["Never", "Approval", "Automatic"], ...] = ("Never", "Approval", "Automatic")
    """Which values of `target.launch` a sweep may name."""
    service_accounts: tuple[Word, ...] = Field(default=(), max_length=256)
    """Which accounts of their own sweeps may name in `runtime.serviceAccountName`."""
    pod_template: tuple[Word, ...] = Field(default=(), max_length=64)
    """What `runtime.podTemplate` may hold beyond the harmless: hostPath, hostNetwork, privileged, root, …"""
    pools: tuple[Pool, ...] = Field(default=(), max_length=32)
    """Dearer parts of the cluster, and how many passes each asks for."""

    def violation(self, sweep: ScalingSweep, rungs: tuple[Rung, ...]) -> str | None:
        """One sentence on the first rule that the sweep breaks, or None. `rungs`: the ladder as it will be trained."""
        return self._of_gate(sweep.spec) or self._of_ladder(sweep.spec, rungs) or self._of_pods(sweep, rungs)

    def _of_gate(self, spec: SweepSpec) -> str | None:
        gate = spec.gate
        if self.max_tolerance is not None and gate.tolerance > self.max_tolerance:
            return f"gate.tolerance is {gate.tolerance:g}; this platform allows at most {self.max_tolerance:g}"
        if self.max_half_width is not None and gate.max_half_width > self.max_half_width:
            return f"gate.maxHalfWidth is {gate.max_half_width:g}; this platform allows at most {self.max_half_width:g}"
        if self.min_confidence is not None and gate.confidence < self.min_confidence:
            return f"gate.confidence is {gate.confidence:g}; this platform asks for at least {self.min_confidence:g}"
        return None

    def _of_ladder(self, spec: SweepSpec, rungs: tuple[Rung, ...]) -> str | None:
        if len(rungs) < self.min_rungs:
            return f"the ladder has {len(rungs)} rungs; this platform asks for at least {self.min_rungs}"
        compute = [run.parameters * max(run.tokens) for rung in rungs for run in rung.judged]
        if max(compute) < self.min_span * min(compute):
            return (
                f"the ladder spans a factor of {max(compute) / min(compute):.3g} in compute;"
                f" this platform asks for at least {self.min_span:g}"
            )
        if spec.target.launch not in self.launch:
            return (
                f"target.launch is {spec.target.launch}; this platform allows {' or '.join(self.launch) or 'no value'}"
            )
        return None

    def _of_pods(self, sweep: ScalingSweep, rungs: tuple[Rung, ...]) -> str | None:
        runtime = sweep.spec.runtime
        account = runtime.service_account_name
        if account is not None and account not in self.service_accounts:
            allowed = f"allows {' or '.join(self.service_accounts)}" if self.service_accounts else "allows none"
            return f"runtime.serviceAccountName is {account}; this platform {allowed}; leave it out and one is made"
        said = pod_template.refused(runtime.pod_template, frozenset(self.pod_template))
        if said:
            return said
        names = [rung.name for rung in rungs] + ([TARGET] if sweep.spec.target.launch != "Never" else [])
        return next((said for i in range(len(names)) if (said := self._of_pools(sweep, names, i))), None)

    def _of_pools(self, sweep: ScalingSweep, names: list[str], i: int) -> str | None:
        """Whether a rung asks for a pool that too few passes come before.

        One that has started keeps what it was given and gets no pool besides: its next attempts go where the spec says.
        """
        newest = {rung.name: rung for rung in sweep.status.rungs}  # a later revision replaces an earlier one
        rung = newest.get(names[i])
        placement, given = sweep.spec.placement_of(names[i]), None
        if rung is not None and rung.started_at is not None:
            given = rung.placement
            if given is None or rung.state in (RungState.PROMOTED, RungState.SUPERSEDED):
                return None
            placement = placement.changed(gpus_per_node=given.gpus_per_node)  # its devices stay as they were planned
        for pool in self.pools:
            words = pool.named_by(placement) if given is None or not pool.named_by(given) else None
            why = _too_few(names[:i], newest, sweep.spec.gate.warmup_rungs, pool.requires)
            if words and why:
                return (
                    f"{names[i]!r} asks for {words}, which this platform gives after {pool.requires} consecutive"
                    f" passes, but {why}; give {names[i]!r} another placement"
                )
        return None


def _too_few(before: list[str], newest: Mapping[str, RungStatus], warmup_rungs: int, required: int) -> str | None:
    """Why the rungs before do not end with so many passes, where that is certain already; otherwise None."""
    if len(before) < required:
        return f"only {len(before)} rungs come before it"
    for i in range(len(before) - required, len(before)):
        if i < warmup_rungs:
            return f"rung {before[i]!r} is a warm-up rung, which is not judged"
        rung = newest.get(before[i])
        if rung and rung.state is RungState.PROMOTED and rung.verdict and rung.verdict.outcome is not Outcome.PASS:
            return f"rung {before[i]!r} was promoted on {rung.verdict.outcome}"
    return None
