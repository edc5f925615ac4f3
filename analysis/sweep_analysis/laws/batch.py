"""Batch size and learning rate: the critical batch, its trade between steps and tokens, and the step laws."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class CriticalBatch(Law):
    """B_crit(L) = B·L^(−1/alpha_B)."""

    name = "CriticalBatch"
    equation = r"B_{\mathrm{crit}}(L) = B\,L^{-1/\alpha_B}"
    citation = "McCandlish et al. 2018, arXiv:1812.06162; Kaplan et al. 2020, arXiv:2001.08361, equation 1.4"
    use = "Critical batch sizes measured at several losses: how fast the batch may grow along a run."
    limits = "A measured critical batch depends on the optimizer and on the learning rate being tuned at every batch."
    axes = (Axis("loss", "L", "nats per token"),)
    constants = (
        Constant("B", "tokens", "critical batch at a loss of 1", low=1e-30, high=1e30),
        Constant("alpha_B", "1", "exponent", low=1e-2, high=20.0),
    )
    response = "critical_batch"
    response_unit = "tokens"
    published: ClassVar[Mapping[str, float]] = {"B": 2e8, "alpha_B": 0.21}

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        out = np.array(c)
        out[:, 0] = c[:, 0] * np.exp(np.log(units.get("loss", 1.0)) / c[:, 1])
        return out

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        B, alpha = c[:, 0, None], c[:, 1, None]
        term = np.exp(-x[0] / alpha)
        value = B * term
        return value, np.stack([term, value * x[0] / alpha**2], axis=1) if jacobian else None

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """The least-squares line through (ln L, ln B)."""
        u, v = x[0] - x[0].mean(), np.log(y)
        slope = -float(u @ v) / max(float(u @ u), 1e-300)
        return np.array([[np.exp(v.mean()), 1.0 / np.clip(slope, 0.06, 80.0)]])


class BatchTradeoff(Law):
    """S(B) = S_min·(1 + B_crit/B): steps to one loss at batch B."""

    name = "BatchTradeoff"
    equation = r"S(B) = S_{\min}\left(1 + B_{\mathrm{crit}}/B\right)"
    citation = "McCandlish et al. 2018, arXiv:1812.06162, equation 2.11"
    use = "Steps that several batch sizes need to reach one loss; B_crit is where steps and tokens are both doubled."
    limits = "One loss at a time, learning rate tuned at every batch; with one rate for all it bends too early."
    axes = (Axis("batch", "B", "tokens", levels=3),)
    constants = (
        Constant("S_min", "steps", "steps at endless batch", low=1e-3, high=1e15),
        Constant("B_crit", "tokens", "critical batch", low=1e-6, high=1e6, scales=(("batch", 1.0),)),
    )
    response = "steps"
    response_unit = "steps"
    basins = 3

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        least, critical = c[:, 0, None], c[:, 1, None]
        share = np.exp(-x[0])
        value = least * (1.0 + critical * share)
        return value, np.stack([1.0 + critical * share, least * share], axis=1) if jacobian else None

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Critical batches from far below to far above the ones tried."""
        return np.array([[float(np.median(y / (1.0 + b * np.exp(-x[0])))), b] for b in (0.03, 0.3, 1.0, 3.0, 30.0)])


class PowerProduct(Law):
    """c times a power of each axis: linear in logarithms, so that one step of the solver fits it."""

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        exponents = c[:, 1:]
        value = c[:, :1] * np.exp(sum(exponents[:, i, None] * u for i, u in enumerate(x)))
        if not jacobian:
            return value, None
        return value, np.stack([value / c[:, :1], *(u * value for u in x)], axis=1)

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Linear least squares in logarithms."""
        design = np.stack([np.ones_like(x[0]), *x], axis=1)
        solution = np.linalg.lstsq(design, np.log(y), rcond=None)[0]
        return np.array([[np.exp(solution[0]), *solution[1:]]])


STEP_LAW = "Li et al. 2025, arXiv:2503.04715 (Step Law)"


class StepLearningRate(PowerProduct):
    """lr(N, D) = c·N^a·D^b."""

    name = "StepLearningRate"
    equation = r"\mathrm{lr}(N, D) = c\,N^{a} D^{b}"
    citation = STEP_LAW
    use = "Best learning rates found at several sizes and token counts; the published constants where none were sought."
    limits = "For one optimizer and schedule (AdamW, decay to a small constant rate). Not for widths scaled by muP."
    axes = (Axis("parameters", "N", "non-embedding parameters"), Axis("tokens", "D", "tokens"))
    constants = (
        Constant("c", "1", "factor", low=1e-30, high=1e30, scales=(("parameters", "-a"), ("tokens", "-b"))),
        Constant("a", "1", "exponent of size", positive=False, low=-4.0, high=4.0),
        Constant("b", "1", "exponent of data", positive=False, low=-4.0, high=4.0),
    )
    response = "learning_rate"
    response_unit = "1"
    published: ClassVar[Mapping[str, float]] = {"c": 1.79, "a": -0.713, "b": 0.307}


class StepBatch(PowerProduct):
    """batch(D) = c·D^b, in tokens."""

    name = "StepBatch"
    equation = r"B(D) = c\,D^{b}"
    citation = STEP_LAW
    use = "Best batch sizes found at several token counts; or the published constants where none were sought."
    limits = "Flat near its optimum: a factor of two costs little, and so is known badly."
    axes = (Axis("tokens", "D", "tokens"),)
    constants = (
        Constant("c", "tokens", "factor", low=1e-30, high=1e30, scales=(("tokens", "-b"),)),
        Constant("b", "1", "exponent of data", positive=False, low=-4.0, high=4.0),
    )
    response = "batch"
    response_unit = "tokens"
    published: ClassVar[Mapping[str, float]] = {"c": 0.58, "b": 0.571}
