"""Children that somebody adopts, strangers under a child's name, and room for fewer pods than runs; real API server."""

import json

import pytest
from life import NEVER, only_once
from live_operator import manifest, until
from standin_trainers import Play

from sweep_operator.clusters.kubernetes.resources import PODS, RUNS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def running(climb, trainers):
    """A sweep whose rung b runs until the trainers are let go."""
    trainers.play = lambda run, attempt: NEVER if run.spec.rung == "b" else Play()
    place = climb()
    until(lambda: place.state("b") == "Running")
    return place


def adopt(place, kind, name, owner):
    """Make an object another's, as only who may write it can."""
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    reference |= {"name": metadata["name"], "uid": metadata["uid"]}
    patch = json.dumps({"metadata": {"ownerReferences": [reference]}})
    place.kubectl("patch", kind, name, "--type=merge", "-p", patch)


def test_a_run_that_another_sweep_adopts_is_not_that_sweeps(running, trainers):
    other = manifest(suspend=True)
    other["metadata"]["name"] = "other"
    running.apply(other)
    running.until_phase("Suspended", "other")
    name = running.run("b")["metadata"]["name"]
    adopt(running, "scalingrun", name, running.sweep("other"))
    running.until_phase("NameTaken")
    message = running.condition("Progressing")["message"]
    assert f"ScalingRun {name} stands where the sweep's own should" in message
    assert "is controlled by ScalingSweep other" in message
    until(lambda: "ForgedRun" in running.events())
    assert running.sweep("other")["status"]["spent"]["gpuSeconds"] == 0, "it pays for nobody else's run"
    trainers.play = lambda run, attempt: Play()
    running.kubectl("delete", "scalingrun", name)
    running.until_phase("Succeeded")
    assert running.phase("other") == "Suspended"


def test_a_job_that_somebody_adopts_is_still_the_attempt_that_was_seen(running, trainers):
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stranger"}}
    running.apply(stranger)
    owner = running.plane.get("configmap", "stranger", "-n", running.namespace)
    until(lambda: running.run("b")["status"].get("workload"))
    adopt(running, "job", running.run("b")["status"]["workload"]["name"], owner)
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    running.until_phase("Succeeded")
    assert [a["outcome"] for a in running.run("b")["status"]["attempts"]] == ["Succeeded"]
    assert only_once(trainers)


def test_labels_that_say_something_else_change_nothing(running, trainers):
    run, [pod] = running.run("b"), running.pods("b")
    wrong = ("scalingsweep.dev/sweep=other", "scalingsweep.dev/rung=e", "--overwrite")
    running.kubectl("label", "scalingrun", run["metadata"]["name"], *wrong)
    running.kubectl("label", "job", run["status"]["workload"]["name"], *wrong, "scalingsweep.dev/attempt=7")
    running.kubectl("label", "pod", pod["metadata"]["name"], *wrong)
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    running.until_phase("Succeeded")
    assert [a["outcome"] for a in running.run("b")["status"]["attempts"]] == ["Succeeded"]
    assert only_once(trainers)


@pytest.mark.parametrize("kind", ["ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim"])
def test_a_stranger_under_the_name_of_what_pods_need_is_left_alone_and_named(place, climb, trainers, kind):
    climb(suspend=True, storage={"claim": {"size": "1Gi", "storageClassName": "none"}})
    place.until_phase("Suspended")
    uid = place.sweep()["metadata"]["uid"][:8]
    name = f"climb-storage-{uid}" if kind == "PersistentVolumeClaim" else f"climb-trainer-{uid}"
    stranger = {**STRANGERS[kind], "kind": kind, "metadata": {"name": name}}
    place.apply(stranger)
    before = place.plane.get(kind.lower(), name, "-n", place.namespace)
    place.patch({"suspend": False})
    place.until_phase("NameTaken")
    assert f"{kind} {name} is not this sweep's" in place.condition("Progressing")["message"]
    assert place.plane.get(kind.lower(), name, "-n", place.namespace)["metadata"] == before["metadata"]
    assert not place.items(PODS)
    assert len(place.items(RUNS)) == 1
    assert not place.run("a")["status"].get("failures")


RBAC = "rbac.authorization.k8s.io"
STRANGERS = {
    "ServiceAccount": {"apiVersion": "v1"},
    "Role": {"apiVersion": f"{RBAC}/v1", "rules": []},
    "RoleBinding": {
        "apiVersion": f"{RBAC}/v1",
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "any"},
        "subjects": [],
    },
    "PersistentVolumeClaim": {
        "apiVersion": "v1",
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "none",
        },
    },
}


def test_a_quota_of_one_device_lets_the_runs_of_a_rung_in_one_after_the_other(place, climb, trainers):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "one"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
    }
    place.apply(quota)
    until(lambda: place.plane.get("resourcequota", "one", "-n", place.namespace).get("status", {}).get("hard"))
    rungs = manifest()["spec"]["ladder"]["rungs"]
    rungs[0]["runs"][0]["seeds"] = [0, 1]
    trainers.play = lambda run, attempt: NEVER if run.spec.rung == "a" else Play()
    climb(ladder={"rungs": rungs})
    until(lambda: len(place.runs()) == 2 and len(place.pods("a")) == 1)
    until(lambda: sorted(run["status"].get("state", "") for run in place.runs())[-1] == "Running")
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    place.until_phase("Succeeded")
    assert {run["status"]["attempt"] for run in place.runs()} == {1}
    assert not any(run["status"].get("failures") for run in place.runs())
    assert only_once(trainers)


def test_a_namespace_that_is_deleted_in_the_middle_of_a_climb_goes(running):
    running.plane.kubectl("delete", "namespace", running.namespace, "--timeout=120s")
    left = running.plane.kubectl("get", "namespace", running.namespace, check=False)
    assert "not found" in left.stderr
