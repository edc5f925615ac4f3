"""What goes wrong during whole climbs of a five-rung sweep: the list, each with how it is brought about.

Owns the list of disturbances. `test_crashes.py` asserts on some of them; `benchmarks/chaos.py` runs all and prints the
table.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass

import faulty_proxy as faulty
from arena import CLIMB_SECONDS, HELD, NEXT, Arena, Disturb
from faulty_proxy import Request, storm
from foreign_events import ForeignEvents
from live_operator import install_resources, until
from standin_trainers import Play

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import PODS, RUN_LABEL


@dataclass(frozen=True)
class Disturbance:
    """One kind of trouble, and what it takes to bring it about."""

    disturb: Disturb
    replicas: int = 1
    clock_seconds: float = 0.0
    """By how much the operator's clock is fast."""
    alone: bool = False
    """Whether it stops or starves what other climbs on the same control plane need as well."""


def undisturbed(arena: Arena) -> float | None:
    """Nothing goes wrong."""
    arena.reach(HELD)
    arena.let_go()
    return arena.recovered()


def clock_wrong(arena: Arena) -> float | None:
    """From its start to its end the operator believes another time of day."""
    arena.faults += 1
    return undisturbed(arena)


def throughout(decide: faulty.Decide) -> Disturb:
    """A storm from the first request to the last."""

    def disturb(arena: Arena) -> None:
        arena.decide(decide)
        arena.reach(HELD)
        arena.let_go()

    return disturb


def outage(fault: faulty.Fault, seconds: float) -> Disturb:
    """For so long no request comes through, and the rung's records are handed in meanwhile."""

    def disturb(arena: Arena) -> float:
        arena.reach(HELD)
        arena.decide(lambda request: fault)
        arena.cut_everything()
        arena.let_go()
        time.sleep(seconds)
        arena.decide(None)
        arena.cut_everything()
        return arena.recovered()

    return disturb


def killed(arena: Arena) -> float:
    """SIGKILL in the middle of a rung; whoever comes next goes on."""
    arena.reach(HELD)
    arena.let_go()
    arena.standing[0].operator.kill()
    arena.faults += 1
    return arena.recovered()


def etcd_restarted(arena: Arena) -> float:
    """etcd goes for five seconds, and everything with it."""
    arena.reach(HELD)
    arena.let_go()
    arena.plane.stop_part("etcd")
    arena.faults += 1
    time.sleep(5)
    arena.plane.start_etcd()
    return arena.recovered()


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
    arena.apply()
    return arena.recovered()


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


def leader_killed(arena: Arena) -> float:
    """Of two replicas the one that leads is killed, and stays dead; the other must go on."""
    arena.reach(HELD)
    leader = arena.leader
    arena.let_go()
    leader.deserted = True
    leader.operator.kill()
    arena.faults += 1
    return arena.recovered()


def leader_frozen(arena: Arena) -> float:
    """The leader is stopped (SIGSTOP) with work in its hands, and woken when the other leads: it may write nothing."""
    arena.reach(HELD)
    leader = arena.leader
    process = leader.operator.process
    assert process is not None
    arena.let_go()
    os.kill(process.pid, signal.SIGSTOP)
    arena.faults += 1
    back = arena.recovered()
    before = leader.proxy.written
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: process.poll() is not None, 30, arena.saying)

    def wrote() -> list[str]:
        late = leader.proxy.written - before
        return [f"the leader that was woken wrote {late} times"] if late else []

    arena.checks.append(wrote)
    return back


def node_gone(arena: Arena) -> float:
    """The node of the rung's pod goes for good, and the pod with it; another node takes the next attempt."""
    arena.trainers.play = lambda run, attempt: Play("Runs") if (run.spec.rung, attempt) == (HELD, 1) else Play()
    arena.reach(HELD)
    (pod,) = arena.place.pods(HELD)
    arena.plane.kubectl("delete", "node", pod["spec"]["nodeName"], "--wait=false")
    arena.faults += 1
    arena.add_node("-b")
    return arena.recovered()


