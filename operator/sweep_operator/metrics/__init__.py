"""Prometheus series of sweeps, computed from their statuses at scrape time.

Owns names, labels and units (Prometheus' and OpenMetrics' rules: base units, `_total` on counters), how a scrape stays
quick, and the small server of a local ladder. Keeps no numbers of its own: what is not in a status is not in a metric.
The operator's own health is `controller.measures`.
"""

from sweep_operator.metrics.page import CONTENT_TYPE, Known, SweepPage
from sweep_operator.metrics.server import Latency, PortTakenError, serve
from sweep_operator.metrics.sweep import Observed, series_of, slots_of_a_cluster

__all__ = [
    "CONTENT_TYPE",
    "Known",
    "Latency",
    "Observed",
    "PortTakenError",
    "SweepPage",
    "series_of",
    "serve",
    "slots_of_a_cluster",
]
