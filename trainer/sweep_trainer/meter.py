"""How fast a run trains and what it takes: tokens a second, utilisation, memory, waiting for data.

Owns the measuring of one attempt. Reports nothing: the loop asks for the figures when it writes progress.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sweep_analysis.flops import six_nd

PEAK_FLOPS = {
    "A100": 312e12,
    "A800": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
}
"""Dense bf16 FLOPs a second by NVIDIA's data sheets, by a part of the device's name; the first that is in it counts."""


class Meter:
    """Of one attempt. `tokens_per_step` counts all processes' tokens, `parameters` those that a token meets."""

    def __init__(self, tokens_per_step: int, parameters: int, world: int) -> None:
        self._tokens, self._parameters, self._world = tokens_per_step, parameters, world
        self._peak = peak_flops()
        self.steps = 0
        self.seconds = 0.0
        """Inside steps, waiting for their batches and for the device."""
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around getting a batch."""
        started = time.perf_counter()
        yield
        waited = time.perf_counter() - started
        self._waited += waited
        self.seconds += waited

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Around a step."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        self.steps += 1

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Around reading what the steps measured: a GPU is still at work on them when the last one returns."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    @property
    def tokens_per_second(self) -> float:
        return self.steps * self._tokens / self.seconds if self.seconds else 0.0

    @property
    def mfu(self) -> float | None:
        """6·N·tokens/s over the peak of all devices; None where no peak is known."""
        if self._peak is None:
            return None
        return six_nd(self._parameters, self.tokens_per_second) / (self._peak * self._world)

    @property
    def data_wait(self) -> float | None:
        """Share of the time that was spent waiting for batches."""
        return min(1.0, self._waited / self.seconds) if self.seconds else None


def peak_flops() -> float | None:
    """Of this machine's device; None for a CPU or a GPU that the table lacks."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def memory_bytes() -> int:
    """The most that this process has held: of its GPU, or resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
