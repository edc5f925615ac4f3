"""The life of a sweep on a real API server with simulated GPU nodes, as a person with kubectl lives it.

The operator is the real program; trainers are played. Nothing here looks inside the operator: what is asserted is what
`kubectl` shows.
"""

import time

import pytest
from life import NEVER, only_once, rung_runs
from live_operator import manifest, until
from standin_trainers import Play

from sweep_operator.clusters.kubernetes.resources import (
    CLAIMS,
    JOBS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    RUNS,
    SERVICE_ACCOUNTS,
    SWEEPS,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_five_rungs_from_kubectl_apply_to_succeeded(climb, trainers):
    place = climb()
    place.kubectl("wait", "--for=condition=Succeeded", "scalingsweep/climb", "--timeout=120s")
    status = place.sweep()["status"]
    assert [(r["name"], r["state"], r["verdict"]["outcome"]) for r in status["rungs"]] == [
        ("a", "Promoted", "NotJudged"),
        ("b", "Promoted", "NotJudged"),
        ("c", "Promoted", "NotJudged"),
        ("d", "Promoted", "Pass"),
        ("e", "Promoted", "Pass"),
    ]
    assert status["law"]["records"] == 10
    for run in place.runs():
        rung = next(r for r in status["rungs"] if r["name"] == run["spec"]["rung"])
        assert rung["forecast"]["time"][:19] <= run["metadata"]["creationTimestamp"][:19], "forecast before its runs"
        progress = {key: rung["progress"][key] for key in ("total", "done", "running", "failed", "share")}
        assert progress == {"total": 1, "done": 1, "running": 0, "failed": 0, "share": 1}
        conditions = {c["type"]: c["status"] for c in run["status"]["conditions"]}
        assert conditions == {"Queued": "False", "Running": "False", "Succeeded": "True"}
    assert len(place.items(JOBS)) == 5
    assert only_once(trainers)
    assert {"Forecast", "RunSucceeded", "Consistent", "Succeeded"} <= until(
        lambda: "Succeeded" in (told := place.events()) and told
    )


def test_progress_of_a_rung_lives_in_its_status_while_it_runs(climb, trainers):
    rung_runs(trainers, "b", Play("Runs", share=0.42))
    place = climb()

    def progress():
        rungs = place.sweep().get("status", {}).get("rungs", ())
        return next((r["progress"] for r in rungs if r["name"] == "b" and "progress" in r), {})

    until(lambda: progress().get("share") == 0.4)
    assert progress()["running"] == 1
    assert progress()["total"] == 1


def test_suspending_ends_what_runs_and_resuming_loses_nothing(climb, trainers):
    rung_runs(trainers, "b", NEVER)
    place = climb()
    until(lambda: place.state("b") == "Running")
    place.patch({"suspend": True})
    place.until_phase("Suspended")
    until(lambda: not place.pods("b"))
    assert place.state("b") == "Waiting"
    assert place.rungs()["a"] == "Promoted"
    trainers.play = lambda run, attempt: Play()
    place.patch({"suspend": False})
    place.until_phase("Succeeded")
    status = place.run("b")["status"]
    assert [a["outcome"] for a in status["attempts"]] == ["Interrupted", "Succeeded"]
    assert not status.get("failures")
    assert place.run("a")["status"]["attempt"] == 1
    assert only_once(trainers)


def test_aborting_ends_everything_for_good_and_keeps_the_results(climb, trainers):
    rung_runs(trainers, "c", NEVER)
    place = climb()
    until(lambda: place.state("c") == "Running")
    place.patch({"abort": True})
    place.until_phase("Aborted")
    until(lambda: not place.pods("c"))
    assert place.state("c") == "Aborted"
    assert len(place.run("a")["status"]["accepted"]) == 2


def test_a_failed_rung_is_retried_without_its_finished_runs(climb, trainers):
    two_seeds = [{"parameters": "20K", "tokensPerParameter": [10, 20], "seeds": [0, 1]}]
    rungs = manifest()["spec"]["ladder"]["rungs"]
    rungs[0]["runs"] = two_seeds
    fails = Play("Failed", exit_code=3, message="Traceback\nValueError: bad shard 7")
    trainers.play = lambda run, attempt: fails if run.spec.run.seed == 1 else Play()
    place = climb(ladder={"rungs": rungs}, retry={"limit": 0, "maxFailedRuns": 0})
    status = place.until_phase("Failed")
    assert status["rungs"][0]["state"] == "Failed"
    failed = next(r for r in place.runs() if r["spec"]["run"]["seed"] == 1)
    assert failed["status"]["failures"][0]["reason"] == "Crashed"
    assert "ValueError: bad shard 7" in failed["status"]["failures"][0]["message"]
    trainers.play = lambda run, attempt: Play()
    place.patch({"retryToken": "again"})
    place.until_phase("Succeeded")
    by_seed = {r["spec"]["run"]["seed"]: r["status"]["attempt"] for r in place.runs() if r["spec"]["rung"] == "a"}
    assert by_seed == {0: 1, 1: 2}


def test_later_rungs_may_be_edited_while_an_earlier_one_runs(climb, trainers):
    rung_runs(trainers, "b", NEVER)
    place = climb()
    until(lambda: place.state("b") == "Running")
    rungs = manifest()["spec"]["ladder"]["rungs"]
    rungs[3]["runs"][0]["seeds"] = [0, 1]
    place.patch({"ladder": {"rungs": [*rungs[:4], {"name": "f", "runs": [{**rungs[4]["runs"][0]}]}]}})
    before = place.run("b")["metadata"]["uid"]
    trainers.play = lambda run, attempt: Play()
    place.plane.kubectl("delete", "pod", "-n", place.namespace, "-l", "scalingsweep.dev/rung=b", "--wait=false")
    place.until_phase("Succeeded")
    assert list(place.rungs()) == ["a", "b", "c", "d", "f"]
    assert place.run("b")["metadata"]["uid"] == before
    assert sum(r["spec"]["rung"] == "d" for r in place.runs()) == 2


def test_a_person_approves_the_verdict_by_its_digest_and_by_nothing_else(climb):
    place = climb(gate={"warmupRungs": 3, "tolerance": 0.03, "promotion": "Manual"})
    for rung in "abcde":
        until(lambda rung=rung: place.rungs().get(rung) == "Held")
        verdict = next(r["verdict"] for r in place.sweep()["status"]["rungs"] if r["name"] == rung)
        given = place.sweep()["spec"].get("approvals", [])
        if rung == "a":
            place.patch({"approvals": [{"rung": "a", "verdict": "sha256:" + "0" * 64}]})
            time.sleep(1.0)
            assert place.rungs()["a"] == "Held"
        place.patch({"approvals": [*given, {"rung": rung, "verdict": verdict["digest"]}]})
    place.until_phase("Succeeded")


def test_a_budget_stops_the_climb_and_a_raised_one_goes_on(climb):
    place = climb(budget={"flops": "1e12"})
    status = place.until_phase("OverBudget")
    assert float(status["spent"]["flops"]) <= 1e12
    place.patch({"budget": {"flops": "1e16"}})
    place.until_phase("Succeeded")


@pytest.fixture
def volume(control_plane, namespace):
    """A volume for the claim of a sweep in the namespace, since nothing provisions one here."""
    control_plane.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": namespace},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany"],
                "hostPath": {"path": "/nowhere"},
                "storageClassName": namespace,
            },
        }
    )
    yield {"size": "1Gi", "storageClassName": namespace}
    control_plane.kubectl("delete", "pv", namespace, "--wait=false")


