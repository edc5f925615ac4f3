"""Every effect on the cluster as one log entry: what was created, started, stopped, told, and which state was reached.

Owns the wording of these entries. It stands between the reconcilers and the adapter and changes nothing.
"""

import logging
from datetime import datetime
from typing import Any, cast

from sweep_operator.api import RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.clusters.kubernetes.views import Identity
from sweep_operator.clusters.port import PAUSED, Cause, Event
from sweep_operator.controller.passes import LiveCluster

log = logging.getLogger(__name__)


def journalled(cluster: LiveCluster) -> LiveCluster:
    """The same cluster, its effects logged once they have succeeded."""
    return cast(LiveCluster, _Journal(cluster))


class _Journal:
    """Wraps the effects; whatever only reads is the cluster's own."""

    def __init__(self, cluster: LiveCluster) -> None:
        self.cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    def create_run(self, run: ScalingRun) -> None:
        self.cluster.create_run(run)
        log.info("run created", extra={"rung": run.spec.rung, "run": run.metadata.name})

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        self.cluster.write_sweep_status(sweep, status)
        if sweep.status.phase != status.phase:
            log.info("phase %s, before %s", status.phase, sweep.status.phase)

    def refuse(self, identity: Identity, sentence: str, now: datetime) -> None:
        self.cluster.refuse(identity, sentence, now)
        log.info("refused: %s", sentence)

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        self.cluster.write_run_status(run, status)
        if (run.status.state, run.status.attempt) != (status.state, status.attempt):
            log.info("state %s, before %s", status.state, run.status.state, extra={"attempt": status.attempt})

    def start(self, sweep: ScalingSweep, run: ScalingRun, attempt: int) -> None:
        self.cluster.start(sweep, run, attempt)
        log.info("attempt started")

    def stop(self, run: ScalingRun, attempt: int, cause: Cause = PAUSED) -> None:
        self.cluster.stop(run, attempt, cause)
        log.info("attempt asked to end: %s", cause.message)

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        about = {name: value for name, value in (("rung", event.rung), ("run", event.run)) if value}
        log.log(logging.WARNING if event.warning else logging.INFO, "%s: %s", event.reason, event.message, extra=about)
        self.cluster.emit(sweep, event)
