"""Which law is assumed before anything was measured: published surfaces, and draws around them.

Owns the constants with their sources. They speak of English web text in subword tokens between 1e18 and 1e22 FLOPs;
a ladder that ran replaces them by its own posterior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep_analysis import split
from sweep_analysis.forecast import Point
from sweep_analysis.plan.devices import Range
from sweep_analysis.posterior import believe
from sweep_analysis.surface import Floats

LEAST_COMPUTE = 1e15
"""FLOPs below which the published constants are silent: they were fitted three decades above."""
PUBLISHED = {
    "Besiroglu et al. 2024, arXiv:2404.10102 (Chinchilla, refitted)": (1.81722, 477.83, 2143.42, 0.34731, 0.36717),
    "Hoffmann et al. 2022, arXiv:2203.15556, approach 3": (1.69, 406.4, 410.7, 0.34, 0.28),
    "Muennighoff et al. 2023, arXiv:2305.16264 (C4)": (1.8691, 520.83, 1487.7, 0.3526596, 0.3526596),
}  # fmt: skip
"""Source: E, A, B, alpha, beta of L = E + A/N^alpha + B/D^beta, nats per token."""
MAIN = next(iter(PUBLISHED))
ANCHOR = 1e20
"""FLOPs at whose optimum the draws' terms are anchored, so that jitter in an exponent does not move the level."""
JITTER = (0.04, 0.10, 0.10, 0.08, 0.08)
"""sd of ln E, of the logs of both terms at the anchor, of ln alpha and ln beta, around each published law."""
DRAWS = 240


@dataclass(frozen=True, slots=True)
class Assumed:
    """A law with the doubt about it: the first row is the expectation, the others are draws."""

    constants: Floats
    """(R, 5) E, A, B, alpha, beta."""
    source: str

    @property
    def expected(self) -> Floats:
        """(5,)"""
        return np.asarray(self.constants[0])

    def loss(self, parameters: float, tokens: float) -> Floats:
        """(R,) nats per token."""
        E, A, B, alpha, beta = self.constants.T
        return np.asarray(E + A * parameters**-alpha + B * tokens**-beta)

    def optimum(self, flops: float) -> tuple[Floats, Floats]:
        """Compute-optimal N*, D* (R,) for C = 6·N·D."""
        return split.optimum(self.constants, flops)


def assume(seed: int = 0, draws: int = DRAWS) -> Assumed:
    """The published laws and draws around them; the same seed gives the same draws."""
    rng = np.random.default_rng(seed)
    laws = np.array(list(PUBLISHED.values()))
    chosen = laws[rng.integers(len(laws), size=draws)]
    N, D = split.optimum(chosen, ANCHOR)
    E, A, B, alpha, beta = chosen.T
    noise = np.exp(np.array(JITTER) * rng.standard_normal((draws, 5)))
    new_alpha, new_beta = alpha * noise[:, 3], beta * noise[:, 4]
    drawn = np.stack(
        [E * noise[:, 0], A * N ** (new_alpha - alpha) * noise[:, 1], B * D ** (new_beta - beta) * noise[:, 2],
         new_alpha, new_beta],
        axis=1,
    )  # fmt: skip
    return Assumed(np.concatenate([laws[:1], drawn]), MAIN)


def range_of(values: Floats, confidence: float = 0.95) -> Range:
    """The expectation (first entry) with the quantiles of the draws."""
    low, high = np.quantile(values[1:], [0.5 - confidence / 2, 0.5 + confidence / 2])
    value = float(values[0])
    return Range(value=value, low=min(value, float(low)), high=max(value, float(high)))


def posterior(history: Sequence[Sequence[Point]], seed: int = 0, draws: int = DRAWS) -> Assumed:
    """What a ladder's records say of its law, as the forecaster believes it: a Student-t on the logs, drawn."""
    belief = believe(history)
    rng = np.random.default_rng(seed)
    stretch = np.sqrt(belief.degrees_of_freedom / rng.chisquare(belief.degrees_of_freedom, draws))
    normal = rng.multivariate_normal(np.zeros(5), belief.covariance, size=draws)
    theta = np.concatenate([belief.theta[None], belief.theta + normal * stretch[:, None]])
    alpha, beta = np.exp(theta[:, 3]), np.exp(theta[:, 4])
    logs = theta.copy()
    logs[:, 1] += alpha * belief.anchor[0]
    logs[:, 2] += beta * belief.anchor[1]
    records = sum(len(rung) for rung in history)
    return Assumed(np.exp(logs), f"this ladder's own, from {records} records")
