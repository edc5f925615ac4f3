"""Whole climbs of a five-rung sweep with something going wrong on the way, each told in the same few numbers.

Owns the list of disturbances. `test_crashes.py` asserts on some of them; `benchmarks/chaos.py` runs all and prints the
table. The operator is a process that is started again whenever it ends, as a Deployment would have it; it reaches the
API server through a faulty proxy. Trainers and the witness reach it directly.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faulty_proxy as faulty
from control_plane import ControlPlane
from faulty_proxy import FaultyProxy, Request, storm
from live_operator import OperatorProcess, Place, install_resources, manifest, until
from standin_trainers import Play, StandinTrainers
from witness import Witness, lasting

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import PODS, RUN_LABEL

LEASE_SECONDS = "6"
"""Short, so that a lost leader is replaced within a test's patience."""
HELD = "b"
"""The rung at which the disturbances of a moment set in."""
NEXT = "c"
CLIMB_SECONDS = 300.0


@dataclass(frozen=True)
class Told:
    """What came of one climb."""

    disturbance: str
    faults: int
    violations: list[str]
    seconds: float
    """From apply to the end."""
    recovery_seconds: float | None
    """From the end of the disturbance until the run that was due by then existed; None where it lasted to the end."""
    status: Any
    """The final status, without times and spend."""


@dataclass
class Arena:
    """One namespace with everything in it that a climb needs."""

    plane: ControlPlane
    namespace: str
    folder: Path
    replicas: int = 1
    arguments: tuple[str, ...] = ()
    faults: int = 0
    """Those that are not the proxy's."""
    operators: list[OperatorProcess] = field(default_factory=list)
    _stopping: bool = False

    @contextmanager
    def climbing(self) -> Iterator["Arena"]:
        """Apply the sweep, with the trainers of rung b waiting to be let go."""
        self.plane.kubectl("create", "namespace", self.namespace)
        self.place = Place(self.plane, self.namespace)
        self.api = Api.connect(self.plane.kubeconfig())
        self.trainers = StandinTrainers(self.api, self.namespace).start()
        self.trainers.play = lambda run, attempt: Play("Runs") if run.spec.rung == HELD else Play()
        self.witness = Witness(self.api, self.namespace, self.trainers).start()
        self.proxy = FaultyProxy(self.plane.url, str(self.plane.authority))
        for replica in range(self.replicas):
            folder = self.folder / f"{self.namespace}-{replica}"
            folder.mkdir()
            self.operators.append(self._operator(folder).start())
        keeper = threading.Thread(target=self._keep_running, daemon=True)
        keeper.start()
        try:
            self.place.apply(manifest())
            yield self
        finally:
            self._stopping = True
            keeper.join(10)
            self.proxy.decide = lambda request: None
            for operator in self.operators:
                operator.kill()
            self.trainers.stop()
            self.witness.stop()
            self.proxy.close()
            self.api.close()

    def _operator(self, folder: Path) -> OperatorProcess:
        arguments = ("--lease-seconds", LEASE_SECONDS, *self.arguments)
        return OperatorProcess(self.plane, folder, self.namespace, arguments, server=self.proxy.url)

    def _keep_running(self) -> None:
        while not self._stopping:
            for operator in self.operators:
                if operator.process is not None and operator.process.poll() is not None:
                    operator.start()
            time.sleep(0.2)

    def reach(self, rung: str) -> None:
        """Wait until the rung's run runs."""
        until(lambda: self.place.state(rung) == "Running", CLIMB_SECONDS, self.saying)

    def let_go(self) -> None:
        """The trainers of every rung finish, those that wait as well."""
        self.trainers.play = lambda run, attempt: Play()
        self.trainers.release()

    def saying(self) -> Any:
        """What there is to say when something does not come about."""
        logs = [operator.log.read_text()[-3000:] for operator in self.operators]
        return self.place.phase(), self.place.rungs(), "\n".join(logs)


Disturb = Callable[[Arena], float | None]
"""Disturbs a climb whose rung b runs, and lets it go; returns the seconds to recover."""


