"""Whether a small model of an architecture can be trained on text by its next token.

Owns the trial: two passes on a CPU that must give a loss, a gradient for every parameter, and logits that do not depend
on a token to come. Counts nothing; the reason against it is a NotSizedError.
"""

import itertools
from typing import Any

import torch
from torch.nn import functional

from sweep_trainer.architecture import TRIED, Architecture, said, tokens
from sweep_trainer.failure import RunError
from sweep_trainer.polynomial import NotSizedError, Sizes

_MOST = 300_000_000
"""Parameters that the smallest model may have, so that it can be tried."""


def multiple_of(one: Architecture) -> int:
    """What its number of heads must be a multiple of: 1, 2 or 4."""
    failure: NotSizedError | None = None
    for multiple, depth, tied in itertools.product((1, 2, 4), TRIED, (True, False)):
        one.depth, one.tied = depth, tied
        try:
            _step(one, multiple)
        except NotSizedError as error:
            failure = error if (multiple, depth) == (1, TRIED[0]) else failure
        else:
            return multiple
    assert failure, "it was tried"
    raise failure


def _small(multiple: int) -> Sizes:
    m = multiple
    return {"w": 64, "d": 64 // m, "h": m, "k": m, "a": 64, "q": 64, "f": 168, "V": 256, "s": 16, "r": 4}


def _step(one: Architecture, multiple: int) -> Any:
    """A small model after one forward and one backward pass. Raises NotSizedError where there is none."""
    sizes = _small(multiple)
    smallest = one.count(sizes)
    if smallest > _MOST:
        raise NotSizedError(f"even a model of width 64 has {smallest:,} parameters")
    torch.manual_seed(0)
    model = one.build(sizes, "cpu")
    text = tokens()
    try:
        logits = model.train()(input_ids=text, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), text[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except Exception as error:  # as in `build`
        raise NotSizedError(f"a small model of it takes no step ({said(error)})") from error
    return model


def trial(one: Architecture, multiple: int) -> float:
    """Two passes of a small model: it must give a loss and gradients, and see no token to come. Returns how many times
    a token goes through a block."""
    model = _step(one, multiple)
    if one.experts is None and any(".experts." in name for name, _ in model.named_parameters()):
        raise NotSizedError("how many of its experts a token meets stands in none of the fields known for it")
    text = tokens()
    other = text.clone()
    other[:, -1] = text[:, -1] % 255 + 1
    with torch.no_grad():
        one_way, another = (model.eval()(input_ids=t, use_cache=False).logits[:, :-1] for t in (text, other))
    idle = [name for name, p in model.named_parameters() if p.grad is None and ".experts." not in name]
    if idle:
        raise NotSizedError(f"training on text gives {len(idle)} of its tensors no gradient ({idle[0]} for one)")
    if not torch.allclose(one_way, another, atol=1e-5):
        raise NotSizedError("it sees tokens that are yet to be predicted")
    try:
        return one.passes(model)
    except (RunError, AttributeError) as error:
        raise NotSizedError(f"its blocks are not found ({said(error)})") from error
