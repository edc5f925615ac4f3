"""Fine-tuning and instruction data: model size and tuning data multiply each other."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law


class Multiplicative(Law):
    """L(X, D_f) = E + A·X^-alpha·D_f^-beta; the laws below differ in what X and D_f are."""

    floor = "E"
    linear = ("E", "A")
    grid: ClassVar[Mapping[str, Sequence[float]]] = {
        "alpha": (0.02, 0.06, 0.15, 0.35, 0.7),
        "beta": (0.02, 0.06, 0.15, 0.35, 0.7),
    }

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, A, alpha, beta = (c[:, i, None] for i in range(4))
        term = np.exp(-alpha * x[0] - beta * x[1])
        value = E + A * term
        if not jacobian:
            return value, None
        return value, np.stack([np.ones_like(value), term, -A * x[0] * term, -A * x[1] * term], axis=1)


def _constants(first: str, second: str) -> tuple[Constant, ...]:
    return (
        Constant("E", "nats per token", "loss that tuning cannot remove", low=1e-6, high=1e2),
        Constant("A", f"nats per token · {first}^alpha · {second}^beta", "size of the reducible loss",
                 scales=((first, "alpha"), (second, "beta"))),
        Constant("alpha", "1", f"exponent of {first}", low=1e-3, high=4.0),
        Constant("beta", "1", f"exponent of {second}", low=1e-3, high=4.0),
    )  # fmt: skip


class FineTuning(Multiplicative):
    """L(N, D_f) = E + A·N^-alpha·D_f^-beta."""

    name = "FineTuning"
    equation = r"L(N, D_f) = E + A\,N^{-\alpha} D_f^{-\beta}"
    citation = "Zhang et al. 2024, arXiv:2402.17193, equation 1"
    use = "Models of several sizes tuned on several amounts of one task's data by one method."
    limits = "The exponents belong to the task and the method (full, LoRA, prompt). Forgetting is outside the law."
    axes = (
        Axis("parameters", "N", "parameters", levels=2),
        Axis("finetuning_tokens", "D_f", "tokens", levels=3),
    )
    constants = _constants("parameters", "finetuning_tokens")


class InstructionData(Multiplicative):
    """L(D, D_f) = E + A·D^-alpha·D_f^-beta."""

    name = "InstructionData"
    equation = r"L(D, D_f) = E + A\,D^{-\alpha} D_f^{-\beta}"
    citation = "Zhang et al. 2024, arXiv:2402.17193, equation 1 with pre-training data as the first factor"
    use = "One model at several pre-training token counts, tuned on several amounts of instruction data."
    limits = "Loss on instruction data says little of how well instructions are followed."
    axes = (
        Axis("tokens", "D", "pre-training tokens", levels=2),
        Axis("instruction_examples", "D_f", "examples", levels=3),
    )
    constants = _constants("tokens", "instruction_examples")
