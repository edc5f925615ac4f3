"""The platform's own rules, which bind the people who write sweeps; part of the operator's configuration.

Owns the policy document and the question whether a spec violates it. A violation is `Accepted=False`,
reason `PolicyViolation`.
"""

from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.rung import Rung
from sweep_operator.api import SweepSpec


class Policy(Document):
    """What a platform team may bound; everything is allowed that is left out."""

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

    def violation(self, spec: SweepSpec, rungs: tuple[Rung, ...]) -> str | None:
        """One sentence on the first rule that the sweep breaks, or None."""
        gate = spec.gate
        if self.max_tolerance is not None and gate.tolerance > self.max_tolerance:
            return f"gate.tolerance is {gate.tolerance:g}; this platform allows at most {self.max_tolerance:g}"
        if self.max_half_width is not None and gate.max_half_width > self.max_half_width:
            return f"gate.maxHalfWidth is {gate.max_half_width:g}; this platform allows at most {self.max_half_width:g}"
        if self.min_confidence is not None and gate.confidence < self.min_confidence:
            return f"gate.confidence is {gate.confidence:g}; this platform asks for at least {self.min_confidence:g}"
        if len(rungs) < self.min_rungs:
            return f"the ladder has {len(rungs)} rungs; this platform asks for at least {self.min_rungs}"
        compute = [run.parameters * max(run.tokens) for rung in rungs for run in rung.runs]
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
