"""How a model is trained: the `spec.training` of a sweep, and the rules that resolve it for one run.

Owns the recipe's vocabulary and the derivation of every hyperparameter from (parameters, tokens), so that the
operator can count, price and digest a run without importing torch. Trains nothing.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from sweep_analysis import flops
from sweep_analysis.document import Document
from sweep_analysis.execution import Execution
from sweep_analysis.measure import Evaluation
from sweep_analysis.objective import Objective
from sweep_analysis.rules import BatchRule, LearningRate, Schedule, batch_by_rule, power_of_two_sequences
from sweep_analysis.scale import Scale
from sweep_analysis.shape import Model, Shape, shape_for
from sweep_analysis.sources import BYTES_END, BYTES_VOCABULARY, Data, TokenizerFile, TokenizerKind, rooted

__all__ = [
    "BYTES_VOCABULARY",
    "Data",
    "Hyperparameters",
    "LearningRate",
    "Optimizer",
    "Schedule",
    "Training",
    "at_context",
    "batch_tokens_of",
    "resolve",
    "shape_of",
    "vocabulary_of",
    "whole_batches",
]

Attention = Literal["Auto", "Fa4", "Fa3", "Fa2", "Sdpa"]
"""Auto: the first of FlashAttention 4, 3, 2 and PyTorch's own that proves itself on the device at hand."""


class Optimizer(Document):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); decay on matrices only."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    clip_norm: float = Field(default=0.3, gt=0)
    """Gradients longer than this are shortened to it. At 20 thousand parameters 0.3 against 1 lowered the loss by 0.01
    to 0.02 nats and its spread over six seeds from 0.017 to 0.004; at 46 and 96 thousand by less, at 163 not at all.
    """


class Training(Execution):
    """The recipe shared by every run of a sweep; frozen from the first forecast on."""

    model: Model = Model()
    data: Data
    tokenizer: TokenizerKind = "Bytes"
    """Bytes: a token a byte of UTF-8. The others are read from `tokenizerFile`."""
    tokenizer_file: TokenizerFile | None = None
    objective: Objective | None = None
    """What is learnt; pretraining from random weights when left out."""
    sequence_length: int = Field(default=128, ge=8, le=65_536)
    document_mask: bool = Field(default=False, exclude_if=lambda on: not on)
    """Whether a token attends within its own document alone and positions start anew with each; else sequences are cut
    from one stream, as is usual. For data.sources."""
    attention: Attention = Field(default="Auto", exclude_if=lambda kernel: kernel == "Auto")
    """Which kernel computes attention. One that is named and cannot run ends the run before its first step."""
    batch_tokens: Scale | None = None
    """Tokens per optimizer step; by `batchRule` when left out."""
    batch_rule: BatchRule = Field(default="StepLaw", exclude_if=lambda rule: rule == "StepLaw")
    learning_rate: LearningRate = LearningRate()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpoint_seconds: float = Field(default=20.0, ge=0.5, le=86_400)
    """At most this much training time lies between two checkpoints."""
    evaluation: Evaluation | None = None
    """What is measured besides validation loss at the records."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if (self.tokenizer == "Bytes") != (self.tokenizer_file is None):
            raise ValueError("tokenizerFile goes with tokenizer HuggingFace or Tiktoken, and those need it")
        if self.tokenizer != "Bytes" and not self.data.sources:
            raise ValueError(f"tokenizer {self.tokenizer} reads documents; name the data under data.sources")
        kind = self.objective.kind if self.objective else "Pretraining"
        if kind != "Pretraining" and not self.data.sources:
            raise ValueError(f"objective {kind} reads documents of several fields; name the data under data.sources")
        if self.document_mask and not self.data.sources:
            raise ValueError("documentMask needs documents, which data.sources has; corpus and files are one stream")
        if self.document_mask and kind == "RewardModel":
            raise ValueError("a reward model reads one answer a sequence; leave documentMask out")
        if kind == "RewardModel" and (self.micro_batch or 0) % 2:
            raise ValueError("a reward model's sequences come in pairs; set microBatch to an even number")
        if kind == "RewardModel" and self.evaluation and self.evaluation.tasks:
            raise ValueError("a reward model has no likelihood to answer tasks with; leave evaluation.tasks out")
        if self.batch_tokens is not None and self.batch_rule != "StepLaw":
            raise ValueError(f"batchRule {self.batch_rule} has no effect beside batchTokens; leave one of them out")
        if self.model.family == "HuggingFace":
            self._fits_hugging_face(kind)
        return self

    def _fits_hugging_face(self, kind: str) -> None:
        for taken, what in (
            (self.document_mask, "documentMask"),
            (kind == "RewardModel", "objective RewardModel"),
            (self.learning_rate.rule == "MuTransfer", "learningRate.rule MuTransfer"),
            (self.attention != "Auto", "attention"),
        ):
            if taken:
                raise ValueError(f"{what} is for family Decoder; leave it out with family HuggingFace")

    def rooted(self, root: Path) -> "Training":
        """The same recipe with every path in full."""
        changes: dict[str, object] = {"data": self.data.rooted(root)}
        if self.tokenizer_file:
            path = rooted(self.tokenizer_file.path, root)
            changes["tokenizer_file"] = self.tokenizer_file.model_copy(update={"path": path})
        if self.objective and self.objective.start_from:
            start = rooted(self.objective.start_from, root)
            changes["objective"] = self.objective.model_copy(update={"start_from": start})
        if self.evaluation:
            tasks = (
                task.model_copy(update={"data": rooted(task.data, root)}) if task.data else task
                for task in self.evaluation.tasks
            )
            changes["evaluation"] = self.evaluation.model_copy(update={"tasks": tuple(tasks)})
        return self.model_copy(update=changes)


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
    tokenizer_file: TokenizerFile | None = None
    objective: Objective | None = None
    document_end: int | None = None
    """Id of the token behind which another document begins, where attention stays within documents."""
    attention: Attention = Field(default="Auto", exclude_if=lambda kernel: kernel == "Auto")
    transfer_width: int | None = None
    """muP's base width; None without it."""

    @property
    def width_ratio(self) -> float:
        """Base width divided by width: what muP scales hidden matrices' learning rates and the logits by; else 1."""
        return self.transfer_width / self.shape.width if self.transfer_width else 1.0

    @property
    def trained_steps(self) -> int:
        """Optimizer steps of the whole run: the trunk up to the last count, and a branch for each earlier one."""
        return self.steps[-1] + sum(self.schedule.branch_steps(stop) for stop in self.steps[:-1])

    @property
    def share_saved(self) -> float:
        """Share of the steps of separate runs, one a token count, that sharing a trunk saves."""
        return 1.0 - self.trained_steps / sum(self.steps)

    @property
    def guessing(self) -> float:
        """Nats per token, or per pair of answers, that a model loses which knows nothing."""
        return (self.objective or Objective()).guessing(self.shape.vocabulary)

    def flops_six_nd(self, tokens: int) -> float:
        return flops.six_nd(self.shape.active_parameters, tokens)

    def flops_detailed(self, tokens: int) -> float:
        return flops.detailed(self.shape, tokens, self.sequence_length)


