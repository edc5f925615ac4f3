"""Method S1: the predictive distribution of log losses from a ladder's past, rung after rung.

Owns the priors, the weights, the scale of a forecast and what the ladder's own past errors do to it. Works on plain
arrays; who may be forecast, and in which words, is `forecast`'s business. Knows no clock and draws no random number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sweep_analysis import surface
from sweep_analysis.surface import Floats

Counts = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Settings:
    """The method's constants; docs/forecasts.md says how they were chosen."""

    entropy_at: float = 0.5
    """logit of E's share of the lowest past loss, at 1e19 FLOPs."""
    entropy_slope: float = 0.2
    """… and its rise per decade of compute."""
    prior_mean: tuple[float, float] = (float(np.log(0.34)), float(np.log(0.39)))
    prior_deviation: tuple[float, float, float, float, float] = (0.10, 0.30, 0.30, 0.20, 0.40)
    floor: float = 0.004
    """Residual sd of ln L of a well-split run: misspecification, seed noise and the rest."""
    extra: float = 0.003
    """… and what a new rung adds of its own."""
    off_optimum: float = 0.05
    """Residual sd per unit of x = ln L − ln L at the law's best split."""
    recency: float = 1.5
    """Residual variance grows by e^recency per e-fold of compute below the newest."""
    rungs_power: float = 0.5
    widening: float = 0.25
    """Growth of the scale with ln(C/C_max)."""
    memory: float = 0.75
    prior_weight: float = 4.0
    inflation: float = 1.05


SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Records as arrays, rung after rung; `rung` numbers them from 0."""

    log_parameters: Floats
    log_tokens: Floats
    log_loss: Floats
    rung: Counts

    @property
    def log_compute(self) -> Floats:
        """ln(N·D); the factor 6 is left to who reports FLOPs."""
        return self.log_parameters + self.log_tokens

    @property
    def rungs(self) -> int:
        return int(self.rung.max()) + 1


@dataclass(frozen=True, slots=True)
class Pasts:
    """For every number of past rungs k = 1 … K, the fit to those rungs alone. Arrays lead with K."""

    anchor: Floats
    """(K, 3): ln N, ln D and ln loss of the lowest-loss run."""
    newest: Floats
    """(K,): largest ln(N·D) of the past."""
    fits: surface.Fits
    weight: Floats
    """(K, n): robust weight of each record; 0 for records not yet seen."""


def fit_pasts(evidence: Evidence, settings: Settings = SETTINGS, *, only_last: bool = False) -> Pasts:
    """Fit every past of the ladder at once: the first rung, the first two, … all of them."""
    pasts = np.arange(evidence.rungs)[-1:] if only_last else np.arange(evidence.rungs)
    seen = evidence.rung[None, :] <= pasts[:, None]
    lowest = np.argmin(np.where(seen, evidence.log_loss, np.inf), axis=1)
    c = evidence.log_compute
    newest = np.max(np.where(seen, c, -np.inf), axis=1)
    u = evidence.log_parameters - evidence.log_parameters[lowest, None]
    v = evidence.log_tokens - evidence.log_tokens[lowest, None]
    best_loss = np.exp(evidence.log_loss[lowest])
    compute = 6.0 * np.exp(c[lowest])
    share = 1.0 / (1.0 + np.exp(-(settings.entropy_at + settings.entropy_slope * np.log10(compute / 1e19))))
    half = np.log((1.0 - share) * best_loss / 2.0)
    ones = np.ones_like(half)
    mean = np.stack(
        [np.log(share * best_loss), half, half, settings.prior_mean[0] * ones, settings.prior_mean[1] * ones], axis=-1
    )
    deviation = np.broadcast_to(np.array(settings.prior_deviation), mean.shape)
    losses = np.broadcast_to(evidence.log_loss, u.shape)
    # Recent runs weigh most: the law is local.
    recency = np.exp(np.clip(settings.recency * (newest[:, None] - c), 0.0, 200.0))
    robust = np.ones_like(u)
    off = np.zeros_like(u)
    fits: surface.Fits | None = None
    for _ in range(3):
        variance = (settings.floor**2 + (settings.off_optimum * off) ** 2) * recency / robust
        weights = seen / variance
        fits = surface.fit(u, v, losses, weights, mean, deviation, None if fits is None else fits.theta)
        fitted = surface.log_loss(fits.theta, u, v)
        J = surface.jacobian(fits.theta, u, v)
        leverage = np.clip(weights * np.einsum("kni,kij,knj->kn", J, fits.covariance, J), 0.0, 0.999)
        z = np.where(seen, (losses - fitted) * np.sqrt(weights / (1.0 - leverage)), np.nan)
        z = np.abs(z) / np.maximum(1.0, 1.4826 * np.nanmedian(np.abs(z), axis=1))[:, None]
        z = np.where(seen, z, 0.0)
        robust = np.clip(np.where(z > 2.5, robust * (2.5 / np.maximum(z, 2.5)) ** 2, robust), 1e-4, 1.0)
        off = np.maximum(0.0, fitted - surface.optimum(fits.theta, u + v))
    assert fits is not None
    return Pasts(
        np.stack([evidence.log_parameters[lowest], evidence.log_tokens[lowest], evidence.log_loss[lowest]], axis=-1),
        newest,
        fits,
        np.where(seen, robust, 0.0),
    )


@dataclass(frozen=True, slots=True)
class Predictive:
    """Student-t predictive of `m` log losses, before the ladder's own past scales it."""

    mean: Floats
    """(m,) ln loss."""
    covariance: Floats
    """(m, m): what the fit does not know, what the law does not say, and the noise of runs."""


