"""Runs that the operator did not make, runs deleted after they served, records that come late; on a real API server."""

import json
from datetime import UTC, datetime

import pytest
from life import NEVER, only_once
from live_operator import until
from simulated_cluster import healthy, record_of
from standin_trainers import Play

from sweep_analysis.record import RecordSet
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.ownership import run_document
from sweep_operator.clusters.kubernetes.resources import JOBS, RUN_LABEL
from sweep_operator.ladder import scaling_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def running(climb, trainers):
    """A sweep whose rung b runs until the trainers are let go."""
    trainers.play = lambda run, attempt: NEVER if run.spec.rung == "b" else Play()
    place = climb()
    until(lambda: place.state("b") == "Running")
    return place


def let_go(trainers):
    trainers.play = lambda run, attempt: Play()
    trainers.release()


def as_the_operator_would(place, rung, **changes):
    """The document of a rung's run, with the planned run changed: name, owner and digest follow from the sweep."""
    sweep = ScalingSweep.model_validate(place.sweep())
    status = next(r for r in sweep.status.rungs if r.name == rung)
    return run_document(scaling_run(sweep, status, status.runs[0].changed(**changes)))


def test_a_run_put_there_before_its_rung_with_another_placement_is_never_started(running, trainers):
    forged = as_the_operator_would(running, "c")
    forged["spec"]["placement"]["gpusPerNode"] = 8
    running.kubectl("create", "-f", "-", stdin=json.dumps(forged))
    name = forged["metadata"]["name"]
    until(lambda: "ForgedRun" in running.events())
    let_go(trainers)
    running.until_phase("NameTaken")
    assert f"kubectl delete scalingrun {name}" in running.condition("Progressing")["message"]
    assert not running.items(JOBS, f"{RUN_LABEL}={name}")
    running.kubectl("delete", "scalingrun", name)
    running.until_phase("Succeeded")
    assert running.run("c")["spec"]["placement"]["gpusPerNode"] == 1
    assert only_once(trainers)


def test_a_run_that_nobody_planned_is_never_started_although_its_name_and_its_digest_are_right(running, trainers):
    forged = as_the_operator_would(running, "b", seed=7)
    running.kubectl("create", "-f", "-", stdin=json.dumps(forged))
    until(lambda: "ForgedRun" in running.events())
    let_go(trainers)
    status = running.until_phase("Succeeded")
    assert not running.items(JOBS, f"{RUN_LABEL}={forged['metadata']['name']}")
    assert status["law"]["records"] == 10


def test_a_run_put_there_beforehand_just_as_planned_is_not_taken_for_the_sweeps_own(running, trainers):
    forged = as_the_operator_would(running, "c")
    running.kubectl("create", "-f", "-", stdin=json.dumps(forged))
    until(lambda: "ForgedRun" in running.events())
    let_go(trainers)
    running.until_phase("NameTaken")
    assert running.state("c") == "Queued", "nobody wrote its status: there was no forecast when it was made"
    running.kubectl("delete", "scalingrun", forged["metadata"]["name"])
    running.until_phase("Succeeded")
    assert only_once(trainers)


def test_the_spec_of_a_run_cannot_be_edited(running):
    name = running.run("b")["metadata"]["name"]
    patch = json.dumps({"spec": {"placement": {"gpusPerNode": 8}}})
    how = ("patch", "scalingrun", name, "-n", running.namespace, "--type=merge", "-p", patch)
    refused = running.plane.kubectl(*how, check=False)
    assert "the spec of a run never changes" in refused.stderr


def test_a_run_of_a_promoted_rung_may_be_deleted_and_is_missed_by_nobody(running, trainers):
    before = running.sweep()["status"]
    running.kubectl("delete", "scalingrun", running.run("a")["metadata"]["name"])
    let_go(trainers)
    status = running.until_phase("Succeeded")
    assert running.run("a") == {}, "it is not trained again"
    assert status["law"]["records"] == 10
    assert status["rungs"][0]["forecast"] == before["rungs"][0]["forecast"]
    assert status["rungs"][0]["spent"] == before["rungs"][0]["spent"]
    assert status["spent"]["flops"] == pytest.approx(sum(rung["spent"]["flops"] for rung in status["rungs"]))


def test_records_of_a_failed_run_that_arrive_after_all_let_its_sweep_go_on(climb, trainers):
    fails = Play("Failed", exit_code=3, message="the network went away")
    trainers.play = lambda run, attempt: fails if run.spec.rung == "b" else Play()
    place = climb(retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    run = ScalingRun.model_validate(place.run("b"))
    records = tuple(
        record_of(run, 1, tokens, healthy(run.spec.run, tokens), datetime.now(UTC)) for tokens in run.spec.run.tokens
    )
    late = {
        "apiVersion": run.api_version,
        "kind": run.kind,
        "metadata": {"name": run.metadata.name},
        "status": {"records": [RecordSet(attempt=1, records=records).to_json()]},
    }
    how = ("apply", "--server-side", "--subresource=status", "--field-manager=trainer-records-1", "-f", "-")
    place.kubectl(*how, stdin=json.dumps(late))
    place.until_phase("Succeeded")
    status = place.run("b")["status"]
    assert (status["state"], status["attempt"]) == ("Succeeded", 1)
    assert status["failures"][0]["reason"] == "Crashed"
    assert only_once(trainers)