def vocabulary_of(training: Training) -> int:
    """Number of token ids of the recipe's tokenizer, as the model has them."""
    return training.tokenizer_file.vocabulary if training.tokenizer_file else BYTES_VOCABULARY


def document_end_of(training: Training) -> int:
    """Id of the token behind each document."""
    return training.tokenizer_file.end_of_document if training.tokenizer_file else BYTES_END


def shape_of(training: Training, parameters: int) -> Shape:
    """The decoder nearest to `parameters`. Raises ValueError when none is near."""
    scalar = training.objective is not None and training.objective.kind == "RewardModel"
    positions = training.sequence_length if training.model.architecture else None
    return shape_for(parameters, vocabulary_of(training), training.model, scalar_head=scalar, positions=positions)


def batch_tokens_of(training: Training, tokens: int) -> int:
    """Tokens per step: the recipe's own in whole sequences, or its rule's in a power of two of sequences.

    A reward model's sequences come in pairs, so it takes an even number of them.
    """
    pairs = training.objective is not None and training.objective.kind == "RewardModel"
    least = 2 if pairs else 1
    if training.batch_tokens is not None:
        sequences = round(training.batch_tokens / (least * training.sequence_length)) * least
        return max(least, sequences) * training.sequence_length
    by_rule = power_of_two_sequences(batch_by_rule(training.batch_rule, tokens), training.sequence_length)
    return max(least * training.sequence_length, by_rule)


def whole_batches(training: Training, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Token counts rounded to whole optimizer steps, at least ten of them; ascending, duplicates dropped."""
    batch = batch_tokens_of(training, max(tokens))
    return tuple(sorted({batch * max(10, round(t / batch)) for t in tokens}))


@lru_cache(maxsize=256)
def at_context(training: Training, sequence_length: int) -> Training:
    """The same recipe with another context length; what is derived from it follows."""
    return training.changed(sequence_length=sequence_length)


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
        learning_rate=training.learning_rate.for_run(shape, max(tokens)) * learning_rate_factor,
        optimizer=training.optimizer,
        schedule=training.schedule,
        precision=training.precision,
        warmup_steps=training.schedule.warmup_steps or max(1, round(training.schedule.warmup * steps[0])),
        steps=steps,
        tokenizer_file=training.tokenizer_file,
        objective=training.objective,
        document_end=document_end_of(training) if training.document_mask else None,
        attention=training.attention,
        transfer_width=training.learning_rate.base_width,
    )
