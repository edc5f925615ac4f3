"""The assembly: stores and their watches, the Lease, the queue and its workers, health and metrics, in their order.

Owns start and end. A standby runs all but the workers: its stores are warm, so that it can work the moment it leads.

    start:   servers → watches → every store synced → election … leading → every key queued, workers begin
    SIGTERM: no more keys, no more renewals → passes in hand end → gate closed → writes in flight end → Lease released,
             all within ten seconds; a write that still hangs then keeps the Lease until it runs out
    lost:    the process ends at once, without cleaning up: another may be writing already
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector

from sweep_operator.clusters.kubernetes.cache import Caches, Document, Store, UnreadableError
from sweep_operator.clusters.kubernetes.client import LONGEST_WRITE_SECONDS, Api
from sweep_operator.clusters.kubernetes.events import EventSender
from sweep_operator.clusters.kubernetes.resources import JOBS, PODS, RUN_LABEL, RUNS, SWEEPS, Resource
from sweep_operator.clusters.kubernetes.watch import Watch, WatchTimes
from sweep_operator.controller import tracing
from sweep_operator.controller.health import Page, Server, verdict
from sweep_operator.controller.journal import journalled
from sweep_operator.controller.lease import Election, LeaseTimes
from sweep_operator.controller.measures import Measures, OperatorCollector
from sweep_operator.controller.passes import LiveCluster, Passes
from sweep_operator.controller.queue import Key, WorkQueue
from sweep_operator.controller.routing import Router
from sweep_operator.controller.tracing import TraceSender
from sweep_operator.controller.workers import Workers
from sweep_operator.metrics import Exposition, Known, Observed, SweepPage, asked_for, slots_of_a_cluster
from sweep_operator.policy import Policy
from sweep_operator.traces import trace_of

log = logging.getLogger(__name__)

STUCK_SECONDS = 300.0
"""A pass that takes longer will never end."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one operator process runs."""

    namespaces: tuple[str, ...] = ()
    """Watched ones; every namespace when empty."""
    workers: int = 16
    """Passes at once; most of their time is spent waiting for the API server."""
    lease_namespace: str = "default"
    lease_name: str = "scalingsweep-operator"
    identity: str = field(default_factory=lambda: f"{os.uname().nodename}-{os.urandom(4).hex()}")
    """Of this process in the Lease; a pod's host name is its own."""
    lease: LeaseTimes = field(default_factory=LeaseTimes)
    watch: WatchTimes = field(default_factory=WatchTimes)
    health_port: int | None = None
    metrics_port: int | None = None
    run_metrics: bool = False
    """Whether each single run has series of its own."""
    traces_url: str | None = None
    """Of an OpenTelemetry collector; no traces where there is none."""
    resync_seconds: float = 600.0


def end_at_once(reason: str) -> None:
    """End the process without another instruction of its own: a thread may be about to write."""
    log.critical("no longer the leader: %s; ending", reason)
    logging.shutdown()
    os._exit(1)


