"""From what the stores learn to what must be looked at again.

Owns which change wakes which key, and how soon. A run's end is looked at at once, and so is its sweep where it was the
last; what else happens to a workload or a run is gathered for a second first, as Kubernetes' own Job controller does,
since a start comes as half a dozen changes.
Progress alone wakes a run and its sweep now and then, so that a thousand chatty trainers cost no more than quiet ones.
"""

import random
from collections.abc import Callable, Iterator

from sweep_operator.clusters.kubernetes.cache import Caches, Change, Document
from sweep_operator.clusters.kubernetes.resources import RUNS, SWEEPS
from sweep_operator.clusters.kubernetes.views import Identity, JobView, PodView
from sweep_operator.controller.queue import Key, WorkQueue

SETTLE_SECONDS = 0.05
"""A sweep is looked at so long after the last of its runs ended: the runs of a rung end together."""
GATHER_SECONDS = 1.0
"""After so long, what happens to a workload short of its end, and what happens to a run short of its end."""
PROGRESS_SECONDS = 10.0
"""A change of progress alone is looked at after so long, together with all that came in the meantime."""


class Router:
    """Puts keys into the queue while `active` says so; a standby keeps its stores warm and its queue empty."""

    def __init__(self, caches: Caches, queue: WorkQueue[Key], active: Callable[[], bool]) -> None:
        self._caches = caches
        self._queue = queue
        self._active = active
        caches.sweeps.listen(self._sweep_changed)
        caches.runs.listen(self._run_changed)
        caches.jobs.listen(self._workload_changed)
        caches.pods.listen(self._workload_changed)

    def everything(self, within_seconds: float = 0.0) -> None:
        """Look at every object: at once when the Lease is got, or spread over a time as insurance against our own
        mistakes (a resync). Each sweep is followed by its runs, so that both are read once."""
        for key in self._keys():
            if within_seconds:
                self._queue.add_after(key, random.uniform(0.0, within_seconds))  # noqa: S311 - spread, no secret
            else:
                self._queue.add(key)

    def _keys(self) -> Iterator[Key]:
        for sweep in self._caches.sweeps.all():
            namespace = sweep.identity.namespace
            yield Key(SWEEPS.kind, namespace, sweep.identity.name)
            for run in self._caches.runs.owned_by(sweep.identity.uid):
                yield Key(RUNS.kind, namespace, run.identity.name)

    def _sweep_changed(self, change: Change[Document]) -> None:
        if not self._active():
            return
        identity, old, new = change.identity, change.old, change.new
        self._queue.add(Key(SWEEPS.kind, identity.namespace, identity.name))
        # Suspend, abort, retry and the end of a budget are wishes about the runs; and open attempts wait until a spec
        # that was refused is accepted, as it may be unchanged under another policy.
        before, after = ((one.generation, one.finished, one.refused) if one is not None else None for one in (old, new))
        if before != after:
            for child in self._caches.runs.owned_by(identity.uid):
                self._queue.add(Key(RUNS.kind, identity.namespace, child.identity.name))

    def _run_changed(self, change: Change[Document]) -> None:
        if not self._active():
            return
        identity, old, new = change.identity, change.old, change.new
        run, sweep = Key(RUNS.kind, identity.namespace, identity.name), self._sweep_of(identity)
        progress_only = old is not None and new is not None and old.substance == new.substance
        if progress_only:
            self._queue.add_after(run, PROGRESS_SECONDS)
        else:
            self._queue.add(run)
        if sweep is not None:
            goes_on = new is not None and not (new.finished and self._all_ended(identity.owner_uid))
            self._queue.add_after(
                sweep, PROGRESS_SECONDS if progress_only else GATHER_SECONDS if goes_on else SETTLE_SECONDS
            )

    def _all_ended(self, sweep_uid: str) -> bool:
        return all(child.finished for child in self._caches.runs.owned_by(sweep_uid))

    def _workload_changed(self, change: Change[JobView] | Change[PodView]) -> None:
        identity, new = change.identity, change.new
        if not (identity.run and self._active()):
            return
        run = Key(RUNS.kind, identity.namespace, identity.run)
        if new is None or self._may_be_over(new):
            self._queue.add(run)
        else:
            self._queue.add_after(run, GATHER_SECONDS)

    def _may_be_over(self, known: JobView | PodView) -> bool:
        """Whether an attempt may have ended with this; with a pod only where its Job, which ends after it, has too."""
        if isinstance(known, JobView):
            return known.finished
        job = self._caches.jobs.by_uid(known.identity.owner_uid)
        return known.ended and (job is None or job.finished or job.suspended)

    def _sweep_of(self, run: Identity) -> Key | None:
        """By owner where the owner is known, since labels may be edited; else by label."""
        owner = self._caches.sweeps.by_uid(run.owner_uid) if run.owner_uid else None
        name = owner.identity.name if owner else run.sweep
        return Key(SWEEPS.kind, run.namespace, name) if name else None
