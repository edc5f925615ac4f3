"""How many parameters each Hugging Face causal language model has, as a function of its dimensions.

Owns the facts that an exact count needs, so that the operator can size a model without `transformers`. They stand in
`architectures.json`, which `sweep_trainer.architectures` derives from the models that `transformers` builds; a test
holds them against it. Builds nothing.

Blocks may be of several kinds, which follow each other in a fixed order: the first few, then a pattern over and over.
A count is a sum of whole multiples of products of the dimensions: w width, a channels of all query heads, q of all key
heads, d of one head, h query heads, k key heads, f inner width of the feed-forward block (of one expert), r = ⌈w/16⌉
(the rank of Mamba's step), V vocabulary, s positions. The fields of each architecture's configuration stand there too,
so that a wrong one is refused as early.
"""

import difflib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Term = tuple[int, tuple[str, ...]]
"""A multiple, and the dimensions that it multiplies."""
_TABLE = Path(__file__).with_name("architectures.json")


@dataclass(frozen=True, slots=True)
class Count:
    """A sum of terms, divided."""

    terms: tuple[Term, ...] = ()
    divisor: int = 1
    """2 where a part is half as wide as another; the sum is even then."""

    def __call__(self, sizes: Mapping[str, int], *, least: int = 0) -> int:
        """Its value; of terms of at least so many dimensions alone where asked, which are the matrices at two."""
        total = 0
        for multiple, names in self.terms:
            if len(names) >= least:
                for name in names:
                    multiple *= sizes[name]
                total += multiple
        return total // self.divisor

    def of(self, *names: str) -> float:
        """The multiple of one product."""
        return next((multiple / self.divisor for multiple, product in self.terms if product == names), 0.0)

    @property
    def dimensions(self) -> frozenset[str]:
        """Those that it depends on."""
        return frozenset(name for _, names in self.terms for name in names)

    @staticmethod
    def read(document: Mapping[str, int]) -> "Count":
        """From `{"w*a": 2, "w": 2, "1": 7}`; `"/": 2` beside them halves all."""
        return Count(
            tuple(
                (multiple, () if product == "1" else tuple(product.split("*")))
                for product, multiple in document.items()
                if product != "/"
            ),
            document.get("/", 1),
        )


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture of an architecture: how many experts a block has that has any."""

    count_field: str
    """Of the configuration: how many experts; so many when it is left out."""
    count: int
    met_field: str
    """Of the configuration: how many of them a token meets; so many when it is left out."""
    met: int


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of block."""

    own: Count
    """Its experts left out."""
    scores: float = 1.0
    """Scores that it computes for each pair of positions and each channel of its query heads: 1 in attention whose
    keys and values are as wide as each other, 0 where no two positions meet."""
    each: Count = Count()
    """What one more expert adds."""
    weights: Count = Count()
    """That of it which only the tokens of the expert pass through; the rest is the router's."""
    shared: Count = Count()
    """What it computes with besides, of a block before it: no more parameters, and more FLOPs."""

    @staticmethod
    def read(document: Mapping[str, Any]) -> "Block":
        """One entry of `blocks`."""
        parts = ("own", "each", "weights", "shared")
        counts = {name: Count.read(document[name]) for name in parts if name in document}
        return Block(**counts, scores=document.get("scores", 1.0))


