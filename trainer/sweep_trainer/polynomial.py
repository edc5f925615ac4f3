"""A polynomial with whole coefficients through counts of parameters.

Owns the fit: of few products of dimensions or more, halved where a part is half as wide as another, and taken only
where it gives every count exactly. Knows no model.
"""

import itertools
from collections.abc import Sequence

import numpy as np

Sizes = dict[str, int]
"""A model's dimensions by the letters of `sweep_analysis.architectures`."""


class NotSizedError(Exception):
    """Why an architecture has no entry."""


def fitted(
    products: Sequence[str], more: Sequence[str], without: set[str], samples: Sequence[Sizes], counts: Sequence[int]
) -> dict[str, int]:
    """Whole coefficients that give every count exactly, of few products or more. Raises NotSizedError otherwise."""
    few = [p for p in products if "r" not in p.split("*")]
    for divisor, asked in itertools.product((1, 2), (few, products, (*products, *more))):
        names = [p for p in asked if not without & set(p.split("*"))]
        table = np.array([[_value(product, sizes) for product in names] for sizes in samples], float)
        scale = np.abs(table).max(0)
        found, *_ = np.linalg.lstsq(table / scale, np.array(counts, float), rcond=1e-12)
        whole = {p: round(divisor * c) for p, c in zip(names, found / scale, strict=True) if round(divisor * c)}
        told = (sum(c * _value(p, z) for p, c in whole.items()) for z in samples)
        if all(total == divisor * count for total, count in zip(told, counts, strict=True)):
            return {**({"/": divisor} if divisor > 1 else {}), **whole}
    raise NotSizedError("its size is no sum of products of its dimensions")


def _value(product: str, sizes: Sizes) -> int:
    value = 1
    for name in product.split("*"):
        value *= 1 if name == "1" else sizes[name]
    return value
