"""One architecture of `transformers`, built in whatever size is asked and counted: parameters, experts, scores, passes.

Owns how a derivation builds a model, on PyTorch's meta device unless it is to be tried, and what is counted on it.
Which sizes are asked for, and what is made of the counts, is `architectures`' to say; whether it can be trained
`trial`'s.
"""

import re
from typing import Any

import torch

from sweep_analysis.shape import Shape
from sweep_trainer.configuration import NAMES, OPEN, configuration, experts_of, names_of
from sweep_trainer.huggingface import blocks_of, built, configured, kind_of
from sweep_trainer.polynomial import NotSizedError, Sizes

DEPTHS = 20
"""Depths that a pattern of blocks is looked for in."""
TRIED = (3, 12)
"""Depths that it is first built in: the second for those that need layers of several kinds."""
_NO_SCORES = ("linear", "mamba", "conv", "recurrent", "moe", "mlp")


class Architecture:
    """One architecture, counted in whatever size is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.tied = True
        self.free = False
        self.depth = TRIED[0]
        self.least = 1
        self.count_field, self.met_field = experts_of(self.kind)
        self.heads = bool(names_of(self.kind) & set(NAMES["heads"]))
        self.fills = "linear_key_head_dim" in names_of(self.kind) and not names_of(self.kind) & {*NAMES["head_size"]}
        """Whether heads of attention fill the width, and those of linear attention alone need not."""
        self.own_queries = bool(names_of(self.kind) & {*NAMES["heads"]} - {*NAMES["key_heads"]})
        if {"num_codebooks", "audio_channels"} <= names_of(self.kind):
            raise NotSizedError("it predicts sound, several codebooks' tokens at each position, and no text")
        try:
            default = self.kind()
        except Exception as error:
            raise NotSizedError(f"its default configuration is none ({said(error)})") from error
        places = [OPEN.get(name, {}), vars(default), vars(getattr(default, "ffn_config", None) or object)]
        self.experts, self.met = (
            next((place[field] for place in places if field and place.get(field)), None)
            for field in (self.count_field, self.met_field)
        )
        if not self.experts or not self.met:
            self.count_field = self.met_field = self.experts = self.met = None

    def build(
        self, sizes: Sizes, device: str = "meta", *, layers: int | None = None, experts: int | None = None
    ) -> Any:
        """A model of the sizes. Raises NotSizedError with what was said."""
        shape = Shape(
            layers=layers or self.depth,
            width=sizes["w"],
            heads=sizes["h"],
            hidden=sizes["f"],
            vocabulary=sizes["V"],
            tied_embeddings=self.tied,
            kv_heads=sizes["k"],
            own_head_size=sizes["d"] if self.free else None,
            architecture=self.name,
            configuration={self.count_field: experts} if self.count_field and experts else None,
        )
        try:
            config = configured(self.kind, configuration(self.kind, shape, sizes["s"]))
            with torch.device(device):
                return built(self.name, config)
        except Exception as error:  # a hundred authors' code; the reason is written down
            nameless = isinstance(error, ValueError) and "configuration has none" in str(error)
            reason = str(error) if nameless else f"its smallest models are not built ({said(error)})"
            raise NotSizedError(reason) from error

    def count(self, sizes: Sizes, *, layers: int | None = None, experts: int | None = None) -> int:
        """N of the model of these sizes."""
        return int(sum(p.numel() for p in self.build(sizes, layers=layers, experts=experts).parameters()))

    def block(self, sizes: Sizes, index: int, *, experts: int | None = None) -> int:
        """Parameters that the block of an index adds, which is 1 or more."""
        if index < self.least:
            blocks = blocks_of(self.build(sizes, layers=self.least, experts=experts), self.least)
            before = {id(p) for block in blocks[:index] for p in block.parameters()}  # some share their weights
            return sum(p.numel() for p in blocks[index].parameters() if id(p) not in before)
        shorter = self.count(sizes, layers=index, experts=experts)
        return self.count(sizes, layers=index + 1, experts=experts) - shorter

    def idle(self, sizes: Sizes, index: int) -> int:
        """Parameters of one expert of the block of an index."""
        assert self.experts, "asked of mixtures alone"
        layers = max(index + 1, self.least)
        named = dict(blocks_of(self.build(sizes, layers=layers), layers)[index].named_parameters())
        mixed = sum(p.numel() for n, p in named.items() if _of_experts(n, p, self.experts))
        return int(mixed // self.experts)

    def shared(self, sizes: Sizes, index: int) -> int:
        """Parameters of the block of an index that an earlier one has, too, and has been counted with; without those
        that adapt what is shared to each of its places."""
        layers = max(index + 1, self.least)
        blocks = blocks_of(self.build(sizes, layers=layers), layers)
        before = {id(p) for block in blocks[:index] for p in block.parameters()}
        named = blocks[index].named_parameters()
        return sum(p.numel() for name, p in named if id(p) in before and "adapter" not in name)

    def scores(self, sizes: Sizes, index: int) -> float:
        """How much of attention's scores the block of an index computes; see `Block`."""
        layers = DEPTHS  # the last of few may be of another kind, so that there is one that attends
        config = self.build(sizes, layers=layers).config
        kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
        if not self.heads or (kinds and str(kinds[index]).startswith(_NO_SCORES)):
            return 0.0
        latent = "qk_nope_head_dim" in names_of(self.kind)  # keys of two parts, each of a head's size, beside values
        told = getattr(config, "num_attention_heads", None)
        queries = told if isinstance(told, int) else sizes["h"]  # some count the heads of keys alone
        deep = getattr(config, "num_hidden_layers", None)  # of attention: some attend several times in a block
        times = deep / layers if isinstance(deep, int) else 1.0
        return (1.5 if latent else 1.0) * times * queries / sizes["h"]

    def passes(self, model: Any) -> float:
        """How many times a token goes through a block."""
        blocks = blocks_of(model, self.depth)
        calls: list[int] = []
        hooks = [block.register_forward_hook(lambda *_: calls.append(1)) for block in blocks]
        with torch.no_grad():
            model(input_ids=tokens(), use_cache=False)
        for hook in hooks:
            hook.remove()
        return len(calls) / len(blocks)


def _of_experts(name: str, parameter: torch.Tensor, count: int) -> bool:
    """Whether a parameter of a block is its experts', by its name or as a stack of so many matrices."""
    if re.search(r"shared|router|conv", name):
        return False
    if parameter.dim() == 1:
        return bool(re.search(r"experts\.\d+\.", name))
    return "experts." in name or (parameter.dim() == 3 and parameter.shape[0] == count)


def tokens() -> torch.Tensor:
    """(2, 16) token ids, always the same."""
    return torch.randint(1, 256, (2, 16), generator=torch.Generator().manual_seed(0))


def said(error: BaseException) -> str:
    """The last line of what an exception says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]