@dataclass(frozen=True, slots=True)
class Facts:
    """One architecture."""

    blocks: tuple[Block, ...]
    """Its kinds of blocks."""
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
    first: tuple[int, ...] = ()
    """Which kinds the first blocks are of, as indices into `blocks`."""
    then: tuple[int, ...] = (0,)
    """And those after them, over and over."""
    heads_multiple: int = 1
    """What the number of heads, and of key heads, must be a multiple of."""
    least_layers: int = 1
    """The fewest that it can be built of: some must have a layer of each kind, or two that share their weights."""
    passes: float = 1.0
    """How many times a token goes through a block: more than once in a model whose stacks take turns."""
    fields: frozenset[str] = frozenset()
    """Of its configuration, those left out that all have."""
    experts: Experts | None = None

    def numbers(self, layers: int) -> tuple[int, ...]:
        """How many blocks of each kind there are in so many layers."""
        kinds = [*self.first[:layers]]
        kinds += [self.then[i % len(self.then)] for i in range(layers - len(kinds))]
        return tuple(kinds.count(kind) for kind in range(len(self.blocks)))

    @property
    def gated(self) -> bool:
        """Whether the feed-forward block has three matrices."""
        return any(count.of("w", "f") in (3, 6) for block in self.blocks for count in (block.own, block.weights))

    @property
    def positions(self) -> bool:
        """Whether positions, or biases by distance, are learnt, so that the count depends on the context."""
        return any("s" in count.dimensions for count in (self.around, *(block.own for block in self.blocks)))

    @staticmethod
    def read(document: Mapping[str, Any]) -> "Facts":
        """One entry of the table."""
        read: dict[str, Any] = {**document, "blocks": tuple(Block.read(block) for block in document["blocks"])}
        for name in ("around", "untied"):
            read[name] = Count.read(document[name])
        for name in {"first", "then"} & read.keys():
            read[name] = tuple(read[name])
        if "experts" in read:
            read["experts"] = Experts(**read["experts"])
        read["fields"] = frozenset(document.get("fields", "").split())
        return Facts(**read)


