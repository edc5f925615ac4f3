"""Checkpoints: all that a killed run needs to go on as if nothing had happened.

Owns the file: tensors as safetensors, the position in the run as metadata, and a digest over both. Keeps the newest two
and falls back to the older when the newest is damaged. Knows no engine: tensors are numpy arrays by name.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sweep_trainer.files import write_atomically

Tensors = dict[str, npt.NDArray[np.generic]]

_KEPT = 2
_TRUNK = "trunk."
"""Prefix of the state that was set aside when a decay branch began."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Where in the run the state stands."""

    segment: int
    """Index into the run's segments."""
    step: int
    """Steps done on the path of that segment."""
    executed: int
    """Steps executed altogether, branches included."""
    training_seconds: float
    """Time inside training steps, all attempts together."""


@dataclass(frozen=True)
class Checkpoint:
    position: Position
    state: Tensors
    trunk: Tensors | None
    """The trunk's state, set aside while a branch decays."""


def write(storage: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and drop all but the newest two. `identity` says of what run and data. Raises OSError."""
    tensors = dict(checkpoint.state)
    if checkpoint.trunk is not None:
        tensors |= {_TRUNK + name: tensor for name, tensor in checkpoint.trunk.items()}
    metadata = {"identity": identity, "position": json.dumps(asdict(checkpoint.position))}
    metadata["sha256"] = _digest(tensors, metadata)
    write_atomically(storage / f"checkpoint-{checkpoint.position.executed:09d}.safetensors", save(tensors, metadata))
    for old in _newest_first(storage)[_KEPT:]:
        old.unlink(missing_ok=True)


def read(storage: Path, identity: str) -> Iterator[Checkpoint]:
    """The usable checkpoints, newest first; each one that is not usable is logged with why."""
    for path in _newest_first(storage):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = dict(zip(file.keys(), map(file.get_tensor, file.keys()), strict=True))
            if metadata.get("identity") != identity:
                log.warning("%s is of another configuration or other data and is not used", path)
                continue
            if metadata["sha256"] != _digest(tensors, metadata):
                raise ValueError("its digest is wrong")
            position = Position(**json.loads(metadata["position"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is not used", path, error)
            continue
        trunk = {name.removeprefix(_TRUNK): t for name, t in tensors.items() if name.startswith(_TRUNK)}
        state = {name: t for name, t in tensors.items() if not name.startswith(_TRUNK)}
        yield Checkpoint(position, state, trunk or None)


def exists(storage: Path) -> bool:
    """Whether there is any checkpoint, usable or not."""
    return bool(_newest_first(storage))


def clear(storage: Path) -> None:
    """Remove all checkpoints: none is usable, and a run that starts over must not meet them again."""
    for path in _newest_first(storage):
        path.unlink(missing_ok=True)


def _newest_first(storage: Path) -> list[Path]:
    return sorted(storage.glob("checkpoint-*.safetensors"), reverse=True)


def _digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(f"{metadata['identity']}\0{metadata['position']}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
