"""How many runs fit into this machine at once.

Owns the estimate of a run's memory, the reading of what is free (the container's limit included), and the count of
processes that the kernel ended for want of memory.
"""

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from sweep_analysis.recipe import Hyperparameters

_CGROUP = Path("/sys/fs/cgroup")
PROCESS_BYTES = 96 * 2**20
"""A warm trainer before it has a model: what it does not share with the nursery. Measured: 49 to 73 MiB in all at 20
to 130 thousand parameters; the rest is margin for what evaluation takes for a moment."""
SAFETY = 0.85
"""Share of the free memory that runs may plan with."""


def run_bytes(recipe: Hyperparameters) -> int:
    """Memory of one trainer, bytes: weights, gradients and AdamW's two moments in fp32, and one batch's activations."""
    shape = recipe.shape
    state = 4 * 4 * shape.parameters
    per_token = (
        shape.layers * (12 * shape.width + 4 * shape.hidden) + 3 * shape.vocabulary
    )  # kept for the backward pass
    return PROCESS_BYTES + state + 4 * per_token * recipe.batch_tokens


def free_bytes() -> int:
    """Memory that can be had without swapping, bytes; inside a container at most what its limit leaves."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return free


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_ended_for_memory() -> int:
    """How many processes the kernel has ended for want of memory so far; 0 where it does not tell."""
    count = 0
    for file in (Path("/proc/vmstat"), _CGROUP / "memory.events"):
        try:
            for line in file.read_text().splitlines():
                if line.startswith("oom_kill "):
                    count += int(line.split()[1])
        except OSError:
            continue
    return count


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None
