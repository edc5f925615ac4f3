"""Forecasts for which nothing of the fit was chosen: settings drawn from a box, mixed by each ladder's own past.

Owns the box, the draws, the weights and the mixture. Refuses to look across ladders: a weight depends on what the same
ladder's earlier rungs brought, and on nothing else. The scale of the mixture is tuned by `tuning`, without the origin
that is scored; `calibration.py` says which.

With p_mj the predictive density that setting m gave the n_j runs of rung j, one step ahead, from the rungs before it,

    w_m(k) ∝ exp( Σ_{j<k} FADES^(k−1−j) · √n_j · mean ln p_mj )

which is Bayes' rule over forecasts made in turn (Dawid 1984), with forgetting (Raftery, Kárný & Ettler 2010); √n_j, not
n_j, since the runs of a rung deviate together. The mixture keeps the mean of the settings' forecasts, and adds the
variance between them to what the fit does not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import NamedTuple

import numpy as np
import tuning
from scipy.stats import qmc

from sweep_analysis.kriging import Kernel
from sweep_analysis.predictive import Settings


class Span(NamedTuple):
    """Between which two numbers a constant is drawn."""

    low: float
    high: float
    evenly_in_log: bool

    def at(self, share: float) -> float:
        if self.evenly_in_log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + (self.high - self.low) * share)


BOX: Mapping[str, Span] = {
    "entropy_at": Span(0.0, 1.0, False),  # half to three quarters of a loss at 1e19 FLOPs cannot be reduced
    "entropy_slope": Span(0.0, 0.4, False),  # C^−0.155, as published laws fall, would be 0.36 a decade
    "alpha": Span(0.3, 0.5, True),  # published exponents, up to the 1/√n of statistics
    "beta": Span(0.3, 0.5, True),
    "sd of ln E": Span(0.05, 0.2, True),
    "sd of ln a, ln b": Span(0.15, 0.6, True),
    "sd of ln alpha": Span(0.1, 0.8, True),
    "sd of ln beta": Span(0.1, 0.8, True),
    "fit_floor": Span(0.001, 0.01, True),  # from the noise of published seeds to twice what laws miss by
    "fit_off_optimum": Span(0.01, 0.1, True),
    "oversized": Span(1.0, 4.0, True),
    "fit_adapts": Span(0.0, 1.0, False),  # all that a power can be
    "fit_adapts_from": Span(1.0, 10.0, True),
    "recency": Span(0.5, 2.5, False),  # misfits fall as C^−¼ … C^−5/4 towards the newest
    "outlier": Span(1.5, 4.0, True),
    "alike": Span(0.0, 1.0, False),  # all that a share can be
    "ratio_reach": Span(1.0, 10.0, True),
    "compute_reach": Span(1.0, 10.0, True),
    "run_fades": Span(0.1, 1.0, True),
}
"""Every constant of fit and kernel. Round numbers, an order of magnitude where nothing else is known; drawn up once,
and not moved after a score was seen."""
WIDER: Mapping[str, Span] = {
    name: Span(s.low * (s.low / s.high) ** 0.5, s.high * (s.high / s.low) ** 0.5, True)
    if s.evenly_in_log
    else Span(s.low - (s.high - s.low) / 2, s.high + (s.high - s.low) / 2, False)
    for name, s in BOX.items()
} | {"fit_adapts": BOX["fit_adapts"], "alike": BOX["alike"], "recency": Span(0.0, 3.0, False)}
"""Twice as wide, where that is possible."""
DRAWS = ((BOX, 128), (WIDER, 64))
"""Two thirds of the draws lie in the box; the others in one twice as wide, since its bounds are but a guess."""
START = Settings(
    fit_factor=1.0,
    floor=0.003,
    off_optimum=0.03,
    below_data=0.1,
    few_records=5.0,
    widening=0.3,
    memory=0.7,
    prior_weight=4.0,
)
"""Where the scale's constants start, and what weighs a ladder's past: round numbers."""
SCALE = (*tuning.FREE, "below_data", "few_records", "widening")
"""All constants of the scale: no draw touches them."""
HELD = 0.5 / log(3.0) ** 2 / 100.0
"""They stay near START: a factor of three is one sd, against the likelihood of a hundred forecasts."""


def drawn(count: int, box: Mapping[str, Span] = BOX, *, seed: int = 0) -> list[Settings]:
    """Settings spread evenly over a box: a scrambled Sobol sequence, `count` a power of two."""
    return [_settings(box, shares) for shares in qmc.Sobol(len(box), scramble=True, rng=seed).random(count)]


def middle(box: Mapping[str, Span] = BOX) -> Settings:
    return _settings(box, [0.5] * len(box))


def _settings(box: Mapping[str, Span], shares: Sequence[float]) -> Settings:
    v = {name: span.at(share) for (name, span), share in zip(box.items(), shares, strict=True)}
    of_ab = v.pop("sd of ln a, ln b")
    deviation = (v.pop("sd of ln E"), of_ab, of_ab, v.pop("sd of ln alpha"), v.pop("sd of ln beta"))
    kernel = Kernel(v.pop("alike"), v.pop("ratio_reach"), v.pop("compute_reach"), v.pop("run_fades"))
    exponents = (v.pop("alpha"), v.pop("beta"))
    return replace(START, prior_mean=exponents, prior_deviation=deviation, kernel=kernel, **v)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How much a ladder's past says of the settings."""

    power: float = 1.0
    """On the likelihood: 1 is Bayes' rule, 0 mixes evenly."""
    fades: float = START.memory
    """Weight of a rung, per rung of age: as in the scale, at its start."""
    runs: float = 0.5
    """A rung of n runs counts as n to this power."""
    spread: bool = True
    """Whether the variance between settings is added to the forecast's."""
    others: float = 0.0
    """So many forecasts' worth of the likelihood on other origins: tried, and lost."""