def predict(
    pasts: Pasts, k: int, log_parameters: Floats, log_tokens: Floats, run: Counts, settings: Settings = SETTINGS
) -> Predictive:
    """Predictive of runs at (ln N, ln D) from the first `k` rungs; records of one `run` share their noise."""
    row = k - 1
    theta = pasts.fits.theta[row]
    u, v = log_parameters - pasts.anchor[row, 0], log_tokens - pasts.anchor[row, 1]
    mean = surface.log_loss(theta, u, v)
    J = surface.jacobian(theta, u, v)
    off = np.maximum(0.0, mean - surface.optimum(theta, u + v))
    ahead = np.maximum(0.0, log_parameters + log_tokens - pasts.newest[row])
    growth = (min(k, 14) / 4.0) ** (-0.5 * settings.rungs_power) * np.sqrt(1.0 + (settings.widening * ahead) ** 2)
    unknown = J @ np.linalg.inv(pasts.fits.precision[row]) @ J.T
    own = np.where(run[:, None] == run[None, :], settings.floor**2, 0.0)
    shared = settings.extra**2 + np.outer(settings.off_optimum * off, settings.off_optimum * off)
    return Predictive(mean, (unknown + own + shared) * np.outer(growth, growth))


def history_scale(
    evidence: Evidence, pasts: Pasts, run: Counts, settings: Settings = SETTINGS
) -> tuple[Floats, Floats]:
    """(λ, ν) for every number of past rungs: each rung from the second on was forecast from its predecessors.

    q_j = mean of min(z², 36) over rung j's runs; ν = prior weight + Σω, λ² = (prior weight + Σ ω q)/ν, ω = memory^age.
    """
    surprises: list[float] = []
    for j in range(1, evidence.rungs):
        here = evidence.rung == j
        predictive = predict(pasts, j, evidence.log_parameters[here], evidence.log_tokens[here], run[here], settings)
        z = (evidence.log_loss[here] - predictive.mean) ** 2 / np.diag(predictive.covariance)
        surprises.append(float(np.mean(np.minimum(z, 36.0))))
    scales, freedoms = [1.0], [settings.prior_weight]
    for j in range(1, evidence.rungs):
        q = np.array(surprises[:j])
        w = settings.memory ** np.arange(j - 1, -1, -1)
        nu = settings.prior_weight + w.sum()
        freedoms.append(float(nu))
        scales.append(float(np.sqrt((settings.prior_weight + (w * q).sum()) / nu)))
    return np.array(scales), np.array(freedoms)


def quantile(confidence: float, degrees_of_freedom: float) -> float:
    """Two-sided Student-t quantile: half-width in units of the scale."""
    return float(stdtrit(degrees_of_freedom, 0.5 + confidence / 2.0))
