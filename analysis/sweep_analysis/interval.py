"""Numbers with the interval they may lie in: a constant's, an estimate's, a forecast's.

Owns the vocabulary that fits, refits and forecasts share. Computes nothing.
"""

from sweep_analysis.document import Document
from sweep_analysis.present import number


class Interval(Document):
    """A number and where it may lie."""

    value: float
    """Best estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"

    __repr__ = __str__


class Estimate(Interval):
    """A number with its interval, and how sure the interval is meant to be."""

    confidence: float


class Outlook(Document):
    """What a fit's records say of a run not trained yet."""

    loss: Estimate
    """The law's response (nats per token for losses) with its interval."""
    jump: float
    """Compute of that run over the largest of the records; where a law has no compute, of its own axes together."""
    law: str
    evidence: str
    """Digest of the records, the same in any order."""

    def __str__(self) -> str:
        return f"{self.loss} at {self.loss.confidence:.0%}, {self.jump:.3g}x the records' compute ({self.law})"

    __repr__ = __str__
