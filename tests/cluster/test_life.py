"""The life of a sweep on a real API server with simulated GPU nodes, as a person with kubectl lives it.

The operator is the real program; trainers are played. Nothing here looks inside the operator: what is asserted is what
`kubectl` shows.
"""

import json
import time

import pytest
from live_operator import OperatorProcess, Place, install_resources, manifest, until
from standin_trainers import Play, StandinTrainers

from sweep_operator.clusters.kubernetes.client import Api
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

NEVER = Play("Runs")
"""A trainer that runs until somebody ends it."""


@pytest.fixture(scope="module")
def operator(control_plane, simulated_nodes, tmp_path_factory):
    """One operator for all namespaces, and the resources it works on."""
    install_resources(control_plane)
    process = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator")).start()
    yield process
    print(process.log.read_text()[-6000:])  # shown where a test fails
    assert process.stop() == 0


@pytest.fixture
def place(control_plane, operator, namespace):
    """The namespace of the test."""
    return Place(control_plane, namespace)


@pytest.fixture
def trainers(control_plane, namespace):
    """Who plays the trainers in it: each succeeds at once, where the test says nothing else."""
    api = Api.connect(control_plane.kubeconfig())
    playing = StandinTrainers(api, namespace).start()
    yield playing
    playing.stop()
    api.close()


@pytest.fixture
def climb(place, trainers):
    """A sweep, applied."""

    def applied(**spec):
        place.apply(manifest(**spec))
        return place

    return applied


def only_once(trainers):
    """No attempt had more than one pod."""
    return all(len(pods) == 1 for pods in trainers.begun.values())


def rung_runs(trainers, rung, play):
    """The trainers of one rung do this, the others succeed."""
    trainers.play = lambda run, attempt: play if run.spec.rung == rung else Play()


# --- from apply to the end -------------------------------------------------------------------------------------------


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


# --- what the machine does is not the run's fault --------------------------------------------------------------------


@pytest.fixture
def own_node(control_plane, simulated_nodes, namespace):
    """A node with one GPU that only this test's pods use, and how a sweep asks for it."""
    (name,) = control_plane.add_nodes(1, gpus=1, prefix=namespace[-12:].strip("-"))
    yield name, {"gpusPerNode": 1, "nodeSelector": {"kubernetes.io/hostname": name}}
    control_plane.kubectl("delete", "node", name, "--ignore-not-found")


def preempted_once(place, rung):
    """The rung's run lost its first attempt, has none counted as failed, and says so in a condition."""
    status = until(lambda: (s := place.run(rung)["status"]) and s["attempt"] == 2 and s)
    assert status["attempts"][0]["outcome"] == "Preempted"
    assert not status.get("failures")
    assert not status.get("countedFailures")
    return status


def test_a_run_preempted_by_a_higher_priority_goes_on_with_a_new_attempt(climb, trainers, own_node, control_plane):
    node, placement = own_node
    for name, value in (("low", 1), ("high", 1000)):
        control_plane.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": f"{node}-{name}"},
                "value": value,
            }
        )
    rung_runs(trainers, "a", NEVER)
    place = climb(placement={**placement, "priorityClassName": f"{node}-low"})
    until(lambda: place.state("a") == "Running")
    container = {"name": "c", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    spec = {
        "priorityClassName": f"{node}-high",
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    place.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "important"}, "spec": spec})
    until(lambda: place.run("a")["status"]["attempts"][0].get("outcome") == "Preempted")
    told = {c["type"]: c for c in place.run("a")["status"]["conditions"]}["Preempted"]
    assert told["status"] == "True"
    assert "PreemptionByScheduler" in told["message"]
    trainers.play = lambda run, attempt: Play()
    place.kubectl("delete", "pod", "important")
    place.until_phase("Succeeded")
    preempted_once(place, "a")
    assert only_once(trainers)


def test_an_evicted_run_goes_on(climb, trainers):
    trainers.play = lambda run, attempt: NEVER if (run.spec.rung, attempt) == ("b", 1) else Play()
    place = climb()
    until(lambda: place.state("b") == "Running")
    (pod,) = place.pods("b")
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{place.namespace}/pods/{name}/eviction"
    place.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    place.until_phase("Succeeded")
    preempted_once(place, "b")


def test_a_run_on_a_drained_node_goes_on_elsewhere(climb, trainers, own_node, control_plane):
    node, _ = own_node
    control_plane.kubectl("label", "node", node, "pool=drained", "--overwrite")
    (other,) = control_plane.add_nodes(1, gpus=1, prefix=f"{node}-b")
    control_plane.kubectl("cordon", other)
    control_plane.kubectl("label", "node", other, "pool=drained", "--overwrite")
    trainers.play = lambda run, attempt: NEVER if (run.spec.rung, attempt) == ("a", 1) else Play()
    place = climb(placement={"gpusPerNode": 1, "nodeSelector": {"pool": "drained"}})
    until(lambda: place.state("a") == "Running")
    control_plane.kubectl("uncordon", other)
    control_plane.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    place.until_phase("Succeeded")
    preempted_once(place, "a")
    control_plane.kubectl("delete", "node", other)


