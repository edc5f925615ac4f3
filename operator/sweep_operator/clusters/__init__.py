"""Where runs happen: the port (`port.py`), which this package gives its names, and an adapter each below it."""

from sweep_operator.clusters.port import (
    ABSENT,
    PAUSED,
    Cause,
    Cluster,
    Conflict,
    Ending,
    Event,
    NameTaken,
    NotNow,
    StartRefused,
    Unavailable,
    Workload,
    WorkloadState,
)

__all__ = [
    "ABSENT",
    "PAUSED",
    "Cause",
    "Cluster",
    "Conflict",
    "Ending",
    "Event",
    "NameTaken",
    "NotNow",
    "StartRefused",
    "Unavailable",
    "Workload",
    "WorkloadState",
]
