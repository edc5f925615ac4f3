"""The loop of a local ladder: one pass after another, and a wait for something to happen between them.

Owns the loop, the signals that end it, and the question when it is over. Decides nothing about the ladder.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Protocol

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.local import LocalCluster
from sweep_operator.policy import Policy
from sweep_operator.reconcile import reconcile

LONGEST_WAIT_SECONDS = 10.0
"""A pass is run at least so often, whatever was or was not noticed."""


class Watcher(Protocol):
    """Somebody who is shown the ladder while it is climbed."""

    seconds: float
    """How often it wants to be shown."""

    def show(self, sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> None:
        """The ladder as it stands."""


@dataclass
class Signals:
    """Ctrl-C and SIGTERM, counted, with a pipe that wakes whoever waits: one asks for an end, two for one at once."""

    count: int = 0
    descriptor: int = -1

    def hurry(self) -> bool:
        """Whether it was asked twice."""
        return self.count > 1


@contextmanager
def listening() -> Iterator[Signals]:
    """Count SIGINT and SIGTERM for the duration, instead of dying of them."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signals = Signals(descriptor=reading)

    def note(_: int, __: FrameType | None) -> None:
        signals.count += 1

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@dataclass
class PassTimes:
    """How long passes took: a histogram for the metrics and the numbers for whoever asks."""

    bounds: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
    counts: list[int] = field(default_factory=lambda: [0] * 10)
    """Passes within each bound, and one more for those beyond; not cumulative."""
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one pass."""
        index = next((i for i, bound in enumerate(self.bounds) if seconds <= bound), len(self.bounds))
        self.counts[index] += 1
        self.total += seconds


def drive(
    cluster: LocalCluster, key: str, policy: Policy, signals: Signals, watcher: Watcher, times: PassTimes
) -> ScalingSweep:
    """Climb until the ladder stands still or a signal arrives; returns the sweep as it stands then."""
    cluster.wake_on(signals.descriptor)
    shown = 0.0
    sweep = cluster.sweep(key)
    assert sweep is not None, "the driver wrote it before it began"
    while not signals.count:
        begun = time.monotonic()
        progressed = reconcile(cluster, key, datetime.now(UTC), policy)
        times.add(time.monotonic() - begun)
        sweep = cluster.sweep(key) or sweep
        if not progressed.changed:
            if not cluster.busy and stands_still(sweep):
                watcher.show(sweep, cluster.runs(sweep))
                return sweep
            if time.monotonic() - shown >= watcher.seconds:
                watcher.show(sweep, cluster.runs(sweep))
                shown = time.monotonic()
        due = time.monotonic() + min(progressed.requeue_seconds or LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        while not progressed.changed and not signals.count:
            happened = cluster.wait(min(watcher.seconds, max(0.0, due - time.monotonic())))
            if happened or time.monotonic() >= due:
                break
            watcher.show(sweep, cluster.runs(sweep))
            shown = time.monotonic()
    return sweep


def stands_still(sweep: ScalingSweep) -> bool:
    """Whether nothing more will happen by itself: finished, suspended, held, or refused."""
    progressing = sweep.status.condition("Progressing")
    return (
        progressing is not None
        and progressing.status == "False"
        and sweep.status.observed_generation == sweep.metadata.generation
    )
