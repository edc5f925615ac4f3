"""The rules that turn one dial into hyperparameters: learning rate, batch, schedule, and muP's factors.

Owns each rule with its source. Knows no recipe: `recipe.py` chooses among them.
"""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document
from sweep_analysis.scale import Scale
from sweep_analysis.shape import Shape

RateRule = Literal["Power", "StepLaw", "MuTransfer"]
BatchRule = Literal["StepLaw", "Critical"]


class LearningRate(Document):
    """Peak learning rate, by one of three rules.

    Power: peak · (N / atParameters)^exponent. The defaults are measured on byte-level decoders of 20 to 163 thousand
    parameters at batches of 2,048 tokens: half and twice the peak cost at most 2 % of loss there. Larger models with
    other batches want rules of their own.
    StepLaw: 1.79 · N^-0.713 · D^0.307 with N without embeddings (Li et al. 2025, arXiv:2503.04715), measured there on
    models of 60 million to one billion parameters.
    MuTransfer: `peak`, found at width `baseWidth`, at every width; what the width changes is scaled instead (Yang et
    al. 2022, arXiv:2203.03466, table 8: hidden matrices' rate and the logits by baseWidth / width, attention by 1/d).
    """

    rule: RateRule = Field(default="Power", exclude_if=lambda rule: rule == "Power")
    peak: float = Field(default=1.5e-2, gt=0, le=10)
    at_parameters: Scale = 32_000
    exponent: float = Field(default=-0.6, ge=-2, le=0)
    base_width: int | None = Field(default=None, ge=8, le=65_536)
    """The width at which `peak` was found; for MuTransfer."""

    @model_validator(mode="after")
    def _fields_of_its_rule(self) -> "LearningRate":
        taken = {"Power": {"peak", "at_parameters", "exponent"}, "StepLaw": set(), "MuTransfer": {"peak", "base_width"}}
        fields = type(self).model_fields
        others = fields.keys() - taken[self.rule] - {"rule"}
        told = {name for name in others if getattr(self, name) != fields[name].default}
        if told:
            names = ", ".join(sorted(fields[name].alias or name for name in told))
            raise ValueError(f"learningRate.rule {self.rule} has no use for {names}; leave it out or change the rule")
        if self.rule == "MuTransfer" and self.base_width is None:
            raise ValueError("learningRate.rule MuTransfer needs baseWidth, the width at which peak was found")
        return self

    def at(self, parameters: int) -> float:
        """The Power rule's peak learning rate for a model of that many parameters."""
        return float(self.peak * (parameters / self.at_parameters) ** self.exponent)

    def for_run(self, shape: Shape, tokens: int) -> float:
        """The peak learning rate of a run; `tokens` is its largest count."""
        if self.rule == "StepLaw":
            return float(1.79 * shape.non_embedding_parameters**-0.713 * tokens**0.307)
        if self.rule == "MuTransfer":
            return self.peak
        return self.at(shape.parameters)


class Schedule(Document):
    """How the learning rate goes over a run.

    WarmupStableDecay: warm-up, stable, linear decay to zero (Hu et al. 2024, arXiv:2404.06395); several token counts
    come from one trunk, each by a decay branch of its own. Cosine: warm-up and half a cosine down to `final`
    (Loshchilov & Hutter 2017, arXiv:1608.03983), whose length is the token count's, so that every token count is
    trained from the first step.
    """

    kind: Literal["WarmupStableDecay", "Cosine"] = Field(
        default="WarmupStableDecay", exclude_if=lambda kind: kind == "WarmupStableDecay"
    )
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the run's smallest token count."""
    warmup_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """In place of the share."""
    decay: float = Field(default=0.3, gt=0, le=1)
    """Share of each token count that its decay branch takes; all of it, 1, for Cosine."""
    final: float = Field(default=0.0, ge=0, lt=1, exclude_if=lambda share: share == 0)
    """Share of the peak that is left at the end."""

    @model_validator(mode="before")
    @classmethod
    def _cosine_takes_the_whole_run(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "Cosine":
            return {"decay": 1.0, **value}
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Schedule":
        if self.kind == "Cosine" and self.decay != 1.0:
            raise ValueError("a cosine takes the whole run; leave schedule.decay out")
        return self

    def branch_steps(self, stop: int) -> int:
        """Steps that belong to one token count alone, when it is reached at step `stop`."""
        return max(1, round(self.decay * stop))


def batch_by_rule(rule: BatchRule, tokens: int) -> float:
    """Tokens per step for a run of `tokens`.

    StepLaw: 0.58·D^0.571 (Li et al. 2025, arXiv:2503.04715). Critical: the batch at which twice the steps' worth of
    data buys half the steps, 2.1e8 / L^(1/0.21) tokens at loss L (McCandlish et al. 2018, arXiv:1812.06162; Kaplan et
    al. 2020, arXiv:2001.08361, equation 5.3), L being what their L(D) = (5.4e13/D)^0.095 expects at the end.
    """
    if rule == "Critical":
        loss = (5.4e13 / tokens) ** 0.095
        return float(2.1e8 * loss ** (-1 / 0.21))
    return float(0.58 * tokens**0.571)


def power_of_two_sequences(batch_tokens: float, sequence_length: int) -> int:
    """The batch rounded to a power of two of sequences."""
    return int(sequence_length * 2 ** max(0, round(math.log2(max(1.0, batch_tokens / sequence_length)))))
