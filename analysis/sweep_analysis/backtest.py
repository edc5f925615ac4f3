"""Back-tests: forecasts replayed over ladders whose outcome is known, and what they were worth.

Owns the protocol, fixed before anything was tuned: train on all earlier rungs (at least three, with at least four
records); every run of the next rung is scored, nothing is filtered by outcome; checkpoints of one run are one cluster;
coverage is averaged within a rung, then over rungs. Far forecasts skip rungs, to a target with 10 to 300 times the
compute of the past. Tunes nothing: benchmarks/calibration.py does, leaving one origin out.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from pydantic import Field

from sweep_analysis import predictive
from sweep_analysis.document import Document
from sweep_analysis.forecast import Point, evidence_of, unidentified
from sweep_analysis.ladders import Ladder
from sweep_analysis.surface import Floats
from sweep_analysis.wilson import wilson

LEAST_RUNGS = 3
LEAST_RECORDS = 4
FAR = (10.0, 300.0)
"""Jumps in compute that count as far."""
JUMPS = (3.0, 10.0, 30.0, 100.0, 300.0)
ALIKE = 1e-9  # a half-width that rounding alone makes
PAST_RUNGS = ((3, 3), (4, 4), (5, 6), (7, 8), (9, 99))


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a method said of the runs of one rung."""

    mean: Floats
    """(m,) ln loss."""
    half_widths: Floats
    """(m,) of each run's interval, ln loss."""
    mean_half_width: float
    """Of the interval of the mean deviation; nan where the method gives none."""


class Replay(Protocol):
    """A method at work on one ladder."""

    def foretell(self, k: int, runs: Sequence[Point], confidence: float) -> Foretold | None:
        """Forecast `runs` from the first `k` rungs; None where the method abstains."""
        ...


Method = Callable[[Sequence[Sequence[Point]]], Replay]
"""Takes a whole ladder; its replay must look at the first k rungs only."""


class SurfaceReplay:
    """The forecasts of `sweep_analysis.forecast`, every past of a ladder fitted in one go."""

    def __init__(self, rungs: Sequence[Sequence[Point]], settings: predictive.Settings = predictive.SETTINGS) -> None:
        self.rungs = rungs
        self.settings = settings
        self._whole: predictive.History | None = None

    def foretell(self, k: int, runs: Sequence[Point], confidence: float) -> Foretold | None:
        """As `forecast` would have said it then."""
        if unidentified([point for rung in self.rungs[:k] for point in rung]):
            return None
        history = self._history(k)
        at = np.log([(p.parameters, p.tokens) for p in runs])
        joint = history.predict(k, at[:, 0], at[:, 1], [p.run for p in runs])
        mean_half = joint.mean_scale * predictive.quantile(confidence, joint.degrees_of_freedom)
        return Foretold(joint.mean, joint.half_widths(confidence), mean_half)

    def _history(self, k: int) -> predictive.History:
        """One fit of the whole ladder serves every k, unless replicates would let later rungs' noise be known early."""
        whole = evidence_of(self.rungs)
        if whole.replicated:
            return predictive.History(evidence_of(self.rungs[:k]), self.settings)
        if self._whole is None:
            self._whole = predictive.History(whole, self.settings)
        return self._whole


@dataclass(frozen=True, slots=True)
class Score:
    """One forecast of one rung against what came."""

    origin: str
    ladder: str
    past_rungs: int
    jump: float
    """Largest compute of the rung over the largest of the past."""
    far: bool
    runs: int
    covered: float
    """Share of the rung's runs inside their intervals."""
    frontier_covered: bool
    """Whether the run of largest compute was."""
    mean_covered: bool
    """Whether the rung's mean deviation was inside its own interval."""
    width: float
    """Median full width over the rung's runs, ln loss."""
    mean_width: float
    interval_score: float
    """Mean over runs of width + 2/(1−confidence) · miss (Gneiting & Raftery 2007, eq. 43), ln loss."""
    error: float
    """Median |ln observed − ln predicted| over the runs."""


def replay(ladder: Ladder, method: Method = SurfaceReplay, *, confidence: float = 0.95) -> tuple[list[Score], int]:
    """Scores of every next-rung and far forecast of a ladder, and how many next-rung forecasts the method declined."""
    at_work, scores, declined = method(ladder.rungs), [], 0
    compute = [max(p.parameters * p.tokens for p in rung) for rung in ladder.rungs]
    for k in range(LEAST_RUNGS, len(ladder.rungs)):
        if sum(len(rung) for rung in ladder.rungs[:k]) < LEAST_RECORDS:
            continue
        for j in range(k, len(ladder.rungs)):
            jump = compute[j] / max(compute[:k])
            far = j > k
            if far and not FAR[0] <= jump <= FAR[1]:
                continue
            foretold = at_work.foretell(k, ladder.rungs[j], confidence)
            if foretold is None:
                declined += not far
                continue
            scores.append(_score(ladder, k, jump, far, ladder.rungs[j], foretold, confidence))
    return scores, declined


def _score(
    ladder: Ladder, k: int, jump: float, far: bool, rung: Sequence[Point], foretold: Foretold, confidence: float
) -> Score:
    deviations = np.log([p.loss for p in rung]) - foretold.mean
    missed = np.maximum(0.0, np.abs(deviations) - foretold.half_widths)
    frontier = int(np.argmax([p.parameters * p.tokens for p in rung]))
    return Score(
        origin=ladder.origin,
        ladder=ladder.name,
        past_rungs=k,
        jump=jump,
        far=far,
        runs=len(rung),
        covered=float(np.mean(missed == 0.0)),
        frontier_covered=bool(missed[frontier] == 0.0),
        mean_covered=bool(abs(deviations.mean()) <= foretold.mean_half_width),
        width=float(np.median(2.0 * foretold.half_widths)),
        mean_width=2.0 * foretold.mean_half_width,
        interval_score=float(np.mean(2.0 * foretold.half_widths + 2.0 / (1.0 - confidence) * missed)),
        error=float(np.median(np.abs(deviations))),
    )


