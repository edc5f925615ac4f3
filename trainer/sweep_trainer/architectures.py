"""Derives `sweep_analysis/architectures.json`: how many parameters each causal language model of `transformers` has.

    python -m sweep_trainer.architectures TABLE.json [NAME ...]      make architectures

Owns the derivation. Every architecture that `AutoModelForCausalLM` names is built by our rule in many small sizes on
PyTorch's meta device, its parameters are counted, and a polynomial with whole coefficients is fitted to the counts;
it is taken only where it gives every count exactly. One that the rule cannot build, whose blocks differ in no
pattern, that sees tokens to come, or that cannot take a step is written down with the reason. Downloads nothing.
"""

import itertools
import json
import logging
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sweep_analysis.architectures import Facts
from sweep_analysis.shape import Shape
from sweep_trainer.configuration import NAMES, OPEN, configuration, experts_of, fields_of, names_of
from sweep_trainer.failure import RunError
from sweep_trainer.huggingface import blocks_of, built, configured, kind_of
from sweep_trainer.polynomial import NotSizedError, Sizes, fitted

_BLOCK = (
    *("w*a", "w*q", "w*f", "w*w", "a*a", "w*d", "d*d", "w*r", "w*h"),
    *("a", "q", "f", "w", "d", "h", "k", "r", "1"),
)
_MORE = (
    *("a*r", "q*r", "r*r", "d*r", "w*k", "a*d", "q*d", "a*h", "h*h", "h*r", "V*r", "f*r", "a*q", "q*q", "q*h"),
    *("q*k", "s"),
)
"""What blocks may depend on besides, asked for where the first will not do."""
_AROUND = ("V*w", "s*w", "w*w", "V", "s", "w", "d", "1")
_MORE_AROUND = ("r*w", "r", "h", "h*h", "w*h", "a", "f", "d*d", "w*f", "w*a", "w*q", "q")
_SAMPLES = 48
_DEPTHS = 20
"""Depths that a pattern of blocks is looked for in, and the longest that it may be."""
_LONGEST = 8
_TRIAL = 300_000_000
"""Parameters that the smallest model may have, so that it can be tried."""
_TRIED = (3, 12)
"""Depths that it is first built in: the second for those that need layers of several kinds."""
_SAID = {
    "blt": "it is four models with sizes of their own, one of which, trained beforehand, cuts the bytes into patches",
    "cpmant": "it reads a whole text in both directions, so that a prediction would see its answer",
    "git": "an encoder of images, of 86 million parameters at every size, comes with it and learns nothing from text",
    "phi4_multimodal": "encoders of images and sound, of 870 million parameters at every size, come with it and learn"
    " nothing from text",
    "prophetnet": "it predicts from a second stream, made to look several tokens ahead, and its positions count from a"
    " padding token, which no text here has",
}
"""What a person says of those that are refused, where the trial finds a symptom alone."""
_NO_SCORES = ("linear", "mamba", "conv", "recurrent", "moe", "mlp")


class Architecture:
    """One architecture, counted in whatever size is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.tied = True
        self.free = False
        self.depth = _TRIED[0]
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
            raise NotSizedError(f"its default configuration is none ({_line(error)})") from error
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
            said = str(error) if isinstance(error, ValueError) and "configuration has none" in str(error) else None
            raise NotSizedError(said or f"its smallest models are not built ({_line(error)})") from error

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

    def scores(self, sizes: Sizes, index: int) -> float:
        """How much of attention's scores the block of an index computes; see `Block`."""
        layers = max(index + 1, self.least)
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
            model(input_ids=_tokens(), use_cache=False)
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


