"""From loss to a downstream metric: accuracy as a sigmoid of loss, error as its exponential."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class DownstreamSigmoid(Law):
    """accuracy(L) = floor + rise / (1 + e^(k·(L − L0)))."""

    name = "DownstreamSigmoid"
    equation = r"\mathrm{accuracy}(L) = \mathrm{floor} + \frac{\mathrm{rise}}{1 + e^{\,k (L - L_0)}}"
    citation = "Grattafiori et al. 2024, arXiv:2407.21783, §3.2.1; Bhagia et al. 2024, arXiv:2412.04403, equation 2"
    use = "A benchmark measured on models that span its rise; then loss → accuracy with the compounded interval."
    limits = (
        "Where accuracy is still at chance, or already at its ceiling, nothing can be forecast. The map moves with the "
        "corpus and the tokenizer that the loss is measured on."
    )
    axes = (Axis("loss", "L", "nats per token", logarithmic=False, levels=4),)
    constants = (
        Constant("floor", "1", "accuracy of a guess", low=1e-6, high=1.0),
        Constant("rise", "1", "ceiling less floor", low=1e-3, high=1.2),
        Constant("k", "1 / nat", "steepness", low=1e-2, high=1e3),
        Constant("L0", "nats per token", "loss at half of the rise", positive=False, low=-50.0, high=50.0),
    )
    response = "accuracy"
    response_unit = "fraction right"
    residual = "absolute"
    delta = float("inf")
    linear = ("floor", "rise")
    basins = 8

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        floor, rise, k, L0 = (c[:, i, None] for i in range(4))
        v = k * (x[0] - L0)
        positive = np.real(v) > 0
        small = np.exp(np.where(positive, -v, v))
        s = np.where(positive, small / (1.0 + small), 1.0 / (1.0 + small))
        value = floor + rise * s
        if not jacobian:
            return value, None
        bend = -rise * s * (1.0 - s)
        return value, np.stack([np.ones_like(value), s, bend * (x[0] - L0), -bend * k], axis=1)

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Midpoints along the losses seen, steepness in units of their spread."""
        span = max(float(np.ptp(x[0])), 1e-6)
        middle = float(x[0].min()) + span * np.array([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
        return np.array([[0.1, 0.5, k / span, m] for k in (1.0, 3.0, 8.0, 20.0) for m in middle])


class DownstreamExponential(Law):
    """error(L) = epsilon − k·e^(−gamma·L)."""

    name = "DownstreamExponential"
    equation = r"\mathrm{error}(L) = \epsilon - k\,e^{-\gamma L}"
    citation = "Gadre et al. 2024, arXiv:2403.08540, equation 5"
    use = "Error averaged over many tasks, whose chance levels and rises blur into one smooth curve."
    limits = "A single task is seldom this smooth. Error below the best seen is an extrapolation."
    axes = (Axis("loss", "L", "nats per token", logarithmic=False, levels=3),)
    constants = (
        Constant("epsilon", "1", "error of a guess", low=1e-3, high=2.0),
        Constant("k", "1", "size of the gain", low=1e-6, high=1e6),
        Constant("gamma", "1 / nat", "how fast the gain fades with loss", low=1e-2, high=20.0),
    )
    response = "error"
    response_unit = "fraction wrong"
    residual = "absolute"
    delta = float("inf")
    linear = ("epsilon", "k")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {"gamma": (0.1, 0.25, 0.5, 0.8, 1.2, 2.0, 3.5)}

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        epsilon, k, gamma = (c[:, i, None] for i in range(3))
        term = np.exp(-gamma * x[0])
        value = epsilon - k * term
        if not jacobian:
            return value, None
        return value, np.stack([np.ones_like(value), -term, k * x[0] * term], axis=1)
