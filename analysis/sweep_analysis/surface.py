"""The loss surface as the forecast sees it: L = E + a·e^(−αu) + b·e^(−βv), by penalised least squares on log losses.

Owns the surface, its Jacobian and its maximum a posteriori fit, many fits at once. u and v are ln N and ln D counted
from an anchor run, so that a and b are the two reducible losses at that run, in nats, and priors on them travel
between scales. Refuses nothing: what a fit is worth is the forecast's business.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PARAMETERS = ("ln E", "ln a", "ln b", "ln alpha", "ln beta")
STEPS = 80
"""Levenberg–Marquardt steps at most; 6 to 12 suffice where the prior is near, 40 where the exponents are far off it."""


def log_loss(theta: Floats, u: Floats, v: Floats) -> Floats:
    """ln L(u, v). `theta` (…, 5) as in PARAMETERS, `u`, `v` (…, n); returns (…, n). Takes complex values too."""
    E, a, b, alpha, beta = (np.exp(theta[..., i, None]) for i in range(5))
    return cast(Floats, np.log(E + a * np.exp(-alpha * u) + b * np.exp(-beta * v)))


def jacobian(theta: Floats, u: Floats, v: Floats) -> Floats:
    """∂ ln L / ∂ theta, shape (…, n, 5)."""
    E, a, b, alpha, beta = (np.exp(theta[..., i, None]) for i in range(5))
    of_size, of_data = a * np.exp(-alpha * u), b * np.exp(-beta * v)
    total = E + of_size + of_data
    rows = (E + 0.0 * u, of_size, of_data, -alpha * u * of_size, -beta * v * of_data)
    return cast(Floats, np.stack([row / total for row in rows], axis=-1))


def optimum(theta: Floats, c: Floats) -> Floats:
    """ln L at the law's own best split of compute, c = u + v; (…, 5), (…, n) → (…, n).

    Setting ∂L/∂u = 0 on u + v = c gives u = (ln αa − ln βb + βc)/(α+β) (Hoffmann et al. 2022, arXiv:2203.15556, eq. 4).
    """
    alpha, beta = np.exp(theta[..., 3, None]), np.exp(theta[..., 4, None])
    balance = theta[..., 3, None] + theta[..., 1, None] - theta[..., 4, None] - theta[..., 2, None]
    u = (balance + beta * c) / (alpha + beta)
    return log_loss(theta, u, c - u)


def excess(theta: Floats, u: Floats, v: Floats, oversized: float = 1.0) -> Floats:
    """x = ln L(u, v) − ln L at the law's best split of the same compute, (…, n), at least 0.

    Times `oversized` where the model is larger than that split would have it, ∂L/∂u > 0 on u + v = c.
    """
    x = np.maximum(0.0, log_loss(theta, u, v) - optimum(theta, u + v))
    alpha, beta = np.exp(theta[..., 3, None]), np.exp(theta[..., 4, None])
    data, size = (
        theta[..., 4, None] + theta[..., 2, None] - beta * v,
        theta[..., 3, None] + theta[..., 1, None] - alpha * u,
    )
    return cast(Floats, x * np.where(data > size, oversized, 1.0))


@dataclass(frozen=True, slots=True)
class Fits:
    """`B` maximum a posteriori fits. `theta` (B, 5); `precision` (B, 5, 5), the Hessian J'WJ + prior precision."""

    theta: Floats
    precision: Floats
    converged: NDArray[np.bool_]

    @property
    def covariance(self) -> Floats:
        """Posterior covariance of theta, (B, 5, 5)."""
        return cast(Floats, np.linalg.inv(self.precision))


def fit(
    u: Floats, v: Floats, losses: Floats, weights: Floats, mean: Floats, deviation: Floats, start: Floats | None = None
) -> Fits:
    """Maximum a posteriori by Levenberg–Marquardt, `B` independent problems at once.

    `u`, `v`, `losses` (log nats), `weights` (inverse residual variances; 0 leaves a record out) are (B, n); the
    normal prior has `mean` and `deviation` (B, 5) on the logs. Steps are accepted problem by problem.
    """
    theta = np.array(mean if start is None else start, dtype=float)
    penalty = deviation**-2.0
    damping = np.full(len(theta), 1e-3)
    cost = _cost(theta, u, v, losses, weights, mean, penalty)
    converged = np.zeros(len(theta), dtype=bool)
    diagonal = np.arange(5)
    for _ in range(STEPS):
        J = jacobian(theta, u, v)
        residuals = losses - log_loss(theta, u, v)
        WJ = weights[..., None] * J
        H = np.swapaxes(WJ, -1, -2) @ J
        H[:, diagonal, diagonal] += penalty
        gradient = np.einsum("bni,bn->bi", WJ, residuals) - penalty * (theta - mean)
        damped = H.copy()
        damped[:, diagonal, diagonal] *= 1.0 + damping[:, None]
        step = np.clip(np.linalg.solve(damped, gradient[..., None])[..., 0], -1.0, 1.0)
        tried = _cost(theta + step, u, v, losses, weights, mean, penalty)
        better = np.isfinite(tried) & (tried <= cost) & ~converged
        theta = np.where(better[:, None], theta + step, theta)
        converged |= better & (cost - tried <= 1e-8 * (1.0 + cost)) | (damping > 1e8)
        cost = np.where(better, tried, cost)
        damping = np.where(better, damping * 0.2, damping * 8.0)
        if converged.all():
            break
    J = jacobian(theta, u, v)
    H = np.swapaxes(weights[..., None] * J, -1, -2) @ J
    H[:, diagonal, diagonal] += penalty
    return Fits(theta, H, converged)


def _cost(
    theta: Floats, u: Floats, v: Floats, losses: Floats, weights: Floats, mean: Floats, penalty: Floats
) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # a wild trial step may overflow; it is then not accepted
        misfit = np.sum(weights * (losses - log_loss(theta, u, v)) ** 2, axis=-1)
    return np.asarray(misfit + np.sum(penalty * (theta - mean) ** 2, axis=-1))
