"""A design climbed on paper: the real forecaster over simulated ladders whose truth is drawn.

Owns the draws (laws around the published ones, the wobble of runs and rungs, seed noise) and what is read off: how
wide the target's interval comes out, how far its middle lies from the truth, and how often it covers. Tunes nothing;
the same seed gives the same ladders, and two designs rehearsed with one seed meet the same laws.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from sweep_analysis import predictive
from sweep_analysis.document import Document
from sweep_analysis.forecast import Forecast, Point, forecast
from sweep_analysis.plan.ladder import SEED_SD, Design
from sweep_analysis.plan.prior import Assumed, assume

RUN_WOBBLE = 0.003
"""sd of one (N, D)'s ln loss about the law, as in published ladders (about .5 % with the rungs')."""
RUNG_WOBBLE = 0.002
"""… of a rung's, shared by its runs."""
CLIMBS = 32


class Rehearsal(Document):
    """Many simulated climbs of one design."""

    climbs: int
    half_width: float
    """Median relative half-width of the target's interval."""
    half_width_low: float
    half_width_high: float
    """Its quartiles over the climbs."""
    error: float
    """Median relative distance of the forecast from the truth."""
    coverage: float
    """Share of the climbs whose interval held the truth."""
    abstained: int
    """Climbs in which no forecast could be made."""


def rehearse(
    design: Design,
    target: tuple[float, float],
    *,
    climbs: int = CLIMBS,
    seed: int = 0,
    confidence: float = 0.95,
    assumed: Assumed | None = None,
    told: Callable[[float], None] = lambda share: None,
) -> Rehearsal:
    """Climb a design so many times and forecast the target (N, D) after its last rung.

    assumed: laws to draw the truth from; published ones when None. Raises ValueError when every climb abstained.
    """
    laws = (assume(seed=seed + 1) if assumed is None else assumed).constants[1:]
    widths, errors, covered = [], [], []
    for climb in range(climbs):
        told(climb / climbs)
        law = laws[climb % len(laws)]
        answer = forecast(records(design, law, seed=seed * 100_003 + climb), [target], confidence=confidence)
        if not isinstance(answer, Forecast):
            continue
        at = answer.predictions[0]
        truth = loss_of(law, *target)
        widths.append(math.sqrt(at.high / at.low) - 1.0)
        errors.append(abs(at.loss / truth - 1.0))
        covered.append(at.low <= truth <= at.high)
    told(1.0)
    if not widths:
        raise ValueError(f"none of {climbs} climbs of this design could be forecast from; it needs 3 sizes at 2 ratios")
    low, middle, high = np.quantile(widths, [0.25, 0.5, 0.75])
    return Rehearsal(
        climbs=climbs,
        half_width=float(middle),
        half_width_low=float(low),
        half_width_high=float(high),
        error=float(np.median(errors)),
        coverage=float(np.mean(covered)),
        abstained=climbs - len(widths),
    )


def records(design: Design, law: Sequence[float], *, seed: int) -> list[list[Point]]:
    """One climb's records, rung by rung."""
    rng = np.random.default_rng(seed)
    rungs = []
    for number, step in enumerate(design.steps):
        rung = []
        shared = RUNG_WOBBLE * rng.standard_normal()
        for ratio in step.ratios:
            tokens = step.parameters * ratio
            place = shared + RUN_WOBBLE * rng.standard_normal()
            level = loss_of(law, step.parameters, tokens) * math.exp(place)
            sd = SEED_SD[0] * max(1.0, SEED_SD[1] / (6.0 * step.parameters * tokens)) ** (predictive.SEED_DECAY / 2)
            for k in range(step.seeds):
                loss = max(level + sd * rng.standard_normal(), 0.1 * level)
                rung.append(Point(step.parameters, tokens, loss, f"{number}-{k}"))
        rungs.append(rung)
    return rungs


def loss_of(law: Sequence[float], parameters: float, tokens: float) -> float:
    """Nats per token of E, A, B, alpha, beta."""
    E, A, B, alpha, beta = law
    return float(E + A * parameters**-alpha + B * tokens**-beta)
