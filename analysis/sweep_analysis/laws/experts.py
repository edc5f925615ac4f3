"""Mixtures of experts: how granularity and the number of experts change the law."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law
from sweep_analysis.laws.chinchilla import one_ratio


class FineGrainedExperts(Law):
    """L(N, D, G) = E + (g·G^-gamma + a)·N^-alpha + b·D^-beta."""

    name = "FineGrainedExperts"
    equation = r"L(N, D, G) = E + \left(g\,G^{-\gamma} + a\right) N^{-\alpha} + b\,D^{-\beta}"
    citation = "Krajewski et al. 2024, arXiv:2402.07871, equation 9"
    use = "Mixtures of experts at one expansion rate, with the experts cut into finer pieces (granularity G)."
    limits = "One expansion rate at a time; routing cost, which grows with G, is outside the law."
    axes = (
        Axis("parameters", "N", "parameters", levels=3),
        Axis("tokens", "D", "tokens", levels=2),
        Axis("granularity", "G", "1", levels=3),
    )
    constants = (
        Constant("E", "nats per token", "entropy floor", low=1e-6, high=1e2),
        Constant(
            "g",
            "nats per token · parameters^alpha",
            "what granularity removes",
            scales=(("parameters", "alpha"), ("granularity", "gamma")),
        ),
        Constant(
            "a", "nats per token · parameters^alpha", "model term at endless G", scales=(("parameters", "alpha"),)
        ),
        Constant("b", "nats per token · tokens^beta", "size of the data term", scales=(("tokens", "beta"),)),
        Constant("alpha", "1", "exponent of parameters", low=1e-3, high=4.0),
        Constant("beta", "1", "exponent of tokens", low=1e-3, high=4.0),
        Constant("gamma", "1", "exponent of granularity", low=1e-2, high=8.0),
    )
    floor = "E"
    linear = ("E", "g", "a", "b")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {
        "alpha": (0.1, 0.2, 0.35, 0.6),
        "beta": (0.1, 0.2, 0.35, 0.6),
        "gamma": (0.3, 0.6, 1.2),
    }

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, g, a, b, alpha, beta, gamma = (c[:, i, None] for i in range(7))
        n, d, G = x
        fine, model, data = np.exp(-gamma * G), np.exp(-alpha * n), np.exp(-beta * d)
        size = g * fine + a
        value = E + size * model + b * data
        if not jacobian:
            return value, None
        return value, np.stack(
            [
                np.ones_like(value),
                fine * model,
                model + 0 * fine,
                data + 0 * fine,
                -n * size * model,
                -d * b * data,
                -G * g * fine * model,
            ],
            axis=1,
        )

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        return super().identifies(values) or one_ratio(self.name, values)


class RoutedExperts(Law):
    """ln L = a·ln N + b·ln E' + c·ln N·ln E' + d, with E' the expert count E, saturated at both ends."""

    name = "RoutedExperts"
    equation = (
        r"\ln L = a \ln N + b \ln \hat E + c \ln N \ln \hat E + d,\quad "
        r"\hat E^{-1} = \left(E - 1 + (E_{\mathrm{start}}^{-1} - E_{\max}^{-1})^{-1}\right)^{-1} + E_{\max}^{-1}"
    )
    citation = "Clark et al. 2022, arXiv:2202.01169, equations 1 and 2 (there with decimal logarithms)"
    use = "Dense models and routed ones of several expert counts, all trained on the same number of tokens."
    limits = (
        "One token count: the data term is inside d. It was fitted at 130 billion tokens, far from where routing pays."
    )
    axes = (
        Axis("parameters", "N", "parameters of the dense base", levels=3),
        Axis("experts", "E", "experts", logarithmic=False, levels=4, by_ratio=True),
    )
    constants = (
        Constant("a", "1", "exponent of size, one expert", positive=False, low=-4.0, high=4.0),
        Constant("b", "1", "exponent of experts at N = 1", positive=False, low=-60.0, high=60.0),
        Constant("c", "1", "how the gain from experts fades with size", positive=False, low=-4.0, high=4.0),
        Constant("d", "1", "ln of the loss at N = 1, one expert", positive=False, low=-1e3, high=1e3),
        Constant("E_start", "experts", "experts below which routing does nothing", low=1.0, high=50.0),
        Constant("E_max", "experts", "experts beyond which routing gains nothing", low=10.0, high=1e6),
    )
    basins = 8

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        out = np.array(c)
        shift = np.log(units.get("parameters", 1.0))
        out[:, 1] = c[:, 1] - c[:, 2] * shift
        out[:, 3] = c[:, 3] - c[:, 0] * shift
        return out

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        a, b, mixed, d, start, most = (c[:, i, None] for i in range(6))
        n, experts = x
        gap = 1.0 / start - 1.0 / most
        inner = experts - 1.0 + 1.0 / gap
        inverse = 1.0 / inner + 1.0 / most
        e = -np.log(inverse)
        value = np.exp(a * n + b * e + mixed * n * e + d)
        if not jacobian:
            return value, None
        slope = (b + mixed * n) * value  # d value / d e
        # e moves by −d(inverse)/inverse; d inner / d gap = −1/gap²
        by_gap = -1.0 / (inner * gap) ** 2 / inverse
        return value, np.stack(
            [
                n * value,
                e * value,
                n * e * value,
                value,
                slope * by_gap * (-1.0 / start**2),
                slope * (by_gap / most**2 + 1.0 / (most**2 * inverse)),
            ],
            axis=1,
        )

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """For fixed (E_start, E_max) the law is a linear regression."""
        out = []
        for start in (1.2, 2.0, 4.0):
            for most in (64.0, 256.0, 2048.0):
                e = -np.log(1.0 / (x[1] - 1.0 + 1.0 / (1.0 / start - 1.0 / most)) + 1.0 / most)
                design = np.stack([x[0], e, x[0] * e, np.ones_like(e)], axis=1)
                out.append([*np.linalg.lstsq(design, np.log(y), rcond=None)[0], start, most])
        return np.array(out)
