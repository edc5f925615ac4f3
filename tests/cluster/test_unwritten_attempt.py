"""What the adapter knows of a first attempt that runs and of which nothing has been written down yet; pure."""

import pytest
from live_operator import a_sweep
from local_ladder import a_run

from sweep_operator.clusters import Ending, WorkloadState
from sweep_operator.clusters.kubernetes.cache import Caches
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.errors import NotFound
from sweep_operator.clusters.kubernetes.jobs import Images, job_document
from sweep_operator.clusters.kubernetes.ownership import run_document

BEGAN = "2026-01-01T00:00:00Z"


class Server:
    """Holds what `objects` holds, by the last part of its path."""

    def __init__(self):
        self.objects, self.patches = {}, []

    def get(self, path):
        name = path.rsplit("/", 1)[-1]
        if name not in self.objects:
            raise NotFound(404, "NotFound", f"{name} not found")
        return self.objects[name]

    def patch(self, path, patch):
        self.patches.append(patch)
        document = self.get(path)
        document["metadata"] |= patch["metadata"] | {"resourceVersion": "99"}
        return document


@pytest.fixture
def place():
    """An adapter, its server, a run of which nothing was written, and the Job and pod of its first attempt."""
    sweep = a_sweep()
    run = a_run(sweep)
    run = run.changed(metadata=run.metadata.changed(uid="r-1", resource_version="3"))
    server = Server()
    server.objects[run.metadata.name] = {"metadata": {"resourceVersion": "3"}}
    cluster = KubernetesCluster(server, Caches.empty(), None)
    job = job_document(sweep, run, 1, Images())
    job["metadata"] |= {"uid": "j-1", "resourceVersion": "5", "creationTimestamp": BEGAN}
    job["status"] = {"active": 1}
    pod = {
        "metadata": {
            "name": job["metadata"]["name"] + "-x",
            "namespace": job["metadata"]["namespace"],
            "uid": "p-1",
            "resourceVersion": "6",
            "creationTimestamp": BEGAN,
            "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": "j-1"}
                | {"controller": True}
            ],
        },
        "spec": {"nodeName": "gpu-0"},
        "status": {
            "phase": "Running",
            "startTime": BEGAN,
            "containerStatuses": [{"name": "trainer", "restartCount": 0, "state": {"running": {"startedAt": BEGAN}}}],
        },
    }
    cluster.caches.jobs.put(job)
    cluster.caches.pods.put(pod)
    return cluster, server, run, job, pod


def test_a_job_deleted_by_hand_is_over_only_once_its_pods_are(place):
    cluster, _, run, job, pod = place
    assert cluster.workload(run, 1).state is WorkloadState.RUNNING
    cluster.caches.jobs.remove(job)
    assert cluster.workload(run, 1).state is WorkloadState.RUNNING, "its pod is still there"
    cluster.caches.pods.remove(pod)
    over = cluster.workload(run, 1)
    assert (over.state, over.ending) == (WorkloadState.ENDED, Ending.PREEMPTED)
    assert "deleted by hand; attempt 1 is not made again" in over.message


def test_a_job_that_lost_its_labels_is_found_by_name_and_labelled_again(place):
    cluster, server, run, job, _ = place
    assert cluster.workload(run, 1).state is WorkloadState.RUNNING
    cluster.caches.jobs.remove(job)
    bare = {**job, "metadata": job["metadata"] | {"labels": {}, "resourceVersion": "7"}}
    server.objects[job["metadata"]["name"]] = bare
    again = cluster.workload(run, 1)
    assert (again.state, again.reference.uid) == (WorkloadState.RUNNING, "j-1")
    assert server.patches[0]["metadata"]["labels"] == job["metadata"]["labels"]


def test_what_was_heard_of_a_run_goes_with_it(place):
    cluster, _, run, _, _ = place
    document = run_document(run)
    document["metadata"] |= {"uid": run.metadata.uid, "resourceVersion": run.metadata.resource_version}
    cluster.caches.runs.put(document)
    assert cluster.workload(run, 1).state is WorkloadState.RUNNING
    assert list(cluster._heard) == [run.metadata.uid]
    document["metadata"] |= {"resourceVersion": "9"}
    cluster.caches.runs.remove(document)
    assert not cluster._heard
