"""From a key to one pass of the reconcilers, with the log and the events saying what it is about.

Owns the step from names to objects. The reconcilers are those of the laptop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.cache import UnreadableError
from sweep_operator.clusters.kubernetes.events import Subject
from sweep_operator.clusters.kubernetes.resources import SWEEPS
from sweep_operator.clusters.kubernetes.views import Identity
from sweep_operator.clusters.port import Cluster, Event
from sweep_operator.controller import logs
from sweep_operator.controller.queue import Key
from sweep_operator.policy import Policy
from sweep_operator.reconcile import Progressed, reconcile_run, reconcile_sweep
from sweep_operator.run import newest_attempt


class LiveCluster(Cluster, Protocol):
    """The port, where runs are found by name as well."""

    def run(self, key: str) -> tuple[ScalingSweep, ScalingRun] | None:
        """The run named namespace/name with the sweep that owns it; None when either is gone or they do not match."""

    def refuse(self, identity: Identity, sentence: str, now: datetime) -> None:
        """Say on a sweep that its spec makes no sense."""


def _now() -> datetime:
    return datetime.now(UTC)


def _fitted(sweep: ScalingSweep) -> list[object]:
    """What follows from a fit."""
    return [sweep.status.law, *((rung.forecast, rung.verdict) for rung in sweep.status.rungs)]


@dataclass(frozen=True)
class Passes:
    """One pass over the object that a key names."""

    cluster: LiveCluster
    policy: Policy
    tell: Callable[[Subject, Event], None]
    now: Callable[[], datetime] = _now
    refitted: Callable[[float, Key], None] = lambda seconds, key: None
    """Told how long a pass took in which a law was fitted: one that left a forecast, a verdict or another law."""

    def __call__(self, key: Key) -> Progressed:
        """Raises whatever the port may, and UnreadableError for an object of a newer version's making."""
        try:
            return self._sweep(key) if key.kind == SWEEPS.kind else self._run(key)
        except UnreadableError as unreadable:
            identity = unreadable.identity
            if unreadable.wrong_spec:
                if key.kind == SWEEPS.kind:
                    self.cluster.refuse(identity, unreadable.wrong_spec, self.now())
                return Progressed(changed=False)  # until its author mends it
            sweep = identity.name if key.kind == SWEEPS.kind else identity.sweep
            uid = identity.uid if key.kind == SWEEPS.kind else identity.owner_uid
            message = f"{unreadable}; it is left alone until an operator that knows it takes over"
            self.tell(Subject(identity.namespace, sweep, uid), Event("Unreadable", message, warning=True))
            raise

    def _sweep(self, key: Key) -> Progressed:
        sweep = self.cluster.sweep(f"{key.namespace}/{key.name}")
        if sweep is None:
            return Progressed(changed=False)
        with logs.about(namespace=key.namespace, sweep=key.name):
            began = time.monotonic()
            progressed = reconcile_sweep(self.cluster, sweep, self.policy, self.now())
            after = self.cluster.sweep(f"{key.namespace}/{key.name}") if progressed.changed else None
            if after is not None and _fitted(after) != _fitted(sweep):
                self.refitted(time.monotonic() - began, key)
            return progressed

    def _run(self, key: Key) -> Progressed:
        found = self.cluster.run(f"{key.namespace}/{key.name}")
        if found is None:
            return Progressed(changed=False)
        sweep, run = found
        attempt, rung = newest_attempt(run), run.spec.rung
        with logs.about(namespace=key.namespace, sweep=sweep.metadata.name, rung=rung, run=key.name, attempt=attempt):
            return reconcile_run(self.cluster, sweep, run, self.now())
