"""The next rung of a ladder that stands: which runs would narrow the target's forecast most for their price.

Owns the candidates and their ranking. Each candidate's records are taken to come out as far from their forecast as
this ladder's rungs do on average, once above and once below, and the target is forecast anew by the real forecaster.
Starts nothing and edits no manifest.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from sweep_analysis.document import Document
from sweep_analysis.forecast import Forecast, NoForecast, Point, forecast
from sweep_analysis.plan.devices import Range
from sweep_analysis.plan.ladder import RATIO_FACTORS, Step

STEPS = (2.0, 4.0, 8.0)
"""Compute of the next rung over that of the largest so far."""
SEEDS = (1, 2)
LARGEST_SHARE = 0.5
"""No proposal takes more of the target's compute: beyond, the target itself is the next run."""


class Proposal(Document):
    """One candidate for the next rung."""

    parameters: int
    tokens_per_parameter: tuple[float, ...]
    seeds: int
    flops: float
    """6·N·D of everything trained, decay branches and seeds included."""
    loss: Range
    """Forecast of its largest token count, nats per token, 95 %."""
    half_width: float
    """Relative half-width of the target's interval after it, 95 %."""
    narrowing: float
    """Share of the target's present variance that it removes, for each 1 % of the target's FLOPs."""


class Next(Document):
    """Proposals, best value first, and what is known without them."""

    half_width: float
    """Relative half-width of the target's interval now."""
    loss: Range
    jump: float
    proposals: tuple[Proposal, ...]


def propose(
    history: Sequence[Sequence[Point]],
    target: tuple[float, float],
    *,
    confidence: float = 0.95,
    most_flops: float | None = None,
    exact: Callable[[float], int] = round,
    planned: Sequence[Step] = (),
    told: Callable[[float], None] = lambda share: None,
) -> Next | NoForecast:
    """Candidates after these rungs of records. `NoForecast` while nothing can be forecast.

    most_flops: candidates dearer than this are left out. exact: the size that can be built nearest to one asked for.
    planned: further candidates, such as what the manifest would train next.
    """
    rungs = [rung for rung in history if rung]
    now = forecast(rungs, [target], confidence=confidence)
    if isinstance(now, NoForecast):
        return now
    width = _half_width(now)
    goal = target[0] * target[1]
    kept = []
    candidates = [*planned, *_candidates(rungs, target)]
    for i, step in enumerate(candidates):
        told(i / len(candidates))
        size = exact(step.parameters)
        step = Step(float(size), step.ratios, step.seeds)
        own = step in planned
        if not own and (step.largest > 6.0 * goal * LARGEST_SHARE or (most_flops and step.flops > most_flops)):
            continue
        after = _after(rungs, target, step, confidence)
        if after is None:
            continue
        loss, new = after
        share = step.flops / (6.0 * goal)
        kept.append(
            Proposal(
                parameters=size,
                tokens_per_parameter=step.ratios,
                seeds=step.seeds,
                flops=step.flops,
                loss=loss,
                half_width=new,
                narrowing=(1.0 - (new / width) ** 2) / share / 100.0,
            )
        )
    told(1.0)
    at = now.predictions[0]
    return Next(
        half_width=width,
        loss=Range(value=at.loss, low=at.low, high=at.high),
        jump=now.jump,
        proposals=tuple(_undominated(kept, width)),
    )


def _candidates(rungs: Sequence[Sequence[Point]], target: tuple[float, float]) -> list[Step]:
    largest = max(p.parameters * p.tokens for rung in rungs for p in rung)
    own = target[1] / target[0]
    menu = [float(f"{own * f:.2g}") for f in RATIO_FACTORS]
    sets = [c for n in (1, 2, 3) for c in itertools.combinations(menu, n) if abs(max(c) / own - 1.0) < 1.5]
    return [
        Step(math.sqrt(largest * step / ratios[-1]), ratios, seeds)
        for step in STEPS
        for ratios in sets
        for seeds in SEEDS
    ]


def _after(
    rungs: Sequence[Sequence[Point]], target: tuple[float, float], step: Step, confidence: float
) -> tuple[Range, float] | None:
    """The forecast of its largest record, and the target's half-width once it is in."""
    N = step.parameters
    at = [(N, N * ratio) for ratio in step.ratios for _ in range(step.seeds)]
    names = [f"next-{k}" for _ in step.ratios for k in range(step.seeds)]
    told = forecast(rungs, at, confidence=confidence, runs=names)
    if isinstance(told, NoForecast):
        return None
    widths = []
    for sign in (-1.0, 1.0):
        shift = math.exp(sign * told.deviation.scale)
        rung = [Point(n, d, p.loss * shift, name) for (n, d), name, p in zip(at, names, told.predictions, strict=True)]
        new = forecast([*rungs, rung], [target], confidence=confidence)
        if not isinstance(new, Forecast):
            return None
        widths.append(_half_width(new))
    last = told.predictions[-1]
    return Range(value=last.loss, low=last.low, high=last.high), sum(widths) / len(widths)


def _half_width(told: Forecast) -> float:
    at = told.predictions[0]
    return math.sqrt(at.high / at.low) - 1.0


def _undominated(proposals: Sequence[Proposal], width: float) -> list[Proposal]:
    """Those that nothing cheaper narrows as much from the present `width`, by price; each is somebody's best."""
    front: list[Proposal] = []
    for proposal in sorted(proposals, key=lambda p: (p.flops, p.half_width)):
        if proposal.half_width < (front[-1].half_width if front else width) * 0.995:
            front.append(proposal)
    return front
