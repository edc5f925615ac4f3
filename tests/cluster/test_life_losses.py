"""What the machine does to a run is not its fault, and what is says so, with what to do; on a real API server."""

import json

import pytest
from life import NEVER, only_once, preempted_once, rung_runs
from live_operator import until
from standin_trainers import Play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def own_node(control_plane, simulated_nodes, namespace):
    """A node with one GPU that only this test's pods use, and how a sweep asks for it."""
    (name,) = control_plane.add_nodes(1, gpus=1, prefix=namespace[-12:].strip("-"))
    yield name, {"gpusPerNode": 1, "nodeSelector": {"kubernetes.io/hostname": name}}
    control_plane.kubectl("delete", "node", name, "--ignore-not-found")


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
    # the pod's own word, or, where it was gone before it was read, what its Job kept of it
    assert "PreemptionByScheduler" in told["message"] or "DisruptionTarget" in told["message"]
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
    place = climb(placement={"gpusPerNode": 16}, limits=limits, retry={"limit": 0, "maxFailedRuns": 0})
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
