"""One climb of a five-rung sweep on a real API server, with everything in it that a disturbance needs; and what came.

Owns the parts and their life: a namespace with a node of its own, trainers and a witness who reach the API server
directly, and the operator's replicas, each behind a faulty proxy of its own and started again whenever it ends, as a
Deployment would have it. What goes wrong is `disturbances`' affair.
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
from faulty_proxy import FaultyProxy
from live_operator import OperatorProcess, Place, manifest, until
from standin_trainers import Play, StandinTrainers
from witness import Witness, lasting

from sweep_operator.clusters.kubernetes.client import Api

LEASE_SECONDS = "6"
"""Short, so that a lost leader is replaced within a test's patience."""
HELD = "b"
"""The rung at which the disturbances of a moment set in."""
NEXT = "c"
CLIMB_SECONDS = 300.0
CLOCKS = Path(__file__).parent / "wrong_clock"
"""A folder for PYTHONPATH: a process that finds it believes another time of day (`SKEW`, in seconds)."""


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
    note: str = ""
    """What else is worth saying, in a few words."""


@dataclass
class Replica:
    """One operator process and the proxy that it speaks through."""

    operator: OperatorProcess
    proxy: FaultyProxy
    deserted: bool = False
    """Whether it stays dead when it dies."""


@dataclass
class Arena:
    """One namespace with everything in it that a climb needs."""

    plane: ControlPlane
    namespace: str
    folder: Path
    replicas: int = 1
    clock_seconds: float = 0.0
    """By how much the operator's clock is fast (or slow, where negative)."""
    faults: int = 0
    """Those that are not the proxies'."""
    note: str = ""
    checks: list[Callable[[], list[str]]] = field(default_factory=list)
    """What else is asked at the end: each returns the violations that it finds."""
    standing: list[Replica] = field(default_factory=list)
    _stopping: bool = False

    @contextmanager
    def climbing(self) -> Iterator["Arena"]:
        """Apply the sweep, with the trainers of rung b waiting to be let go."""
        self.plane.kubectl("create", "namespace", self.namespace)
        self.place = Place(self.plane, self.namespace)
        self.api = Api.connect(self.plane.kubeconfig())
        self.trainers = StandinTrainers(self.api, self.namespace).start()
        self.trainers.play = lambda run, attempt: Play("Runs") if run.spec.rung == HELD else Play()
        self.witness = Witness(self.api, self.namespace, self.trainers, clocks_agree=not self.clock_seconds).start()
        self.add_node()
        for replica in range(self.replicas):
            folder = self.folder / f"{self.namespace}-{replica}"
            folder.mkdir()
            proxy = FaultyProxy(self.plane.url, str(self.plane.authority))
            self.standing.append(Replica(self._operator(folder, proxy).start(), proxy))
        keeper = threading.Thread(target=self._keep_running, daemon=True)
        keeper.start()
        try:
            self.apply()
            yield self
        finally:
            self._stopping = True
            keeper.join(10)
            self.decide(None)
            for one in self.standing:
                one.operator.kill()
            self.trainers.stop()
            self.witness.stop()
            for one in self.standing:
                one.proxy.close()
            self.api.close()

    def apply(self) -> None:
        """`kubectl apply` of the sweep, which runs on the arena's own nodes."""
        self.place.apply(manifest(placement={"gpusPerNode": 1, "nodeSelector": {"pool": self.namespace}}))

    def add_node(self, prefix: str = "") -> str:
        """One more node for this sweep alone; its name."""
        (name,) = self.plane.add_nodes(1, gpus=1, prefix=f"{self.namespace}{prefix}")
        self.plane.kubectl("label", "node", name, f"pool={self.namespace}", "--overwrite")
        return name

    def _operator(self, folder: Path, proxy: FaultyProxy) -> OperatorProcess:
        arguments = ("--lease-seconds", LEASE_SECONDS)
        clock = {"PYTHONPATH": str(CLOCKS), "SKEW": str(self.clock_seconds)} if self.clock_seconds else {}
        return OperatorProcess(self.plane, folder, self.namespace, arguments, server=proxy.url, environment=clock)

    def _keep_running(self) -> None:
        while not self._stopping:
            for one in self.standing:
                ended = one.operator.process is not None and one.operator.process.poll() is not None
                if ended and not one.deserted:
                    one.operator.start()
            time.sleep(0.2)

    @property
    def leader(self) -> Replica:
        """The replica whose writes were carried out so far."""
        (one,) = [one for one in self.standing if one.proxy.written]
        return one

    def decide(self, decide: faulty.Decide | None) -> None:
        """What every proxy does from now on; None: forward everything."""
        for one in self.standing:
            one.proxy.decide = decide or (lambda request: None)

    def cut_everything(self) -> None:
        """Close every connection of every replica."""
        for one in self.standing:
            one.proxy.cut_everything()

    def reach(self, rung: str) -> None:
        """Wait until the rung's run runs."""
        until(lambda: self.place.state(rung) == "Running", CLIMB_SECONDS, self.saying)

    def let_go(self) -> None:
        """The trainers of every rung finish, those that wait as well."""
        self.trainers.play = lambda run, attempt: Play()
        self.trainers.release()

    def recovered(self) -> float:
        """Seconds from now until the next rung's run exists."""
        now = time.monotonic()
        until(lambda: self.place.run(NEXT), CLIMB_SECONDS, self.saying)
        return time.monotonic() - now

    def saying(self) -> Any:
        """What there is to say when something does not come about."""
        logs = [one.operator.log.read_text()[-3000:] for one in self.standing]
        return self.place.phase(), self.place.rungs(), "\n".join(logs)

    def fault_count(self) -> int:
        """Everything that was done to the climb so far."""
        return self.faults + sum(sum(one.proxy.faults.values()) for one in self.standing)


Disturb = Callable[[Arena], float | None]
"""Disturbs a climb whose rung b runs, and lets it go; returns the seconds to recover."""


def measured(arena: Arena, disturb: Disturb, name: str) -> Told:
    """One climb with the disturbance."""
    with arena.climbing():
        began = time.monotonic()
        recovery = disturb(arena)
        until(lambda: arena.place.phase() == "Succeeded", CLIMB_SECONDS, arena.saying)
        seconds = time.monotonic() - began
        arena.decide(None)
        until(lambda: not arena.witness.verdict() or arena.witness.violations, 10, arena.witness.verdict)
        found = arena.witness.verdict() + [one for check in arena.checks for one in check()]
        status = lasting(arena.place.sweep()["status"])
        return Told(name, arena.fault_count(), found, seconds, recovery, status, arena.note)


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
