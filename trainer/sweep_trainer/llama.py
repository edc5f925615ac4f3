"""Our decoder's weights in the layout that Hugging Face's Llama family reads, and back.

Owns names, the order of rotary channels, and which architecture a shape is. Reads and writes no file.

Ours turns neighbouring pairs of a head's channels, theirs channel j with channel j + d/2: the rows of q and k (and the
gains of their norms) are put in the other order, which leaves every product of q and k as it was.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sweep_analysis.shape import Shape

Weight = npt.NDArray[Any]
Weights = dict[str, Weight]
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_EPS, _BASE = 1e-6, 10_000.0


def architecture_of(shape: Shape) -> str | None:
    """Which of their classes computes the same; None where none does."""
    if shape.scalar_head or shape.architecture:
        return None
    if shape.experts is None:
        return "Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"
    if shape.experts.shared:
        grouped = shape.attention_width == shape.width
        return "Qwen2MoeForCausalLM" if grouped and not shape.qk_norm else None
    return "Qwen3MoeForCausalLM" if shape.qk_norm else "MixtralForCausalLM"


_MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "Qwen3ForCausalLM": "qwen3",
    "MixtralForCausalLM": "mixtral",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}


def config(shape: Shape, sequence_length: int, logit_factor: float, end: int | None) -> dict[str, Any]:
    """Their `config.json`. A logit factor other than 1 is folded into the output projection, which unties it."""
    architecture = architecture_of(shape)
    assert architecture is not None, "asked only where a class computes the same"
    tied = shape.tied_embeddings and logit_factor == 1.0
    document: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": _MODEL_TYPES[architecture],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": sequence_length,
        "rms_norm_eps": _EPS,
        "rope_theta": _BASE,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    experts = shape.experts
    if experts is not None:
        document |= {
            "num_experts_per_tok": experts.top_k,
            "num_experts" if architecture.startswith("Qwen") else "num_local_experts": experts.count,
            "router_aux_loss_coef": experts.load_balance,
        }
        if architecture.startswith("Qwen"):
            document |= {
                "moe_intermediate_size": shape.hidden,
                "norm_topk_prob": True,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "shared_expert_intermediate_size": experts.shared * shape.hidden,
                "qkv_bias": False,
            }
    return document


def to_llama(weights: Weights, shape: Shape, logit_factor: float = 1.0, query_factor: float = 1.0) -> Weights:
    """Their weights by name, from ours; the factors of logits and of queries go into the weights."""
    theirs: Weights = {"model.embed_tokens.weight": weights["embedding"], "model.norm.weight": weights["norm"]}
    if not shape.tied_embeddings or logit_factor != 1.0:
        head = weights["embedding"] if shape.tied_embeddings else weights["output"]
        theirs["lm_head.weight"] = (logit_factor * head).astype(head.dtype)
    h, k, d, f = shape.heads, shape.key_heads, shape.head_size, shape.hidden
    for layer in range(shape.layers):
        ours, there = f"blocks.{layer}.", f"model.layers.{layer}."
        q, key, v = np.split(weights[ours + "qkv"], [h * d, (h + k) * d])
        if query_factor != 1.0 and not shape.qk_norm:
            q = query_factor * q
        theirs |= {
            there + "input_layernorm.weight": weights[ours + "attention_norm"],
            there + "post_attention_layernorm.weight": weights[ours + "hidden_norm"],
            there + "self_attn.q_proj.weight": _halves(q, d),
            there + "self_attn.k_proj.weight": _halves(key, d),
            there + "self_attn.v_proj.weight": v,
            there + "self_attn.o_proj.weight": weights[ours + "projection"],
        }
        if shape.qk_norm:
            theirs[there + "self_attn.q_norm.weight"] = query_factor * _halves(weights[ours + "query_norm"], d)
            theirs[there + "self_attn.k_norm.weight"] = _halves(weights[ours + "key_norm"], d)
        if shape.experts is None:
            theirs |= _swiglu(there + "mlp.", weights[ours + "gate_up"], weights[ours + "down"], f)
        else:
            theirs |= _experts(there, ours + "mixture.", weights, shape)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in theirs.items()}


def from_llama(theirs: Weights, shape: Shape, logit_factor: float = 1.0, query_factor: float = 1.0) -> Weights:
    """Our weights by name, from a model in their layout; the factors that our model applies are taken out of them.

    Raises KeyError for a tensor that is missing, ValueError with a clause for weights that no such shape of ours has.
    """
    d = shape.head_size
    weights: Weights = {"embedding": theirs["model.embed_tokens.weight"], "norm": theirs["model.norm.weight"]}
    if not shape.scalar_head:
        weights |= _output(theirs, shape, logit_factor)
    for layer in range(shape.layers):
        ours, there = f"blocks.{layer}.", f"model.layers.{layer}."
        q, k = (_pairs(theirs[f"{there}self_attn.{name}_proj.weight"], d) for name in "qk")
        if query_factor != 1.0 and not shape.qk_norm:
            q = q / query_factor
        weights |= {
            ours + "attention_norm": theirs[there + "input_layernorm.weight"],
            ours + "hidden_norm": theirs[there + "post_attention_layernorm.weight"],
            ours + "qkv": np.concatenate([q, k, theirs[there + "self_attn.v_proj.weight"]]),
            ours + "projection": theirs[there + "self_attn.o_proj.weight"],
        }
        if shape.experts is None:
            weights |= dict(zip((ours + "gate_up", ours + "down"), _from_swiglu(theirs, there + "mlp."), strict=True))
        else:
            weights |= _from_experts(theirs, there, ours + "mixture.", shape)
        if shape.qk_norm:
            weights[ours + "query_norm"] = _pairs(theirs[there + "self_attn.q_norm.weight"], d) / query_factor
            weights[ours + "key_norm"] = _pairs(theirs[there + "self_attn.k_norm.weight"], d)
    return weights


def _output(theirs: Weights, shape: Shape, logit_factor: float) -> Weights:
    if not shape.tied_embeddings:
        return {"output": theirs["lm_head.weight"] / logit_factor if logit_factor != 1.0 else theirs["lm_head.weight"]}
    embedding = theirs["model.embed_tokens.weight"]
    own = theirs.get("lm_head.weight")
    if own is None and logit_factor != 1.0:
        raise ValueError(
            "has its embedding as output projection, which muP here multiplies; set another learningRate.rule"
        )
    if own is not None and not (own.shape == embedding.shape and np.allclose(own, logit_factor * embedding, atol=0)):
        raise ValueError("has an output projection that is not its embedding; set model.tiedEmbeddings: false")
    return {}


def _from_swiglu(theirs: Weights, at: str, names: tuple[str, str, str] = _PROJECTIONS) -> tuple[Weight, Weight]:
    gate, up, down = (theirs[f"{at}{name}.weight"] for name in names)
    return np.concatenate([gate, up]), down


def _from_experts(theirs: Weights, there: str, ours: str, shape: Shape) -> Weights:
    assert shape.experts is not None, "a mixture has experts"
    mixtral = not shape.qk_norm and not shape.experts.shared
    block = there + ("block_sparse_moe." if mixtral else "mlp.")
    names = ("w1", "w3", "w2") if mixtral else _PROJECTIONS
    each = [_from_swiglu(theirs, f"{block}experts.{expert}.", names) for expert in range(shape.experts.count)]
    weights: Weights = {ours + "router": theirs[block + "gate.weight"]}
    weights |= {ours + "gate_up": np.stack([one for one, _ in each]), ours + "down": np.stack([one for _, one in each])}
    if shape.experts.shared:
        if theirs[block + "shared_expert_gate.weight"].any():
            raise ValueError("weighs its shared expert by a gate, which this recipe's model has not")
        gate_up, down = _from_swiglu(theirs, block + "shared_expert.")
        weights |= {ours + "shared_gate_up": gate_up, ours + "shared_down": down / 2}
    return weights


def _experts(there: str, ours: str, weights: Weights, shape: Shape) -> Weights:
    assert shape.experts is not None, "a mixture has experts"
    mixtral = architecture_of(shape) == "MixtralForCausalLM"
    block = there + ("block_sparse_moe." if mixtral else "mlp.")
    theirs: Weights = {block + "gate.weight": weights[ours + "router"]}
    for expert in range(shape.experts.count):
        gate_up, down = weights[ours + "gate_up"][expert], weights[ours + "down"][expert]
        if mixtral:
            gate, up = np.split(gate_up, 2)
            at = f"{block}experts.{expert}."
            theirs |= {at + "w1.weight": gate, at + "w2.weight": down, at + "w3.weight": up}
        else:
            theirs |= _swiglu(f"{block}experts.{expert}.", gate_up, down, shape.hidden)
    if shape.experts.shared:
        shared = weights[ours + "shared_down"]
        # theirs weighs the shared expert by a sigmoid, which is 1/2 for a gate of zeros
        f = shape.experts.shared * shape.hidden
        theirs |= _swiglu(block + "shared_expert.", weights[ours + "shared_gate_up"], 2 * shared, f)
        theirs[block + "shared_expert_gate.weight"] = np.zeros((1, shape.width), shared.dtype)
    return theirs


def _swiglu(at: str, gate_up: npt.NDArray[Any], down: npt.NDArray[Any], hidden: int) -> Weights:
    return {
        at + "gate_proj.weight": gate_up[:hidden],
        at + "up_proj.weight": gate_up[hidden:],
        at + "down_proj.weight": down,
    }


def _halves(rows: npt.NDArray[Any], head_size: int) -> npt.NDArray[Any]:
    """Rows of heads from pairs side by side to halves: channels 0, 2, 4, … then 1, 3, 5, …"""
    pairs = rows.reshape(-1, head_size // 2, 2, *rows.shape[1:])
    return np.moveaxis(pairs, 2, 1).reshape(rows.shape)


def _pairs(rows: npt.NDArray[Any], head_size: int) -> npt.NDArray[Any]:
    """The reverse of `_halves`."""
    halves = rows.reshape(-1, 2, head_size // 2, *rows.shape[1:])
    return np.moveaxis(halves, 1, 2).reshape(rows.shape)