class Row(Document):
    """What a group of forecasts was worth; widths, scores and errors in ln loss (0.01 is one percent)."""

    group: str
    forecasts: int
    coverage: float
    coverage_low: float
    coverage_high: float
    """95 % interval of the coverage, ladders with their thinnings as clusters, or rungs where there are fewer than
    three; where the clusters came out alike, Wilson's with a trial for each number of a whole ladder's past rungs."""
    frontier_coverage: float
    mean_coverage: float
    median_width: float
    interval_score: float
    median_error: float


class Report(Document):
    """A back-test's result."""

    confidence: float
    forecasts: int
    coverage: float
    coverage_low: float
    coverage_high: float
    frontier_coverage: float
    mean_coverage: float
    median_width: float
    interval_score: float
    median_error: float
    abstained: int
    """Rungs that the method declined to forecast."""
    by_origin: tuple[Row, ...] = Field(default=())
    by_past_rungs: tuple[Row, ...] = Field(default=())
    by_jump: tuple[Row, ...] = Field(default=())
    far: tuple[Row, ...] = Field(default=())
    """Forecasts 10 to 300 times ahead: all of them, by origin and by jump."""


def report(scores: Sequence[Score], abstained: int, *, confidence: float = 0.95) -> Report | None:
    """Summarise scores; None when there is no next-rung forecast among them."""
    near, far = [s for s in scores if not s.far], [s for s in scores if s.far]
    if not near:
        return None
    whole = row("all", near)
    return Report(
        confidence=confidence,
        **{name: value for name, value in dict(whole).items() if name != "group"},
        abstained=abstained,
        by_origin=_rows(near, [(o, _from(o)) for o in sorted({s.origin for s in near})]),
        by_past_rungs=_rows(near, [(_span(a, b), _past(a, b)) for a, b in PAST_RUNGS]),
        by_jump=_rows(near, _jumps()),
        far=_rows(far, [("all", lambda s: True), *((o, _from(o)) for o in sorted({s.origin for s in far})), *_jumps()]),
    )


def row(group: str, scores: Sequence[Score]) -> Row:
    """One group of at least one forecast."""
    covered = np.array([s.covered for s in scores])
    low, high = _interval(scores, covered)
    return Row(
        group=group,
        forecasts=len(scores),
        coverage=float(covered.mean()),
        coverage_low=low,
        coverage_high=high,
        frontier_coverage=float(np.mean([s.frontier_covered for s in scores])),
        mean_coverage=float(np.mean([s.mean_covered for s in scores])),
        median_width=float(np.median([s.width for s in scores])),
        interval_score=float(np.mean([s.interval_score for s in scores])),
        median_error=float(np.median([s.error for s in scores])),
    )


def _interval(scores: Sequence[Score], covered: Floats) -> tuple[float, float]:
    """95 % interval of the mean coverage.

    A ladder and its thinnings share runs, so they are one cluster. Clusters that came out alike (nothing missed, most
    often) have no spread to go by: what a ladder and its thinnings were told from one number of past rungs is then one
    trial.
    """
    mean = float(covered.mean())
    margin = 1.96 * _clustered_error(scores, covered)
    if margin < ALIKE:
        return wilson(mean, len({(*_whole(s), s.past_rungs) for s in scores}))
    return max(0.0, mean - margin), min(1.0, mean + margin)


def _clustered_error(scores: Sequence[Score], covered: Floats) -> float:
    """Standard error of the mean coverage, by clusters; 0 where they came out alike."""
    names = [_whole(s) for s in scores]
    if len(set(names)) < 3:
        names = [(s.ladder, str(s.past_rungs)) for s in scores]
    sums: dict[tuple[str, str], float] = {}
    for name, value in zip(names, covered - covered.mean(), strict=True):
        sums[name] = sums.get(name, 0.0) + value
    groups = len(sums)
    return math.sqrt(sum(v * v for v in sums.values()) * groups / max(1, groups - 1)) / len(scores)


def _whole(score: Score) -> tuple[str, str]:
    """The whole ladder that a forecast is of, be it of a thinning."""
    return score.origin, score.ladder.split(" (")[0]


def _rows(scores: Sequence[Score], groups: Iterable[tuple[str, Callable[[Score], bool]]]) -> tuple[Row, ...]:
    chosen = ((name, [s for s in scores if within(s)]) for name, within in groups)
    return tuple(row(name, members) for name, members in chosen if members)


def _from(origin: str) -> Callable[[Score], bool]:
    return lambda s: s.origin == origin


def _past(low: int, high: int) -> Callable[[Score], bool]:
    return lambda s: low <= s.past_rungs <= high


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}+" if high >= 99 else f"{low}–{high}"


def _jumps() -> list[tuple[str, Callable[[Score], bool]]]:
    def within(low: float, high: float) -> Callable[[Score], bool]:
        return lambda s: low < s.jump / 1.001 <= high

    edges = [0.0, *JUMPS]
    return [(f"≤ {high:g}x", within(low, high)) for low, high in pairwise(edges)] + [
        (f"> {edges[-1]:g}x", within(edges[-1], math.inf))
    ]