class Operator:
    """One operator process. `api` writes under the Lease's gate, `lease_api` keeps the Lease, on shorter patience."""

    def __init__(
        self,
        api: Api,
        lease_api: Api,
        policy: Policy,
        settings: Settings,
        adapter: Callable[[Api, Caches, EventSender], LiveCluster],
        on_lost: Callable[[str], None] = end_at_once,
    ) -> None:
        self.caches = Caches.empty()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.measures = Measures()
        self._settings = settings
        self._events = EventSender(api, settings.identity)
        self._leads = threading.Event()
        self._stopping = threading.Event()
        self._router = Router(self.caches, self.queue, self._leads.is_set)
        self._watches = list(_watches(api, self.caches, settings, self.queue.hurry))
        self.election = Election(
            lease_api,
            settings.lease_namespace,
            settings.lease_name,
            settings.identity,
            self._begin,
            on_lost,
            settings.lease,
        )
        api.may_write = lambda: self.election.leading
        cluster = journalled(adapter(api, self.caches, self._events))
        passes = Passes(cluster, policy, self._events.tell, refitted=self.measures.refits.add)
        self._workers = Workers(self.queue, passes, self.measures, settings.workers)
        self._traces = (
            TraceSender(settings.traces_url, self._observe, tracing.headers()) if settings.traces_url else None
        )
        traced = settings.traces_url is not None
        self._page = SweepPage(self._observe, of_runs=settings.run_metrics, traced=traced, slots=slots_of_a_cluster)
        collector = OperatorCollector(
            self.measures,
            self.queue,
            self._watches,
            (api, lease_api),
            lambda: self.election.leading,
            lambda: self._events.dropped,
            lambda: self._traces.dropped if self._traces else 0,
            self._trace if traced else None,
        )
        self._registries = {exposition: CollectorRegistry(auto_describe=False) for exposition in Exposition}
        for registry in self._registries.values():
            ProcessCollector(registry=registry)
        self._registries[Exposition.PROMETHEUS].register(collector)
        self._registries[Exposition.OPEN_METRICS].register(replace(collector, created=time.time()))
        self._servers: list[Server] = []
        self._started = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        self.start(stop)
        while not stop.wait(self._settings.resync_seconds * random.uniform(0.9, 1.1)):  # noqa: S311 - jitter, no secret
            if self._leads.is_set():
                self._router.everything(within_seconds=self._settings.resync_seconds / 2)
        self.stop()

    def start(self, stop: threading.Event | None = None) -> None:
        """Listen, fill the stores, then ask for the Lease; returns early when `stop` is set meanwhile."""
        self._servers = _servers(self._settings, self.unhealthy, self.unready, self._scrape)
        for watch in self._watches:
            watch.start()
        for watch in self._watches:
            while not watch.wait_synced(0.2):
                if stop is not None and stop.is_set():
                    return
        log.info(
            "stores synced in %.1f s: %d sweeps, %d runs, %d jobs, %d pods",
            time.monotonic() - self._started,
            len(self.caches.sweeps),
            len(self.caches.runs),
            len(self.caches.jobs),
            len(self.caches.pods),
        )
        self.election.start()

    def stop(self) -> None:
        """End in order; what hangs is given up in time."""
        self._stopping.set()
        self.queue.close()
        self.election.stop_renewing()
        self._workers.join(1.0)
        self._events.stop(0.5)
        if self._traces:
            self._traces.stop(1.0)
        self.election.resign()
        if self._workers.join(LONGEST_WRITE_SECONDS):
            self.election.release()
        for server in self._servers:
            server.close()
        for watch in self._watches:
            watch.ask_to_stop()
        for watch in self._watches:
            watch.stop(0.1)

    def unhealthy(self) -> dict[str, str]:
        """What only a restart can heal."""
        wrong: dict[str, str] = {}
        if self._stopping.is_set():
            return wrong
        seconds, key = self._workers.longest_pass
        if seconds > STUCK_SECONDS:
            wrong["workers"] = f"the pass over {key} has been going on for {seconds:.0f} s"
        if not self._workers.alive:
            wrong["workers"] = "a worker has ended"
        if not self.election.alive:
            wrong["lease"] = "its thread has ended"
        for watch in self._watches:
            if not watch.alive:
                wrong[f"watch-{watch.resource.plural}"] = "its thread has ended"
        return wrong

    def unready(self) -> dict[str, str]:
        """Why what is known of the cluster may be old, or not whole yet."""
        wrong = dict(self.unhealthy())
        if self._stopping.is_set():
            wrong["stopping"] = "the process is ending"
        longest = 2 * self._settings.watch.silence_seconds
        for watch in self._watches:
            name = f"watch-{watch.resource.plural}" + (f"-{watch.namespace}" if watch.namespace else "")
            if not watch.synced:
                wrong[name] = f"not listed yet: {watch.trouble or 'listing'}"
            elif watch.stale_seconds > longest:
                wrong[name] = f"silent for {watch.stale_seconds:.0f} s: {watch.trouble or 'waiting'}"
        return wrong

    def _begin(self) -> None:
        """This process leads: look at everything once, and at every change from now on."""
        if self._stopping.is_set():
            return
        self._leads.set()
        began = time.monotonic()
        self._router.everything()
        self._events.start()
        if self._traces:
            self._traces.start()
        self._workers.start()
        threading.Thread(target=self._tell_when_caught_up, args=(began,), name="caught-up", daemon=True).start()

    def _tell_when_caught_up(self, began: float) -> None:
        while not self.queue.idle and not self._stopping.wait(0.05):
            pass
        log.info("caught up %.1f s after the Lease was got", time.monotonic() - began)

    def _observe(self) -> Iterator[Known]:
        """Every sweep, to be read with its runs where one of them has changed since the last scrape.

        Of the leader alone: with the standby's series beside them, every sum over sweeps would be double.
        """
        if not self.election.leading:
            return
        for known in self.caches.sweeps.all():
            runs = self.caches.runs.owned_by(known.identity.uid)
            versions = (known.identity.resource_version, *(run.identity.resource_version for run in runs))
            yield Known(known.identity.uid, versions, partial(self._read, known, runs))

    def _read(self, sweep: Document, runs: Sequence[Document]) -> Observed | None:
        """What the series of a sweep are computed from; None for one that a newer version wrote."""
        try:
            return Observed(self.caches.sweeps.read(sweep), [self.caches.runs.read(run) for run in runs])
        except UnreadableError:
            return None

    def _trace(self, key: Key) -> str | None:
        """The trace that a pass over an object belongs to: its sweep's."""
        if key.kind == SWEEPS.kind:
            sweep = self.caches.sweeps.get(key.namespace, key.name)
            return trace_of(sweep.identity.uid) if sweep else None
        run = self.caches.runs.get(key.namespace, key.name)
        return trace_of(run.identity.owner_uid) if run else None

    def _scrape(self, accept: str) -> Page:
        exposition = asked_for(accept)
        text = self._page.text(exposition)
        return Page(200, exposition.value, exposition.page(text, self._registries[exposition]))


