"""What docs/metrics.md says of the operator's own series holds."""

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from sweep_operator.clusters.kubernetes.cache import Store
from sweep_operator.clusters.kubernetes.resources import JOBS
from sweep_operator.clusters.kubernetes.views import job_view
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.controller.measures import Measures, OperatorCollector
from sweep_operator.controller.queue import Key, WorkQueue
from sweep_operator.metrics import SweepPage

PROCESS = 6
"""As many as docs/metrics.md names of the process."""


def own(measures: Measures, *watches: Watch) -> int:
    """How many series the operator has, beside those of sweeps."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OperatorCollector(measures, WorkQueue(), watches, (), lambda: True, lambda: 0, created=1.5e9))
    text = generate_latest(registry).decode() + SweepPage(list).text()
    return PROCESS + sum(not line.startswith("#") for line in text.splitlines())


def test_the_operators_own_series_are_bounded_and_do_not_grow_with_sweeps() -> None:
    idle = own(Measures())
    assert idle < 70
    busy = Measures()
    for i in range(1000):
        busy.passed(Key("ScalingSweep", "lab", f"sweep-{i}"), "Changed", i / 100)
        busy.refits.add(i / 100, Key("ScalingSweep", "lab", f"sweep-{i}"))
    assert own(busy) == idle + 2
    assert own(Measures(), Watch(None, JOBS, Store(job_view), "lab")) == idle + 5  # type: ignore[arg-type]
