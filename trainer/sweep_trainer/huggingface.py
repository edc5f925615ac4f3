"""Hugging Face causal language models, of a size that our shape rule gives, behind our model's interface.

Owns how one is built, and the loss. The fields of its configuration are `configuration`'s to set; which architectures
there are, and how many parameters each has, stands in `sweep_analysis.architectures`. Needs `transformers`; reads
nothing from the network: weights are random.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.architectures import language_of, refuse_unknown
from sweep_analysis.record import FailureReason
from sweep_analysis.shape import Shape
from sweep_trainer.configuration import configuration, fields_of
from sweep_trainer.failure import RunError
from sweep_trainer.model import likelihood, targets

_UNMOVED = (
    *("expert_bias", "e_score_correction_bias", "z_L_init", "pooler.weight", "pooler.bias"),
    *("mask_emb", "r_s_bias", "seg_embed"),
)
"""How parameters end that no gradient moves by design: what balances the choice of experts, a fixed beginning, what
sums a text up in one vector, or what stands for hidden tokens and for segments where there are none."""
_UNREACHED = frozenset({"indexer", "encoder_attn", "encoder_attn_layer_norm"})
"""Modules that the loss of a text does not reach: what chooses keys for attention, and here chooses all of them; and
attention to the states of an encoder, where there is none."""
_UNUSED = frozenset({("ReformerOnlyLMHead", "bias")})
"""Classes of modules and a parameter of theirs that the library makes, and never computes with."""


class HuggingFaceModel(nn.Module):
    """A causal language model with the losses that engines ask for."""

    def __init__(self, shape: Shape, sequence_length: int, seed: int) -> None:
        """Raises RunError where `transformers` is missing, or cannot build the shape."""
        super().__init__()
        config = config_of(shape, sequence_length)
        self._depth = shape.layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                self.model: Any = built(str(shape.architecture), config)
            except Exception as error:
                raise refused(shape.architecture, error) from error

    @property
    def attention(self) -> str:
        """The kernel, which is theirs to choose: "transformers 5.23.0 sdpa"."""
        import transformers

        return f"transformers {transformers.__version__} {self.model.config._attn_implementation or 'eager'}"

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's layers."""
        return blocks_of(self.model, self._depth)

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


def kind_of(name: str) -> Any:
    """The class of configurations that the causal language model of an architecture is built from.

    It is the architecture's own, save for one of several modalities whose text has a class of models for itself."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    whole: Any = CONFIG_MAPPING[name]
    own = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[whole], "config_class", None)
    parts = getattr(whole, "sub_configs", {}).values()
    return own if own is not whole and own in parts else whole


def configured(kind: Any, fields: dict[str, Any]) -> Any:
    """A configuration. Raises whatever the class does."""
    try:
        return kind(**fields)
    except Exception:  # noqa: BLE001  # whatever it raises: some will have an id at which text begins, ends or pads
        ids = [name for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in fields]
        return kind(**fields | {name: 0 for name in ids if fields[name] is None})


def class_of(name: str, config: Any) -> Any:
    """The class of models of an architecture, for a configuration that `kind_of` names the class of."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(config)
    return MODEL_FOR_CAUSAL_LM_MAPPING[kind if kind in MODEL_FOR_CAUSAL_LM_MAPPING else CONFIG_MAPPING[name]]


def built(name: str, config: Any) -> Any:
    """The model of an architecture, with random weights."""
    return ready(class_of(name, config)._from_config(config))


def ready(model: Any) -> Any:
    """The same model, without what is no parameter here.

    What no gradient moves becomes a buffer under its own name, so that N counts what is trained and the file of weights
    still has all; and no token is padding, so that every row of the embedding learns.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    for name, parameter in [*model.named_parameters()]:
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        kind = type(module).__name__
        unmoved = name.endswith(_UNMOVED) or not _UNREACHED.isdisjoint(path.split("."))
        if unmoved or (kind, own) in _UNUSED or "Sinusoidal" in kind:
            delattr(module, own)
            module.register_buffer(own, parameter.detach())
    return model


def blocks_of(model: Any, depth: int) -> nn.ModuleList:
    """The layers of any of their models: of its lists of so many modules the one with the most parameters, and behind
    it those of the same class (two stacks that take turns). Raises RunError where no list is as long."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"{model.config.model_type} keeps its {depth} layers in no list, so that none can be computed again;"
            " leave activationCheckpointing out",
        )
    largest = max(lists, key=lambda modules: sum(p.numel() for p in modules.parameters()))
    others = [m for m in lists if m is not largest and isinstance(m[0], type(largest[0]))]
    return nn.ModuleList(itertools.chain(largest, *others)) if others else largest


def document_of(shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The whole `config.json`, with the class that loads it."""
    config = config_of(shape, sequence_length)
    document: dict[str, Any] = config.to_diff_dict()
    return document | {"architectures": [class_of(str(shape.architecture), config).__name__]}


def config_of(shape: Shape, sequence_length: int) -> Any:
    """The configuration object of a shape that has an architecture.

    Raises RunError where `transformers` is missing, does not know the architecture, or refuses a field."""
    try:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except ImportError:
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            "training.model.family HuggingFace needs transformers; install scalingsweep[huggingface]",
        ) from None
    assert shape.architecture is not None, "our own decoder is not theirs"
    name = language_of(shape.architecture)
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        import transformers

        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"transformers {transformers.__version__} has no causal language model {shape.architecture!r};"
            " the trainer image holds the version that requirements/trainer.txt names",
        )
    kind = kind_of(name)
    try:  # another version of the library may have other fields than the table
        refuse_unknown(shape.configuration or {}, shape.architecture, fields_of(kind))
    except ValueError as error:
        raise RunError(FailureReason.BAD_CONFIGURATION, f"training.model.{error}") from None
    try:
        return configured(kind, configuration(kind, shape, sequence_length))
    except Exception as error:
        raise refused(shape.architecture, error) from error


def refused(architecture: str | None, error: Exception) -> RunError:
    """What `transformers` says to a shape, in one line."""
    said = " ".join(str(error).split())[:400] or type(error).__name__
    return RunError(FailureReason.BAD_CONFIGURATION, f"transformers cannot build {architecture} so: {said}")
