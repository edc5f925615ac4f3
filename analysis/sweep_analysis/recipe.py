"""How a model is trained: the `spec.training` of a sweep, and the rules that resolve it for one run.

Owns the recipe's vocabulary and the derivation of every hyperparameter from (parameters, tokens), so that the
operator can count, price and digest a run without importing torch. Trains nothing.
"""

import math
from functools import lru_cache
from typing import Literal

from pydantic import Field, model_validator

from sweep_analysis import flops
from sweep_analysis.document import Document
from sweep_analysis.execution import Execution
from sweep_analysis.scale import Scale
from sweep_analysis.shape import Model, Shape, shape_for

BYTES_VOCABULARY = 256


class Data(Document):
    """What the models read. Exactly one of corpus and files."""

    corpus: Literal["Classics"] | None = None
    """`Classics`: public-domain English built from the packages of the `demo` extra (9.2 MB)."""
    files: tuple[str, ...] = Field(default=(), max_length=256)
    """Text files (UTF-8); relative paths start at the manifest's folder."""
    validation_tokens: int = Field(default=65_536, ge=1_024)
    """How many validation tokens every evaluation reads; the same ones on every rung."""

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if (self.corpus is None) == (not self.files):
            raise ValueError("name exactly one of corpus and files")
        return self


class LearningRate(Document):
    """Peak learning rate as a power of the parameter count: peak · (N / atParameters)^exponent.

    The defaults are measured on byte-level decoders of 20 to 163 thousand parameters at batches of 2,048 tokens: half
    and twice the peak cost at most 2 % of loss there. Larger models with other batches want rules of their own.
    """

    peak: float = Field(default=1.5e-2, gt=0, le=10)
    at_parameters: Scale = 32_000
    exponent: float = Field(default=-0.6, ge=-2, le=0)

    def at(self, parameters: int) -> float:
        """The peak learning rate for a model of that many parameters."""
        return float(self.peak * (parameters / self.at_parameters) ** self.exponent)


class Optimizer(Document):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); decay on matrices only."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    clip_norm: float = Field(default=0.3, gt=0)
    """Gradients longer than this are shortened to it. At 20 thousand parameters 0.3 against 1 lowered the loss by 0.01
    to 0.02 nats and its spread over six seeds from 0.017 to 0.004; at 46 and 96 thousand by less, at 163 not at all.
    """


class Schedule(Document):
    """Warm-up, stable, linear decay to zero (WSD; Hu et al. 2024, arXiv:2404.06395).

    Several token counts come from one trunk, each by a decay branch of its own.
    """

    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the run's smallest token count."""
    decay: float = Field(default=0.3, gt=0, le=1)
    """Share of each token count that its decay branch takes."""


class Training(Execution):
    """The recipe shared by every run of a sweep; frozen from the first forecast on."""

    model: Model = Model()
    data: Data
    tokenizer: Literal["Bytes"] = "Bytes"
    sequence_length: int = Field(default=128, ge=8, le=65_536)
    batch_tokens: Scale | None = None
    """Tokens per optimizer step; by the step law when left out."""
    learning_rate: LearningRate = LearningRate()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpoint_seconds: float = Field(default=20.0, ge=0.5, le=86_400)
    """At most this much training time lies between two checkpoints."""


class Hyperparameters(Document):
    """One run's recipe with nothing left to derive; with the seed and the data it repeats the run."""

    shape: Shape
    sequence_length: int
    batch_tokens: int
    learning_rate: float
    optimizer: Optimizer
    schedule: Schedule
    precision: Literal["fp32", "bf16", "fp16"]
    warmup_steps: int
    steps: tuple[int, ...]
    """Optimizer steps at which each token count is reached, ascending."""

    def flops_six_nd(self, tokens: int) -> float:
        return flops.six_nd(self.shape.parameters, tokens)

    def flops_detailed(self, tokens: int) -> float:
        return flops.detailed(self.shape, tokens, self.sequence_length)


def vocabulary_of(training: Training) -> int:
    """Number of token ids of the recipe's tokenizer."""
    return {"Bytes": BYTES_VOCABULARY}[training.tokenizer]


def shape_of(training: Training, parameters: int) -> Shape:
    """The decoder nearest to `parameters`. Raises ValueError when none is near."""
    return shape_for(parameters, vocabulary_of(training), training.model)


def batch_tokens_of(training: Training, tokens: int) -> int:
    """Tokens per step: the recipe's own, or 0.58·D^0.571 rounded to a power of two of sequences.

    The power law is Step Law's (Li et al. 2025, arXiv:2503.04715).
    """
    if training.batch_tokens is not None:
        sequences = training.batch_tokens / training.sequence_length
        return max(1, round(sequences)) * training.sequence_length
    sequences = 0.58 * tokens**0.571 / training.sequence_length
    return int(training.sequence_length * 2 ** max(0, round(math.log2(max(1.0, sequences)))))


def whole_batches(training: Training, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Token counts rounded to whole optimizer steps, at least ten of them; ascending, duplicates dropped."""
    batch = batch_tokens_of(training, max(tokens))
    return tuple(sorted({batch * max(10, round(t / batch)) for t in tokens}))


@lru_cache(maxsize=4096)
def resolve(
    training: Training, parameters: int, tokens: tuple[int, ...], learning_rate_factor: float = 1.0
) -> Hyperparameters:
    """Every hyperparameter of one run; `tokens` are whole batches already (see `whole_batches`)."""
    shape = shape_of(training, parameters)
    batch = batch_tokens_of(training, max(tokens))
    if any(t % batch for t in tokens):
        raise ValueError(f"token counts {tokens} are not whole batches of {batch}")
    steps = tuple(t // batch for t in sorted(tokens))
    return Hyperparameters(
        shape=shape,
        sequence_length=training.sequence_length,
        batch_tokens=batch,
        learning_rate=training.learning_rate.at(shape.parameters) * learning_rate_factor,
        optimizer=training.optimizer,
        schedule=training.schedule,
        precision=training.precision,
        warmup_steps=max(1, round(training.schedule.warmup * steps[0])),
        steps=steps,
    )
