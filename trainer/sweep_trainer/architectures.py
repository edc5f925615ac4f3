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
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sweep_analysis.architectures import Facts
from sweep_trainer.architecture import DEPTHS, Architecture, said
from sweep_trainer.configuration import fields_of, names_of
from sweep_trainer.failure import RunError
from sweep_trainer.huggingface import kind_of
from sweep_trainer.polynomial import NotSizedError, Sizes, fitted
from sweep_trainer.trial import multiple_of, trial

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
_LONGEST = 8
"""The longest pattern of blocks that is looked for."""
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


def entry(name: str) -> dict[str, Any]:
    """The facts of one architecture. Raises NotSizedError."""
    one = Architecture(name)
    chance = random.Random(0)  # noqa: S311  # sizes to look at, no secret
    multiple = multiple_of(one)
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
    passes = trial(one, multiple)
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
        if one.shared(samples[0], index):
            block["shared"] = fitted(_BLOCK, _MORE, without, samples, [one.shared(sizes, index) for sizes in samples])
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


def _pattern(one: Architecture, sizes: Sizes) -> tuple[list[int], list[int], list[int]]:
    """Kinds of the first blocks, of those that follow over and over, and an example's index for each kind."""
    counts: list[int] = []
    for layers in range(DEPTHS, 0, -1):
        try:
            counts.insert(0, one.count(sizes, layers=layers))
        except NotSizedError:
            if layers == DEPTHS:
                raise
            break
    one.least = least = DEPTHS + 1 - len(counts)
    added = [0] * least + [b - a for a, b in itertools.pairwise(counts)]  # by the block of each index
    for begin, period in itertools.product(range(least, _LONGEST + 1), range(1, _LONGEST + 1)):
        if all(added[i] == added[i + period] for i in range(begin, DEPTHS - period)):
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
            raise NotSizedError(f"its default configuration is none ({said(error)})") from error
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return str(kind)
    if kind_of(name) is CONFIG_MAPPING[name]:
        raise NotSizedError(f"its language model, {kind}, is no causal language model by itself")
    return None  # counted under this name


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:], sys.stderr.write)
