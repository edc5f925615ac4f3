"""`helm upgrade` over a change of the resource definitions while ladders climb: nothing is lost or decided otherwise.

The operator's processes run under the account that the chart made, as its replicas would; nodes are simulated, trainers
are played. One sweep climbs, one waits for a person, one trains through all of it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import ControlPlane
from helm_chart import CHART, Helm, older_chart
from live_operator import KINDS, manifest, until
from standin_trainers import Play
from watched_sweeps import NAMESPACE, RELEASE, VALUES, WatchedSweeps, fate, play

from sweep_operator.api import ScalingRun
from sweep_operator.clusters.kubernetes.resources import PODS

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("chart"),
]


def slowly(run: ScalingRun, attempt: int) -> Play:
    """Long enough to be seen under way."""
    return Play(seconds=2.5) if run.spec.sweep == "climb" else play(run, attempt)


@pytest.fixture(scope="module")
def world(helm: Helm, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSweeps]:
    """The older chart installed, its operator at work, a ladder on its second rung."""
    folder = tmp_path_factory.mktemp("upgraded")
    world = WatchedSweeps(
        plane,
        helm.on(plane.kubeconfig()),
        folder,
        chart=older_chart(folder),
        fates=("climb", "held", "running"),
        train=slowly,
    )
    try:
        world.start()
        world.place.until_phase("AwaitingApproval", "held")
        until(lambda: running_pods(world), 60)
        until(lambda: world.place.rungs("climb").get("b") == "Running", 60)
        yield world
    finally:
        world.stop()


def running_pods(world: WatchedSweeps) -> set[str]:
    """UIDs of the pods of the sweep that trains all the time."""
    names = {run["metadata"]["name"] for run in world.place.runs() if run["spec"]["sweep"] == "running"}
    pods = world.place.items(PODS)
    return {p["metadata"]["uid"] for p in pods if p["metadata"]["labels"].get("scalingsweep.dev/run") in names}


def forecasts(sweep: dict[str, Any]) -> dict[str, Any]:
    """What was written before each rung, and its verdict where there is one."""
    rungs = sweep["status"]["rungs"]
    return {r["name"]: (r.get("forecast"), r["verdict"]) for r in rungs if r.get("verdict")}


def judged(sweep: dict[str, Any]) -> list[Any]:
    """What depends on the measured losses alone; `evidence` is a digest over the records, names and times included."""
    return [
        (
            rung["name"],
            rung["revision"],
            rung["state"],
            rung["loss"],
            {key: value for key, value in rung["forecast"]["outcome"].items() if key != "evidence"},
            rung["verdict"]["outcome"],
            rung["verdict"]["reason"],
        )
        for rung in sweep["status"]["rungs"]
    ]


def holder(plane: ControlPlane) -> str:
    """Who leads."""
    return str(plane.get("lease", f"{RELEASE}-scalingsweep", "-n", "ops")["spec"]["holderIdentity"])


def test_an_upgrade_over_a_crd_change_while_ladders_climb_loses_nothing_and_changes_no_verdict(
    plane: ControlPlane, world: WatchedSweeps
) -> None:
    place, first = world.place, holder(plane)
    before = {name: place.sweep(name) for name in world.fates}
    pods, runs = running_pods(world), {run["metadata"]["uid"] for run in place.runs()}

    world.helm("upgrade", RELEASE, str(CHART), "-n", "ops", "--wait", "--timeout=120s", values=VALUES)
    sweeps = plane.get("crd", KINDS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert "retryToken" in sweeps["spec"]["properties"]
    until(lambda: place.rungs("climb").get("d") == "Running", 60)  # the first operator goes on over what was replaced
    assert (world.operator.poll(), holder(plane)) == (None, first)

    world.replace_operator()
    until(lambda: holder(plane) not in ("", first), 60)
    until(lambda: place.condition("Finished", "climb").get("status") == "True", 180)
    after = {name: place.sweep(name) for name in world.fates}
    for name, sweep in before.items():
        assert after[name]["metadata"]["uid"] == sweep["metadata"]["uid"]
        assert after[name]["spec"] == sweep["spec"]
        assert forecasts(sweep).items() <= forecasts(after[name]).items()
    assert after["held"]["status"]["rungs"] == before["held"]["status"]["rungs"]
    assert place.condition("AwaitingApproval", "held")["status"] == "True"
    assert running_pods(world) == pods
    assert runs <= {run["metadata"]["uid"] for run in place.runs()}
    assert {run["status"]["attempt"] for run in place.runs()} == {1}
    assert {len(uids) for uids in world.trainers.begun.values()} == {1}

    place.patch({"retryToken": "again"}, "held")  # which the older definition did not know
    assert place.sweep("held")["spec"]["retryToken"] == "again"
    calm = manifest(**fate("climb")["spec"])
    calm["metadata"] |= {"name": "calm", "namespace": NAMESPACE}
    place.apply(calm)
    until(lambda: place.condition("Finished", "calm").get("status") == "True", 180)
    assert judged(place.sweep("climb")) == judged(place.sweep("calm"))
    assert place.condition("Finished", "climb")["reason"] == place.condition("Finished", "calm")["reason"]