def foreign_writes(arena: Arena, seconds: float = 15.0, writers: int = 4) -> float:
    """Somebody changes pods that carry a run's label as often as the API server takes it."""
    for number in range(writers):
        spec = {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "any"}]}
        metadata = {"name": f"foreign-{number}", "labels": {RUN_LABEL: "foreign"}}
        arena.place.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    arena.reach(HELD)
    began = time.monotonic()
    kubeconfig = arena.plane.kubeconfig()
    made = [0] * writers

    def write(writer: int) -> None:
        api = Api.connect(kubeconfig)
        path = PODS.path(arena.namespace, f"foreign-{writer}")
        while time.monotonic() < began + seconds:
            api.patch(path, {"metadata": {"annotations": {"noise": str(made[writer])}}})
            made[writer] += 1
        api.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 3)
    arena.let_go()
    back = arena.recovered()
    for thread in threads:
        thread.join()
    arena.faults += sum(made)
    arena.note = f"{sum(made) / (time.monotonic() - began):.0f} a second"
    return back


def foreign_events(arena: Arena, per_second: int = 1000, seconds: float = 20.0) -> float:
    """A thousand strangers' objects a second come and go in the operator's watches, at the proxy before it."""
    arena.reach(HELD)
    noise = ForeignEvents(arena.standing[0].proxy, arena.namespace, per_second).start()
    time.sleep(seconds / 4)
    arena.let_go()
    back = arena.recovered()
    until(lambda: noise.seconds >= seconds, CLIMB_SECONDS)
    noise.stop()
    arena.faults += noise.told
    arena.note = f"{noise.per_second:.0f} a second"
    return back


def _reads(request: Request) -> bool:
    return not request.writes


def _writes(request: Request) -> bool:
    return request.writes and not request.elects


def _watches(request: Request) -> bool:
    return request.watches


def _storm(decide: faulty.Decide) -> Disturbance:
    return Disturbance(throughout(decide))


STORMS: dict[str, Disturbance] = {
    "a fifth of all writes dropped": _storm(storm(faulty.LOST, share=0.2, seed=1, of=_writes)),
    "a fifth of all writes unanswered": _storm(storm(faulty.UNANSWERED, share=0.2, seed=2, of=_writes)),
    "a fifth of all writes carried out twice": _storm(storm(faulty.TWICE, share=0.2, seed=3, of=_writes)),
    "a fifth of all requests a second late": _storm(storm(faulty.SLOW, share=0.2, seed=4)),
    "a fifth of all writes answered 409": _storm(storm(faulty.refused(409), share=0.2, seed=5, of=_writes)),
    "half of all lists and watches answered 410": _storm(storm(faulty.refused(410), share=0.5, seed=6, of=_reads)),
    "a fifth of all requests answered 429": _storm(storm(faulty.refused(429), share=0.2, seed=7)),
    "a fifth of all requests answered 500": _storm(storm(faulty.refused(500), share=0.2, seed=8)),
    "a fifth of all requests answered 503": _storm(storm(faulty.refused(503), share=0.2, seed=9)),
    "a fifth of all writes done, answered 500": _storm(storm(faulty.failed_late(500), share=0.2, seed=10, of=_writes)),
    "every watch cut within an event": _storm(storm(*faulty.CUTS, share=1.0, seed=11, of=_watches)),
    "a twentieth of all requests hanging": _storm(storm(faulty.HANGS, share=0.05, seed=12)),
    "everything at once": _storm(
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

MOMENTS: dict[str, Disturbance] = {
    "API down for a minute": Disturbance(outage(faulty.LOST, 60.0)),
    "API hanging for a minute": Disturbance(outage(faulty.HANGS, 60.0)),
    "API answering 500 for half a minute": Disturbance(outage(faulty.refused(500), 30.0)),
    "API answering 429 for half a minute": Disturbance(outage(faulty.refused(429), 30.0)),
    "node gone, and its pod with it": Disturbance(node_gone),
    "operator's clock five hours fast": Disturbance(clock_wrong, clock_seconds=5 * 3600.0),
    "operator's clock five hours slow": Disturbance(clock_wrong, clock_seconds=-5 * 3600.0),
    "pods lost before, during and after their last write": Disturbance(pods_lost),
    "operator killed mid-rung": Disturbance(killed),
    "of two replicas the leader killed mid-rung": Disturbance(leader_killed, replicas=2),
    "of two replicas the leader frozen mid-rung, woken later": Disturbance(leader_frozen, replicas=2),
    "etcd restarted": Disturbance(etcd_restarted, alone=True),
    "resources deleted and applied again": Disturbance(crds_replaced, alone=True),
    "foreign writes, as many as the API server takes": Disturbance(foreign_writes, alone=True),
    "a thousand foreign events a second": Disturbance(foreign_events, alone=True),
}
