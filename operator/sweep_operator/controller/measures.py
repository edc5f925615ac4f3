"""How the operator itself fares, counted as it works and read at a scrape.

Owns the counters and their names. The sweeps' own series are `sweep_operator.metrics`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.controller.queue import Key, WorkQueue

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Histogram:
    """Durations in seconds; thread-safe."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Within each bound, and beyond the last; not cumulative."""
    total: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float) -> None:
        """Count one."""
        index = next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
        with self.lock:
            self.counts[index] += 1
            self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus has them."""
        running, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        return buckets


class Measures:
    """What workers count."""

    def __init__(self) -> None:
        self.passes: dict[str, Histogram] = {kind: Histogram() for kind in ("ScalingSweep", "ScalingRun")}
        self.refits = Histogram()
        """Passes in which a law was fitted."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Passes by kind and outcome."""
        self._lock = threading.Lock()

    def passed(self, key: Key, outcome: str, seconds: float) -> None:
        """Count one pass."""
        self.passes[key.kind].add(seconds)
        with self._lock:
            self.outcomes[key.kind, outcome] += 1


@dataclass(frozen=True, eq=False)  # a registry keeps collectors by identity
class OperatorCollector(Collector):
    """Reads everything at the moment of a scrape."""

    measures: Measures
    queue: WorkQueue[Key]
    watches: Sequence[Watch]
    apis: Sequence[Api]
    leading: Callable[[], bool]
    dropped_events: Callable[[], int]

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not ask."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]:
        """All series."""
        yield from self._passes()
        yield _gauge("queue_depth", "Keys that could be worked on now.", float(len(self.queue)))
        yield _gauge("queue_delayed", "Keys that wait for their time.", float(self.queue.delayed))
        yield _gauge("queue_oldest_seconds", "For how long the first key has waited.", self.queue.oldest_seconds)
        yield from self._watches()
        calls = CounterMetricFamily(
            "scalingsweep_api_calls",
            "Requests to the API server, retries included.",
            labels=("verb", "resource", "code"),
        )
        total: Counter[tuple[str, str, str]] = Counter()
        for api in self.apis:
            total.update(dict(api.calls))
        for labels, count in sorted(total.items()):
            calls.add_metric(labels, float(count))
        yield calls
        yield _gauge("leader", "1 while this process may write.", float(self.leading()))
        dropped = CounterMetricFamily("scalingsweep_events_dropped", "Kubernetes Events that were not told.")
        dropped.add_metric((), float(self.dropped_events()))
        yield dropped

    def _passes(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        durations = HistogramMetricFamily(
            "scalingsweep_reconcile_duration_seconds", "Time that one pass over an object took.", labels=("kind",)
        )
        for kind, histogram in self.measures.passes.items():
            durations.add_metric((kind,), histogram.buckets(), histogram.total)
        yield durations
        refits = HistogramMetricFamily(
            "scalingsweep_refit_duration_seconds", "Time of the passes over a sweep in which its law was fitted."
        )
        refits.add_metric((), self.measures.refits.buckets(), self.measures.refits.total)
        yield refits
        outcomes = CounterMetricFamily(
            "scalingsweep_reconciles", "Passes by how they ended.", labels=("kind", "outcome")
        )
        for labels, count in sorted(dict(self.measures.outcomes).items()):
            outcomes.add_metric(labels, float(count))
        yield outcomes

    def _watches(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        names = ("resource", "namespace")
        restarts = CounterMetricFamily("scalingsweep_watch_restarts", "Watches begun after the first.", labels=names)
        lists = CounterMetricFamily("scalingsweep_watch_lists", "Whole lists that were read.", labels=names)
        stale = GaugeMetricFamily(
            "scalingsweep_watch_stale_seconds", "Time since the API server last said anything.", labels=names
        )
        for watch in self.watches:
            labels = (watch.resource.plural, watch.namespace or "")
            restarts.add_metric(labels, float(watch.restarts))
            lists.add_metric(labels, float(watch.lists))
            stale.add_metric(labels, watch.stale_seconds)
        yield from (restarts, lists, stale)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"scalingsweep_{name}", text, value=value)
