"""Two corpora: loss on another distribution, and one law held against another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class ConstantOffset(Law):
    """L_other = L + offset."""

    name = "ConstantOffset"
    equation = r"L_{\mathrm{other}} = L + \mathrm{offset}"
    citation = "Kaplan et al. 2020, arXiv:2001.08361, §3.2.2 and figure 8"
    use = "One set of models measured on two validation sets: transfer that costs a constant and then follows."
    limits = "Holds for text near the training text. `compare.offset_test` says whether the offset is constant."
    axes = (Axis("loss", "L", "nats per token", logarithmic=False),)
    constants = (Constant("offset", "nats per token", "what the other text costs", False, -20.0, 20.0),)
    response = "other_loss"

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        value = x[0] + c[:, :1]
        return value, np.ones((len(c), 1, len(x[0])), dtype=value.dtype) if jacobian else None

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """The mean difference."""
        return np.array([[float(np.mean(y - x[0]))]])


class Compared(Law):
    """One law between two corpora: ln L2 = ln L1 + offset + slope·ln C, each half of that away from the law.

    The corpus is −1/2 or +1/2, so that neither is the measure of the other. ln C is ln N + ln D on a surface. The
    offset stands at C = 1, far from any record: `compare.py` restates it at their centre.
    """

    residual = "relative"

    def __init__(self, base: Law) -> None:
        self.base = base
        own = (
            Constant("offset", "1", "ln of the loss ratio at C = 1", False, -50.0, 50.0),
            Constant("slope", "1", "change of it for each e-fold of compute", False, -2.0, 2.0),
        )
        # shadow the declarations of the class: this law is made of another
        self.__dict__.update(
            name=f"{base.name}, two corpora",
            equation=base.equation + r",\quad \ln L_2 = \ln L_1 + \mathrm{offset} + \mathrm{slope} \ln C",
            citation=base.citation,
            use=base.use,
            limits=base.limits,
            axes=(*base.axes, Axis("corpus", "k", "−1/2 or 1/2", logarithmic=False)),
            constants=(*base.constants, *own),
            response=base.response,
            basins=base.basins,
        )

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        shift = sum(np.log(units.get(a.name, 1.0)) for a in self.base.axes)
        own = np.stack([c[:, -2] - c[:, -1] * shift, c[:, -1]], axis=1)
        return np.concatenate([self.base.to_units(c[:, :-2], units), own], axis=1)

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        value, inner = self.base.evaluate(c[:, :-2], x[:-1], jacobian)
        compute = sum(x[:-1])  # ln N + ln D, or ln C alone
        corpus = x[-1]
        factor = np.exp(corpus * (c[:, -2, None] + c[:, -1, None] * compute))
        out = value * factor
        if inner is None:
            return out, None
        own = np.stack([corpus * out, corpus * compute * out], axis=1)
        return out, np.concatenate([inner * factor[:, None, :], own], axis=1)

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """The base law's starting points for all records together, no difference yet."""
        c = self.base.starts(x[:-1], y)
        return np.concatenate([c, np.zeros((len(c), 2))], axis=1)

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        corpus = np.asarray(values["corpus"])
        for k in (-0.5, 0.5):
            mine = {a.name: np.asarray(values[a.name])[corpus == k] for a in self.base.axes}
            if not len(mine[self.base.axes[0].name]):
                return "both corpora need records"
        return self.base.identifies(values)
