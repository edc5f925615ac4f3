"""How many parameters each Hugging Face causal language model has, as a function of its dimensions.

Owns the facts that an exact count needs, so that the operator can size a model without `transformers`. They stand in
`architectures.json`, which `sweep_trainer.architectures` derives from the models that `transformers` builds; a test
holds them against it. Builds nothing.

A count is a sum of whole multiples of products of the dimensions: w width, a channels of all query heads, q of all key
heads, d of one head, h query heads, k key heads, f inner width of the feed-forward block (of one expert), r = ⌈w/16⌉
(the rank of Mamba's step), V vocabulary, s positions.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Term = tuple[int, tuple[str, ...]]
"""A multiple, and the dimensions that it multiplies."""
_TABLE = Path(__file__).with_name("architectures.json")


@dataclass(frozen=True, slots=True)
class Count:
    """A sum of terms."""

    terms: tuple[Term, ...] = ()

    def __call__(self, sizes: Mapping[str, int], *, least: int = 0) -> int:
        """Its value; of terms of at least so many dimensions alone where asked, which are the matrices at two."""
        total = 0
        for multiple, names in self.terms:
            if len(names) >= least:
                for name in names:
                    multiple *= sizes[name]
                total += multiple
        return total

    def of(self, *names: str) -> int:
        """The multiple of one product."""
        return next((multiple for multiple, product in self.terms if product == names), 0)

    @property
    def dimensions(self) -> frozenset[str]:
        """Those that it depends on."""
        return frozenset(name for _, names in self.terms for name in names)

    @staticmethod
    def read(document: Mapping[str, int]) -> "Count":
        """From `{"w*a": 2, "w": 2, "1": 7}`."""
        return Count(
            tuple(
                (multiple, () if product == "1" else tuple(product.split("*")))
                for product, multiple in document.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture in each block of an architecture."""

    count_field: str
    """Of the configuration: how many experts; so many when it is left out."""
    count: int
    met_field: str
    """Of the configuration: how many of them a token meets; so many when it is left out."""
    met: int
    each: Count
    """What one more expert adds to a block."""
    weights: Count
    """That of it which only the tokens of the expert pass through; the rest is the router's."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One architecture."""

    block: Count
    """Of one block, its experts left out."""
    around: Count
    """Of all that stands around the blocks; terms in V and s are the embeddings', an output projection of its own
    among them where `ties` is "never"."""
    untied: Count
    """What an output projection of its own adds where it may share the embedding's weights or not."""
    ties: str
    """Whether the output projection can share the embedding's weights: "either", "always" or "never"."""
    heads: bool
    """Whether it has attention heads: a state space model has none."""
    free_head_size: bool
    """Whether heads may be of another size than width divided by heads."""
    grouped_queries: bool
    """Whether there may be fewer key heads than query heads."""
    experts: Experts | None = None

    @property
    def gated(self) -> bool:
        """Whether the feed-forward block has three matrices."""
        return (self.experts.weights if self.experts else self.block).of("w", "f") in (3, 6)

    @property
    def positions(self) -> bool:
        """Whether positions are learnt, so that the count depends on the context."""
        return "s" in self.around.dimensions

    @staticmethod
    def read(document: Mapping[str, Any]) -> "Facts":
        """One entry of the table."""
        read: dict[str, Any] = {**document}
        for name in ("block", "around", "untied"):
            read[name] = Count.read(document[name])
        if "experts" in read:
            counts = {name: Count.read(read["experts"][name]) for name in ("each", "weights")}
            read["experts"] = Experts(**read["experts"] | counts)
        return Facts(**read)


_SIZES = "parameters, model.width and model.layers"
_RULED = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "num_hidden_layers", "num_layers", "n_layers"), _SIZES),
    **dict.fromkeys(("n_layer", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff"), _SIZES),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "rotary_dim"), _SIZES),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head"), "model.heads; set it there"),
    "num_key_value_heads": "model.kvHeads; set it there",
    "head_dim": "model.headSize; set it there",
    "vocab_size": "training.tokenizer",
    "tie_word_embeddings": "model.tiedEmbeddings; set it there",
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), "training.sequenceLength"),
    **dict.fromkeys(("model_type", "architectures"), "model.architecture; set it there"),
    "is_decoder": "the family: every model here is one",
}
"""Fields of their configurations that a recipe says already, and where."""


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""What architectures call the number of experts of a block."""
MET = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts")
"""And how many of them a token meets."""


def refuse(configuration: Mapping[str, Any], architecture: str) -> None:
    """Raises ValueError for fields that follow from something else, and for experts that there cannot be."""
    for field, value in configuration.items():
        if field in _RULED:
            raise ValueError(f"configuration.{field} follows from {_RULED[field]}")
        if "drop" in field and value:
            raise ValueError(f"configuration.{field}: nothing is dropped at random here; leave it out")
    experts = facts_of(architecture).experts
    if experts is None:
        return
    for field in configuration.keys() & {*EXPERTS, *MET}:
        value = configuration[field]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
            raise ValueError(f"configuration.{field} must be a whole number from 1 to 4096, not {value!r}")
    count, met = experts_in(experts, configuration)
    if met > count:
        raise ValueError(f"configuration: a token cannot meet {met} of {count} experts; set {experts.met_field} lower")


def experts_in(experts: Experts, configuration: Mapping[str, Any] | None) -> tuple[int, int]:
    """How many experts a block has, and how many of them a token meets."""
    given = configuration or {}
    count = next((given[field] for field in EXPERTS if field in given), experts.count)
    return count, next((given[field] for field in MET if field in given), experts.met)


def known() -> tuple[str, ...]:
    """The architectures that can be sized."""
    return tuple(_table()["counted"])


def refused() -> dict[str, str]:
    """The others that `transformers` has, and why."""
    return dict(_table()["refused"])


def counted_by() -> str:
    """The version of `transformers` that the table is of."""
    return str(_table()["transformers"])


@cache
def facts_of(architecture: str) -> Facts:
    """Raises ValueError, with near names or the reason, for one that cannot be sized."""
    table = _table()
    if architecture in table["counted"]:
        return Facts.read(table["counted"][architecture])
    version = table["transformers"]
    if architecture in table["refused"]:
        raise ValueError(
            f"architecture {architecture} of transformers {version} cannot be sized by the shape rule:"
            f" {table['refused'][architecture]}"
        )
    near = difflib.get_close_matches(architecture, known(), n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else "docs/training.md lists them"
    raise ValueError(f"transformers {version} has no causal language model {architecture!r}; {meant}")


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text("utf-8"))
    return table