def measured(arena: Arena, disturb: Disturb, name: str) -> Told:
    """One climb with the disturbance."""
    with arena.climbing():
        began = time.monotonic()
        recovery = disturb(arena)
        until(lambda: arena.place.phase() == "Succeeded", CLIMB_SECONDS, arena.saying)
        seconds = time.monotonic() - began
        arena.proxy.decide = lambda request: None
        until(lambda: not arena.witness.verdict() or arena.witness.violations, 10, arena.witness.verdict)
        return Told(
            name,
            sum(arena.proxy.faults.values()) + arena.faults,
            arena.witness.verdict(),
            seconds,
            recovery,
            lasting(arena.place.sweep()["status"]),
        )


def undisturbed(arena: Arena) -> float | None:
    """Nothing goes wrong."""
    arena.reach(HELD)
    arena.let_go()
    return recovered(arena)


def recovered(arena: Arena) -> float:
    """Seconds from now until the next rung's run exists."""
    now = time.monotonic()
    until(lambda: arena.place.run(NEXT), CLIMB_SECONDS, arena.saying)
    return time.monotonic() - now


def throughout(decide: faulty.Decide) -> Disturb:
    """A storm from the first request to the last."""

    def disturb(arena: Arena) -> None:
        arena.proxy.decide = decide
        arena.reach(HELD)
        arena.let_go()

    return disturb


def outage(fault: faulty.Fault, seconds: float) -> Disturb:
    """For so long no request comes through, and the rung's records are handed in meanwhile."""

    def disturb(arena: Arena) -> float:
        arena.reach(HELD)
        arena.proxy.decide = lambda request: fault
        arena.proxy.cut_everything()
        arena.let_go()
        time.sleep(seconds)
        arena.proxy.decide = lambda request: None
        arena.proxy.cut_everything()
        return recovered(arena)

    return disturb


def killed(arena: Arena) -> float:
    """SIGKILL in the middle of a rung; whoever comes next goes on."""
    arena.reach(HELD)
    arena.let_go()
    arena.operators[0].kill()
    arena.faults += 1
    return recovered(arena)


def etcd_restarted(arena: Arena) -> float:
    """etcd goes for five seconds, and everything with it."""
    arena.reach(HELD)
    arena.let_go()
    arena.plane.stop_part("etcd")
    arena.faults += 1
    time.sleep(5)
    arena.plane.start_etcd()
    return recovered(arena)


def crds_replaced(arena: Arena) -> float:
    """The resources are deleted, and all sweeps with them; they come back, and the sweep is applied anew."""
    arena.reach(HELD)
    kinds = ("scalingsweeps.scalingsweep.dev", "scalingruns.scalingsweep.dev")
    arena.plane.kubectl("delete", "crd", *kinds, "--timeout=60s")
    arena.faults += len(kinds)
    time.sleep(2)
    install_resources(arena.plane)
    arena.trainers.told.clear()  # what was reported went with the resources
    arena.let_go()
    until(lambda: not arena.place.items(PODS, RUN_LABEL), 60)
    arena.place.apply(manifest())
    return recovered(arena)


def pods_lost(arena: Arena) -> float:
    """A pod goes before its first write, one between its records and its end, one right after its end."""
    api, place = arena.api, arena.place

    def lose(rung: str) -> None:
        for pod in place.items(PODS, f"scalingsweep.dev/rung={rung}"):
            api.delete(PODS.path(arena.namespace, pod["metadata"]["name"]))
            arena.faults += 1

    arena.reach(HELD)
    lose(HELD)
    until(lambda: place.run(HELD)["status"]["attempt"] == 2)
    arena.trainers.play = lambda run, attempt: Play(ends=run.spec.rung != NEXT)
    arena.trainers.release()
    until(lambda: place.run(NEXT).get("status", {}).get("records"))
    lose(NEXT)
    arena.let_go()
    until(lambda: place.state("d") == "Succeeded")
    lose("d")
    return 0.0