@pytest.mark.parametrize("when_deleted", ["Retain", "Delete"])
@pytest.mark.parametrize("moment", ["at once", "a", "c", "Succeeded"])
def test_a_sweep_deleted_at_any_moment_leaves_nothing_but_the_storage_it_shall_keep(
    climb, trainers, volume, moment, when_deleted
):
    rung_runs(trainers, moment, NEVER)
    place = climb(storage={"claim": volume, "whenDeleted": when_deleted})
    if moment == "Succeeded":
        place.until_phase("Succeeded")
    elif moment != "at once":
        until(lambda: place.state(moment) == "Running")
    place.kubectl("delete", "scalingsweep", "climb", "--timeout=60s")

    def left():
        kinds = (SWEEPS, RUNS, JOBS, PODS, ROLES, ROLE_BINDINGS, SERVICE_ACCOUNTS, CLAIMS)
        found = [(kind, item["metadata"]) for kind in kinds for item in place.items(kind)]
        return [k.kind for k, item in found if item["name"] != "default" and "deletionTimestamp" not in item]

    def what_shall_be_left():
        if when_deleted == "Delete":
            return left() == []
        return left() == ["PersistentVolumeClaim"] or (moment == "at once" and left() == [])

    until(what_shall_be_left, saying=left)


def test_finished_jobs_go_after_their_time_and_the_results_stay(climb, trainers):
    place = climb(limits={"ttlSecondsAfterFinished": 1})
    place.until_phase("Succeeded")
    until(lambda: not place.items(JOBS))
    assert {r["status"]["state"] for r in place.runs()} == {"Succeeded"}
    assert only_once(trainers)
