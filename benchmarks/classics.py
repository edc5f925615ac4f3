"""The usual intervals, to hold ours against: parameters-only (delta method), bootstrap by rung, rolling t; and S1.

Owns four methods in the form that `sweep_analysis.backtest` replays. The first three share one unregularised fit of
L = E + A/N^alpha + B/D^beta by least squares on log losses; they abstain below seven records.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.stats import t as student

from sweep_analysis import surface
from sweep_analysis.backtest import Foretold, SurfaceReplay
from sweep_analysis.forecast import Point
from sweep_analysis.predictive import Settings

LOOSE = np.array([[3.0, 3.0, 3.0, 2.0, 2.0]])
"""sd of a prior that only keeps a constant from running to infinity."""
REFITS = 199

S1 = Settings(
    entropy_at=0.5,
    entropy_slope=0.2,
    entropy_beyond=0.0,
    entropy_doubt=0.0,
    prior_mean=(0.34, 0.39),
    prior_deviation=(0.10, 0.30, 0.30, 0.20, 0.40),
    fit_floor=0.004,
    fit_off_optimum=0.05,
    oversized=1.0,
    fit_adapts=0.0,
    recency=1.5,
    outlier=2.5,
    fit_factor=1.0,
    floor=0.005,  # .004 and .003, squared and added
    off_optimum=0.05,
    below_data=0.0,
    rungs_power=0.5,
    few_records=0.0,
    widening=0.25,
    drift=0.0,
    bend=0.0,
    memory=0.75,
    prior_weight=4.0,
    inflation=1.05,
    kernel=None,
)
"""The method to beat, as it was published to us: docs/forecasts.md."""
VERSION_3 = Settings(
    fit_factor=0.5,
    floor=0.0044,
    off_optimum=0.06,
    few_records=8.0,
    widening=0.4,
    drift=0.0,
    bend=0.0,
    memory=0.48,
    prior_weight=3.3,
    inflation=1.0,
)
"""The version before this one, settled on the four origins of shared data; fit and kernel are the present ones."""


class Classic:
    """One unregularised fit a past, kept."""

    def __init__(self, rungs: Sequence[Sequence[Point]]) -> None:
        self.rungs = rungs
        self.kept: dict[int, tuple[np.ndarray, ...] | None] = {}

    def fitted(self, k: int) -> tuple[np.ndarray, ...] | None:
        """(theta, anchor, covariance of theta, residuals, u, v) of the first `k` rungs; None below seven records."""
        if k not in self.kept:
            points = [p for rung in self.rungs[:k] for p in rung]
            self.kept[k] = self._fit(points) if len(points) >= 7 else None
        return self.kept[k]

    def _fit(self, points: list[Point]) -> tuple[np.ndarray, ...]:
        n, d, y = np.log([(p.parameters, p.tokens, p.loss) for p in points]).T
        lowest = int(np.argmin(y))
        u, v = n - n[lowest], d - d[lowest]
        mean = _start(y[lowest])
        fits = surface.fit(u[None], v[None], y[None], np.full((1, len(y)), 1e4), mean, LOOSE)
        theta = fits.theta[0]
        residuals = y - surface.log_loss(theta, u, v)
        J = surface.jacobian(theta, u, v)
        variance = float(residuals @ residuals) / (len(y) - 5)
        covariance = variance * np.linalg.pinv(J.T @ J + 1e-4 * np.diag(LOOSE[0] ** -2.0))
        return theta, np.array([n[lowest], d[lowest]]), covariance, residuals, u, v


def _start(lowest: float) -> np.ndarray:
    half = np.log(0.2 * np.exp(lowest))
    return np.array([[lowest + np.log(0.6), half, half, np.log(0.35), np.log(0.37)]])


def _at(runs: Sequence[Point], anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, d = np.log([(p.parameters, p.tokens) for p in runs]).T
    return n - anchor[0], d - anchor[1]


class Delta(Classic):
    """Parameters only: g' Σ g by the delta method, Student-t with n − 5 degrees of freedom."""

    def foretell(self, k: int, runs: Sequence[Point], confidence: float) -> Foretold | None:
        kept = self.fitted(k)
        if kept is None:
            return None
        theta, anchor, covariance, residuals, _, _ = kept
        u, v = _at(runs, anchor)
        J = surface.jacobian(theta, u, v)
        half = student.ppf(0.5 + confidence / 2, len(residuals) - 5) * np.sqrt(
            np.einsum("ni,ij,nj->n", J, covariance, J)
        )
        return Foretold(surface.log_loss(theta, u, v), half, float("nan"))


class WildBootstrap(Classic):
    """Refits to residuals whose signs are drawn rung by rung (Cameron, Gelbach & Miller 2008), plus one residual."""

    def foretell(self, k: int, runs: Sequence[Point], confidence: float) -> Foretold | None:
        kept = self.fitted(k)
        if kept is None:
            return None
        theta, anchor, _, residuals, u, v = kept
        rng = np.random.default_rng(20261123)
        signs = rng.choice([-1.0, 1.0], size=(REFITS, k))
        rung = np.repeat(np.arange(k), [len(r) for r in self.rungs[:k]])
        fitted = surface.log_loss(theta, u, v)
        y = fitted + signs[:, rung] * residuals
        shape = (REFITS, len(u))
        start = np.tile(theta, (REFITS, 1))
        fits = surface.fit(
            np.broadcast_to(u, shape),
            np.broadcast_to(v, shape),
            y,
            np.full(shape, 1e4),
            np.tile(_start(y.min()), (REFITS, 1)),
            LOOSE,
            start,
        )
        at_u, at_v = _at(runs, anchor)
        drawn = surface.log_loss(fits.theta, np.tile(at_u, (REFITS, 1)), np.tile(at_v, (REFITS, 1)))
        drawn += rng.choice(residuals, size=(REFITS, 1)) * rng.choice([-1.0, 1.0], size=(REFITS, 1))
        mean = surface.log_loss(theta, at_u, at_v)
        return Foretold(mean, np.quantile(np.abs(drawn - mean), confidence, axis=0), float("nan"))


class RollingT(Classic):
    """t · RMS of the past one-step errors of the same fit; needs two of them."""

    def foretell(self, k: int, runs: Sequence[Point], confidence: float) -> Foretold | None:
        kept = self.fitted(k)
        if kept is None:
            return None
        errors = []
        for j in range(1, k):
            before = self.fitted(j)
            if before is not None:
                u, v = _at(self.rungs[j], before[1])
                miss = np.log([p.loss for p in self.rungs[j]]) - surface.log_loss(before[0], u, v)
                errors.append(float(np.mean(miss**2)))
        if len(errors) < 2:
            return None
        u, v = _at(runs, kept[1])
        half = student.ppf(0.5 + confidence / 2, len(errors)) * np.sqrt(np.mean(errors))
        return Foretold(surface.log_loss(kept[0], u, v), np.full(len(runs), half), float("nan"))


METHODS = {
    "parameters only (delta method)": Delta,
    "wild bootstrap by rung": WildBootstrap,
    "rolling t": RollingT,
    "S1": partial(SurfaceReplay, settings=S1),
    "ours": SurfaceReplay,
}
VERSIONS = {"S1": METHODS["S1"], "version 3": partial(SurfaceReplay, settings=VERSION_3), "version 4": METHODS["ours"]}
