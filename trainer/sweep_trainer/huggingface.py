"""Hugging Face causal language models, of a size that our shape rule gives, behind our model's interface.

Owns how one is built, and the loss. The fields of its configuration are `configuration`'s to set; which architectures
there are, and how many parameters each has, stands in `sweep_analysis.architectures`. Needs `transformers`; reads
nothing from the network: weights are random.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.architectures import language_of
from sweep_analysis.record import FailureReason
from sweep_analysis.shape import Shape
from sweep_trainer.configuration import configuration, experts_of, names_of
from sweep_trainer.failure import RunError
from sweep_trainer.model import likelihood, targets

_UNMOVED = ("expert_bias", "e_score_correction_bias", "z_L_init")
"""How parameters end that no gradient moves by design: what balances the choice of experts, or a fixed beginning."""


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
                self.model: Any = ready(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]  # transformers leaves it untyped
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
        if name.endswith(_UNMOVED) or "Sinusoidal" in type(module).__name__:
            delattr(module, own)
            module.register_buffer(own, parameter.detach())
    return model


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
    name = language_of(shape.architecture)
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        import transformers

        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"transformers {transformers.__version__} has no causal language model {shape.architecture!r};"
            " the trainer image holds the version that requirements/trainer.txt names",
        )
    kind: Any = CONFIG_MAPPING[name]
    unknown = [field for field in shape.configuration or () if field not in names_of(kind) | {*experts_of(kind)}]
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


def refused(architecture: str | None, error: Exception) -> RunError:
    """What `transformers` says to a shape, in one line."""
    said = " ".join(str(error).split())[:400] or type(error).__name__
    return RunError(FailureReason.BAD_CONFIGURATION, f"transformers cannot build {architecture} so: {said}")
