"""A state shared out among ranks: each keeps some of the tensors, and hands them to all when they are taken up.

Owns who keeps what, so that a checkpoint of many processes is written by many, and the exchange when it is read by
more or fewer. Knows no engine: tensors come by name.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, distributed

from sweep_trainer.engines.protocol import State
from sweep_trainer.engines.ranks import Ranks


def keeper(name: str, world: int) -> int:
    """The rank that keeps a tensor: by its name alone, so that a share is known before the other names are."""
    return zlib.crc32(name.encode()) % world


def kept_by(names: Iterable[str], ranks: Ranks) -> set[str]:
    """The names that this rank keeps."""
    return {name for name in names if keeper(name, ranks.world) == ranks.rank}


def copied(tensors: Mapping[str, Tensor], ranks: Ranks) -> State:
    """Copies of this rank's share of tensors that every rank holds."""
    return {name: tensors[name].detach().cpu().numpy().copy() for name in sorted(kept_by(tensors, ranks))}


@torch.no_grad()
def handed_out(
    state: State, shapes: Mapping[str, tuple[int, ...]], ranks: Ranks, take: Callable[[str, Tensor], None]
) -> None:
    """Call `take(name, whole tensor)` on every rank for each name in order, from the shares of a state.

    Raises KeyError or ValueError, on every rank alike, when a share lacks a tensor or has it in another shape.
    """
    _check(state, shapes, ranks)
    for name in sorted(shapes):
        owner = keeper(name, ranks.world)
        tensor = torch.empty(shapes[name])
        if owner == ranks.rank:
            tensor = torch.from_numpy(np.array(state[name], dtype=np.float32))
        if ranks.world > 1:
            distributed.broadcast(tensor, src=owner)
        take(name, tensor)


def _check(state: State, shapes: Mapping[str, tuple[int, ...]], ranks: Ranks) -> None:
    objection: KeyError | ValueError | None = None
    for name in sorted(kept_by(shapes, ranks)):
        if name not in state:
            objection = KeyError(name)
        elif state[name].shape != shapes[name]:
            objection = ValueError(f"{name} has shape {state[name].shape}, not {shapes[name]}")
    if ranks.any(objection is not None)[0]:
        raise objection or ValueError("another process's share of the state does not fit the model")