def test_a_run_whose_node_is_tainted_away_or_lost_goes_on_once_its_pod_is_known_to_be_gone(
    climb, trainers, own_node, control_plane
):
    node, _ = own_node
    control_plane.kubectl("label", "node", node, f"pool={node}", "--overwrite")
    trainers.play = lambda run, attempt: NEVER if (run.spec.rung, attempt) in (("a", 1), ("b", 1)) else Play()
    place = climb(placement={"gpusPerNode": 1, "nodeSelector": {"pool": node}})
    until(lambda: place.state("a") == "Running")
    control_plane.kubectl("taint", "node", node, "broken=true:NoExecute")
    until(lambda: place.run("a")["status"]["attempts"][0].get("outcome") == "Preempted")
    control_plane.kubectl("taint", "node", node, "broken-")
    until(lambda: place.state("b") == "Running")
    preempted_once(place, "a")
    control_plane.kubectl("delete", "node", node, "--wait=false")
    (other,) = control_plane.add_nodes(1, gpus=1, prefix=f"{node}-b")
    control_plane.kubectl("label", "node", other, f"pool={node}", "--overwrite")
    place.until_phase("Succeeded", seconds=240)  # pods of a lost node are collected after a minute
    preempted_once(place, "b")
    assert only_once(trainers)
    control_plane.kubectl("delete", "node", other)


# --- what is the run's fault says so, with what to do ----------------------------------------------------------------


def with_annotations(**annotations):
    said = {f"simulated/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {"podTemplate": {"metadata": {"annotations": said}}}


@pytest.mark.parametrize(
    ("play", "runtime", "reason", "remedy"),
    [
        (Play("Failed", exit_code=137, reason="OOMKilled"), {}, "OutOfMemory", "placement.memory"),
        (Play("Failed", exit_code=2, message="no optimizer adamx"), {}, "BadConfiguration", "no optimizer adamx"),
        (Play("Failed", exit_code=1, message="boom"), {}, "Crashed", "exit status 1: boom"),
        (Play("Failed", exit_code=128, reason="StartError", message="no trane"), {}, "BadConfiguration", "command"),
        (Play(records=False), {}, "RecordRefused", "without a valid record"),
        (None, with_annotations(waiting="InvalidImageName", message="bad"), "ImageUnavailable", "runtime.image"),
    ],
)
def test_a_failure_is_told_from_the_pods_own_evidence(climb, trainers, play, runtime, reason, remedy):
    if play is not None:
        rung_runs(trainers, "a", play)
    place = climb(runtime=runtime, retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["reason"] == reason
    assert remedy in failure["message"]
    succeeded = next(c for c in place.run("a")["status"]["conditions"] if c["type"] == "Succeeded")
    assert (succeeded["status"], succeeded["reason"]) == ("False", reason)


def test_a_run_that_no_node_can_take_fails_with_the_schedulers_own_sentence(climb):
    limits = {"pendingSeconds": 10}
    place = climb(placement={"gpusPerNode": 64}, limits=limits, retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["reason"] == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in failure["message"]
    assert not place.pods("a")


def test_a_pod_template_that_the_api_server_refuses_is_bad_configuration_in_its_own_words(climb):
    runtime = {"volumes": [{"name": "x", "mountPath": "/tmp", "emptyDirSize": "1Gi"}]}
    place = climb(runtime=runtime, retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["reason"] == "BadConfiguration"
    assert "must be unique" in failure["message"]


def test_a_run_that_falls_silent_is_ended_and_tried_again(climb, trainers):
    trainers.play = lambda run, attempt: NEVER if (run.spec.rung, attempt) == ("a", 1) else Play()
    place = climb(limits={"progressSeconds": 10})
    place.until_phase("Succeeded")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["reason"] == "NoProgress"
    assert [a["outcome"] for a in place.run("a")["status"]["attempts"]] == ["NoProgress", "Succeeded"]


# --- damage done by hand ---------------------------------------------------------------------------------------------


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
    how = ("patch", "scalingsweep", "climb", "--subresource=status")
    refused = running.plane.kubectl(
        *how, "--type=json", "-p", json.dumps(emptied), "-n", running.namespace, check=False
    )
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


# --- the place has no room -------------------------------------------------------------------------------------------


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
