"""Hugging Face causal language models, of a size that our shape rule gives, behind our model's interface.

Owns the rule from a shape to the fields of any architecture's configuration, and the loss. Which architectures there
are, and how many parameters each has, stands in `sweep_analysis.architectures`. Needs `transformers`; reads nothing
from the network: weights are random.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.architectures import EXPERTS, MET
from sweep_analysis.record import FailureReason
from sweep_analysis.shape import Shape
from sweep_trainer.failure import RunError
from sweep_trainer.model import likelihood, targets

NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "width": ("hidden_size", "d_model", "n_embd"),
    "vocabulary": ("vocab_size",),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "key_heads": ("num_key_value_heads",),
    "head_size": ("head_dim",),
    "hidden": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff"),
    "positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
}
"""What architectures call a dimension; of each, the first that a configuration has is set."""
_NEEDED = ("layers", "width", "vocabulary")


class HuggingFaceModel(nn.Module):
    """A causal language model with the losses that engines ask for."""

    def __init__(self, shape: Shape, sequence_length: int, seed: int) -> None:
        """Raises RunError where `transformers` is missing, or cannot build the shape."""
        super().__init__()
        config = config_of(shape, sequence_length)
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                self.model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
            except Exception as error:
                raise refused(shape.architecture, error) from error

    @property
    def attention(self) -> str:
        """The kernel, which is theirs to choose: "transformers 5.23.0 sdpa"."""
        import transformers

        return f"transformers {transformers.__version__} {self.model.config._attn_implementation or 'eager'}"

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's layers: of its lists that are as long as the model is deep, the one with the most parameters."""
        return blocks_of(self.model)

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


def blocks_of(model: Any) -> nn.ModuleList:
    """The layers of any of their models. Raises RunError where no list of modules is as long as the model is deep."""
    depth = model.config.num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"{model.config.model_type} keeps its {depth} layers in no list, so that none can be computed again;"
            " leave activationCheckpointing out",
        )
    return max(lists, key=lambda modules: sum(p.numel() for p in modules.parameters()))


def document_of(shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The whole `config.json`."""
    document: dict[str, Any] = config_of(shape, sequence_length).to_diff_dict()
    return document


def config_of(shape: Shape, sequence_length: int) -> Any:
    """The configuration object of a shape that has an architecture.

    Raises RunError where `transformers` is missing, does not know the architecture, or refuses a field."""
    try:
        from transformers import CONFIG_MAPPING, PreTrainedConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except ImportError:
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            "training.model.family HuggingFace needs transformers; install scalingsweep[huggingface]",
        ) from None
    assert shape.architecture is not None, "our own decoder is not theirs"
    if shape.architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        import transformers

        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"transformers {transformers.__version__} has no causal language model {shape.architecture!r};"
            " the trainer image holds the version that requirements/trainer.txt names",
        )
    kind: Any = CONFIG_MAPPING[shape.architecture]
    unknown = [field for field in shape.configuration or () if not hasattr(kind(), field)]
    if unknown:
        own = {f.name for f in dataclasses.fields(kind)} - {f.name for f in dataclasses.fields(PreTrainedConfig)}
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"training.model.configuration: {kind.__name__} has no {unknown[0]}; it has {', '.join(sorted(own))}"[:900],
        )
    try:
        fields = configuration(kind, shape, sequence_length)
        try:
            return kind(**fields)
        except Exception:  # noqa: BLE001  # whatever it raises: some will have an id at which text begins and ends
            return kind(**fields | {name: 0 for name in ("bos_token_id", "eos_token_id") if name in fields})
    except Exception as error:
        raise refused(shape.architecture, error) from error


def configuration(kind: Any, shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The fields of a class of configurations that a shape decides, and the recipe's own over them.

    Besides the dimensions: nothing is dropped, so that a run that goes on is the run that was stopped; attention sees
    the whole context; every layer of a mixture has experts. Raises ValueError where a needed dimension has no name.
    """
    there = {field.name: field.default for field in dataclasses.fields(kind)}
    known = there.keys() | kind.attribute_map.keys()
    sizes = {
        "layers": shape.layers,
        "width": shape.width,
        "vocabulary": shape.vocabulary,
        "heads": shape.heads,
        "key_heads": shape.key_heads,
        "head_size": shape.head_size,
        "hidden": shape.hidden,
        "positions": sequence_length,
    }
    fields: dict[str, Any] = {"tie_word_embeddings": shape.tied_embeddings}
    for dimension, names in NAMES.items():
        name = next((name for name in names if name in known), None)
        if name is not None:
            fields[name] = sizes[dimension]
        elif dimension in _NEEDED:
            raise ValueError(f"its configuration has none of {', '.join(names)}")
    fields |= dict.fromkeys(sorted({"bos_token_id", "eos_token_id", "pad_token_id"} & known))
    rest = {
        "is_decoder": True,
        "sliding_window": sequence_length,
        "first_k_dense_replace": 0,
        "attention_types": [[["global"], shape.layers]],
        "rotary_dim": shape.head_size,
        "block_auto_adjust_ff_dim": False,
        "moe_intermediate_size": shape.hidden,
        "shared_expert_intermediate_size": shape.hidden,
    }
    fields |= {name: value for name, value in rest.items() if name in known}
    for name, default in there.items():
        if dropped(name) and isinstance(default, float):
            fields[name] = 0.0
    return fields | dict(shape.configuration or {})


def dropped(field: str) -> bool:
    """Whether a field says how much is left out at random."""
    return "drop" in field or field == "router_jitter_noise"


def experts_of(kind: Any) -> tuple[str | None, str | None]:
    """The fields that say how many experts a block has, and how many of them a token meets."""
    known = {field.name for field in dataclasses.fields(kind)} | kind.attribute_map.keys()
    count, met = (next((name for name in names if name in known), None) for names in (EXPERTS, MET))
    own = kind.attribute_map
    return (own.get(count, count), own.get(met, met)) if count and met else (None, None)


def refused(architecture: str | None, error: Exception) -> RunError:
    """What `transformers` says to a shape, in one line."""
    said = " ".join(str(error).split())[:400] or type(error).__name__
    return RunError(FailureReason.BAD_CONFIGURATION, f"transformers cannot build {architecture} so: {said}")
