"""Chinchilla approach 3: the parametric loss surface. Approaches 1 and 2 stand in `frontier.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law, distinct

EXPONENTS = (0.1, 0.17, 0.25, 0.34, 0.45, 0.6, 0.8, 1.1)


class Chinchilla(Law):
    """L(N, D) = E + A/N^alpha + B/D^beta."""

    name = "Chinchilla"
    equation = r"L(N, D) = E + A\,N^{-\alpha} + B\,D^{-\beta}"
    citation = "Hoffmann et al. 2022, arXiv:2203.15556, §3.3; constants of Besiroglu et al. 2024, arXiv:2404.10102"
    use = "Runs at several sizes and several token/parameter ratios, each trained to the end of its own schedule."
    limits = (
        "One token/parameter ratio cannot identify (alpha, beta). E and the far ends of both terms are extrapolations: "
        "an exponent says how loss falls inside the measured range."
    )
    axes = (
        Axis("parameters", "N", "parameters", levels=3),
        Axis("tokens", "D", "tokens", levels=2),
    )
    constants = (
        Constant("E", "nats per token", "entropy floor of the text under this tokenizer", low=1e-6, high=1e2),
        Constant("A", "nats per token · parameters^alpha", "size of the model term", scales=(("parameters", "alpha"),)),
        Constant("B", "nats per token · tokens^beta", "size of the data term", scales=(("tokens", "beta"),)),
        Constant("alpha", "1", "exponent of the model term", low=1e-3, high=4.0),
        Constant("beta", "1", "exponent of the data term", low=1e-3, high=4.0),
    )
    floor = "E"
    linear = ("E", "A", "B")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {"alpha": EXPONENTS, "beta": EXPONENTS}
    published: ClassVar[Mapping[str, float]] = {
        "E": 1.81686,
        "A": 482.01,
        "B": 2085.43,
        "alpha": 0.34781,
        "beta": 0.36585,
    }

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, A, B, alpha, beta = (c[:, i, None] for i in range(5))
        n, d = x
        model = np.exp(-alpha * n)
        data = np.exp(-beta * d)
        value = E + A * model + B * data
        if not jacobian:
            return value, None
        out = np.empty((len(c), 5, len(n)), dtype=value.dtype)
        out[:, 0] = 1.0
        out[:, 1] = model
        out[:, 2] = data
        out[:, 3] = -A * n * model
        out[:, 4] = -B * d * data
        return value, out

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        reason = super().identifies(values)
        if reason:
            return reason
        return one_ratio(self.name, values)


def one_ratio(name: str, values: Mapping[str, Any]) -> str | None:
    """None, or why points at a single token/parameter ratio cannot identify a law of two exponents."""
    ratio = np.asarray(values["tokens"], dtype=float) / np.asarray(values["parameters"], dtype=float)
    if distinct(np.atleast_1d(ratio), tolerance=0.1) < 2:
        return (
            f"every run has the same token/parameter ratio ({float(np.median(ratio)):.3g}), which cannot identify "
            f"both exponents of {name}: add a second ratio (a factor of 2 or more away), or fit SaturatingCompute"
        )
    return None
