"""Prometheus series of sweeps, computed from their statuses at scrape time.

Owns names, labels and units (Prometheus' and OpenMetrics' rules: base units, `_total` on counters), how a scrape stays
quick, the formats of a page, and the small server of a local ladder. What is not in a status is not in a metric; all
that is kept is how high each counter was told. The operator's own health is `controller.measures`.
"""

from sweep_operator.metrics.exposition import Exposition, asked_for, exemplar_of
from sweep_operator.metrics.page import Known, SweepPage
from sweep_operator.metrics.server import Latency, PortTakenError, serve
from sweep_operator.metrics.sweep import Observed, series_of, slots_of_a_cluster

__all__ = [
    "Exposition",
    "Known",
    "Latency",
    "Observed",
    "PortTakenError",
    "SweepPage",
    "asked_for",
    "exemplar_of",
    "series_of",
    "serve",
    "slots_of_a_cluster",
]
