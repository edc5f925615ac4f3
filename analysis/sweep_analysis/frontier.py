"""The compute-optimal frontier read off the runs themselves: Chinchilla's approaches 1 and 2.

Owns the envelope of learning curves (approach 1), the valleys of IsoFLOP curves (approach 2) and the power laws
N* = k·C^a, D* = m·C^b through either. Approach 3, the surface, is the law `Chinchilla` with `split.py`. Both approaches
here see only where a curve is lowest: they say nothing of the loss of any other split.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from sweep_analysis.bootstrap import SEED, percentile_interval
from sweep_analysis.document import Document
from sweep_analysis.interval import Interval
from sweep_analysis.laws.base import Array
from sweep_analysis.present import number, table_html
from sweep_analysis.table import Records, Table, TableError, read

BUDGET_TOLERANCE = 0.1  # relative: runs whose compute differs by less belong to one IsoFLOP curve
SIDES = 3  # runs on each side of the lowest that shape a valley
REACH = 5.0  # and at most this factor in N away from it
ENVELOPE = 1500  # compute values at which approach 1 reads the envelope (Hoffmann et al. 2022, §3.1)
REFITS = 400


class Valley(Document):
    """The lowest point of one IsoFLOP curve."""

    flops: float
    parameters: float
    """N*, the lowest point of a polynomial in ln N about the lowest record."""
    tokens: float
    loss: float
    deviation: float
    """Standard deviation of ln N*, from the scatter of all curves about their polynomials."""
    records: int


class Frontier(Document):
    """N* = coefficient · C^exponent, and the same for D*."""

    approach: int
    parameters_exponent: Interval
    """a of N* ~ C^a."""
    tokens_exponent: Interval
    """b of D* ~ C^b; a + b = 1 under C = 6·N·D."""
    parameters_coefficient: float
    tokens_coefficient: float
    lowest_flops: float
    highest_flops: float
    valleys: tuple[Valley, ...] = ()
    left_out: tuple[str, ...] = ()
    """Curves that gave no valley, and why."""

    def __repr__(self) -> str:
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        curves = f"{len(self.valleys)} valleys{left}, " if self.valleys else ""
        return (
            f"<Frontier by approach {self.approach}: N* ~ C^{self.parameters_exponent}, D* ~ C^{self.tokens_exponent};"
            f" {curves}{self.lowest_flops:.3g} to {self.highest_flops:.3g} FLOPs>"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [
            (f"{v.flops:.3g}", number(v.parameters), number(v.tokens), f"{v.loss:.4f}", str(v.records))
            for v in self.valleys
        ]
        told = [f"N* ~ C^{self.parameters_exponent}, D* ~ C^{self.tokens_exponent}", *self.left_out]
        return table_html(f"Frontier by approach {self.approach}", ("FLOPs", "N*", "D*", "loss", "records"), rows, told)

    def parameters(self, flops: float) -> float:
        """N* at a training budget of `flops`."""
        return float(self.parameters_coefficient * flops**self.parameters_exponent.value)

    def tokens(self, flops: float) -> float:
        """D* at a training budget of `flops`."""
        return float(self.tokens_coefficient * flops**self.tokens_exponent.value)

    def flops(self, parameters: float) -> float:
        """The budget for which `parameters` is the optimal size."""
        return float((parameters / self.parameters_coefficient) ** (1.0 / self.parameters_exponent.value))


def power_law(C: Array, N: Array, deviation: Array | None = None, confidence: float = 0.95) -> tuple[float, Interval]:
    """(coefficient, exponent with interval) of N = k·C^a by weighted least squares in logarithms.

    deviation: standard deviation of ln N at each point; all equal when None. Raises TableError below three points.
    """
    if len(C) < 3:
        raise TableError(f"{len(C)} points on the frontier; an exponent with an interval needs at least 3 budgets")
    w = np.ones_like(C) if deviation is None else 1.0 / deviation**2
    x, y = np.log(C), np.log(N)
    x0, y0 = float(np.average(x, weights=w)), float(np.average(y, weights=w))
    spread = float(np.sum(w * (x - x0) ** 2))
    a = float(np.sum(w * (x - x0) * (y - y0))) / spread
    residual = y - y0 - a * (x - x0)
    freedom = len(C) - 2
    scale = float(np.sum(w * residual**2)) / freedom
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * np.sqrt(scale / spread)
    return float(np.exp(y0 - a * x0)), Interval(value=a, low=a - half, high=a + half)


def isoflop_frontier(
    records: Records,
    *,
    budgets: Sequence[float] | None = None,
    tolerance: float = BUDGET_TOLERANCE,
    confidence: float = 0.95,
    **reading: object,
) -> Frontier:
    """Approach 2: the valley of each IsoFLOP curve, and the power law through the valleys.

    budgets: C of the curves; found from the records when None. tolerance: relative distance in C of a record from its
    curve. Raises TableError when fewer than three curves have a valley.
    """
    table = read(records, ("parameters", "flops", "loss"), **reading)  # type: ignore[arg-type]  # checked by read
    C = table["flops"]
    centres = np.asarray(budgets, dtype=float) if budgets is not None else _budgets(C, tolerance)
    curves = [(table.take(np.abs(np.log(C / b)) <= np.log1p(tolerance)), float(b)) for b in centres]
    valleys, left_out = _bottoms(curves)
    if len(valleys) < 3:
        said = "; ".join(left_out[:3]) or "give budgets or a wider tolerance"
        raise TableError(f"{len(valleys)} IsoFLOP curves have a valley, and three are needed: {said}")
    at = np.array([v.flops for v in valleys])
    # equal weights: what moves a valley is the shape of its curve more than the scatter about it
    n, a = power_law(at, np.array([v.parameters for v in valleys]), confidence=confidence)
    d, b = power_law(at, np.array([v.tokens for v in valleys]), confidence=confidence)
    return Frontier(
        approach=2,
        parameters_exponent=a,
        tokens_exponent=b,
        parameters_coefficient=n,
        tokens_coefficient=d,
        lowest_flops=float(at.min()),
        highest_flops=float(at.max()),
        valleys=tuple(valleys),
        left_out=tuple(left_out),
    )


def _budgets(C: Array, tolerance: float) -> Array:
    """Centres of the clusters of compute, each a curve of four records or more."""
    v = np.sort(C)
    edges = np.flatnonzero(np.diff(np.log(v)) > np.log1p(tolerance)) + 1
    return np.array([np.exp(np.mean(np.log(part))) for part in np.split(v, edges) if len(part) >= 4])


def _bottoms(curves: Sequence[tuple[Table, float]]) -> tuple[list[Valley], list[str]]:
    """The valleys, and why other curves have none.

    Parabolas, or cubics where those fit all curves together significantly better (F test at 1 %): IsoFLOP curves rise
    faster towards large models, so that a parabola is biased, and scattered records cannot carry a cubic.
    """
    fitted = {}
    for degree in (2, 3):
        found = [_valley(curve, budget, degree) for curve, budget in curves]
        good = [f for f in found if not isinstance(f, str)]
        fitted[degree] = (
            [v for v, _, _ in good],
            [f for f in found if isinstance(f, str)],
            sum(rss for _, rss, _ in good),
            sum(freedom for _, _, freedom in good),
        )
    flat, bent = fitted[2], fitted[3]
    extra = flat[3] - bent[3]
    cubic = (
        len(bent[0]) >= len(flat[0]) >= 3
        and extra > 0
        and bent[3] > 0
        and (flat[2] - bent[2]) / extra > bent[2] / bent[3] * float(special.fdtri(extra, bent[3], 0.99))
    )
    valleys, left_out, rss, freedom = bent if cubic else flat
    scatter = float(np.sqrt(rss / max(1, freedom)))  # one for all: each curve alone has too few records
    return [v.changed(deviation=v.deviation * scatter) for v in valleys], left_out


def _valley(curve: Table, budget: float, degree: int) -> tuple[Valley, float, int] | str:
    """The lowest point of a polynomial in u = ln N about the lowest record, its residual sum of squares and freedom; or
    why there is none. The deviation is for a unit variance."""
    name = f"the curve at {budget:.3g} FLOPs"
    if len(curve) < 4:
        return f"{name} has {len(curve)} records; a valley needs 4"
    N, L = curve["parameters"], curve["loss"]
    order = np.argsort(N, kind="stable")
    N, L = N[order], L[order]
    lowest = int(np.argmin(L))
    index = np.flatnonzero(np.abs(np.log(N / N[lowest])) <= np.log(REACH))
    index = index[(index >= lowest - SIDES) & (index <= lowest + SIDES)]
    if index[0] == lowest or index[-1] == lowest:
        side = "smaller" if index[0] == lowest else "larger"
        return f"{name} is lowest at its edge ({N[lowest]:.3g} parameters): add {side} models"
    if len(index) < 4:
        return f"{name} has {len(index)} records near its lowest; a valley needs 4"
    centre = float(np.log(N[lowest]))
    u = np.log(N[index]) - centre
    powers = np.arange(min(degree, len(u) - 2) + 1)
    design = u[:, None] ** powers
    c, *_ = np.linalg.lstsq(design, L[index], rcond=None)
    slope = np.polynomial.Polynomial(c).deriv()
    turns = [float(r.real) for r in slope.roots() if abs(r.imag) < 1e-9 and u[0] <= r.real <= u[-1]]
    turns = [r for r in turns if slope.deriv()(r) > 0]
    if not turns:
        return f"{name} does not bend upwards on both sides of its lowest record"
    u0 = min(turns, key=abs)
    moved = -powers * u0 ** np.maximum(powers - 1, 0) / slope.deriv()(u0)  # d u0 / d c
    residual = L[index] - design @ c
    parameters = float(np.exp(centre + u0))
    valley = Valley(
        flops=budget,
        parameters=parameters,
        tokens=budget / (6.0 * parameters),
        loss=float(c @ u0**powers),
        deviation=float(np.sqrt(moved @ np.linalg.inv(design.T @ design) @ moved)),
        records=len(index),
    )
    return valley, float(residual @ residual), len(u) - len(powers)


def envelope_frontier(records: Records, *, confidence: float = 0.95, seed: int = SEED, **reading: object) -> Frontier:
    """Approach 1: at each compute value the run whose learning curve is lowest; power laws through those (N, D).

    records: learning curves, several rows a run, with a column `run`. Losses are interpolated in ln L over ln C. The
    interval resamples runs. Raises TableError without runs, or where fewer than three sizes ever lead.
    """
    table = read(records, ("parameters", "tokens", "loss"), **reading)  # type: ignore[arg-type]  # checked by read
    if "run" not in table.labels:
        raise TableError(f"{table.source}: no column run; approach 1 needs learning curves, several rows a run")
    names = sorted(set(table.labels["run"]))
    labels = np.array(table.labels["run"])
    C = 6.0 * table["parameters"] * table["tokens"]
    grid = np.geomspace(C.min(), C.max(), ENVELOPE)
    height = np.full((len(names), ENVELOPE), np.inf)  # ln loss of each run where it has been
    size = np.empty(len(names))
    for i, name in enumerate(names):
        rows = np.flatnonzero(labels == name)
        rows = rows[np.argsort(C[rows], kind="stable")]
        size[i] = table["parameters"][rows[0]]
        inside = (grid >= C[rows[0]]) & (grid <= C[rows[-1]])
        height[i, inside] = np.interp(np.log(grid[inside]), np.log(C[rows]), np.log(table["loss"][rows]))

    def exponent(chosen: Array) -> tuple[float, float, Array, Array]:
        """(a, ln k, compute values, leading sizes) of the envelope of some of the runs."""
        part = height[chosen]
        known = np.isfinite(part.min(0))
        leading = size[chosen][np.argmin(part[:, known], axis=0)]
        x, y = np.log(grid[known]), np.log(leading)
        # each leading size counts once, at the middle of its reign: the envelope's values are not independent
        sizes = np.unique(leading)
        if len(sizes) >= 5:  # the reigns of the smallest and the largest are cut short by the range of the runs
            sizes = sizes[1:-1]
        if len(sizes) < 3:
            return np.nan, np.nan, x, leading
        middle = np.array([x[leading == s].mean() for s in sizes])
        a = float(np.cov(middle, np.log(sizes))[0, 1] / np.var(middle, ddof=1))
        return a, float(np.log(sizes).mean() - a * middle.mean()), x, y

    everything = np.arange(len(names))
    a, intercept, x, leading = exponent(everything)
    if not np.isfinite(a):
        raise TableError(
            f"{len(np.unique(leading))} sizes ever lead the envelope, and approach 1 needs 3: add runs of other sizes"
        )
    draw = np.random.default_rng(seed)
    spread = np.array([exponent(np.unique(draw.integers(0, len(names), len(names))))[0] for _ in range(REFITS)])
    interval = percentile_interval(spread, a, confidence)
    return Frontier(
        approach=1,
        parameters_exponent=interval,
        tokens_exponent=Interval(value=1 - a, low=1 - interval.high, high=1 - interval.low),
        parameters_coefficient=float(np.exp(intercept)),
        tokens_coefficient=float(np.exp(-intercept)) / 6.0,
        lowest_flops=float(np.exp(x[0])),
        highest_flops=float(np.exp(x[-1])),
    )
