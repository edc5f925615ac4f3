"""Checkpoints: all that a killed run needs to go on as if nothing had happened.

Owns their files. Each rank writes one part: its share of the tensors as safetensors, the position in the run and a
digest over both as metadata; a checkpoint counts once all its parts are there and sound. Any number of ranks reads what
any other number wrote. Writing happens beside training, on a thread, with patience for storage that fails. Knows no
engine: tensors are numpy arrays by name.
"""

import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sweep_analysis.execution import Checkpoints as Policy
from sweep_trainer.engines.ranks import ALONE, Ranks
from sweep_trainer.engines.state import kept_by
from sweep_trainer.storage import Storage, patiently

Tensors = dict[str, npt.NDArray[np.generic]]

_TRUNK = "trunk."
"""Prefix of the state that was set aside when a decay branch began."""
_NAME = re.compile(r"checkpoint-(\d{9})(?:\.(\d+)-of-(\d+))?\.safetensors")
_MIXED = "the parts of the checkpoint at step %d are of different ways through the data and are not used"

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
    left_out: tuple[tuple[int, int], ...] = ()
    """(step, batches): from that step on, data lie so many batches further, after a spike of the loss."""

    @property
    def way(self) -> tuple[object, ...]:
        """What parts of one state agree in; the time that it took is each rank's own."""
        return self.segment, self.step, self.executed, self.left_out


@dataclass(frozen=True)
class Checkpoint:
    """This rank's share of a state."""

    position: Position
    state: Tensors
    trunk: Tensors | None
    """The trunk's state, set aside while a branch decays."""


