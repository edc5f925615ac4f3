"""What a driver that died left behind, put in order before the next one begins.

Owns the closing of attempts whose end nobody saw, the recovery of identities that were lost, and the replay of runs
whose status was. Ends only processes that are certainly ours (number and start time).
"""

import contextlib
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters import Event, WorkloadState
from sweep_operator.clusters.local.attempts import AttemptFile, how_it_ended
from sweep_operator.clusters.local.cluster import LocalCluster
from sweep_operator.clusters.local.files import this_host
from sweep_operator.clusters.local.processes import Ended
from sweep_operator.clusters.local.store import Store
from sweep_operator.conditions import timestamp
from sweep_operator.ladder import scaling_run
from sweep_operator.names import run_name
from sweep_operator.reconcile import reconcile_run
from sweep_operator.run import newest_attempt

PATIENCE_SECONDS = 12.0
"""How long trainers whose driver died may take to leave by themselves; after half of it they are told to."""


def take_over(
    cluster: LocalCluster, hurry: Callable[[], bool] = lambda: False, patience: float = PATIENCE_SECONDS
) -> None:
    """Put the folder in order. Trainers that are still there are killed once `hurry` says so or patience is over."""
    sweep = cluster.store.sweep()
    if sweep is None:
        return
    restore_identities(cluster.store, sweep)
    close_attempts(cluster, hurry, patience)
    replay(cluster, sweep, hurry)


def restore_identities(store: Store, sweep: ScalingSweep) -> None:
    """Write `run.json` anew where it was lost: the sweep's status plans every run, and names are made from plans."""
    lost = set(store.run_names()) - {run.metadata.name for run in store.runs()}
    for rung in sweep.status.rungs if lost else ():
        for run in (*rung.runs, *rung.experiments):
            if run_name(sweep, rung.name, rung.revision, run) in lost:
                store.create_run(scaling_run(sweep, rung, run))


def close_attempts(cluster: LocalCluster, hurry: Callable[[], bool], patience: float) -> None:
    """Wait for the processes of open attempts to leave, then write down how each attempt ended, from the evidence."""
    store = cluster.store
    attempts = ((run, file) for run in store.runs() for file in store.attempts(run.metadata.name))
    open_attempts = [(run, file) for run, file in attempts if not file.ended_at]
    here = [file.identity for _, file in open_attempts if file.host == this_host()]
    if alive := sum(identity.alive for identity in here):
        cluster.show(Event("Resuming", f"waiting for {alive} trainers of a driver that has died to checkpoint"))
    begun = time.monotonic()
    while any(identity.alive for identity in here) and (passed := time.monotonic() - begun) < patience:
        if passed > patience / 2:
            for identity in here:
                identity.signal(signal.SIGTERM)
        if hurry():
            break
        time.sleep(0.05)
    for identity in here:
        identity.signal(signal.SIGKILL)
    for run, file in open_attempts:
        complete = store.complete(run)
        failure = None if complete else store.failure(run.metadata.name, file.attempt)
        ended = Ended("", 0 if complete else None, 0.0, 0, "the driver that had started it was killed")
        ending, reason, message = how_it_ended(ended, asked=None, failure=failure, log=Path(), memory_ran_out=False)
        end = _last_sign(store, run.metadata.name, file)
        seconds = max(0.0, (end - datetime.fromisoformat(file.started_at)).total_seconds())
        closed = file.changed(
            ended_at=timestamp(end), ending=ending, reason=reason, message=message, gpu_seconds=seconds
        )
        store.write_attempt(run.metadata.name, closed)


def replay(cluster: LocalCluster, sweep: ScalingSweep, hurry: Callable[[], bool]) -> None:
    """Find out anew the status of runs that lost it, before the ladder looks at them: their attempts tell."""
    store = cluster.store
    lost = [run.metadata.name for run in cluster.runs(sweep) if not run.status.attempt]
    lost = [name for name in lost if store.attempts(name)]
    while lost and not hurry():
        runs = [run for name in lost if (run := store.run(name)) is not None]
        passes = [reconcile_run(cluster, sweep, run, datetime.now(UTC)) for run in runs]
        if any(p.changed for p in passes):
            continue
        waits = [p.requeue_seconds for p in passes if p.requeue_seconds is not None]
        told = (WorkloadState.ABSENT, WorkloadState.PENDING, WorkloadState.RUNNING)  # all that there was to find out
        if not waits or any(cluster.workload(run, newest_attempt(run)).state in told for run in runs):
            return
        time.sleep(min(0.5, *waits))  # a failure's back-off, which is gone through once more


def _last_sign(store: Store, run: str, file: AttemptFile) -> datetime:
    """When a trainer whose end nobody saw was last heard of."""
    times = [datetime.fromisoformat(file.started_at).timestamp()]
    with contextlib.suppress(OSError):
        times += [p.stat().st_mtime for p in (store.folder(run) / "report").iterdir()]
    return datetime.fromtimestamp(max(times), UTC)