WAYS = {
    "mixed evenly, whatever the past": Weighing(power=0.0),
    "the past counts half": Weighing(power=0.5),
    "the past counts double": Weighing(power=2.0),
    "a rung counts once, whatever its runs": Weighing(runs=0.0),
    "a rung counts once, and double": Weighing(runs=0.0, power=2.0),
    "a rung counts as its runs": Weighing(runs=1.0),
    "older rungs fade by half": Weighing(fades=0.5),
    "older rungs fade by .85": Weighing(fades=0.85),
    "nothing fades": Weighing(fades=1.0),
    "no variance between settings": Weighing(spread=False),
    "ten forecasts' worth of the other origins as well": Weighing(others=10.0),
    "… of the other origins, and not the past": Weighing(power=0.0, others=10.0),
    "… forty forecasts' worth": Weighing(power=0.0, others=40.0),
}
"""What else was tried."""


def mixed(tables: Sequence[tuning.Table], how: Weighing, others: tuple[str, ...]) -> tuning.Table:
    """One table of forecasts from those of every setting, all of the same ladders."""
    weights = own_past(tables, how, others)[:, tables[0].task.astype(int)]
    mean = {
        name: np.einsum("mr,mr->r", weights, np.stack([getattr(t, name) for t in tables]))
        for name in ("residual", "unknown", "off", "below", "left")
    }
    if how.spread:
        apart = np.stack([t.residual for t in tables]) - mean["residual"]
        mean["unknown"] = mean["unknown"] + np.einsum("mr,mr->r", weights, apart**2)
    return replace(tables[0], **mean)


def own_past(tables: Sequence[tuning.Table], how: Weighing, others: tuple[str, ...]) -> np.ndarray:
    """(settings, tasks) weights, each task's adding up to 1; `others` are looked at where `how` asks for it."""
    t = tables[0]
    fades = how.fades**t.age * t.runs[t.earlier] ** how.runs
    surprise = np.stack([tuning.surprise(one, *tuning.scales(one, START)) for one in tables])
    against = np.stack([np.bincount(t.later, fades * row[t.earlier], minlength=len(t.runs)) for row in surprise])
    against = how.power * against
    if how.others:
        against = against + how.others * np.array([[tuning.loss(one, START, others)] for one in tables])
    weights = np.exp(against.min(axis=0) - against)
    return np.asarray(weights / weights.sum(axis=0))