_SIZES = "parameters, model.width and model.layers"
_HEADS = "model.heads and model.width"
_HEAD_SIZE = "model.headSize; set it there"
_LIBRARYS = "the architecture, whose layers alternate as the library has it"
_WHOLE = "training.sequenceLength: attention sees the whole of it"
_COSTS = "the architecture, whose cost is counted as the rule has it"
_RULED = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "num_hidden_layers", "num_layers", "n_layers"), _SIZES),
    **dict.fromkeys(("n_layer", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff"), _SIZES),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "rotary_dim"), _SIZES),
    **dict.fromkeys(("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size"), _SIZES),
    **dict.fromkeys(("shared_intermediate_size", "expert_ffn_hidden_size", "emb_dim", "d_inner", "lru_width"), _SIZES),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "mamba_dt_rank", "embedding_size", "conv_dim"), _SIZES),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "decoder_ffn_dim", "encoder_ffn_dim"), _SIZES),
    **dict.fromkeys(("feed_forward_size", "o_lora_rank", "o_groups", "hc_lowrank"), _SIZES),
    **dict.fromkeys(("attn_config", "ffn_config", "ffn_proj_factor", "ffn_round_up_to_multiple_of"), _SIZES),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads", "mamba_d_head"), _HEADS),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads", "d_head"), _HEADS),
    **dict.fromkeys(
        ("swa_num_attention_heads", "num_attention_heads_per_layer", "mamba_head_dim", "mamba_d_ssm"), _HEADS
    ),
    "attention_head_size": _HEAD_SIZE,
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "swa_head_dim"), _HEAD_SIZE),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), _HEAD_SIZE),
    **dict.fromkeys(("global_head_dim", "kv_channels"), _HEAD_SIZE),
    "swa_num_key_value_heads": "model.kvHeads; set it there",
    **dict.fromkeys(("layer_types", "layers_block_type", "block_types", "mlp_layer_types"), _LIBRARYS),
    **dict.fromkeys(("attn_layers", "indexer_types"), _LIBRARYS),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "mlp_only_layers"), _LIBRARYS),
    **dict.fromkeys(("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"), _LIBRARYS),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head"), "model.heads; set it there"),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), "model.heads; set it there"),
    "num_key_value_heads": "model.kvHeads; set it there",
    "head_dim": "model.headSize; set it there",
    "vocab_size": "training.tokenizer",
    "tie_word_embeddings": "model.tiedEmbeddings; set it there",
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "rel_extent"), "training.sequenceLength"),
    **dict.fromkeys(("max_target_positions", "axial_pos_embds"), "training.sequenceLength"),
    **dict.fromkeys(("index_topk", "indexer_budget", "indexer_compress_ratio"), _WHOLE),
    **dict.fromkeys(("local_attn_chunk_length", "lsh_attn_chunk_length"), _WHOLE),
    **dict.fromkeys(("H_cycles", "L_cycles", "num_layers_per_stack", "zero_expert_num"), _COSTS),
    "cross_attention_layers": "the family: no layer here waits for another model's states",
    **dict.fromkeys(("model_type", "architectures"), "model.architecture; set it there"),
    "is_decoder": "the family: every model here is one",
}
"""Fields of their configurations that a recipe says already, and where."""


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""What architectures call the number of experts of a block."""
MET = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts", "moe_top_k")
"""And how many of them a token meets."""


def at_random(field: str) -> bool:
    """Whether a field says how much is dropped or shaken at random: a run that goes on would not be the one stopped."""
    return "drop" in field or "jitter" in field


def refuse(configuration: Mapping[str, Any], architecture: str) -> None:
    """Raises ValueError for fields that follow from something else or that there are not, and for experts that there
    cannot be."""
    for field, value in configuration.items():
        if field in _RULED:
            raise ValueError(f"configuration.{field} follows from {_RULED[field]}")
        if at_random(field) and value:
            raise ValueError(f"configuration.{field}: nothing is dropped or shaken at random here; leave it out")
    refuse_unknown(configuration, architecture, facts_of(architecture).fields | fields_of_all())
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


def refuse_unknown(configuration: Mapping[str, Any], architecture: str, fields: Set[str]) -> None:
    """Raises ValueError, with near names, for a field that is none of those that an architecture has."""
    for field in sorted(configuration.keys() - fields):
        own = sorted(name for name in fields - fields_of_all() if name not in _RULED and not at_random(name))
        near = difflib.get_close_matches(field, own, n=3, cutoff=0.6)
        said = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(own)}"
        raise ValueError(f"configuration.{field}: {architecture} has no such field; {said}")


def experts_in(experts: Experts, configuration: Mapping[str, Any] | None) -> tuple[int, int]:
    """How many experts a block has, and how many of them a token meets."""
    given = configuration or {}
    count = next((given[field] for field in EXPERTS if field in given), experts.count)
    return count, next((given[field] for field in MET if field in given), experts.met)


def known() -> tuple[str, ...]:
    """The architectures that can be sized and trained."""
    return tuple(sorted([*_table()["counted"], *_table()["languages"]]))


def language_of(architecture: str) -> str:
    """The language model of one that is made for several modalities, which text alone trains; any other is its own."""
    return str(_table()["languages"].get(architecture, architecture))


def refused() -> dict[str, str]:
    """The others that `transformers` has, and why."""
    return dict(_table()["refused"])


def fields_of_all() -> frozenset[str]:
    """The fields that every configuration of `transformers` has."""
    return frozenset(_table()["fields"].split())


def counted_by() -> str:
    """The version of `transformers` that the table is of."""
    return str(_table()["transformers"])


@cache
def facts_of(architecture: str) -> Facts:
    """Raises ValueError, with near names or the reason, for one that cannot be trained."""
    table = _table()
    language = language_of(architecture)
    if language in table["counted"]:
        return Facts.read(table["counted"][language])
    version = table["transformers"]
    if architecture in table["refused"]:
        raise ValueError(
            f"architecture {architecture} of transformers {version} cannot be trained here:"
            f" {table['refused'][architecture]}"
        )
    near = difflib.get_close_matches(architecture, known(), n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else "docs/training.md lists them"
    raise ValueError(f"transformers {version} has no causal language model {architecture!r}; {meant}")


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text("utf-8"))
    return table
