"""The law that the forecasts are made with, as a reader wants to see it: E, A, B, alpha, beta with intervals.

Owns the translation of the forecaster's posterior into the constants of L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann
et al. 2022, arXiv:2203.15556, equation 2). A young ladder cannot identify five free constants; the posterior always
can, and its intervals say how little of it came from the data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sweep_analysis.forecast import Point, evidence_of
from sweep_analysis.interval import Interval
from sweep_analysis.predictive import History, quantile
from sweep_analysis.split import served
from sweep_analysis.surface import Floats

NAMES = ("E", "A", "B", "alpha", "beta")


@dataclass(frozen=True, slots=True)
class Belief:
    """The posterior of one ladder's law: a Student-t on the logs of (E, a, b, alpha, beta) around an anchor."""

    theta: Floats
    """(5,) ln E, ln a, ln b, ln alpha, ln beta, where a = A·N0^−alpha and b = B·D0^−beta."""
    covariance: Floats
    """(5, 5), scaled by the ladder's own past errors."""
    anchor: Floats
    """(2,) ln N0, ln D0."""
    degrees_of_freedom: float

    def constants(self, confidence: float = 0.95) -> dict[str, Interval]:
        """E in nats per token, A and B in nats per token times N^alpha and D^beta, alpha, beta, with intervals."""

        def logs(theta: Floats) -> Floats:
            alpha, beta = np.exp(theta[3:])
            shift: Floats = np.array([0.0, alpha * self.anchor[0], beta * self.anchor[1], 0.0, 0.0])
            return theta + shift

        return dict(zip(NAMES, self._intervals(logs, confidence), strict=True))

    def split(
        self, flops: float, confidence: float = 0.95, *, inference_tokens: float = 0.0
    ) -> tuple[Interval, Interval]:
        """Compute-optimal N and D for C = 6ND: N* = G·(C/6)^(beta/(alpha+beta)), D* = C/(6N*), with intervals.

        With `inference_tokens`, of all splits that reach the same loss, the one that is trained and serves so many
        tokens for the fewest FLOPs (Sardana et al. 2024, arXiv:2401.00448).
        """
        budget = np.log(flops / 6.0)

        def logs(theta: Floats) -> Floats:
            alpha, beta = np.exp(theta[3:])
            ratio = theta[3] - theta[4] + theta[1] - theta[2] + alpha * self.anchor[0] - beta * self.anchor[1]
            n = (ratio + beta * budget) / (alpha + beta)
            if not inference_tokens:
                return np.array([n, budget - n])
            shifted = theta + np.array([0.0, alpha * self.anchor[0], beta * self.anchor[1], 0.0, 0.0])
            best = served(np.exp(shifted)[None], np.exp([n]), np.exp([budget - n]), inference_tokens)
            return np.array([float(np.log(x[0])) for x in best])

        n, d = self._intervals(logs, confidence)
        return n, d

    def _intervals(self, logs: Callable[[Floats], Floats], confidence: float) -> list[Interval]:
        """Delta method on smooth functions of theta; the Jacobian by central differences, exact to eight digits."""
        step = 1e-5
        J = np.stack(
            [(logs(self.theta + step * e) - logs(self.theta - step * e)) / (2 * step) for e in np.eye(5)], axis=1
        )
        half = quantile(confidence, self.degrees_of_freedom) * np.sqrt(np.diag(J @ self.covariance @ J.T))
        return [
            Interval(value=float(np.exp(x)), low=float(np.exp(x - h)), high=float(np.exp(x + h)))
            for x, h in zip(logs(self.theta), half, strict=True)
        ]


def believe(history: Sequence[Sequence[Point]]) -> Belief:
    """The posterior after these rungs of records; at least one record is needed."""
    past = History(evidence_of([rung for rung in history if rung]))
    rungs = past.evidence.rungs
    row = past.row(rungs)
    square, freedom = past.own_scale(rungs)
    covariance = square * np.linalg.inv(past.fits.precision[row])
    return Belief(past.fits.theta[row], covariance, past.anchor[row, :2], freedom)
