"""The processes of one run.

Owns who this process is among them and how they agree: every decision that leads into a collective (stop, save,
report) is made together, or some would wait for ever for others that went another way. Starts no process: Ray or a
launcher with torchrun's variables does.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch._C._distributed_c10d import HashStore, PrefixStore  # where torch.distributed has them from, and typed
from torch.distributed.rendezvous import rendezvous

PATIENCE_SECONDS = 600.0
"""How long a collective may take before it counts as hung, unless the recipe says."""


@dataclass(frozen=True)
class Ranks:
    """This process's place. `rank` counts over all processes, `local` on this machine: it is the device's number."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This rank's rows of a batch. Raises ValueError when they do not divide."""
        if rows % self.world:
            raise ValueError(f"{rows} sequences do not divide among {self.world} processes")
        mine = rows // self.world
        return slice(self.rank * mine, (self.rank + 1) * mine)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any rank raised it."""
        return tuple(bool(value) for value in self.most(*map(int, flags)))

    def most(self, *values: int) -> tuple[int, ...]:
        """Each value's largest over the ranks."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.int64)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=_control())
        return tuple(tensor.tolist())

    def mean(self, values: list[float]) -> list[float]:
        """Each value's mean over the ranks."""
        if self.world == 1 or not values:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor, group=_control())
        return [float(value) for value in tensor / self.world]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.most(0)


ALONE = Ranks()


def patience(stall_seconds: float | None) -> float:
    """How long the group waits for a member, in seconds: never shorter than ordinary, for starts are slow on a busy
    machine. A hang in training is noticed sooner, by `stall`."""
    return max(stall_seconds or 0.0, PATIENCE_SECONDS)


_group: list[Any] = []  # new_group is typed as a group or a number


def _control() -> Any:
    """The group for decisions: over gloo, so that it never waits for the device, nor the device for it."""
    if not _group and distributed.get_backend() != "gloo":
        _group.append(distributed.new_group(backend="gloo"))
    return _group[0] if _group else None


def launched(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The place that torchrun's variables give this process; None where they do not stand."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    return Ranks(rank, world, int(environment.get("LOCAL_RANK", rank)))


def join(ranks: Ranks, patience: float = PATIENCE_SECONDS) -> None:
    """Make the process group, unless Ray has; a collective that takes longer than `patience` seconds fails."""
    if distributed.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=patience)
    if ranks.world == 1:
        distributed.init_process_group(backend, timeout=timeout, store=HashStore(), rank=0, world_size=1)
    else:
        store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world, timeout=timeout))
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives a start, addresses in it
        store = PrefixStore(f"start-{again}", store)
        distributed.init_process_group(backend, timeout=timeout, store=store, rank=ranks.rank, world_size=ranks.world)


def leave() -> None:
    """Give the process group back."""
    _group.clear()
    if distributed.is_initialized():
        distributed.destroy_process_group()
