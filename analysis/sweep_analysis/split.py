"""How to split compute between parameters and tokens, by a fitted surface.

Owns the compute-optimal split with its interval, the same with inference counted, and the penalty of any other split.
Works on the Chinchilla surface, whose optimum has a closed form. Plans no ladder and prices nothing.
"""

from collections.abc import Mapping

import numpy as np

from sweep_analysis.bootstrap import SEED, bootstrap, percentile_interval
from sweep_analysis.document import Document
from sweep_analysis.fit import Fit, Interval
from sweep_analysis.laws.base import Array

REFITS = 500


class Split(Document):
    """Parameters and tokens for a compute budget, C = 6·N·D, each with its interval."""

    flops: float
    """C, training FLOPs of the split (6·N·D)."""
    parameters: Interval
    tokens: Interval
    loss: Interval
    """Loss at the split; the interval is that of the constants alone."""
    tokens_per_parameter: float
    inference_tokens: float = 0.0
    total_flops: float
    """Training plus inference: 6·N·D + 2·N·(inference tokens)."""

    def __repr__(self) -> str:
        served = f", {self.inference_tokens:.3g} tokens served" if self.inference_tokens else ""
        return (
            f"<Split of {self.flops:.4g} FLOPs{served}: {self.parameters} parameters on {self.tokens} tokens"
            f" ({self.tokens_per_parameter:.3g} a parameter), loss {self.loss}>"
        )

    __str__ = __repr__


class Penalty(Document):
    """What another split costs against the optimal one."""

    loss: float
    """Relative excess of loss over the optimum at the same training FLOPs."""
    flops: float
    """Training FLOPs over those that reach the same loss optimally (1: none wasted)."""

    def __repr__(self) -> str:
        return f"<Penalty: {100 * self.loss:.3g} % of loss, {self.flops:.4g} times the FLOPs>"

    __str__ = __repr__


def exponents(constants: Mapping[str, float]) -> tuple[float, float]:
    """(a, b) of N* ~ C^a, D* ~ C^b: beta/(alpha+beta), alpha/(alpha+beta) (Hoffmann et al. 2022, equation 4)."""
    alpha, beta = constants["alpha"], constants["beta"]
    return beta / (alpha + beta), alpha / (alpha + beta)


def optimal_split(
    fit: Fit,
    flops: float,
    *,
    inference_tokens: float = 0.0,
    confidence: float = 0.95,
    refits: int = REFITS,
    seed: int = SEED,
) -> Split:
    """N* = G·(C/6)^(beta/(alpha+beta)), G = (alpha·A/(beta·B))^(1/(alpha+beta)), D* = C/(6·N*); bootstrap intervals.

    With inference_tokens, of all splits that reach the loss of the compute-optimal one at `flops`, the one that needs
    the fewest FLOPs to train and to serve: 6·N·D + 2·N·T (Sardana et al. 2024, arXiv:2401.00448). Raises ValueError
    when the fit was refused or is not a Chinchilla surface.
    """
    _surface(fit)
    if not (np.isfinite(flops) and flops > 0):
        raise ValueError(f"flops is {flops}; it must be a finite number greater than zero")
    if not (np.isfinite(inference_tokens) and inference_tokens >= 0):
        raise ValueError(
            f"inference_tokens is {inference_tokens}; it must be zero or a finite number greater than zero"
        )
    point = np.array([[fit.constants[n] for n in ("E", "A", "B", "alpha", "beta")]])
    samples = np.concatenate([point, bootstrap(fit, refits, seed=seed).samples])
    N, D = optimum(samples, flops)
    if inference_tokens:
        N, D = served(samples, N, D, inference_tokens)
    loss = _loss(samples, N, D)
    n, d = float(N[0]), float(D[0])
    return Split(
        flops=6.0 * n * d,
        parameters=percentile_interval(N[1:], n, confidence),
        tokens=percentile_interval(D[1:], d, confidence),
        loss=percentile_interval(loss[1:], float(loss[0]), confidence),
        tokens_per_parameter=d / n,
        inference_tokens=inference_tokens,
        total_flops=6.0 * n * d + 2.0 * n * inference_tokens,
    )


def penalty(fit: Fit, parameters: float, tokens: float) -> Penalty:
    """What training `parameters` on `tokens` costs against the optimal split: over- or under-training."""
    _surface(fit)
    c = np.array([[fit.constants[n] for n in ("E", "A", "B", "alpha", "beta")]])
    flops = 6.0 * parameters * tokens
    here = float(_loss(c, np.array([parameters]), np.array([tokens]))[0])
    best = float(_loss(c, *optimum(c, flops))[0])
    # along the optimum both terms fall as C^-(alpha·beta/(alpha+beta)), so the FLOPs for a loss have a closed form
    alpha, beta = fit.constants["alpha"], fit.constants["beta"]
    share = (here - fit.constants["E"]) / (best - fit.constants["E"])
    return Penalty(loss=here / best - 1.0, flops=share ** ((alpha + beta) / (alpha * beta)))


def _surface(fit: Fit) -> None:
    if not fit.usable:
        raise ValueError(f"{fit.law} was not fitted: {fit.message}")
    if set(fit.constants) != {"E", "A", "B", "alpha", "beta"}:
        raise ValueError(f"a split needs a fitted Chinchilla surface, not {fit.law}")


def _loss(c: Array, N: Array, D: Array) -> Array:
    E, A, B, alpha, beta = c.T
    return np.asarray(E + A * N**-alpha + B * D**-beta)


def optimum(c: Array, flops: float | Array) -> tuple[Array, Array]:
    """Compute-optimal N*, D* (R,) of each row of constants (R, 5): E, A, B, alpha, beta; C = 6·N·D is `flops`."""
    _, A, B, alpha, beta = c.T
    G = np.exp((np.log(alpha * A) - np.log(beta * B)) / (alpha + beta))
    N = G * (flops / 6.0) ** (beta / (alpha + beta))
    return N, flops / (6.0 * N)


def served(c: Array, N: Array, D: Array, inference_tokens: float) -> tuple[Array, Array]:
    """The split of equal loss that minimises 6·N·D + 2·N·T, by golden section in ln N below the training optimum."""
    E, A, B, alpha, beta = c.T
    reducible = _loss(c, N, D) - E
    low = np.log(A / reducible) / alpha  # a smaller model cannot reach this loss on any amount of data
    high = np.log(N)
    golden = (np.sqrt(5.0) - 1.0) / 2.0

    def tokens(u: Array) -> Array:
        left = reducible - A * np.exp(-alpha * u)
        return np.asarray((B / np.maximum(left, 1e-300)) ** (1.0 / beta))

    def total(u: Array) -> Array:
        return np.asarray(np.exp(u) * (6.0 * tokens(u) + 2.0 * inference_tokens))

    with np.errstate(over="ignore"):
        for _ in range(80):
            a = high - golden * (high - low)
            b = low + golden * (high - low)
            left = total(a) < total(b)
            low, high = np.where(left, low, a), np.where(left, b, high)
        u = 0.5 * (low + high)
        return np.exp(u), tokens(u)
