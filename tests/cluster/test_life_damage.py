"""Damage done by hand, and places without room: the sweep says what is wrong, and goes on; on a real API server."""

import json

import pytest
from life import NEVER, only_once, preempted_once
from live_operator import manifest, until
from standin_trainers import Play

from sweep_operator.clusters.kubernetes.resources import (
    JOBS,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def running(climb, trainers):
    """A sweep whose rung b runs until somebody ends its first attempt."""
    trainers.play = lambda run, attempt: NEVER if (run.spec.rung, attempt) == ("b", 1) else Play()
    place = climb()
    until(lambda: place.state("b") == "Running")
    return place


def test_a_job_deleted_by_hand_is_a_lost_attempt_and_never_made_again_under_its_number(running, trainers):
    job = running.run("b")["status"]["workload"]["name"]
    running.kubectl("delete", "job", job)
    running.until_phase("Succeeded")
    status = preempted_once(running, "b")
    assert status["workload"]["name"] == job.removesuffix("-1") + "-2"
    assert only_once(trainers)


def test_a_pod_deleted_by_hand_is_a_lost_attempt(running, trainers):
    (pod,) = running.pods("b")
    running.kubectl("delete", "pod", pod["metadata"]["name"])
    running.until_phase("Succeeded")
    preempted_once(running, "b")
    assert only_once(trainers)


def test_a_run_deleted_by_hand_is_made_and_trained_again(running, trainers):
    before = running.run("b")["metadata"]
    running.kubectl("delete", "scalingrun", before["name"])
    trainers.play = lambda run, attempt: Play()
    running.until_phase("Succeeded")
    after = running.run("b")["metadata"]
    assert after["name"] == before["name"]
    assert after["uid"] != before["uid"]


def test_a_job_without_its_labels_is_found_by_name_and_labelled_again(running, trainers):
    job = running.run("b")["status"]["workload"]["name"]
    labels = ("sweep", "rung", "run", "attempt")
    running.kubectl("label", "job", job, *(f"scalingsweep.dev/{label}-" for label in labels))
    until(
        lambda: "scalingsweep.dev/run" in running.plane.get("job", job, "-n", running.namespace)["metadata"]["labels"]
    )
    assert running.state("b") == "Running"
    (pod,) = running.pods("b")
    running.kubectl("annotate", "pod", pod["metadata"]["name"], "simulated/outcome=Failed", "simulated/exit-code=75")
    running.until_phase("Succeeded")
    preempted_once(running, "b")
    assert only_once(trainers)


def test_a_run_without_its_labels_is_still_the_sweeps(running, trainers):
    name = running.run("b")["metadata"]["name"]
    labels = ("sweep", "rung", "run")
    running.kubectl("label", "scalingrun", name, *(f"scalingsweep.dev/{label}-" for label in labels))
    trainers.play = lambda run, attempt: Play()
    running.kubectl("delete", "job", running.run("b")["status"]["workload"]["name"])
    running.until_phase("Succeeded")
    preempted_once(running, "b")


def test_a_run_taken_from_its_sweep_is_named_with_what_to_do(running, trainers):
    name = running.run("b")["metadata"]["name"]
    orphan = [{"op": "remove", "path": "/metadata/ownerReferences"}]
    running.kubectl("patch", "scalingrun", name, "--type=json", "-p", json.dumps(orphan))
    running.until_phase("NameTaken")
    message = running.condition("Progressing")["message"]
    assert name in message
    assert "kubectl delete scalingrun" in message
    trainers.play = lambda run, attempt: Play()
    running.kubectl("delete", "scalingrun", name)
    running.until_phase("Succeeded")


def test_an_object_with_a_jobs_name_is_left_alone_and_named(climb, trainers):
    place = climb(suspend=True, ladder={"rungs": manifest()["spec"]["ladder"]["rungs"]})
    place.until_phase("Suspended")
    container = {"name": "c", "image": "any"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    trainers.play = lambda run, attempt: NEVER
    place.patch({"suspend": False})
    until(lambda: place.state("a") == "Running")
    place.patch({"suspend": True})
    place.until_phase("Suspended")
    name = place.run("a")["metadata"]["name"] + "-2"
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}
    place.apply(foreign)
    place.patch({"suspend": False})
    place.until_phase("NameTaken")
    assert name in place.condition("Progressing")["message"]
    assert place.plane.get("job", name, "-n", place.namespace)["metadata"].get("ownerReferences") is None
    trainers.play = lambda run, attempt: Play()
    place.kubectl("delete", "job", name)
    place.until_phase("Succeeded")


def test_a_run_with_a_forged_owner_is_ignored_and_told(running, trainers):
    forged = running.run("a")
    forged["metadata"] = {
        "name": "forged",
        "ownerReferences": forged["metadata"]["ownerReferences"],
        "labels": forged["metadata"]["labels"],
    }
    forged["spec"]["placement"]["gpusPerNode"] = 8
    running.apply(forged)
    until(lambda: "ForgedRun" in running.events())
    trainers.play = lambda run, attempt: Play()
    running.kubectl("delete", "pod", running.pods("b")[0]["metadata"]["name"])
    status = running.until_phase("Succeeded")
    assert status["law"]["records"] == 10
    assert not running.items(JOBS, "scalingsweep.dev/run=forged")


def test_a_status_that_a_person_empties_is_refused_and_one_that_is_edited_is_found_again(running, trainers):
    before = running.sweep()["status"]
    emptied = [{"op": "remove", "path": "/status"}]
    how = ("patch", "scalingsweep", "climb", "-n", running.namespace, "--subresource=status")
    refused = running.plane.kubectl(*how, "--type=json", "-p", json.dumps(emptied), check=False)
    assert refused.returncode != 0
    assert "stays in the status" in refused.stderr
    edited = {"status": {"phase": "Succeeded", "conditions": [], "spent": {"flops": 1}, "law": None}}
    running.plane.kubectl(*how, "--type=merge", "-p", json.dumps(edited))
    until(lambda: running.phase() == "Running")
    assert {c["type"]: c["status"] for c in running.sweep()["status"]["conditions"]} == {
        c["type"]: c["status"] for c in before["conditions"]
    }
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    status = running.until_phase("Succeeded")
    assert status["law"]["records"] == 10
    assert only_once(trainers)


def test_a_runs_status_that_a_person_empties_is_found_again_and_nothing_is_trained_twice(running, trainers):
    nothing = {"attempts": None, "attempt": None, "state": None, "accepted": None, "conditions": None, "workload": None}
    for rung in "ab":
        name = running.run(rung)["metadata"]["name"]
        how = ("patch", "scalingrun", name, "-n", running.namespace, "--subresource=status", "--type=merge")
        running.plane.kubectl(*how, "-p", json.dumps({"status": nothing}))
    until(lambda: (running.state("a"), running.state("b")) == ("Succeeded", "Running"))
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    status = running.until_phase("Succeeded")
    assert status["law"]["records"] == 10
    assert {run["status"]["attempt"] for run in running.runs()} == {1}
    assert only_once(trainers)


@pytest.mark.parametrize("counted", ["count/jobs.batch", "count/scalingruns.scalingsweep.dev"])
def test_a_quota_makes_the_sweep_wait_and_say_so_and_is_no_failure(place, climb, trainers, counted):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {counted: "0"}},
    }
    place.apply(quota)
    until(
        lambda: (
            counted in place.plane.get("resourcequota", "full", "-n", place.namespace).get("status", {}).get("hard", {})
        )
    )
    climb()
    place.until_phase("QuotaExceeded")
    assert "exceeded quota" in place.condition("Progressing")["message"]
    place.kubectl("delete", "resourcequota", "full")
    place.until_phase("Succeeded")
    assert not any(run["status"].get("failures") for run in place.runs())
    assert only_once(trainers)
