"""Derives `sweep_analysis/architectures.json`: how many parameters each causal language model of `transformers` has.

    python -m sweep_trainer.architectures TABLE.json [NAME ...]      make architectures

Owns the derivation. Every architecture that `AutoModelForCausalLM` names is built by our rule in many small sizes on
PyTorch's meta device, its parameters are counted, and a polynomial with whole coefficients is fitted to the counts;
it is taken only where it gives every count exactly. One that the rule cannot build, whose blocks differ from each
other, that sees tokens to come, or that cannot take a step is written down with the reason. Downloads nothing.
"""

import dataclasses
import json
import logging
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sweep_analysis.shape import Shape
from sweep_trainer.failure import RunError
from sweep_trainer.huggingface import NAMES, blocks_of, configuration, experts_of

Sizes = dict[str, int]
_BLOCK = (
    *("w*a", "w*q", "w*f", "w*w", "a*a", "w*d", "d*d", "w*r", "w*h"),
    *("a", "q", "f", "w", "d", "h", "k", "r", "1"),
)
_AROUND = ("V*w", "s*w", "w*w", "V", "s", "w", "d", "1")
_SAMPLES = 40
_TRIAL = 300_000_000
"""Parameters that the smallest model may have, so that it can be tried."""


class NotSizedError(Exception):
    """Why an architecture has no entry."""


