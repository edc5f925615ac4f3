"""What the figures are drawn from: small values, told apart by their names rather than by the shape of an array.

Owns the vocabulary of the figures and the law's band along one token/parameter ratio. Draws nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep_analysis.flops import six_nd
from sweep_analysis.forecast import NoForecast, Point, forecast

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """One record: what came out of training `parameters` (N) on `tokens` (D)."""

    rung: str
    parameters: float
    tokens: float
    loss: float
    """Nats per token."""
    run: str = ""
    used: bool = True
    """Whether the law rests on it; drawn hollow where it does not."""

    @property
    def compute(self) -> float:
        """C = 6·N·D."""
        return six_nd(self.parameters, self.tokens)

    @property
    def ratio(self) -> float:
        """Tokens per parameter to two digits: rounding to whole batches moves the third."""
        return float(f"{self.tokens / self.parameters:.2g}")


@dataclass(frozen=True, slots=True)
class Foretold:
    """One planned record: its forecast, with the interval, and the losses that came (one for each seed)."""

    parameters: float
    tokens: float
    loss: float
    low: float
    high: float
    observed: tuple[float, ...] = ()

    @property
    def compute(self) -> float:
        """C = 6·N·D."""
        return six_nd(self.parameters, self.tokens)

    @property
    def deviations(self) -> tuple[float, ...]:
        """ln(observed / forecast), one for each seed."""
        return tuple(math.log(value / self.loss) for value in self.observed)


@dataclass(frozen=True, slots=True)
class RungOutcome:
    """One rung's forecast against what came, and the word that was said about it."""

    rung: str
    records: tuple[Foretold, ...]
    half_width: float | None
    """Of the interval by which the rung is judged, relative; None where there was no forecast."""
    word: str
    """The verdict's outcome, or why there is none; drawn at the row's end."""

    @property
    def deviation(self) -> float | None:
        """Mean of ln(observed / forecast) over the rung's records, the statistic that is judged."""
        values = [value for record in self.records for value in record.deviations]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True)
class Misfit:
    """One record against the law that was fitted to it."""

    measured: Measured
    fitted: float
    """The law's loss at the record's (N, D), nats per token."""


@dataclass(frozen=True, slots=True)
class Band:
    """The law along one token/parameter ratio, with its interval; arrays of one length, C ascending."""

    ratio: float
    confidence: float
    compute: Floats
    loss: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """One run's training loss over its tokens, in pieces: the trunk, and a branch for each token count."""

    rung: str
    run: str
    pieces: tuple[tuple[Floats, Floats], ...]
    """(tokens, loss), tokens ascending within a piece."""
    measured: tuple[tuple[float, float], ...] = ()
    """(D, validation loss) of the run's records."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt at one run; times in seconds from the sweep's start."""

    rung: str
    run: str
    start: float
    end: float
    outcome: str
    """Succeeded, Running, Preempted, Interrupted, or a failure's reason."""
    diagnosis: bool = False
    """Whether it only explains a rung; drawn paler."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a rung's life: its forecast was written, or its verdict was given."""

    rung: str
    at: float
    kind: str
    """Forecast or Verdict."""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one part of the sweep used, and what is still expected of it; GPU-hours or FLOPs."""

    name: str
    spent: float
    expected: tuple[float, float, float] | None = None
    """Value, low and high of what is still to come."""


def band_along(
    history: Sequence[Sequence[Point]],
    ratio: float,
    compute: tuple[float, float],
    *,
    confidence: float = 0.95,
    law: str = "Chinchilla",
    points: int = 60,
) -> Band | None:
    """The forecast of runs with D = ratio·N over a range of compute (6·N·D), or None where nothing can be forecast.

    `history`: the records of each rung, as `forecast` takes them. The interval is the forecast's own, for one run.
    """
    C = np.geomspace(compute[0], compute[1], points)
    N = np.sqrt(C / (6.0 * ratio))
    answer = forecast(history, [(float(n), float(ratio * n)) for n in N], confidence=confidence, law=law)
    if isinstance(answer, NoForecast):
        return None
    return Band(
        ratio=ratio,
        confidence=confidence,
        compute=C,
        loss=np.array([p.loss for p in answer.predictions]),
        low=np.array([p.low for p in answer.predictions]),
        high=np.array([p.high for p in answer.predictions]),
    )
