"""Training past the compute-optimal ratio: loss as a function of compute and of tokens per parameter."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law
from sweep_analysis.laws.chinchilla import EXPONENTS, one_ratio


class OverTraining(Law):
    """L(C, M) = E + (a·M^(alpha/2) + b·M^(−alpha/2))·C^(−alpha/2), M = D/N, C = 6·N·D."""

    name = "OverTraining"
    equation = r"L(C, M) = E + \left(a\,M^{\alpha/2} + b\,M^{-\alpha/2}\right) C^{-\alpha/2},\quad M = D/N,\; C = 6ND"
    citation = "Gadre et al. 2024, arXiv:2403.08540, equation 4 (there eta = alpha/2)"
    use = "Few runs (five suffice) and a target trained far past 20 tokens per parameter."
    limits = (
        "One exponent for size and data: where the two differ, the bias grows with the distance in ratio. It is the "
        "Chinchilla surface with alpha = beta."
    )
    axes = (Axis("parameters", "N", "parameters", levels=2), Axis("tokens", "D", "tokens", levels=2))
    constants = (
        Constant("E", "nats per token", "entropy floor", low=1e-6, high=1e2),
        Constant("a", "nats per token · FLOPs^(alpha/2)", "size of the model term", scales=(("parameters", "alpha"),)),
        Constant("b", "nats per token · FLOPs^(alpha/2)", "size of the data term", scales=(("tokens", "alpha"),)),
        Constant("alpha", "1", "exponent of parameters and of tokens", low=1e-3, high=4.0),
    )
    floor = "E"
    linear = ("E", "a", "b")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {"alpha": EXPONENTS}

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, a, b, alpha = (c[:, i, None] for i in range(4))
        n, d = x[0] + 0.5 * np.log(6.0), x[1] + 0.5 * np.log(6.0)  # C^(−alpha/2) carries 6^(−alpha/2)
        model, data = np.exp(-alpha * n), np.exp(-alpha * d)
        value = E + a * model + b * data
        if not jacobian:
            return value, None
        return value, np.stack([np.ones_like(value), model, data, -a * n * model - b * d * data], axis=1)

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        return super().identifies(values) or one_ratio(self.name, values)
