"""From a shape to the fields of any Hugging Face architecture's configuration.

Owns what a dimension is called where, what the architectures' own parts (latent attention, state space and linear
attention heads, experts, layers of several kinds) follow from, and which fields there are. Builds no model; imports
`transformers` only where a configuration is asked for, and reads nothing from the network.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from sweep_analysis.architectures import EXPERTS, MET, at_random
from sweep_analysis.shape import Shape

NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "width": ("hidden_size", "d_model", "n_embd"),
    "vocabulary": ("vocab_size",),
    "heads": (
        *("decoder_attention_heads", "num_decoder_attention_heads"),
        *("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"),
    ),
    "key_heads": ("num_key_value_heads",),
    "head_size": ("head_dim", "kv_channels", "attention_head_size"),
    "hidden": (
        *("decoder_ffn_dim", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff", "d_inner"),
        "feed_forward_size",
    ),
    "positions": ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions"),
}
"""What architectures call a dimension; of each, the first that a configuration has is set: the decoder's own where
there is an encoder's too."""
_NEEDED = ("width", "vocabulary")
_FULL = ("dots3_note_text", "gemma3n_text", "gemma4_text", "gemma4_unified_text", "lfm2_moe", "mimo_v2_flash")
"""Those whose layers cannot alternate freely (the last one must be of one kind, there is no pattern, or those with a
window have twice as many key heads as the others, which is more than query heads): all attend to everything."""
OPEN: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},  # arXiv:2405.04434, section 3.1.2
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},  # arXiv:2506.05767
    "big_bird": {"attention_type": "original_full"},  # in blocks it would see tokens to come
    "cohere_compass_text": {  # arXiv:2104.09864, section 3.2.2
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
    },
    "deepseek_v4": {"partial_rotary_factor": 0.5},  # half of a head, as latent attention has it
    "xmod": {"default_language": "en_XX"},  # the one of whose adapters the library's default has
}
"""What the library leaves open and a model cannot do without, as its authors have it."""
_PAIRED = {"recurrent_gemma": "intermediate_size", "moshi": "ffn_dim"}
"""Those for which the inner width is that of gate and value together, and the field."""
_PADDED = (
    *("camembert", "data2vec-text", "modernbert-decoder", "roberta", "roberta-prelayernorm"),
    *("xlm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Those for which there must be a padding token, most to count positions from: -1, which no token is."""


def names_of(kind: Any) -> set[str]:
    """Every field of a class of configurations, by its own name and by those that `transformers` maps to it."""
    return {*(field.name for field in dataclasses.fields(kind)), *kind.attribute_map}


def fields_of(kind: Any) -> set[str]:
    """Every field that a recipe could lay over a class of configurations: its own, and those of experts within it."""
    return names_of(kind) | {name for name in experts_of(kind) if name}


def configuration(kind: Any, shape: Shape, sequence_length: int) -> dict[str, Any]:
    """The fields of a class of configurations that a shape decides, and the recipe's own over them.

    Besides the dimensions: nothing is dropped, so that a run that goes on is the run that was stopped; attention sees
    the whole context; every layer that can have experts has them. Raises ValueError where a needed dimension has no
    name.
    """
    there: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(kind)}
    known = names_of(kind)
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
    if kind.model_type in _PADDED:
        fields["pad_token_id"] = -1
    fields |= {name: value for name, value in _parts(shape, sequence_length, there).items() if name in known}
    fields |= _kinds(kind, shape.layers)
    fields |= copy.deepcopy(dict(OPEN.get(kind.model_type, {})))  # the library writes into what it is given
    if kind.model_type in _PAIRED:
        fields[_PAIRED[kind.model_type]] = 2 * shape.hidden
    if kind.model_type == "mamba2":
        fields |= {"num_heads": there["expand"] * shape.heads, "head_dim": shape.width // shape.heads}
    for name, default in there.items():
        if at_random(name) and isinstance(default, float):
            fields[name] = 0.0
    given = dict(shape.configuration or {})
    if kind.model_type == "dbrx":
        return fields | _dbrx(shape, given)
    return fields | given


def _parts(shape: Shape, sequence_length: int, there: Mapping[str, Any]) -> dict[str, Any]:
    """What the parts that only some architectures have follow from."""
    heads, size, rank = shape.heads, shape.head_size, -(-shape.width // 16)
    wider = [there[name] for name in ("mamba_expand", "expand") if name in there]
    expand = next((value for value in wider if isinstance(value, int)), 1)
    parts: dict[str, Any] = {
        "is_decoder": True,
        "causal": True,
        "attn_type": "uni",
        "sliding_window": sequence_length,
        "sliding_window_size": sequence_length,
        "local_attn_chunk_length": sequence_length,
        "lsh_attn_chunk_length": sequence_length,  # in one chunk there is nothing to hash
        "axial_pos_embds": False,
        # an indexer that chooses as many keys as there are chooses all; its heads are those of latent attention
        "index_topk": sequence_length,
        "index_n_heads": heads,
        "index_head_dim": 2 * size,
        "indexer_n_heads": heads,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 2 * size,
        "indexer_compress_ratio": sequence_length,
        "indexer_budget": sequence_length,
        "local_attention": 2 * sequence_length,
        "attention_types": [[["global"], shape.layers]],
        "rotary_dim": size,
        "block_auto_adjust_ff_dim": False,
        # experts: in every layer, chosen among all
        "first_k_dense_replace": 0,
        "num_dense_layers": 0,
        "moe_layer_start_index": 0,
        "moe_layer_end_index": shape.layers - 1,
        "mlp_only_layers": [],
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": shape.hidden,
        "shared_expert_intermediate_size": shape.hidden,
        "shared_experts_intermediate_size": shape.hidden,
        "moe_shared_expert_intermediate_size": shape.hidden,
        "shared_intermediate_size": shape.hidden,
        "expert_ffn_hidden_size": shape.hidden,
        # latent attention (arXiv:2405.04434): ranks of a quarter and an eighth of the width
        "kv_lora_rank": 2 * rank,
        "q_lora_rank": 4 * rank if there.get("q_lora_rank") else None,
        "qk_nope_head_dim": size,
        "qk_rope_head_dim": size,
        "v_head_dim": size,
        # linear attention: the heads of attention
        "linear_num_key_heads": heads,
        "linear_num_value_heads": heads,
        "linear_key_head_dim": size,
        "linear_value_head_dim": size,
        "linear_num_heads": heads,
        "linear_head_dim": size,
        # state space layers: as many heads as fill their width with heads of width divided by heads, one group
        "mamba_n_heads": expand * heads,
        "mamba_num_heads": expand * heads,
        "n_mamba_heads": heads,
        "mamba_d_head": shape.width // heads,
        "mamba_head_dim": shape.width // heads,
        "mamba_d_ssm": expand * shape.width,
        "mamba_dt_rank": rank,
        "n_groups": 1,
        "mamba_n_groups": 1,
        "mamba_ngroups": 1,
        "lru_width": shape.width,
        # heads and embeddings that some keep for some layers
        "swa_num_attention_heads": heads,
        "swa_num_key_value_heads": shape.key_heads,
        "swa_head_dim": size,
        "global_head_dim": size,
        "num_attention_heads_per_layer": [heads] * shape.layers,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "unpadded_vocab_size": shape.vocabulary,
        "zero_expert_num": 0,
        "rel_extent": sequence_length,
        "keep_window_size": sequence_length,
        "cross_attention_layers": [],  # they wait for the states of a model that sees
        "encoder_layers": shape.layers,  # of which nothing is built; some parts of the library look for sizes there
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": shape.hidden,
        "o_groups": 1,
        "o_lora_rank": 4 * rank,
        "hc_lowrank": 2 * rank,
        "num_heads": heads,
        "ffn_proj_factor": shape.hidden / shape.width,
        "ffn_round_up_to_multiple_of": 8,
        "embedding_size": shape.width,
        "d_head": shape.width // heads,
    }
    if "conv_dim" in there:
        parts["conv_dim"] = shape.width
    return parts


def _kinds(kind: Any, layers: int) -> dict[str, Any]:
    """The list of each layer's kind, where the library does not make one of the right length by itself."""
    if kind.model_type == "nemotron_h":
        pattern = ("linear_attention", "moe", "full_attention", "mlp")
        return {"layers_block_type": [pattern[i % 4] for i in range(layers)], "num_hidden_layers": None}
    if kind.model_type == "zamba2":
        return {"layers_block_type": ["hybrid" if i % 6 == 5 else "linear_attention" for i in range(layers)]}
    kinds: dict[str, Any] = {}
    if kind.model_type == "deepseek_v4":  # the others add keys for what a window leaves out, and here it leaves nothing
        kinds["layer_types"] = ["sliding_attention"] * layers
    if kind.model_type == "reformer":
        kinds["attn_layers"] = ["local" if i % 2 == 0 else "lsh" for i in range(layers)]
    if kind.model_type in _FULL:
        kinds["layer_types"] = ["full_attention"] * layers
        if kind.model_type.startswith("gemma4"):
            kinds["per_layer_config"] = {}  # else their heads would be of 512 channels at any width
    if "mlp_layer_types" in names_of(kind):
        deepest = (kind().mlp_layer_types or ["sparse"])[-1]
        kinds["mlp_layer_types"] = ["sparse" if deepest == "dense" else deepest] * layers
    return kinds


def _dbrx(shape: Shape, given: Mapping[str, Any]) -> dict[str, Any]:
    """DBRX keeps the fields of attention and of experts in configurations of their own."""
    experts = {name: given[name] for name in ("moe_num_experts", "moe_top_k") if name in given}
    rest = {name: value for name, value in given.items() if name not in experts}
    return {
        "d_model": shape.width,  # by its own name, which its parts are made from
        "attn_config": {"kv_n_heads": shape.key_heads, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        "ffn_config": {"hidden_size": shape.width, "ffn_hidden_size": shape.hidden, **experts},
        **rest,
    }


def experts_of(kind: Any) -> tuple[str | None, str | None]:
    """The fields that say how many experts a block has, and how many of them a token meets."""
    if kind.model_type == "dbrx":
        return "moe_num_experts", "moe_top_k"
    known = names_of(kind)
    count, met = (next((name for name in names if name in known), None) for names in (EXPERTS, MET))
    own = kind.attribute_map
    return (own.get(count, count), own.get(met, met)) if count and met else (None, None)
