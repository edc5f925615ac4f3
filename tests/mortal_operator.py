"""An operator that lives for one write at a time (or a few): killed right after it, and started again.

It runs in this process, since a process a write would take minutes; from the last write of its life on nothing that it
asks for reaches the API server.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from arena import CLIMB_SECONDS, Told
from control_plane import ControlPlane
from live_operator import Place, manifest, until
from standin_trainers import StandinTrainers
from witness import Witness, lasting

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.errors import NotLeading
from sweep_operator.controller.lease import LeaseTimes
from sweep_operator.controller.operator import Operator, Settings
from sweep_operator.policy import Policy


class Mortal(Api):
    """Ends the process, as far as the API server can tell, right after a write: nothing is written from then on."""

    def live_for(self, writes: int) -> "Mortal":
        """Die after so many."""
        self.left, self.dead, self.counting = writes, threading.Event(), threading.Lock()
        return self

    def _call(self, verb: str, method: str, path: str, *rest: Any) -> Any:
        counts = verb != "get" and "/events" not in path
        if self.dead.is_set() and verb != "get":
            raise NotLeading("killed")
        if not counts:
            return super()._call(verb, method, path, *rest)
        with self.counting:  # one write after another, so that each can be the last
            if self.dead.is_set():
                raise NotLeading("killed")
            answer = super()._call(verb, method, path, *rest)
            self.left -= 1
            if self.left <= 0:
                self.dead.set()
                raise NotLeading("killed after a write")
            return answer


def live_for(plane: ControlPlane, namespace: str, writes: int, until_done: Callable[[], bool]) -> bool:
    """One life of the operator: it ends after so many writes, or when all is done; returns whether it is."""
    api = Mortal.connect(plane.kubeconfig()).live_for(writes)
    lease_api = Api.connect(plane.kubeconfig())
    settings = Settings(
        namespaces=(namespace,), lease_namespace=namespace, identity="same", lease=LeaseTimes.lasting(2), workers=2
    )
    operator = Operator(api, lease_api, Policy(), settings, KubernetesCluster, on_lost=lambda reason: api.dead.set())
    operator.start()
    done = False
    while not api.dead.is_set() and not (done := until_done()):
        time.sleep(0.02)
    api.dead.set()
    operator.stop()
    return done


def killed_after_every(plane: ControlPlane, namespace: str, writes: int) -> Told:
    """A whole climb, from apply to the end, in lives of so many writes each."""
    plane.kubectl("create", "namespace", namespace)
    place, api = Place(plane, namespace), Api.connect(plane.kubeconfig())
    trainers = StandinTrainers(api, namespace).start()
    witness = Witness(api, namespace, trainers).start()
    began = time.monotonic()
    place.apply(manifest())
    lives = 0
    try:
        while not live_for(plane, namespace, writes, lambda: place.phase() == "Succeeded"):
            lives += 1
            assert time.monotonic() - began < CLIMB_SECONDS, (place.phase(), place.rungs())
        seconds = time.monotonic() - began
        until(lambda: not witness.verdict() or witness.violations, 10, witness.verdict)
        found = witness.verdict()
        if again := sorted(run["metadata"]["name"] for run in place.runs() if run["status"]["attempt"] != 1):
            found.append(f"runs were tried more than once: {', '.join(again)}")
        status = lasting(place.sweep()["status"])
    finally:
        trainers.stop()
        witness.stop()
        api.close()
    return Told(f"killed after every {writes}", lives, found, seconds, None, status)