class Architecture:
    """One architecture, counted in whatever size is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = CONFIG_MAPPING[name]
        self.tied = True
        self.free = False
        self.count_field, self.met_field = experts_of(self.kind)
        known = {field.name for field in dataclasses.fields(self.kind)} | self.kind.attribute_map.keys()
        self.heads = bool(known & set(NAMES["heads"]))
        try:
            default = self.kind()
        except Exception as error:
            raise NotSizedError(f"its default configuration is none ({_line(error)})") from error
        self.experts = getattr(default, self.count_field) if self.count_field else None
        self.met = getattr(default, self.met_field) if self.met_field else None
        if not self.experts or not self.met:
            self.count_field = self.met_field = self.experts = self.met = None

    def build(self, sizes: Sizes, device: str = "meta", *, layers: int = 3, experts: int | None = None) -> Any:
        """A model of the sizes. Raises NotSizedError with what was said."""
        shape = Shape(
            layers=layers,
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
            fields = configuration(self.kind, shape, sizes["s"])
            try:
                config = self.kind(**fields)
            except Exception:  # noqa: BLE001  # as in `huggingface.config_of`
                config = self.kind(**fields | {n: 0 for n in ("bos_token_id", "eos_token_id") if n in fields})
            with torch.device(device):
                return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # untyped there
        except Exception as error:  # a hundred authors' code; the reason is written down
            said = str(error) if isinstance(error, ValueError) and "configuration has none" in str(error) else None
            raise NotSizedError(said or f"its smallest models are not built ({_line(error)})") from error

    def count(self, sizes: Sizes, *, layers: int = 3, experts: int | None = None) -> int:
        """N of the model of these sizes."""
        return int(sum(p.numel() for p in self.build(sizes, layers=layers, experts=experts).parameters()))

    def idle(self, sizes: Sizes) -> int:
        """Parameters of one expert of one block."""
        assert self.experts, "asked of mixtures alone"
        model = self.build(sizes)
        total = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n and "shared" not in n)
        return int(total // (3 * self.experts))


def entry(name: str) -> dict[str, Any]:
    """The facts of one architecture. Raises NotSizedError."""
    one = Architecture(name)
    chance = random.Random(0)  # noqa: S311  # sizes to look at, no secret
    small = _sizes(chance, free=False)
    ties = _ties(one, small)
    one.tied = ties != "never"
    _trial(one)
    wide = dict(small, h=2, k=2, d=8, a=16, q=16)  # heads that do not fill the width
    one.free = True
    try:
        one.free = one.count(wide) != one.count(dict(wide, d=16, a=32, q=32))
    except NotSizedError:
        one.free = False
    grouped = dict(small, w=64, h=4, k=4, d=16, a=64, q=64)
    try:
        groups = one.count(grouped) != one.count(dict(grouped, k=2, q=32))
    except NotSizedError:
        groups = False
    samples = [_sizes(chance, free=one.free, groups=groups) for _ in range(_SAMPLES)]
    threes, fours = ([one.count(sizes, layers=layers) for sizes in samples] for layers in (3, 4))
    blocks = [b - a for a, b in zip(threes, fours, strict=True)]
    for sizes, three, block in list(zip(samples, threes, blocks, strict=True))[:3]:
        for layers in (5, 8, 12):
            if one.count(sizes, layers=layers) != three + (layers - 3) * block:
                raise NotSizedError(
                    "its blocks differ from each other, so that its size does not follow from its depth"
                )
    around = [a - 3 * block for a, block in zip(threes, blocks, strict=True)]
    without = {"r"} if one.free else {"a"}  # a is w where heads fill the width; no state space model has heads
    without |= set() if groups else {"q", "k"}
    products = tuple(p for p in _BLOCK if not without & set(p.split("*")))
    document: dict[str, Any] = {}
    if one.experts:
        more = [one.count(sizes, experts=one.experts + 1) for sizes in samples]
        each = [(b - a) // 3 for a, b in zip(threes, more, strict=True)]
        if any(each):
            document["experts"] = {
                "count_field": one.count_field,
                "count": one.experts,
                "met_field": one.met_field,
                "met": one.met,
                "each": _fitted(products, samples, each),
                "weights": _fitted(products, samples, [one.idle(sizes) for sizes in samples]),
            }
            blocks = [b - one.experts * e for b, e in zip(blocks, each, strict=True)]
    return {
        "block": _fitted(products, samples, blocks),
        "around": _fitted(_AROUND, samples, around),
        "ties": ties,
        "untied": _untied(one, samples) if ties == "either" else {},
        "heads": one.heads,
        "free_head_size": one.free,
        "grouped_queries": groups,
        **document,
    }


def _sizes(chance: random.Random, *, free: bool, groups: bool = False) -> Sizes:
    w = chance.choice([32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 120, 144])  # r = ⌈w/16⌉ is not always w/16
    h = chance.choice([h for h in (1, 2, 3, 4, 5, 6, 8, 9, 11, 12) if w % (4 * h) == 0])
    d = chance.choice([8, 16, 24, 32]) if free else w // h
    k = chance.choice([k for k in range(1, h + 1) if h % k == 0]) if groups else h
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
    free = [one.count(sizes) for sizes in samples]
    one.tied = True
    tied = [one.count(sizes) for sizes in samples]
    return _fitted(("V*w", "V"), samples, [a - b for a, b in zip(free, tied, strict=True)])


def _trial(one: Architecture) -> None:
    """Two passes of a small model: it must give a loss and gradients, and see no token to come."""
    sizes = {"w": 64, "d": 32, "h": 2, "k": 2, "a": 64, "q": 64, "f": 168, "V": 256, "s": 16, "r": 4}
    smallest = one.count(sizes)
    if smallest > _TRIAL:
        raise NotSizedError(f"even a model of width 64 has {smallest:,} parameters")
    torch.manual_seed(0)
    if one.experts is None and any(".experts." in name for name, _ in one.build(sizes).named_parameters()):
        raise NotSizedError("how many of its experts a token meets stands in none of the fields known for it")
    model = one.build(sizes, "cpu")
    tokens = torch.randint(1, 256, (2, 16))
    other = tokens.clone()
    other[:, -1] = tokens[:, -1] % 255 + 1
    try:
        logits = model.train()(input_ids=tokens, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        with torch.no_grad():
            one_way, another = (model.eval()(input_ids=t, use_cache=False).logits[:, :-1] for t in (tokens, other))
    except Exception as error:  # as in `build`
        raise NotSizedError(f"a small model of it takes no step ({_line(error)})") from error
    idle = [name for name, p in model.named_parameters() if p.grad is None and ".experts." not in name]
    if idle:
        raise NotSizedError(f"training on text gives {len(idle)} of its tensors no gradient ({idle[0]} for one)")
    if not torch.allclose(one_way, another, atol=1e-5):
        raise NotSizedError("it sees tokens that are yet to be predicted")
    try:
        blocks_of(model)
    except (RunError, AttributeError) as error:
        raise NotSizedError(f"its blocks are not found ({_line(error)})") from error


def _fitted(products: Sequence[str], samples: Sequence[Sizes], counts: Sequence[int]) -> dict[str, int]:
    """Whole coefficients that give every count exactly. Raises NotSizedError where there are none."""
    table = np.array([[_value(product, sizes) for product in products] for sizes in samples], float)
    scale = np.abs(table).max(0)
    found, *_ = np.linalg.lstsq(table / scale, np.array(counts, float), rcond=1e-12)
    whole = {p: round(c) for p, c in zip(products, found / scale, strict=True) if round(c)}
    if any(sum(c * _value(p, sizes) for p, c in whole.items()) != n for sizes, n in zip(samples, counts, strict=True)):
        raise NotSizedError("its size is no sum of products of its dimensions")
    return whole


def _value(product: str, sizes: Sizes) -> int:
    value = 1
    for name in product.split("*"):
        value *= 1 if name == "1" else sizes[name]
    return value


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]


def main(path: str, names: Sequence[str], say: Callable[[str], object]) -> None:
    """Write the table; of some names alone, the others keep their entries."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped there
    logging.disable(logging.WARNING)
    place = Path(path)
    table = json.loads(place.read_text()) if names else {"counted": {}, "refused": {}}
    for name in names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        table["counted"].pop(name, None)
        table["refused"].pop(name, None)
        try:
            table["counted"][name] = entry(name)
        except NotSizedError as error:
            table["refused"][name] = str(error)
            say(f"{name}: {error}\n")
    say(f"{len(table['counted'])} counted, {len(table['refused'])} refused\n")
    ordered = {kind: dict(sorted(table[kind].items())) for kind in ("counted", "refused")}
    place.write_text(json.dumps({"transformers": transformers.__version__, **ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:], sys.stderr.write)
