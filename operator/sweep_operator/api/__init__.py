"""The two resources, ScalingSweep and ScalingRun, as pydantic models; the CRDs are generated from them.

Owns field names, defaults, limits and the sentences of a refused document. Judges nothing that spans documents.
"""

from sweep_operator.api.run import Attempt, RunSpec, RunState, RunStatus, ScalingRun, WorkloadReference
from sweep_operator.api.status import (
    Condition,
    Imports,
    Printed,
    RungForecast,
    RungProgress,
    RungState,
    RungStatus,
    Spent,
    SweepStatus,
    TargetStatus,
)
from sweep_operator.api.sweep import (
    API_VERSION,
    TARGET,
    Approval,
    Budget,
    Gate,
    Generate,
    Ladder,
    Metadata,
    RecordsSource,
    RungRuns,
    RungSpec,
    ScalingSweep,
    SweepSpec,
    Target,
)
from sweep_operator.api.workload import Placement, Runtime, Storage

__all__ = [
    "API_VERSION",
    "TARGET",
    "Approval",
    "Attempt",
    "Budget",
    "Condition",
    "Gate",
    "Generate",
    "Imports",
    "Ladder",
    "Metadata",
    "Placement",
    "Printed",
    "RecordsSource",
    "RunSpec",
    "RunState",
    "RunStatus",
    "RungForecast",
    "RungProgress",
    "RungRuns",
    "RungSpec",
    "RungState",
    "RungStatus",
    "Runtime",
    "ScalingRun",
    "ScalingSweep",
    "Spent",
    "Storage",
    "SweepSpec",
    "SweepStatus",
    "Target",
    "TargetStatus",
    "WorkloadReference",
]
