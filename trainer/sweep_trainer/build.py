"""From a resolved recipe to a model.

Owns which class is built, with which attention kernel, and from which weights. Engines call `build` and know no more.
"""

import logging
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sweep_analysis.recipe import Hyperparameters
from sweep_analysis.record import FailureReason
from sweep_trainer.attention import AttentionError, Choice, choose
from sweep_trainer.failure import RunError
from sweep_trainer.model import Decoder, Scorer

log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LanguageModel(Protocol):
    """What an engine asks of a model; it is an `nn.Module` besides."""

    blocks: nn.ModuleList

    def loss(self, tokens: Tensor) -> Tensor:
        """The recipe's loss of (B, T + 1) tokens, a scalar."""
        ...

    def likelihood(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """For each row of (B, T + 1): nats of all its predicted tokens, and whether each was the most likely one."""
        ...


def attention_of(hyper: Hyperparameters, device: torch.device) -> Choice:
    """The kernel of a run on a device. Raises RunError when the one that is named cannot run there."""
    shape = hyper.shape
    try:
        choice = choose(
            hyper.attention,
            device,
            DTYPES[hyper.precision],
            shape.heads,
            shape.key_heads,
            shape.head_size,
            documents=hyper.document_end is not None,
        )
    except AttentionError as error:
        raise RunError(FailureReason.BAD_CONFIGURATION, str(error)) from None
    log.info("attention by %s%s", choice, f"; {choice.why}" if choice.why else "")
    return choice


def told_attention(model: nn.Module, choice: Choice) -> str:
    """The kernel that a model runs with, and its version: the choice, or the one that its own library took."""
    return str(getattr(model, "attention", choice))


def build(hyper: Hyperparameters, seed: int, device: torch.device, choice: Choice | None = None) -> Any:
    """The model of a run on its device: random weights of the seed, or those that the objective starts from.

    An `nn.Module` and a `LanguageModel`; its `start_digest` is that of the weights that it starts from. Raises RunError
    where it cannot be built as it is described.
    """
    if hyper.shape.architecture:
        from sweep_trainer.huggingface import HuggingFaceModel  # imports transformers, for these models alone

        model: nn.Module = HuggingFaceModel(hyper.shape, hyper.sequence_length, seed)
    else:
        kind = Scorer if hyper.shape.scalar_head else Decoder
        model = kind(
            hyper.shape,
            hyper.sequence_length,
            seed,
            document_end=hyper.document_end,
            base_width=hyper.transfer_width,
            attend=(choice or attention_of(hyper, device)).attend,
        )
    digest: str | None = None
    if hyper.objective and hyper.objective.start_from:
        from sweep_trainer.initial import take_up

        digest = take_up(model, hyper.objective.start_from)
    built: Any = model.to(device)
    built.start_digest = digest
    return built