def foreign_noise(arena: Arena, per_second: int = 1000, seconds: float = 20.0) -> float:
    """Somebody changes pods that carry a run's label so often, or as often as the API server takes it."""
    writers = 8
    for number in range(writers):
        spec = {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "any"}]}
        metadata = {"name": f"foreign-{number}", "labels": {RUN_LABEL: "foreign"}}
        arena.place.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    arena.reach(HELD)
    ends = time.monotonic() + seconds
    kubeconfig = arena.plane.kubeconfig()
    made = [0] * writers

    def make_noise(writer: int) -> None:
        api = Api.connect(kubeconfig)
        path = PODS.path(arena.namespace, f"foreign-{writer}")
        while time.monotonic() < ends:
            began = time.monotonic()
            api.patch(path, {"metadata": {"annotations": {"noise": str(made[writer])}}})
            made[writer] += 1
            time.sleep(max(0.0, writers / per_second - (time.monotonic() - began)))
        api.close()

    threads = [threading.Thread(target=make_noise, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 4)
    arena.let_go()
    back = recovered(arena)
    for thread in threads:
        thread.join()
    arena.faults += sum(made)
    return back


def _reads(request: Request) -> bool:
    return not request.writes


def _writes(request: Request) -> bool:
    return request.writes and not request.elects


def _watches(request: Request) -> bool:
    return request.watches


STORMS: dict[str, Disturb] = {
    "a fifth of all writes dropped": throughout(storm(faulty.LOST, share=0.2, seed=1, of=_writes)),
    "a fifth of all writes unanswered": throughout(storm(faulty.UNANSWERED, share=0.2, seed=2, of=_writes)),
    "a fifth of all writes carried out twice": throughout(storm(faulty.TWICE, share=0.2, seed=3, of=_writes)),
    "a fifth of all requests a second late": throughout(storm(faulty.SLOW, share=0.2, seed=4)),
    "a fifth of all writes answered 409": throughout(storm(faulty.refused(409), share=0.2, seed=5, of=_writes)),
    "half of all lists and watches answered 410": throughout(storm(faulty.refused(410), share=0.5, seed=6, of=_reads)),
    "a fifth of all requests answered 429": throughout(storm(faulty.refused(429), share=0.2, seed=7)),
    "a fifth of all requests answered 500": throughout(storm(faulty.refused(500), share=0.2, seed=8)),
    "a fifth of all requests answered 503": throughout(storm(faulty.refused(503), share=0.2, seed=9)),
    "a fifth of all writes done, answered 500": throughout(
        storm(faulty.failed_late(500), share=0.2, seed=10, of=_writes)
    ),
    "every watch cut within an event": throughout(storm(*faulty.CUTS, share=1.0, seed=11, of=_watches)),
    "a twentieth of all requests hanging": throughout(storm(faulty.HANGS, share=0.05, seed=12)),
    "everything at once": throughout(
        storm(
            faulty.LOST,
            faulty.UNANSWERED,
            faulty.TWICE,
            faulty.SLOW,
            *faulty.CUTS,
            *(faulty.refused(status) for status in (409, 410, 429, 500, 503)),
            faulty.failed_late(503),
            share=0.15,
            seed=13,
        )
    ),
}

MOMENTS: dict[str, Disturb] = {
    "API down for a minute": outage(faulty.LOST, 60.0),
    "API hanging for a minute": outage(faulty.HANGS, 60.0),
    "API answering 500 for half a minute": outage(faulty.refused(500), 30.0),
    "API answering 429 for half a minute": outage(faulty.refused(429), 30.0),
    "operator killed mid-rung": killed,
    "etcd restarted": etcd_restarted,
    "resources deleted and applied again": crds_replaced,
    "pods lost before, during and after their last write": pods_lost,
    "foreign events for twenty seconds, a thousand a second or as many as go": foreign_noise,
}


def described(told: Told, expected: Any) -> list[str]:
    """Every violation of one climb, a different end among them."""
    found = list(told.violations)
    if told.status != expected:
        found.append("the final status is not that of an undisturbed climb: " + difference(expected, told.status))
    return found


def difference(expected: Any, found: Any, where: str = "status") -> str:
    """The first place at which two documents part."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                return difference(expected.get(key), found.get(key), f"{where}.{key}")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one != other:
                return difference(one, other, f"{where}[{index}]")
    return f"{where}: {json.dumps(expected)[:200]} became {json.dumps(found)[:200]}"
