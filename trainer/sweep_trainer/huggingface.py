"""Hugging Face causal language models, of a size that our shape rule gives, behind our model's interface.

Owns the configuration of each architecture and the loss. The architectures are those whose parameters
`sweep_analysis.architectures` counts. Needs `transformers`; reads nothing from the network: weights are random.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.record import FailureReason
from sweep_analysis.shape import Shape
from sweep_trainer.failure import RunError
from sweep_trainer.model import likelihood, targets


class HuggingFaceModel(nn.Module):
    """A causal language model with the losses that engines ask for."""

    def __init__(self, shape: Shape, sequence_length: int, seed: int) -> None:
        """Raises RunError where `transformers` is missing."""
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModelForCausalLM
        except ImportError:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                "training.model.family HuggingFace needs transformers; install scalingsweep[huggingface]",
            ) from None
        fields = configuration(shape, sequence_length)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = AutoConfig.for_model(fields.pop("model_type"), **fields)
            self.model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    @property
    def blocks(self) -> Any:
        """The model's layers."""
        return self.model.base_model.layers

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) → logits (B, T, V)."""
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy, nats per token, of (B, T + 1) tokens."""
        given, wanted = targets(tokens)
        return functional.cross_entropy(self(given).flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)

    def likelihood(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """For each row of (B, T + 1): nats of all its predicted tokens, and whether each was the most likely one."""
        return likelihood(self(targets(tokens)[0]), tokens)


def document_of(shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The whole `config.json`."""
    from transformers import AutoConfig

    fields = configuration(shape, sequence_length)
    document: dict[str, Any] = AutoConfig.for_model(fields.pop("model_type"), **fields).to_diff_dict()
    return document


def configuration(shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The fields of the architecture's configuration."""
    fields: dict[str, Any] = {
        "model_type": shape.architecture,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": sequence_length,
        "tie_word_embeddings": shape.tied_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if shape.architecture != "gpt_neox":
        fields["num_key_value_heads"] = shape.key_heads
    if shape.own_head_size or shape.architecture in ("gemma", "qwen3"):  # whose own default is a fixed size
        fields["head_dim"] = shape.head_size
    if shape.architecture == "mistral":
        fields["sliding_window"] = None
    return fields