def entry(name: str) -> dict[str, Any]:
    """The facts of one architecture. Raises NotSizedError."""
    one = Architecture(name)
    chance = random.Random(0)  # noqa: S311  # sizes to look at, no secret
    multiple = _multiple(one)
    small = _sizes(chance, multiple, free=False)
    first, then, _ = _pattern(one, small)
    one.depth = max(3, len(first) + len(then), one.least)  # all kinds of blocks are there
    ties = _ties(one, small)
    one.tied = ties != "never"
    m = multiple
    wide = dict(small, w=64, h=m, k=m, d=8, a=8 * m, q=8 * m, r=4)  # heads that do not fill the width
    one.free = True
    try:
        one.free = not one.fills and one.count(wide) != one.count(dict(wide, d=16, a=16 * m, q=16 * m))
    except NotSizedError:
        one.free = False
    grouped = dict(small, w=64, h=4 * m, k=4 * m, d=16 // m, a=64, q=64, r=4)
    try:
        groups = one.own_queries and one.count(grouped) != one.count(dict(grouped, k=2 * m, q=32))
    except NotSizedError:
        groups = False
    first, then, examples = _pattern(one, _sizes(chance, multiple, free=one.free, groups=groups))
    one.depth = max(3, len(first) + len(then), one.least)
    passes = _trial(one, multiple)
    samples = [_sizes(chance, multiple, free=one.free, groups=groups) for _ in range(_SAMPLES)]
    without = set() if one.free else {"a"}  # a is w where heads fill the width
    without |= set() if groups else {"q", "k"}
    blocks: list[dict[str, Any]] = []
    values: list[list[int]] = []
    for index in examples:
        counts = [one.block(sizes, index) for sizes in samples]
        values.append(counts)
        block: dict[str, Any] = {}
        if one.experts:
            each = [
                one.block(sizes, index, experts=one.experts + 1) - count
                for sizes, count in zip(samples, counts, strict=True)
            ]
            if any(each):
                weights = [one.idle(sizes, index) for sizes in samples]
                block["each"] = fitted(_BLOCK, _MORE, without, samples, each)
                block["weights"] = fitted(_BLOCK, _MORE, without, samples, weights)
                counts = [count - one.experts * e for count, e in zip(counts, each, strict=True)]
        block["own"] = fitted(_BLOCK, _MORE, without, samples, counts)
        if (scores := one.scores(samples[0], index)) != 1.0:
            block["scores"] = scores
        blocks.append(block)
    fewest = [kind for _, kind in zip(range(one.least), itertools.chain(first, itertools.cycle(then)), strict=False)]
    around = [
        one.count(sizes, layers=one.least) - sum(values[kind][i] for kind in fewest) for i, sizes in enumerate(samples)
    ]
    untied: dict[str, int] = {}
    if ties == "either":
        try:
            untied = _untied(one, samples)
        except NotSizedError:  # blocks share weights, too, and part as well
            ties = "always"
    document: dict[str, Any] = {
        "blocks": blocks,
        **({} if (first, then) == ([], [0]) else {"first": first, "then": then}),
        "around": fitted(_AROUND, _MORE_AROUND, without, samples, around),
        "ties": ties,
        "untied": untied,
        "heads": one.heads,
        "free_head_size": one.free,
        "grouped_queries": groups,
        **({"heads_multiple": multiple} if multiple > 1 else {}),
        **({"least_layers": one.least} if one.least > 1 else {}),
        **({"passes": passes} if passes != 1.0 else {}),
        "fields": " ".join(sorted(fields_of(one.kind) - names_of(PreTrainedConfig))),
    }
    if any("each" in block for block in blocks):
        fields = {"count_field": one.count_field, "count": one.experts, "met_field": one.met_field, "met": one.met}
        document["experts"] = fields
    facts = Facts.read(document)
    for i, sizes in enumerate(samples[:3]):
        for layers in (n for n in (1, 2, 3, 5, 8, 12, 29) if n >= one.least):
            numbers = facts.numbers(layers)
            told = around[i] + sum(n * kind[i] for n, kind in zip(numbers, values, strict=True))
            if one.count(sizes, layers=layers) != told:
                raise NotSizedError("which of its blocks is of which kind depends on its depth")
    return document


def _multiple(one: Architecture) -> int:
    """What its number of heads must be a multiple of: 1, 2 or 4."""
    failure: NotSizedError | None = None
    for multiple, depth, tied in itertools.product((1, 2, 4), _TRIED, (True, False)):
        one.depth, one.tied = depth, tied
        try:
            _step(one, multiple)
        except NotSizedError as error:
            failure = error if (multiple, depth) == (1, _TRIED[0]) else failure
        else:
            return multiple
    assert failure, "it was tried"
    raise failure


def _pattern(one: Architecture, sizes: Sizes) -> tuple[list[int], list[int], list[int]]:
    """Kinds of the first blocks, of those that follow over and over, and an example's index for each kind."""
    counts: list[int] = []
    for layers in range(_DEPTHS, 0, -1):
        try:
            counts.insert(0, one.count(sizes, layers=layers))
        except NotSizedError:
            if layers == _DEPTHS:
                raise
            break
    one.least = least = _DEPTHS + 1 - len(counts)
    added = [0] * least + [b - a for a, b in itertools.pairwise(counts)]  # by the block of each index
    for begin, period in itertools.product(range(least, _LONGEST + 1), range(1, _LONGEST + 1)):
        if all(added[i] == added[i + period] for i in range(begin, _DEPTHS - period)):
            break
    else:
        raise NotSizedError("its blocks differ from each other in no pattern that comes again")
    if least > 1:
        added[:least] = [one.block(sizes, index) for index in range(least)]
    else:
        added[0] = added[begin + period - 1] if begin == 1 else added[1]
        try:
            found = one.block(sizes, 0)
        except (RunError, AttributeError):  # in no list
            found = 0
        added[0] = found if found in added[1:] else added[0]
    if begin == 1 and added[0] == added[period]:  # the pattern holds from the very first
        begin = 0
    kinds = sorted({*added}, key=added.index)
    which = [kinds.index(n) for n in added]
    begun = {kind: which[least:].index(kind) + least for kind in {*which[least:]}}
    examples = [begun[kind] if kind in begun else which.index(kind) for kind in range(len(kinds))]
    return which[:begin], which[begin : begin + period], examples


def _sizes(chance: random.Random, multiple: int = 1, *, free: bool, groups: bool = False) -> Sizes:
    m = multiple
    w = chance.choice(
        [32, 36, 44, 48, 52, 60, 64, 72, 76, 84, 88, 100, 104, 120, 144, 192, 208, 280, 336]
    )  # not all of 16
    w = w if w % (4 * m) == 0 else m * w
    h = chance.choice([h for h in (1, 2, 3, 4, 5, 6, 8, 9, 11, 12) if w % (4 * h) == 0 and h % m == 0])
    d = chance.choice([8, 16, 24, 32]) if free else w // h
    k = chance.choice([k for k in range(m, h + 1, m) if h % k == 0]) if groups else h
    f, V, s = 8 * chance.randint(4, 40), 8 * chance.randint(20, 90), 8 * chance.randint(2, 12)
    return {"w": w, "d": d, "h": h, "k": k, "a": h * d, "q": k * d, "f": f, "V": V, "s": s, "r": -(-w // 16)}


def _ties(one: Architecture, sizes: Sizes) -> str:
    counts: dict[bool, int] = {}
    failure: NotSizedError | None = None
    for tied in (True, False):
        one.tied = tied
        try:
            counts[tied] = one.count(sizes)
        except NotSizedError as error:
            failure = failure or error
    if not counts and failure:
        raise failure
    if len(counts) == 2 and counts[True] != counts[False]:
        return "either"
    if counts.keys() == {False}:
        return "never"
    model = one.build(sizes)
    ins, outs = model.get_input_embeddings(), model.get_output_embeddings()
    return "always" if outs is not None and outs.weight is ins.weight else "never"


def _untied(one: Architecture, samples: Sequence[Sizes]) -> dict[str, int]:
    """What an output projection of its own adds."""
    one.tied = False
    try:
        free = [one.count(sizes) for sizes in samples]
    finally:
        one.tied = True
    tied = [one.count(sizes) for sizes in samples]
    return fitted(("V*w", "V"), (), set(), samples, [a - b for a, b in zip(free, tied, strict=True)])


def _small(multiple: int) -> Sizes:
    m = multiple
    return {"w": 64, "d": 64 // m, "h": m, "k": m, "a": 64, "q": 64, "f": 168, "V": 256, "s": 16, "r": 4}


def _step(one: Architecture, multiple: int) -> Any:
    """A small model after one forward and one backward pass. Raises NotSizedError where there is none."""
    sizes = _small(multiple)
    smallest = one.count(sizes)
    if smallest > _TRIAL:
        raise NotSizedError(f"even a model of width 64 has {smallest:,} parameters")
    torch.manual_seed(0)
    model = one.build(sizes, "cpu")
    tokens = _tokens()
    try:
        logits = model.train()(input_ids=tokens, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except Exception as error:  # as in `build`
        raise NotSizedError(f"a small model of it takes no step ({_line(error)})") from error
    return model


def _tokens() -> torch.Tensor:
    return torch.randint(1, 256, (2, 16), generator=torch.Generator().manual_seed(0))


def _trial(one: Architecture, multiple: int) -> float:
    """Two passes of a small model: it must give a loss and gradients, and see no token to come. Returns how many times
    a token goes through a block."""
    model = _step(one, multiple)
    if one.experts is None and any(".experts." in name for name, _ in model.named_parameters()):
        raise NotSizedError("how many of its experts a token meets stands in none of the fields known for it")
    tokens = _tokens()
    other = tokens.clone()
    other[:, -1] = tokens[:, -1] % 255 + 1
    with torch.no_grad():
        one_way, another = (model.eval()(input_ids=t, use_cache=False).logits[:, :-1] for t in (tokens, other))
    idle = [name for name, p in model.named_parameters() if p.grad is None and ".experts." not in name]
    if idle:
        raise NotSizedError(f"training on text gives {len(idle)} of its tensors no gradient ({idle[0]} for one)")
    if not torch.allclose(one_way, another, atol=1e-5):
        raise NotSizedError("it sees tokens that are yet to be predicted")
    try:
        return one.passes(model)
    except (RunError, AttributeError) as error:
        raise NotSizedError(f"its blocks are not found ({_line(error)})") from error


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]


def main(path: str, names: Sequence[str], say: Callable[[str], object]) -> None:
    """Write the table; of some names alone, the others keep their entries."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped there
    logging.disable(logging.WARNING)
    place = Path(path)
    table = json.loads(place.read_text()) if names else {"counted": {}, "languages": {}, "refused": {}}
    for name in names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        for part in ("counted", "languages", "refused"):
            table[part].pop(name, None)
        try:
            if language := _language(name):
                table["languages"][name] = language
            else:
                table["counted"][name] = entry(name)
        except NotSizedError as error:
            table["refused"][name] = _SAID.get(name, str(error))
            say(f"{name}: {error}\n")
    for name, language in [*table["languages"].items()]:
        if language not in table["counted"]:
            del table["languages"][name]
            table["refused"][name] = f"its language model is {language}, which is refused itself"
    say(f"{len(table['counted'])} counted, {len(table['languages'])} by their language models,")
    say(f" {len(table['refused'])} refused\n")
    ordered = {kind: dict(sorted(table[kind].items())) for kind in ("counted", "languages", "refused")}
    all_have = " ".join(sorted(names_of(PreTrainedConfig)))
    document = {"transformers": transformers.__version__, "fields": all_have, **ordered}
    place.write_text(json.dumps(document, indent=1) + "\n")


def _language(name: str) -> str | None:
    """The language model of an architecture for several modalities, by the name that is its own; None for others."""
    parts = getattr(CONFIG_MAPPING[name], "sub_configs", {})
    kind = getattr(parts.get("text_config"), "model_type", None)
    if "text_config" not in parts:
        return None
    if name.endswith("_assistant"):
        raise NotSizedError("it drafts for another model, whose states it reads")
    if kind is None:  # of any kind: what its default is
        try:
            kind = CONFIG_MAPPING[name]().text_config.model_type
        except Exception as error:  # as in `Architecture.build`
            raise NotSizedError(f"its default configuration is none ({_line(error)})") from error
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return str(kind)
    if kind_of(name) is CONFIG_MAPPING[name]:
        raise NotSizedError(f"its language model, {kind}, is no causal language model by itself")
    return None  # counted under this name


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:], sys.stderr.write)
