"""One pass: observe, decide, then carry out; the same for every adapter.

Owns the order of effects and nothing else: children are created or a status is written, never both in one pass, and
events follow a write that succeeded. A crash between two passes loses nothing, since the next one looks again. Only
what keeps a child from being created is written in the very pass that met it: nobody else would know.
"""

from dataclasses import dataclass
from datetime import datetime

from sweep_operator import ladder, run
from sweep_operator.acceptance import Refused
from sweep_operator.api import Imports, ScalingRun, ScalingSweep
from sweep_operator.clusters import (
    Cluster,
    Conflict,
    Ending,
    NameTaken,
    NotNow,
    StartRefused,
    Unavailable,
    Workload,
    WorkloadState,
)
from sweep_operator.outlook import Obstacle, obstacle_of
from sweep_operator.policy import Policy

OBSTACLE_SECONDS = 15.0
"""How soon is asked again for what could not be created."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """Whether anything was written or done (then look again at once), or when to look again."""

    changed: bool
    requeue_seconds: float | None = None


def reconcile(cluster: Cluster, key: str, now: datetime, policy: Policy) -> Progressed:
    """One pass over a sweep, then one over each of its runs: the whole loop where one process has one sweep."""
    sweep = cluster.sweep(key)
    if sweep is None:
        return Progressed(changed=False)
    try:
        passes = [reconcile_sweep(cluster, sweep, policy, now)]
        sweep = cluster.sweep(key) if passes[0].changed else sweep
        if sweep is None:
            return Progressed(changed=True)
        passes += [reconcile_run(cluster, sweep, child, now) for child in cluster.runs(sweep)]
    except Conflict:
        return Progressed(changed=True)
    waits = [p.requeue_seconds for p in passes if p.requeue_seconds is not None]
    return Progressed(any(p.changed for p in passes), min(waits, default=None))


def reconcile_sweep(cluster: Cluster, sweep: ScalingSweep, policy: Policy, now: datetime) -> Progressed:
    """One pass over a sweep. Raises Conflict."""
    children = tuple(cluster.runs(sweep))
    standing = obstacle_of(sweep.status)
    decision = ladder.decide(sweep, children, policy, now, standing)
    if decision.wants_imports:
        decision = ladder.decide(sweep, children, policy, now, standing, _imported(cluster, sweep))
    if decision.status is not None:
        cluster.write_sweep_status(sweep, decision.status)
        for event in decision.events:
            cluster.emit(sweep, event)
        return Progressed(changed=True)
    met: Obstacle | None = None
    try:
        for child in decision.create:
            cluster.create_run(child)
    except NameTaken as taken:
        met = Obstacle("NameTaken", str(taken))
    except NotNow as full:
        met = Obstacle(full.reason, full.message)
    if met != standing:
        told = ladder.decide(sweep, children, policy, now, met)
        if told.status is not None:
            cluster.write_sweep_status(sweep, told.status)
            for event in told.events:
                cluster.emit(sweep, event)
    if met is not None:
        return Progressed(changed=False, requeue_seconds=OBSTACLE_SECONDS)
    return Progressed(bool(decision.create), decision.requeue_seconds)


def _imported(cluster: Cluster, sweep: ScalingSweep) -> Imports | Refused:
    """Earlier records, read anew in every pass until the first forecast keeps them."""
    try:
        return cluster.imported(sweep)
    except Unavailable as finding:
        return Refused("RecordsUnavailable", str(finding))


def reconcile_run(cluster: Cluster, sweep: ScalingSweep, child: ScalingRun, now: datetime) -> Progressed:
    """One pass over one run of a sweep. Raises Conflict."""
    attempt = run.newest_attempt(child)
    decision = run.decide(sweep, child, cluster.workload(child, attempt), now)
    again = decision.requeue_seconds
    if decision.do is run.Do.START:
        try:
            cluster.start(sweep, child, attempt)
        except StartRefused as refused:
            ended = Workload(WorkloadState.ENDED, Ending.FAILED, refused.reason, refused.message)
            decision = run.decide(sweep, child, ended, now)
        except (NameTaken, NotNow) as obstacle:
            reason = obstacle.reason if isinstance(obstacle, NotNow) else "NameTaken"
            waiting = Workload(WorkloadState.PENDING, waiting=reason, message=str(obstacle))
            decision, again = run.decide(sweep, child, waiting, now), OBSTACLE_SECONDS
    if decision.status is not None:
        cluster.write_run_status(child, decision.status)
        for event in decision.events:
            cluster.emit(sweep, event)
        return Progressed(changed=True)
    if decision.do is run.Do.STOP:
        cluster.stop(child, attempt, decision.cause)
    return Progressed(decision.do is run.Do.START, again)