def _watches(api: Api, caches: Caches, settings: Settings, on_recovery: Callable[[], None]) -> Iterator[Watch]:
    """One for each resource and namespace. Of Jobs and Pods only those that carry a run's label are asked for.

    When one has found the API server again, whatever failed in the meantime is tried again at once.
    """
    watched: Sequence[tuple[Resource, Store, str]] = (  # type: ignore[type-arg] # stores of four kinds side by side
        (SWEEPS, caches.sweeps, ""),
        (RUNS, caches.runs, ""),
        (JOBS, caches.jobs, RUN_LABEL),
        (PODS, caches.pods, RUN_LABEL),
    )
    for resource, store, selector in watched:
        for namespace in settings.namespaces or (None,):
            yield Watch(api, resource, store, namespace, selector, settings.watch, on_recovery)


def _servers(
    settings: Settings,
    unhealthy: Callable[[], dict[str, str]],
    unready: Callable[[], dict[str, str]],
    scrape: Callable[[str], Page],
) -> list[Server]:
    """Probes and metrics, on one port or on two."""
    probes = {"/healthz": verdict(unhealthy), "/readyz": verdict(unready)}
    if settings.health_port is not None and settings.health_port == settings.metrics_port:
        return [Server(settings.health_port, {**probes, "/metrics": scrape})]
    servers = []
    if settings.health_port is not None:
        servers.append(Server(settings.health_port, probes))
    if settings.metrics_port is not None:
        servers.append(Server(settings.metrics_port, {"/metrics": scrape}))
    return servers
