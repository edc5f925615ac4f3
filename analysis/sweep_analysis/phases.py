"""In which phase of its law a ladder stands (cold start, scaling, plateau) and which pattern it follows.

Owns the reading of a whole ladder's records, with the numbers behind it. Judges no rung: the gate does.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from sweep_analysis import predictive, surface
from sweep_analysis.document import Document
from sweep_analysis.forecast import Point, evidence_of


class Phase(StrEnum):
    """Where on its curve the ladder stands."""

    COLD_START = "ColdStart"
    """The loss hardly falls yet, and falls faster with every rung."""
    SCALING = "Scaling"
    """Every rung gains about what the law says."""
    PLATEAU = "Plateau"
    """More compute brings no gain beyond noise."""


class Pattern(StrEnum):
    """What kind of story the ladder tells."""

    ORDINAL = "Ordinal"
    """Better with every rung, at a pace the law describes."""
    EMERGENT = "Emergent"
    """A rung far better than all before it announced."""
    OUT_OF_DATA = "OutOfData"
    """Training data is repeated past its use."""
    OUT_OF_COMPUTE = "OutOfCompute"
    """What is left of the budget does not carry the next rung."""
    SLOW = "Slow"
    """It scales, too slowly to be worth climbing."""


class Reading(Document):
    """Phase and pattern, and the numbers they rest on."""

    phase: Phase
    pattern: Pattern
    exponent: float
    """−d ln L / d ln C along the law's best split, at the newest compute."""
    exponent_low: float
    exponent_high: float
    """Its 95 % interval."""
    gain: float
    """ln of the lowest earlier loss over the newest rung's lowest; nan-free: 0 for a first rung."""
    noise: float
    """sd of one run's ln loss, from replicates where there are any."""
    epochs: float
    """Most passes over the data that any record of the newest rung made; 1 where unknown."""


NOISE = 0.001
"""sd of ln loss between seeds where no replicates tell: .0005–.0007 nats at loss 3 in published runs, doubled."""


def noise_of(history: Sequence[Sequence[Point]]) -> float:
    """sd of one run's ln loss, pooled over replicates (same N and D), with the default worth two degrees of freedom."""
    groups: dict[tuple[float, float], list[float]] = {}
    for point in (point for rung in history for point in rung):
        groups.setdefault((point.parameters, point.tokens), []).append(math.log(point.loss))
    squares, freedom = 2 * NOISE**2, 2
    for losses in groups.values():
        if len(losses) > 1:
            squares += float(np.sum((np.array(losses) - np.mean(losses)) ** 2))
            freedom += len(losses) - 1
    return math.sqrt(squares / freedom)


def read(
    history: Sequence[Sequence[Point]],
    *,
    max_epochs: float = 16.0,
    slowest_exponent: float = 0.01,
    affordable: bool = True,
) -> Reading:
    """Read a ladder; its newest rung is the last. Raises ValueError when there is no record at all."""
    rungs = [rung for rung in history if rung]
    if not rungs:
        raise ValueError("a ladder without records has no phase")
    noise = noise_of(rungs)
    frontier = np.array([min(math.log(p.loss) for p in rung) for rung in rungs])
    compute = np.array([max(math.log(p.parameters * p.tokens) for p in rung) for rung in rungs])
    gain = float(np.min(frontier[:-1]) - frontier[-1]) if len(rungs) > 1 else 0.0
    past = predictive.History(evidence_of(rungs), only_whole=True)
    exponent, error = exponent_of(past, float(compute.max()))
    epochs = max((p.tokens / p.unique_tokens for p in rungs[-1] if p.unique_tokens), default=1.0)
    phase = Phase.SCALING
    slopes = -np.diff(frontier) / np.maximum(np.diff(compute), 0.1) if len(rungs) > 1 else np.array([])
    climbed = len(rungs) > 1 and compute[-1] - compute[:-1].max() > math.log(1.2)
    if climbed and gain <= 3.0 * noise:
        phase = Phase.PLATEAU
    elif len(slopes) >= 2 and slopes[0] < 0.5 * slopes[-1] and slopes[-1] == slopes.max():
        phase = Phase.COLD_START
    pattern = Pattern.ORDINAL
    if epochs > max_epochs:
        pattern = Pattern.OUT_OF_DATA
    elif not affordable:
        pattern = Pattern.OUT_OF_COMPUTE
    elif exponent + 1.96 * error < slowest_exponent:
        pattern = Pattern.SLOW
    elif len(slopes) >= 3 and slopes[-1] > 2.0 * slopes[:-1].max() + 0.02:
        pattern = Pattern.EMERGENT
    return Reading(
        phase=phase,
        pattern=pattern,
        exponent=exponent,
        exponent_low=exponent - 1.96 * error,
        exponent_high=exponent + 1.96 * error,
        gain=gain,
        noise=noise,
        epochs=epochs,
    )


def exponent_of(past: predictive.History, log_compute: float) -> tuple[float, float]:
    """−d ln L / d ln C along the best split at ln(N·D), and its standard error by the posterior covariance."""
    row = -1
    theta = past.fits.theta[row]
    c = np.array([log_compute - past.anchor[row, 0] - past.anchor[row, 1]])

    def slope(at: surface.Floats) -> float:
        h = 1e-3
        return float((surface.optimum(at, c - h) - surface.optimum(at, c + h))[0] / (2 * h))

    value = slope(theta)
    gradient = np.array([(slope(theta + step) - slope(theta - step)) / 2e-4 for step in 1e-4 * np.eye(5)])
    return value, float(np.sqrt(max(gradient @ past.fits.covariance[row] @ gradient, 0.0)))


def phase_of(history: Sequence[Sequence[Point]]) -> Phase:
    """The phase alone; see `read`."""
    return read(history).phase


def pattern_of(
    history: Sequence[Sequence[Point]],
    *,
    max_epochs: float = 16.0,
    slowest_exponent: float = 0.01,
    affordable: bool = True,
) -> Pattern:
    """The pattern alone; see `read`."""
    return read(history, max_epochs=max_epochs, slowest_exponent=slowest_exponent, affordable=affordable).pattern
