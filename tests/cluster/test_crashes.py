"""Crashes and chaos on a real API server: whatever goes wrong, the sweep ends as if nothing had, and nothing twice."""

import uuid

import pytest
from arena import Arena, described, measured
from control_plane import ControlPlane
from disturbances import MOMENTS, STORMS, outage, undisturbed
from faulty_proxy import HANGS
from live_operator import OperatorProcess, Place, install_resources, manifest, until
from mortal_operator import killed_after_every
from standin_trainers import Play, StandinTrainers

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import JOBS, PODS, ROLE_BINDINGS, ROLES, RUNS, SWEEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory, simulated_nodes):
    """A control plane of these tests' own, since they stop parts of it."""
    own = ControlPlane(tmp_path_factory.mktemp("disturbed")).start()
    own.run_workloads()
    own.add_nodes(2)
    install_resources(own)
    yield own
    own.stop()


@pytest.fixture
def arena(plane, tmp_path):
    def of(replicas=1, clock_seconds=0.0):
        return Arena(plane, f"chaos-{uuid.uuid4().hex[:8]}", tmp_path, replicas, clock_seconds)

    return of


@pytest.fixture(scope="module")
def expected(plane, tmp_path_factory):
    """How a climb ends that nothing disturbs."""
    told = measured(Arena(plane, "undisturbed", tmp_path_factory.mktemp("undisturbed")), undisturbed, "none")
    assert told.violations == []
    return told.status


@pytest.mark.parametrize("writes", [1, 3])
def test_killed_after_every_write_all_the_way_through(plane, expected, writes):
    """The operator lives for one write (or three) at a time, from apply to the end."""
    told = killed_after_every(plane, f"mortal-{writes}", writes)
    assert told.faults >= 24 // writes
    assert described(told, expected) == []


STORMY = (
    "a fifth of all writes unanswered",
    "a fifth of all writes carried out twice",
    "half of all lists and watches answered 410",
    "everything at once",
)
"""The others, and longer ones, are `benchmarks/chaos.py`'s."""


@pytest.mark.parametrize("name", STORMY)
def test_in_any_storm_the_sweep_ends_as_if_there_were_none(arena, expected, name):
    told = measured(arena(), STORMS[name].disturb, name)
    assert told.faults > 0
    assert described(told, expected) == []


@pytest.mark.parametrize(
    "name",
    [
        "operator killed mid-rung",
        "of two replicas the leader killed mid-rung",
        "of two replicas the leader frozen mid-rung, woken later",
        "a thousand foreign events a second",
        "etcd restarted",
        "pods lost before, during and after their last write",
        "resources deleted and applied again",
        "operator's clock five hours fast",
        "operator's clock five hours slow",
    ],
)
def test_after_any_accident_the_sweep_goes_on_where_it_was(arena, expected, name):
    told = measured(arena(MOMENTS[name].replicas, MOMENTS[name].clock_seconds), MOMENTS[name].disturb, name)
    assert told.faults > 0
    assert described(told, expected) == []


def test_an_api_server_that_hangs_for_a_while_costs_that_while(arena, expected):
    told = measured(arena(), outage(HANGS, 15.0), HANGS.name)
    assert described(told, expected) == []


def test_why_an_attempt_was_ended_is_known_to_an_operator_that_was_not_there(plane, tmp_path):
    """Killed between telling a silent run to end and its end: what is written on the Job tells the next one."""
    namespace = "silent"
    plane.kubectl("create", "namespace", namespace)
    place, api = Place(plane, namespace), Api.connect(plane.kubeconfig())
    trainers = StandinTrainers(api, namespace).start()
    trainers.play = lambda run, attempt: Play("Runs") if (run.spec.rung, attempt) == ("a", 1) else Play()
    operator = OperatorProcess(plane, tmp_path, namespace, ("--lease-seconds", "3")).start()
    slow_to_go = {"podTemplate": {"metadata": {"annotations": {"simulated/grace": "8s"}}}}
    place.apply(manifest(limits={"progressSeconds": 10}, runtime=slow_to_go))
    until(lambda: any(job["spec"].get("suspend") for job in place.items(JOBS)))
    operator.kill()
    until(lambda: not place.pods("a"))
    operator.start()
    place.until_phase("Succeeded")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["reason"] == "NoProgress"
    operator.kill()
    trainers.stop()


def test_a_sweep_that_is_deleted_while_no_operator_is_there_leaves_nothing(plane, tmp_path):
    namespace = "deserted"
    plane.kubectl("create", "namespace", namespace)
    place, api = Place(plane, namespace), Api.connect(plane.kubeconfig())
    trainers = StandinTrainers(api, namespace, play=lambda run, attempt: Play("Runs")).start()
    operator = OperatorProcess(plane, tmp_path, namespace, ("--lease-seconds", "3")).start()
    place.apply(manifest())
    until(lambda: place.state("a") == "Running")
    operator.kill()
    place.kubectl("delete", "scalingsweep", "climb", "--timeout=60s")
    kinds = (SWEEPS, RUNS, JOBS, PODS, ROLES, ROLE_BINDINGS)
    until(lambda: not any(place.items(kind) for kind in kinds))
    trainers.stop()
