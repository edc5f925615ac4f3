"""A power law with a break: loss whose slope changes from one power to another."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class BrokenPower(Law):
    """L(C) = a + b·C^-c0 · (1 + (C/d)^(1/f))^(-c1·f): one smooth break at C = d."""

    name = "BrokenPower"
    equation = r"L(C) = a + b\,C^{-c_0} \left(1 + (C/d)^{1/f}\right)^{-c_1 f}"
    citation = "Caballero et al. 2022, arXiv:2210.14891, equation 1 with one break"
    use = "A curve that visibly bends on log axes, with six scales or more on both sides of the bend together."
    limits = (
        "Says nothing of a break that has not begun. With fewer than six scales it fits anything and knows nothing."
    )
    axes = (Axis("flops", "C", "FLOPs", levels=6),)
    constants = (
        Constant("a", "nats per token", "floor", low=1e-6, high=1e2),
        Constant("b", "nats per token · FLOPs^c0", "size before the break", scales=(("flops", "c0"),)),
        Constant("c0", "1", "exponent before the break", positive=False, low=-2.0, high=4.0),
        Constant("c1", "1", "change of exponent at the break", positive=False, low=-4.0, high=4.0),
        Constant("d", "FLOPs", "where the break is", low=1e-12, high=1e12, scales=(("flops", 1.0),)),
        Constant("f", "1", "width of the break in e-folds", low=0.02, high=10.0),
    )
    floor = "a"
    linear = ("a", "b")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {
        "c0": (0.02, 0.1, 0.25),
        "c1": (-0.1, 0.1, 0.4),
        "d": (0.02, 0.2, 1.0, 5.0, 50.0),
        "f": (0.15, 0.6),
    }
    basins = 8

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        a, b, c0, c1, d, f = (c[:, i, None] for i in range(6))
        u = x[0]
        v = (u - np.log(d)) / f
        # ln(1 + e^v), from the side on which nothing overflows
        positive = np.real(v) > 0
        soft = np.where(positive, v, 0.0) + np.log1p(np.exp(np.where(positive, -v, v)))
        step = np.exp(v - soft)  # logistic of v
        term = np.exp(-c0 * u - c1 * f * soft)
        value = a + b * term
        if not jacobian:
            return value, None
        size = b * term
        return value, np.stack(
            [
                np.ones_like(value),
                term,
                -u * size,
                -f * soft * size,
                c1 * step / d * size,
                -c1 * (soft - step * v) * size,
            ],
            axis=1,
        )
