"""In which phase of its law a ladder stands (cold start, scaling, plateau) and which pattern it follows.

Owns the reading of a whole ladder's records, with the numbers behind it. Judges no rung: the gate does.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from sweep_analysis import predictive
from sweep_analysis.document import Document
from sweep_analysis.forecast import Point, evidence_of
from sweep_analysis.surface import Floats


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
    """−d ln L / d ln C over the newest rungs' best runs; 0 ± 9 where there are no two to compare."""
    exponent_low: float
    exponent_high: float
    """Its 95 % interval."""
    gain: float
    """ln of the lowest earlier loss over the newest rung's lowest; 0 for a first rung."""
    noise: float
    """sd of one run's ln loss between seeds, corrected by replicates; at least 0.001."""
    acceleration: float
    """Slope of ln L in ln C over the newest step, over that of the step before."""
    surprise: float
    """Largest ln deviation by which a rung undercut its forecast beyond the 99 % bound; 0 where none did."""
    epochs: float
    """Most passes over the data that any record of the newest rung made; 1 where unknown."""


LEAST_NOISE = 0.001
"""sd of ln L below which no difference counts as a gain; seeds of published runs differ by a fifth of it."""
NEWEST = 4
"""Rungs whose best runs give the exponent."""
COLD_ACCELERATION = 1.3
"""A ladder whose loss falls this much faster than a step before is not on its law."""
EMERGENT_DROP = 0.02
"""A rung this far under its forecast, and under the forecast's 99 % bound, is a jump."""


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
    past = predictive.History(evidence_of(rungs))
    noise = max(LEAST_NOISE, math.sqrt(past.evidence.seed_variance))
    frontier = np.array([min(math.log(p.loss) for p in rung) for rung in rungs])
    compute = np.array([max(math.log(p.parameters * p.tokens) for p in rung) for rung in rungs])
    exponent, low, high = _exponent(rungs, noise)
    acceleration, from_the_start = _acceleration(frontier, compute)
    reading = Reading(
        phase=Phase.SCALING,
        pattern=Pattern.ORDINAL,
        exponent=exponent,
        exponent_low=max(low, -9.0),
        exponent_high=min(high, 9.0),
        gain=float(np.min(frontier[:-1]) - frontier[-1]) if len(rungs) > 1 else 0.0,
        noise=noise,
        acceleration=acceleration,
        surprise=_largest_drop(past),
        epochs=max((p.tokens / p.unique_tokens for p in rungs[-1] if p.unique_tokens), default=1.0),
    )
    climbed = len(rungs) > 1 and compute[-1] - compute[:-1].max() > math.log(1.2)
    phase = Phase.SCALING
    # Three rungs forecast nothing yet: there only a loss that clearly rose is a finding, or noise would hold ladders.
    if climbed and reading.gain <= (2.0 * noise if len(rungs) > 3 else -noise):
        phase = Phase.PLATEAU
    elif acceleration > COLD_ACCELERATION and from_the_start:
        phase = Phase.COLD_START
    pattern = Pattern.ORDINAL
    if reading.epochs > max_epochs:
        pattern = Pattern.OUT_OF_DATA
    elif not affordable:
        pattern = Pattern.OUT_OF_COMPUTE
    elif reading.exponent_high < slowest_exponent:
        pattern = Pattern.SLOW
    elif phase is not Phase.COLD_START and reading.surprise < -EMERGENT_DROP:
        pattern = Pattern.EMERGENT
    return reading.changed(phase=phase, pattern=pattern)


def _acceleration(frontier: Floats, compute: Floats) -> tuple[float, bool]:
    """Slope of ln L in ln C over the newest step against the one before, and whether that is how it began.

    A power law with an irreducible part only ever slows down. A ladder that speeds up from its start is not on its law
    yet; one that did slow down and then speeds up has jumped. (1, False) where there are no two steps.
    """
    steps = np.diff(compute) > math.log(1.2)
    slopes = np.maximum((-np.diff(frontier) / np.where(steps, np.diff(compute), 1.0))[steps], 1e-3)
    if len(slopes) < 2:
        return 1.0, False
    ratios = np.minimum(slopes[1:] / slopes[:-1], 10.0)
    return float(ratios[-1]), bool(ratios[0] > COLD_ACCELERATION)


def _largest_drop(past: predictive.History) -> float:
    """The largest mean deviation by which a rung from the fourth on undercut its forecast's 99 % bound."""
    evidence, drops = past.evidence, [0.0]
    for k in range(3, evidence.rungs):
        here = evidence.rung == k
        runs = [name for name, inside in zip(evidence.run, here, strict=True) if inside]
        joint = past.predict(k, evidence.log_parameters[here], evidence.log_tokens[here], runs)
        deviation = float(np.mean(evidence.log_loss[here] - joint.mean))
        if deviation < -joint.mean_scale * predictive.quantile(0.98, joint.degrees_of_freedom):
            drops.append(deviation)
    return min(drops)


def _exponent(rungs: Sequence[Sequence[Point]], noise: float) -> tuple[float, float, float]:
    """−d ln L / d ln C of the newest rungs' best runs, with its 95 % interval: a straight line, no law and no prior.

    A law fitted under priors reads its own expectation into a slow ladder; four best runs cannot.
    """
    best = [min(rung, key=lambda p: (p.loss, p.parameters, p.tokens)) for rung in rungs[-NEWEST:]]
    x = np.array([math.log(p.parameters * p.tokens) for p in best])
    y = np.array([math.log(p.loss) for p in best])
    spread = float(np.sum((x - x.mean()) ** 2))
    if len(best) < 2 or spread < math.log(1.2) ** 2:
        return 0.0, -math.inf, math.inf
    slope = float(np.sum((x - x.mean()) * (y - y.mean()))) / spread
    residuals = y - y.mean() - slope * (x - x.mean())
    freedom = len(best)  # two more than the line leaves: the noise is known to be worth two
    variance = (float(np.sum(residuals**2)) + 2.0 * noise**2) / freedom
    half = predictive.quantile(0.95, freedom) * math.sqrt(variance / spread)
    return -slope, -slope - half, -slope + half


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
