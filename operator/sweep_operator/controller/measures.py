"""How the operator itself fares, counted as it works and read at a scrape.

Owns the counters and their names. The sweeps' own series are `sweep_operator.metrics`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.controller.queue import Key, WorkQueue
from sweep_operator.metrics import exemplar_of

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Sight(NamedTuple):
    """One pass that was counted: the exemplar of those that are counted with it."""

    key: Key
    seconds: float
    at: float
    """Unix time of its end."""


@dataclass
class Histogram:
    """Durations in seconds; thread-safe."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Within each bound, and beyond the last; not cumulative."""
    newest: list[Sight | None] = field(default_factory=lambda: [None] * (len(BOUNDS) + 1))
    """Of each of those, the last that was counted."""
    total: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float, key: Key) -> None:
        """Count one pass over an object."""
        index = next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
        with self.lock:
            self.counts[index] += 1
            self.newest[index] = Sight(key, seconds, time.time())
            self.total += seconds


class Measures:
    """What workers count."""

    def __init__(self) -> None:
        self.passes: dict[str, Histogram] = {kind: Histogram() for kind in ("ScalingSweep", "ScalingRun")}
        self.refits = Histogram()
        """Passes in which a law was fitted."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Passes by kind and outcome."""
        self.newest: dict[tuple[str, str], Sight] = {}
        """Of each of those, the last."""
        self._lock = threading.Lock()

    def passed(self, key: Key, outcome: str, seconds: float) -> None:
        """Count one pass."""
        self.passes[key.kind].add(seconds, key)
        with self._lock:
            self.newest[key.kind, outcome] = Sight(key, seconds, time.time())
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
    dropped_spans: Callable[[], int] = lambda: 0
    trace_of: Callable[[Key], str | None] | None = None
    """The trace that a pass belongs to, where there are traces."""
    created: float | None = None
    """Unix time at which the counters began; told where it is given. Without it `increase` does not see the first call
    that was refused, for its series was not there before."""

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
            calls.add_metric(labels, float(count), self.created)
        yield calls
        yield _gauge("leader", "1 while this process may write.", float(self.leading()))
        for what, text, count in (
            ("events", "Kubernetes Events that were not told.", self.dropped_events()),
            ("spans", "Spans of traces that no collector took.", self.dropped_spans()),
        ):
            dropped = CounterMetricFamily(f"scalingsweep_{what}_dropped", text)
            dropped.add_metric((), float(count), self.created)
            yield dropped

    def _passes(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        durations = HistogramMetricFamily(
            "scalingsweep_reconcile_duration_seconds",
            "Time that one pass over an object took.",
            labels=("kind",),
            unit="seconds",
        )
        for kind, histogram in self.measures.passes.items():
            self._add(durations, (kind,), histogram)
        yield durations
        refits = HistogramMetricFamily(
            "scalingsweep_refit_duration_seconds",
            "Time of the passes over a sweep in which its law was fitted.",
            unit="seconds",
        )
        self._add(refits, (), self.measures.refits)
        yield refits
        outcomes = CounterMetricFamily(
            "scalingsweep_reconciles", "Passes by how they ended.", labels=("kind", "outcome")
        )
        for labels, count in sorted(dict(self.measures.outcomes).items()):
            sight = self.measures.newest[labels]
            outcomes.add_metric(labels, float(count), self.created, exemplar=self._exemplar(sight, 1.0))
        yield outcomes

    def _add(self, family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
        """A histogram's buckets, cumulative as Prometheus has them, each with its newest pass."""
        running, buckets = 0, []
        with histogram.lock:
            for bound, count, sight in zip(
                (*map(str, BOUNDS), "+Inf"), histogram.counts, histogram.newest, strict=True
            ):
                running += count
                exemplar = self._exemplar(sight, sight.seconds) if sight else None
                buckets.append((bound, float(running), exemplar) if exemplar else (bound, float(running)))
            family.add_metric(labels, buckets, histogram.total)
        if self.created is not None:
            named = dict(zip(family._labelnames, labels, strict=True))
            family.add_sample(f"{family.name}_created", named, self.created)

    def _exemplar(self, sight: Sight, value: float) -> Exemplar:
        of = "sweep" if sight.key.kind == "ScalingSweep" else "run"
        trace = self.trace_of(sight.key) if self.trace_of else None
        return exemplar_of({"trace_id": trace, of: sight.key.name, "namespace": sight.key.namespace}, value, sight.at)

    def _watches(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        names = ("resource", "namespace")
        restarts = CounterMetricFamily("scalingsweep_watch_restarts", "Watches begun after the first.", labels=names)
        lists = CounterMetricFamily("scalingsweep_watch_lists", "Whole lists that were read.", labels=names)
        stale = GaugeMetricFamily(
            "scalingsweep_watch_stale_seconds",
            "Time since the API server last said anything.",
            labels=names,
            unit="seconds",
        )
        for watch in self.watches:
            labels = (watch.resource.plural, watch.namespace or "")
            restarts.add_metric(labels, float(watch.restarts), self.created)
            lists.add_metric(labels, float(watch.lists), self.created)
            stale.add_metric(labels, watch.stale_seconds)
        yield from (restarts, lists, stale)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    unit = "seconds" if name.endswith("_seconds") else ""
    return GaugeMetricFamily(f"scalingsweep_{name}", text, value=value, unit=unit)