class Checkpoints:
    """The checkpoints of one run. All ranks call `write` and `read` together."""

    def __init__(self, storage: Storage, identity: str, ranks: Ranks = ALONE, policy: Policy | None = None) -> None:
        """`identity` says of what run and data; others' checkpoints are not read."""
        self._storage, self._identity, self._ranks = storage, identity, ranks
        self._policy = policy or Policy()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the last one is still on its way; the next one that is merely due had better wait."""
        return self._pending is not None and not self._pending.done()

    def write(self, checkpoint: Checkpoint, before: Callable[[], None] | None = None) -> None:
        """Begin to write, `before` first; what went wrong is raised by the next `write` or `settle`. Raises OSError.

        The tensors must not change any more: they are the engine's copies.
        """
        self.settle()
        self._pending = self._writer.submit(self._write, checkpoint, before)

    def settle(self) -> None:
        """Wait until what was begun is written. Raises OSError when it could not be."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, checkpoint: Checkpoint, before: Callable[[], None] | None) -> None:
        tensors = dict(checkpoint.state)
        if checkpoint.trunk is not None:
            tensors |= {_TRUNK + name: tensor for name, tensor in checkpoint.trunk.items()}
        metadata = {"identity": self._identity, "position": json.dumps(asdict(checkpoint.position))}
        metadata["sha256"] = _digest(tensors, metadata)
        content = save(tensors, metadata)
        name = _part_name(checkpoint.position.executed, self._ranks)
        if before is not None:
            patiently(before, self._storage)
        patiently(lambda: self._storage.put(name, content), self._storage)
        if self._ranks.first:
            patiently(self._drop_old, self._storage)

    def _drop_old(self) -> None:
        complete, parts = self._complete(), self._parts()
        kept = set(complete[: self._policy.keep])
        every = self._policy.keep_every_steps
        if every:
            first_of = {executed // every: executed for executed in complete}  # newest first: the oldest one stays
            kept |= set(first_of.values())
        oldest_of_newest = min(complete[: self._policy.keep], default=0)
        for name, (executed, _, _) in parts.items():
            if executed < oldest_of_newest and executed not in kept:
                self._storage.remove(name)

    def read(self) -> Iterator[Checkpoint]:
        """The usable checkpoints, newest first, each as this rank's share; one that is not usable is logged with why.

        The ranks go through them in step: what one cannot use, none does.
        """
        complete = self._complete() if self._ranks.first else []
        (count,) = self._ranks.most(len(complete))
        for place in range(count):
            (executed,) = self._ranks.most(complete[place] if complete else 0)
            found = self._read(executed)
            if self._ranks.any(found is None)[0]:
                continue
            assert found is not None, "no rank objected"
            mark = zlib.crc32(repr(found.position.way).encode())
            highest, lowest, set_aside = self._ranks.most(mark, -mark, int(found.trunk is not None))
            if highest != -lowest:
                log.warning(_MIXED, executed)
                continue
            yield replace(found, trunk=found.trunk or {}) if set_aside else found

    def _read(self, executed: int) -> Checkpoint | None:
        """This rank's share of the tensors: its own part where as many ranks wrote it, which hold the same shares; else
        out of all parts, each of which must be sound."""
        parts = {name: (part, of) for name, (at, part, of) in self._parts().items() if at == executed}
        counts = [of for _, of in parts.values()]
        whole = min((of for of in counts if counts.count(of) == of), default=0)
        mine = (self._ranks.rank + 1, self._ranks.world)
        wanted = [name for name, place in parts.items() if place[1] == whole and (whole != mine[1] or place == mine)]
        state: Tensors = {}
        trunk: Tensors = {}
        branches = False
        position: Position | None = None
        for name in wanted:
            where = self._storage.address(name)
            try:
                found, metadata = _opened(patiently(lambda name=name: self._storage.get(name), self._storage))  # type: ignore[misc]  # the default binds the loop's name
                if metadata.get("identity") != self._identity:
                    log.warning("%s is of another configuration or other data and is not used", where)
                    return None
                if metadata["sha256"] != _digest(found, metadata):
                    raise ValueError("its digest is wrong")
                before, position = position, _position(metadata["position"])
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("%s is damaged (%s) and is not used", where, error)
                return None
            if before is not None and before.way != position.way:
                log.warning(_MIXED, executed)
                return None
            branches = branches or any(name.startswith(_TRUNK) for name in found)
            state |= {name: found[name] for name in kept_by(found, self._ranks) if not name.startswith(_TRUNK)}
            set_aside = {name.removeprefix(_TRUNK): t for name, t in found.items() if name.startswith(_TRUNK)}
            trunk |= {name: set_aside[name] for name in kept_by(set_aside, self._ranks)}
        return Checkpoint(position, state, trunk if branches else None) if position else None

    def exists(self) -> bool:
        """Whether there is any checkpoint, usable or not."""
        return self._ranks.any(self._ranks.first and bool(self._parts()))[0]

    def clear(self) -> None:
        """Remove all checkpoints: none is usable, and a run that starts over must not meet them again."""
        if self._ranks.first:
            for name in self._parts():
                patiently(lambda name=name: self._storage.remove(name), self._storage)  # type: ignore[misc]  # the default binds the loop's name
        self._ranks.barrier()

    def _parts(self) -> dict[str, tuple[int, int, int]]:
        """(executed steps, part, of how many) by name."""
        matches = {name: _NAME.fullmatch(name) for name in patiently(self._storage.names, self._storage)}
        return {name: (int(m[1]), int(m[2] or 1), int(m[3] or 1)) for name, m in matches.items() if m}

    def _complete(self) -> list[int]:
        """Executed steps of the checkpoints whose parts are all there, newest first."""
        seen: dict[tuple[int, int], int] = {}
        for executed, _, of in self._parts().values():
            seen[executed, of] = seen.get((executed, of), 0) + 1
        return sorted({executed for (executed, of), parts in seen.items() if parts == of}, reverse=True)


def _part_name(executed: int, ranks: Ranks) -> str:
    part = "" if ranks.world == 1 else f".{ranks.rank + 1}-of-{ranks.world}"
    return f"checkpoint-{executed:09d}{part}.safetensors"


def _opened(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are none")
    return tensors, metadata


def _position(text: str) -> Position:
    fields = json.loads(text)
    fields["left_out"] = tuple((int(step), int(batches)) for step, batches in fields.get("left_out", ()))
    return Position(**fields)


def _digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(f"{metadata['identity']}\0{metadata['position']}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
