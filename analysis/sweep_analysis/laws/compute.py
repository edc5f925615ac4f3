"""Power laws that level off: compute alone, and the length of the context."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class Saturating(Law):
    """E + K·x^-gamma on one axis; the laws below differ in what x is."""

    floor = "E"
    linear = ("E", "K")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {
        "gamma": (0.02, 0.035, 0.05, 0.075, 0.1, 0.14, 0.2, 0.28, 0.4, 0.6, 0.9)
    }

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, K, gamma = (c[:, i, None] for i in range(3))
        (u,) = x
        term = np.exp(-gamma * u)
        value = E + K * term
        if not jacobian:
            return value, None
        out = np.empty((len(c), 3, len(u)), dtype=value.dtype)
        out[:, 0] = 1.0
        out[:, 1] = term
        out[:, 2] = -K * u * term
        return value, out


class SaturatingCompute(Saturating):
    """L(C) = E + K·C^-gamma."""

    name = "SaturatingCompute"
    equation = r"L(C) = E + K\,C^{-\gamma}"
    citation = "Henighan et al. 2020, arXiv:2010.14701, equation 1.1, along one token/parameter ratio"
    use = "Ladders at one token/parameter ratio, or the best run of each compute budget."
    limits = (
        "Says nothing of runs at another ratio, nor how compute is best split. With fewer than six scales the floor E "
        "rests on the form more than on the data."
    )
    axes = (Axis("flops", "C", "FLOPs", levels=3),)
    constants = (
        Constant("E", "nats per token", "loss that compute cannot remove", low=1e-6, high=1e2),
        Constant("K", "nats per token · FLOPs^gamma", "size of the reducible loss", scales=(("flops", "gamma"),)),
        Constant("gamma", "1", "exponent of compute", low=1e-3, high=4.0),
    )


class ContextLength(Saturating):
    """L(s) = E + K·s^-gamma."""

    name = "ContextLength"
    equation = r"L(s) = E + K\,s^{-\gamma}"
    citation = "Xiong et al. 2023, arXiv:2309.16039, §3.1 (there with K = alpha^gamma)"
    use = "Loss of one model at several context lengths, or of one recipe pre-trained at several."
    limits = (
        "One model, one corpus: the constants move with both. A loss averaged over positions mixes what the length "
        "gives with how many tokens stand at each position."
    )
    axes = (Axis("context", "s", "tokens", levels=3),)
    constants = (
        Constant("E", "nats per token", "loss at unlimited context", low=1e-6, high=1e2),
        Constant("K", "nats per token · tokens^gamma", "what context removes", scales=(("context", "gamma"),)),
        Constant("gamma", "1", "exponent of context length", low=1e-3, high=4.0),
    )
