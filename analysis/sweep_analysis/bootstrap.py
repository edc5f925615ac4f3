"""Refits of a fit: how far its constants, and what follows from them, would move with other records.

Owns the resampling and its seeds. Refits advance in batches of fixed size (`solve.py`), each drawn from a seed of its
own, so that the number of threads changes nothing. Refuses to forecast new rungs: parameter-only intervals are far
too narrow for that, and `forecast.py` says by how much.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from sweep_analysis import solve
from sweep_analysis.interval import Interval
from sweep_analysis.laws.base import Array

if TYPE_CHECKING:
    from sweep_analysis.fit import Fit

BATCH_NUMBERS = 16_384  # points in one batch of refits: what keeps its Jacobian in cache
TOLERANCE = 1e-9
SEED = 0
Method: TypeAlias = Literal["cases", "parametric"]


@dataclass(frozen=True, slots=True, repr=False)
class Bootstrap:
    """R refits of a law."""

    names: tuple[str, ...]
    samples: Array  # (R, k) constants in the units of the records
    method: Method
    seed: int

    def __repr__(self) -> str:
        return f"<Bootstrap {len(self.samples)} refits ({self.method}, seed {self.seed}) of {', '.join(self.names)}>"

    def __getitem__(self, name: str) -> Array:
        """(R,) the refitted values of one constant."""
        return np.asarray(self.samples[:, self.names.index(name)])

    def interval(self, name: str, value: float, confidence: float = 0.95) -> Interval:
        """Percentile interval of one constant, around the fit's own `value`."""
        return percentile_interval(self[name], value, confidence)

    def applied(self, fit: "Fit") -> "Fit":
        """The same fit with the percentile intervals of these refits."""
        intervals = {name: self.interval(name, value, fit.confidence) for name, value in fit.constants.items()}
        return replace(fit, parameters=intervals)


def percentile_interval(samples: Array, value: float, confidence: float) -> Interval:
    """Where `confidence` of the finite samples lie; always holds `value`."""
    finite = samples[np.isfinite(samples)]
    low, high = np.quantile(finite, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def bootstrap(
    fit: "Fit", refits: int = 1000, *, seed: int = SEED, threads: int = 2, method: Method | None = None
) -> Bootstrap:
    """Refit `refits` times.

    cases: records (or whole runs, where several records share one) are drawn with replacement. parametric: records
    keep their place and get new residuals, normal with a scale drawn from its own uncertainty; the choice when there
    are fewer than five records a constant, where a draw of cases often identifies nothing. Raises ValueError on a
    refused fit.
    """
    if not fit.usable:
        raise ValueError(f"{fit.law} was not fitted: {fit.message}")
    n, k = len(fit.table), len(fit.form.constants)
    runs = fit.table.labels.get("run")
    groups = np.arange(n) if runs is None else np.unique(np.array(runs), return_inverse=True)[1]
    if method is None:
        method = "cases" if groups.max() + 1 >= 5 * k else "parametric"
    x = fit.form.coordinates(fit.table.columns, fit.units)
    y = fit.table[fit.form.response]
    target = fit.goal.target(y)
    residual = solve.residuals(fit.form, fit.solution[None], x, target, fit.goal.relative)[0][0]
    size = max(1, BATCH_NUMBERS // n)
    starts = range(0, refits, size)
    seeds = np.random.SeedSequence(seed).spawn(len(starts))

    def batch(first: int, source: np.random.SeedSequence) -> Array:
        count = min(size, refits - first)
        draw = np.random.default_rng(source)
        begin = np.repeat(fit.solution[None], count, axis=0)
        if method == "cases":
            total = int(groups.max()) + 1
            weights = draw.multinomial(total, np.full(total, 1.0 / total), size=count).astype(np.float64)[:, groups]
            return solve.minimise(fit.form, x, y, begin, fit.goal, weights=weights, tolerance=TOLERANCE).z
        freedom = n - k
        scale = np.sqrt(float(residual @ residual) / draw.chisquare(freedom, size=count))
        moved = target - residual + residual.mean() + scale[:, None] * draw.standard_normal((count, n))
        again = np.exp(moved) if fit.goal.relative else moved
        return solve.minimise(fit.form, x, again, begin, fit.goal, tolerance=TOLERANCE).z

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        z = np.concatenate(list(pool.map(batch, starts, seeds)))
    samples = fit.form.to_units(solve.constants_of(fit.form, z), fit.units)
    return Bootstrap(fit.form.names, samples, method, seed)


def refit(fit: "Fit", weights: Array) -> Array:
    """Constants (R, k) refitted with each row of `weights` (R, n) on the records, in the table's order."""
    x = fit.form.coordinates(fit.table.columns, fit.units)
    begin = np.repeat(fit.solution[None], len(weights), axis=0)
    y = fit.table[fit.form.response]
    size = max(1, BATCH_NUMBERS // len(y))
    parts = [
        solve.minimise(
            fit.form, x, y, begin[i : i + size], fit.goal, weights=weights[i : i + size], tolerance=TOLERANCE
        ).z
        for i in range(0, len(weights), size)
    ]
    return fit.form.to_units(solve.constants_of(fit.form, np.concatenate(parts)), fit.units)
