"""How the constants of the fit and of the kernel may be chosen: what is tried for each, and rules that pick from it.

Owns the variants and the rules. A rule sees one number a variant, its negative log likelihood on some origins, and how
many ladders these are; it never sees a forecast, nor which origin is held out (`calibration.py` says). The constants
of the scale are `tuning`'s.
"""

from collections.abc import Iterator
from dataclasses import astuple, fields, is_dataclass, replace

import numpy as np
from classics import S1

from sweep_analysis.kriging import Kernel
from sweep_analysis.predictive import SETTINGS, Settings

DEFAULT = "as shipped"
NEUTRAL = replace(
    SETTINGS,
    fit_factor=1.0,
    floor=0.003,
    off_optimum=0.05,
    drift=0.001,
    bend=0.002,
    memory=0.75,
    prior_weight=4.0,
    inflation=1.0,
)
"""Where every tuning starts."""
LITTLE = {"widening": 0.25, "bend_power": 1.0, "few_records": 0.5, "below_data": 0.005}
"""The scale's structure before anything was found: S1's widening, and of what S1 has not as little as a logarithm can
start from."""
OF_S1 = (
    "entropy_slope", "prior_mean", "prior_deviation", "fit_floor", "fit_off_optimum", "oversized", "fit_adapts",
    "recency", "outlier", "widening",
)  # fmt: skip
AS_IN_S1 = replace(NEUTRAL, **{name: getattr(S1, name) for name in OF_S1})
"""Every constant of the fit that S1 has, as S1 has it."""


def _prior(E: float = 0.12, ab: float = 0.30, alpha: float = 0.20, beta: float = 0.40) -> Settings:
    return replace(NEUTRAL, prior_deviation=(E, ab, ab, alpha, beta))


VARIANTS = {
    DEFAULT: NEUTRAL,
    "E's share lower": replace(NEUTRAL, entropy_at=0.25),
    "E's share higher": replace(NEUTRAL, entropy_at=0.75),
    "E prior narrower": _prior(E=0.06),
    "E prior wider": _prior(E=0.24),
    "E prior steeper": replace(NEUTRAL, entropy_slope=0.2),
    "E prior flat": replace(NEUTRAL, entropy_slope=0.0, entropy_beyond=0.0),
    "exponents as in S1": replace(NEUTRAL, prior_mean=S1.prior_mean),
    "exponents larger": replace(NEUTRAL, prior_mean=(0.46, 0.46)),
    "exponents less free": _prior(alpha=0.10, beta=0.20),
    "exponents freer": _prior(alpha=0.40, beta=0.80),
    "narrower on a and b": _prior(ab=0.15),
    "wider on a and b": _prior(ab=0.60),
    "no noise adaptation": replace(NEUTRAL, fit_adapts=0.0),
    "noise adapts fully": replace(NEUTRAL, fit_adapts=1.0),
    "noise adapts sooner": replace(NEUTRAL, fit_adapts_from=1.5),
    "noise adapts later": replace(NEUTRAL, fit_adapts_from=6.0),
    "less recency": replace(NEUTRAL, recency=1.3),
    "more recency": replace(NEUTRAL, recency=2.1),
    "lower floor": replace(NEUTRAL, fit_floor=0.0015),
    "higher floor": replace(NEUTRAL, fit_floor=0.0032),
    "runs off the optimum trusted more": replace(NEUTRAL, fit_off_optimum=0.02),
    "runs off the optimum trusted less": replace(NEUTRAL, fit_off_optimum=0.08),
    "too large no worse than too small": replace(NEUTRAL, oversized=1.0),
    "too large far worse than too small": replace(NEUTRAL, oversized=4.0),
    "outliers cut sooner": replace(NEUTRAL, outlier=1.5),
    "outliers cut later": replace(NEUTRAL, outlier=3.0),
    "runs less alike": replace(NEUTRAL, kernel=Kernel(alike=0.3)),
    "runs more alike": replace(NEUTRAL, kernel=Kernel(alike=0.9)),
    "runs alike over short distances": replace(NEUTRAL, kernel=Kernel(ratio_reach=1.0, compute_reach=2.0)),
    "runs alike over long distances": replace(NEUTRAL, kernel=Kernel(ratio_reach=4.0, compute_reach=8.0)),
    "a run's own fades faster": replace(NEUTRAL, kernel=Kernel(run_fades=0.6)),
    "a run's own fades slower": replace(NEUTRAL, kernel=Kernel(run_fades=0.15)),
    "less widening": replace(NEUTRAL, widening=0.1),
    "more widening": replace(NEUTRAL, widening=0.4),
    "bends sooner": replace(NEUTRAL, bend_power=1.0),
    "bends later": replace(NEUTRAL, bend_power=2.0),
    "few records matter less": replace(NEUTRAL, few_records=6.0),
    "few records matter more": replace(NEUTRAL, few_records=24.0),
    "tokens below the past's matter less": replace(NEUTRAL, below_data=0.05),
    "tokens below the past's matter more": replace(NEUTRAL, below_data=0.2),
    "nothing carried from the past": replace(NEUTRAL, kernel=None),
}
"""What was set by hand, one thing changed at a time: every such constant lower and higher, and no kernel at all."""

Surprises = dict[str, float]
"""Variant → negative log likelihood a forecast, on the origins that may be looked at."""


def likeliest(surprises: Surprises) -> str:
    """The variant that explains those origins best."""
    return min(surprises, key=surprises.__getitem__)


def averaged(surprises: Surprises, ladders: float) -> Settings:
    """Every constant's mean over all variants, each weighing as its likelihood over so many independent ladders.

    Means are geometric where every value is positive. The variant without a kernel has no constants to average.
    """
    values, surprise = _tried(surprises)
    weights = np.exp(-ladders * (surprise - surprise.min()))
    return _settings([_mean(column, weights) for column in values.T])


def averaged_one_by_one(surprises: Surprises, ladders: float) -> Settings:
    """Every constant's mean over the values tried for it alone, so that all constants may move at once."""
    values, surprise = _tried(surprises)
    default = values[0]
    chosen = []
    for number, column in zip(default, values.T, strict=True):
        rows = np.flatnonzero(column != number)
        rows = np.append(0, rows)
        chosen.append(_mean(column[rows], np.exp(-ladders * (surprise[rows] - surprise[rows].min()))))
    return _settings(chosen)


def _tried(surprises: Surprises) -> tuple[np.ndarray, np.ndarray]:
    """One row of constants and one surprise for each variant with a kernel, the default first."""
    names = [DEFAULT, *(name for name in surprises if name != DEFAULT and VARIANTS[name].kernel)]
    rows = [np.hstack([np.ravel(value) for value in astuple(VARIANTS[name])]) for name in names]
    return np.array(rows), np.array([surprises[name] for name in names])


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    if (values > 0).all():
        return float(np.exp(np.average(np.log(values), weights=weights)))
    return float(np.average(values, weights=weights))


def _settings(numbers: list[float]) -> Settings:
    """The inverse of flattening: numbers in the order of the fields."""
    left = iter(numbers)
    return Settings(**{field.name: _filled(getattr(NEUTRAL, field.name), left) for field in fields(NEUTRAL)})


def _filled(like: object, left: Iterator[float]) -> object:
    if is_dataclass(like) and not isinstance(like, type):
        return type(like)(*(next(left) for _ in fields(like)))
    return tuple(next(left) for _ in like) if isinstance(like, tuple) else next(left)
