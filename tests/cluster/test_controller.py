"""When a pass is run and what follows from how it ends: routing of changes, workers, and objects of a newer version."""

import json
import logging
import threading
import time
from datetime import UTC, datetime

import pytest

from sweep_operator.clusters.kubernetes.cache import Caches, UnreadableError
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.errors import ApiError, ConflictError, NotLeading, TransportError
from sweep_operator.clusters.kubernetes.resources import RUN_LABEL
from sweep_operator.clusters.port import Conflict
from sweep_operator.controller.measures import Measures
from sweep_operator.controller.passes import Passes
from sweep_operator.controller.queue import Key, WorkQueue
from sweep_operator.controller.routing import GATHER_SECONDS, PROGRESS_SECONDS, SETTLE_SECONDS, Router
from sweep_operator.controller.workers import Workers
from sweep_operator.policy import Policy
from sweep_operator.reconcile import Progressed

SWEEP = Key("ScalingSweep", "default", "demo")
RUN = Key("ScalingRun", "default", "demo-a-1")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


def taken(queue):
    """The keys that could be worked on now."""
    keys = []
    while len(queue):
        keys.append(queue.get())
        queue.done(keys[-1])
    return keys


def settle(queue):
    """The same, once what was due is among them, which a queue that is asked for nothing does not notice."""
    nobody = Key("ScalingSweep", "default", "nobody")
    queue.add(nobody)
    return [key for key in taken(queue) if key != nobody]


# --- which change wakes which key ------------------------------------------------------------------------------------


class World:
    """Stores filled by hand, each change with the next version."""

    def __init__(self, queue):
        self.caches = Caches.empty()
        self.active = True
        self.router = Router(self.caches, queue, lambda: self.active)
        self.version = 0

    def _put(self, store, document):
        self.version += 1
        document["metadata"] |= {"namespace": "default", "resourceVersion": str(self.version)}
        store.put(json.loads(json.dumps(document)))
        return document

    def sweep(self, generation=1, status=None):
        return self._put(
            self.caches.sweeps,
            {
                "apiVersion": "scalingsweep.dev/v1alpha1",
                "kind": "ScalingSweep",
                "metadata": {"name": "demo", "uid": "s-1", "generation": generation},
                "spec": {"suspend": generation > 1},
                "status": status or {},
            },
        )

    def run(self, status=None, **metadata):
        owner = {"kind": "ScalingSweep", "name": "demo", "uid": "s-1", "controller": True}
        return self._put(
            self.caches.runs,
            {
                "apiVersion": "scalingsweep.dev/v1alpha1",
                "kind": "ScalingRun",
                "metadata": {"name": "demo-a-1", "uid": "r-1", "ownerReferences": [owner], **metadata},
                "spec": {},
                "status": status or {},
            },
        )

    def workload(self, store, status=None, name="demo-a-1-1", **labels):
        metadata = {"name": name, "uid": f"u-{name}", "labels": labels}
        return self._put(store, {"metadata": metadata, "spec": {}, "status": status or {}})


SUCCEEDED = {"state": "Succeeded", "conditions": [{"type": "Succeeded", "status": "True", "reason": "Accepted"}]}


@pytest.fixture
def world(queue):
    return World(queue)


def test_a_sweeps_wish_reaches_its_runs_and_its_status_does_not(world, queue):
    world.sweep()
    world.run()
    taken(queue)
    world.sweep(generation=2)
    assert set(taken(queue)) == {SWEEP, RUN}
    world.sweep(generation=2, status={"phase": "Running"})
    assert taken(queue) == [SWEEP]
    over = {"type": "Finished", "status": "True", "reason": "OverBudget"}
    world.sweep(generation=2, status={"conditions": [over]})
    assert set(taken(queue)) == {SWEEP, RUN}, "the end of a budget is a wish about the runs"


def test_a_spec_that_is_accepted_unchanged_wakes_the_attempts_that_wait_for_it(world, queue):
    """As under an operator that was started again with another policy."""
    refused = {"type": "Accepted", "status": "False", "reason": "PolicyViolation"}
    world.sweep(status={"conditions": [refused]})
    world.run()
    taken(queue)
    world.sweep(status={"conditions": [refused], "phase": "Refused"})
    assert taken(queue) == [SWEEP]
    world.sweep(status={"conditions": [{"type": "Accepted", "status": "True", "reason": "Valid"}]})
    assert set(taken(queue)) == {SWEEP, RUN}


def test_a_run_that_changed_wakes_itself_and_soon_its_sweep_whatever_its_labels_say(world, queue, clock):
    world.sweep()
    taken(queue)
    world.run(labels={"scalingsweep.dev/sweep": "another"})
    assert taken(queue) == [RUN]
    world.run({"records": [{"attempt": 1, "records": []}]})
    assert taken(queue) == [RUN]
    clock.now += SETTLE_SECONDS
    assert settle(queue) == [], "what happens to a run short of its end can wait"
    clock.now += GATHER_SECONDS
    assert settle(queue) == [SWEEP]
    world.run(SUCCEEDED)
    clock.now += SETTLE_SECONDS
    assert settle(queue) == [RUN, SWEEP], "an end cannot"


def test_the_end_of_a_run_wakes_its_sweep_at_once_where_no_other_goes_on(world, queue, clock):
    world.sweep()
    for name in ("demo-a-1", "demo-a-2"):
        world.run(name=name, uid=name)
    clock.now += GATHER_SECONDS
    settle(queue)
    world.run(SUCCEEDED, name="demo-a-1", uid="demo-a-1")
    clock.now += SETTLE_SECONDS
    assert SWEEP not in settle(queue)
    world.run(SUCCEEDED, name="demo-a-2", uid="demo-a-2")
    clock.now += SETTLE_SECONDS
    assert SWEEP in settle(queue)


def test_progress_alone_wakes_both_after_a_while_and_once(world, queue, clock):
    world.sweep()
    world.run({"state": "Running"})
    clock.now += SETTLE_SECONDS
    settle(queue)
    for step in range(50):
        world.run({"state": "Running", "progress": {"step": step}})
        clock.now += 0.1
    assert taken(queue) == []
    clock.now += PROGRESS_SECONDS
    queue.add(Key("ScalingSweep", "default", "other"))
    assert set(taken(queue)) == {RUN, SWEEP, Key("ScalingSweep", "default", "other")}


def test_jobs_and_pods_wake_their_run_soon_and_at_once_when_they_end_or_go(world, queue, clock):
    ends = {"conditions": [{"type": "Complete", "status": "True"}]}, {"phase": "Succeeded"}
    for store, end in zip((world.caches.jobs, world.caches.pods), ends, strict=True):
        for _ in range(5):
            document = world.workload(store, **{RUN_LABEL: "demo-a-1"})
        assert settle(queue) == [], "a start comes as many changes"
        clock.now += GATHER_SECONDS
        assert settle(queue) == [RUN]
        document = world.workload(store, end, **{RUN_LABEL: "demo-a-1"})
        assert taken(queue) == [RUN]
        store.remove({"metadata": {**document["metadata"], "resourceVersion": "999"}})
        assert taken(queue) == [RUN]


def test_a_pod_that_ended_before_its_job_did_ends_nothing_by_itself(world, queue, clock):
    labels = {RUN_LABEL: "demo-a-1"}
    world.workload(world.caches.jobs, **labels)
    clock.now += GATHER_SECONDS
    settle(queue)
    owner = {"kind": "Job", "name": "demo-a-1-1", "uid": "u-demo-a-1-1", "controller": True}
    pod = {"metadata": {"name": "demo-a-1-1-x", "uid": "p-1", "labels": labels, "ownerReferences": [owner]}}
    world._put(world.caches.pods, {**pod, "status": {"phase": "Succeeded"}})
    assert taken(queue) == []
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    world.workload(world.caches.jobs, complete, **labels)
    assert taken(queue) == [RUN]
    world._put(world.caches.pods, {**pod, "status": {"phase": "Succeeded", "message": "told later"}})
    assert taken(queue) == [RUN], "after its job it may be what was missing"


def test_a_deleted_run_or_sweep_is_looked_at_too(world, queue, clock):
    sweep, run = world.sweep(), world.run()
    clock.now += SETTLE_SECONDS
    settle(queue)
    world.caches.runs.remove({"metadata": {**run["metadata"], "resourceVersion": "998"}})
    clock.now += SETTLE_SECONDS
    assert settle(queue) == [RUN, SWEEP]
    world.caches.sweeps.remove({"metadata": {**sweep["metadata"], "resourceVersion": "999"}})
    assert taken(queue) == [SWEEP]


def test_stores_that_learn_at_the_same_time_do_not_wait_for_each_other(world, queue):
    world.sweep()
    world.run()

    def learn(store, document, kind):
        for number in range(1000, 2000):
            document["metadata"]["resourceVersion"] = str(number)
            document["metadata"]["generation"] = number
            store.put(json.loads(json.dumps({"spec": {"number": number}, "kind": kind, **document})))

    head = {"apiVersion": "scalingsweep.dev/v1alpha1"}
    owner = {"kind": "ScalingSweep", "name": "demo", "uid": "s-1", "controller": True}
    sweep = {**head, "metadata": {"name": "demo", "namespace": "default", "uid": "s-1"}}
    run = {**head, "metadata": {"name": "demo-a-1", "namespace": "default", "uid": "r-1", "ownerReferences": [owner]}}
    threads = [
        threading.Thread(target=learn, args=(world.caches.sweeps, sweep, "ScalingSweep"), daemon=True),
        threading.Thread(target=learn, args=(world.caches.runs, run, "ScalingRun"), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_standby_queues_nothing_and_a_new_leader_everything(world, queue, clock):
    world.active = False
    world.sweep()
    world.run()
    assert taken(queue) == []
    world.router.everything()
    assert taken(queue) == [SWEEP, RUN]
    world.router.everything(within_seconds=60)
    assert (len(queue), queue.delayed) == (0, 2)


# --- how a pass may end ----------------------------------------------------------------------------------------------


@pytest.fixture
def workers(queue):
    """Run one pass over the run's key on this thread; returns how it ended."""

    def attempt(one_pass):
        return Workers(queue, one_pass, Measures(), 1)._attempt(RUN)

    return attempt


def raising(error):
    def one_pass(key):
        raise error

    return one_pass


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Conflict("changed"), "Conflict"),
        (ConflictError(409, "Conflict"), "Conflict"),
        (ApiError(500, "InternalError"), "Api500"),
        (TransportError("cut"), "Unreachable"),
        (OSError("disk"), "Unreachable"),
        (KeyError("bug"), "Error"),
    ],
)
def test_a_pass_that_failed_is_retried_ever_more_slowly(workers, queue, error, outcome):
    pauses = []
    for _ in range(8):
        assert workers(raising(error)) == outcome
        pauses.append(queue._due.pop(RUN) - queue._clock())
    assert all(late > early for early, late in zip(pauses, pauses[2:], strict=False))


def test_success_says_when_to_look_again(workers, queue):
    assert workers(lambda key: Progressed(changed=False)) == "Settled"
    assert (len(queue), queue.delayed) == (0, 0)
    assert workers(lambda key: Progressed(changed=False, requeue_seconds=7.0)) == "Settled"
    assert queue._due[RUN] == queue._clock() + 7.0
    assert workers(lambda key: Progressed(changed=True)) == "Changed"
    assert taken(queue) == [RUN]


def test_a_key_that_never_comes_to_rest_is_slowed_down(queue, clock):
    workers = Workers(queue, lambda key: Progressed(changed=True), Measures(), 1)
    assert [workers._attempt(RUN) for _ in range(50)] == ["Changed"] * 50
    assert taken(queue) == [RUN]
    assert [workers._attempt(RUN) for _ in range(3)] == ["Restless"] * 3
    assert (len(queue), queue.delayed) == (0, 1)
    workers._pass = lambda key: Progressed(changed=False)
    assert workers._attempt(RUN) == "Settled"
    workers._pass = lambda key: Progressed(changed=True)
    assert workers._attempt(RUN) == "Changed"


def test_a_write_that_the_lease_forbade_is_dropped_since_the_process_is_ending(workers, queue):
    assert workers(raising(NotLeading("lost"))) == "NotLeading"
    assert (len(queue), queue.delayed) == (0, 0)


def test_one_keys_bug_stops_no_other_and_is_logged_with_its_traceback_and_counted(caplog):
    queue, measures, seen = WorkQueue(), Measures(), []
    everybody = threading.Event()

    def one_pass(key):
        if key.name == "bad":
            raise ZeroDivisionError("a bug")
        seen.append(key.name)
        if len(seen) == 20:
            everybody.set()
        return Progressed(changed=False)

    workers = Workers(queue, one_pass, measures, 2)
    queue.add(Key("ScalingRun", "default", "bad"))
    for number in range(20):
        queue.add(Key("ScalingRun", "default", f"good-{number}"))
    with caplog.at_level(logging.ERROR):
        workers.start()
        assert everybody.wait(10)
        assert workers.alive
        queue.close()
        assert workers.join(10)
    entry = next(record for record in caplog.records if record.exc_info)
    assert "ScalingRun default/bad failed unexpectedly" in entry.getMessage()
    assert "ZeroDivisionError" in logging.Formatter().format(entry)
    assert measures.outcomes["ScalingRun", "Error"] >= 1
    assert measures.outcomes["ScalingRun", "Settled"] == 20


def test_the_longest_pass_is_known_while_it_goes_on():
    queue, release, began = WorkQueue(), threading.Event(), threading.Event()

    def one_pass(key):
        began.set()
        release.wait(10)
        return Progressed(changed=False)

    workers = Workers(queue, one_pass, Measures(), 1)
    workers.start()
    queue.add(RUN)
    assert began.wait(10)
    time.sleep(0.01)
    seconds, key = workers.longest_pass
    assert key == RUN
    assert seconds > 0
    assert not workers.join(0.01)
    release.set()
    queue.close()
    assert workers.join(10)
    assert workers.longest_pass == (0.0, None)


# --- objects of a newer version --------------------------------------------------------------------------------------


def test_a_status_with_fields_of_a_newer_version_is_left_alone_and_that_is_told(world, queue):
    from live_operator import manifest

    document = manifest()
    document["metadata"] = {"name": "demo", "uid": "s-1", "namespace": "default", "resourceVersion": "5"}
    document["status"] = {"phase": "Running", "rungs": [{"name": "a", "runs": [], "entangled": True}]}
    world.caches.sweeps.put(document)
    told = []

    class NoWrites:
        def __getattr__(self, verb):
            raise AssertionError(f"{verb} must not be asked of the API server")

    cluster = KubernetesCluster(NoWrites(), world.caches, None)
    passes = Passes(cluster, Policy(), lambda subject, event: told.append((subject, event)), lambda: datetime.now(UTC))
    with pytest.raises(UnreadableError, match=r"ScalingSweep default/demo: status.rungs.0.entangled: Extra inputs"):
        passes(SWEEP)
    [(subject, event)] = told
    assert (subject.name, subject.uid, event.reason, event.warning) == ("demo", "s-1", "Unreadable", True)
    assert "left alone until an operator that knows it takes over" in event.message
    assert Workers(queue, passes, Measures(), 1)._attempt(SWEEP) == "Unreadable"


def test_an_unreadable_run_is_told_at_its_sweep(world):
    world.run({"entangled": True}, labels={"scalingsweep.dev/sweep": "demo"})
    world.sweep()
    told = []
    cluster = KubernetesCluster(None, world.caches, None)
    cluster.caches.sweeps.read = lambda known: None  # the sweep itself is of no interest here
    with pytest.raises(UnreadableError, match="ScalingRun default/demo-a-1"):
        Passes(cluster, Policy(), lambda subject, event: told.append(subject))(RUN)
    assert (told[0].name, told[0].uid) == ("demo", "s-1")


def test_readings_are_kept_by_version_and_bounded(world):
    from live_operator import manifest

    store = world.caches.sweeps
    store._kept = 2
    for number in (1, 2, 3):
        document = manifest()
        document["metadata"] |= {"uid": "s", "namespace": "default", "resourceVersion": str(number)}
        store.put(document)
        known = store.get("default", "climb")
        assert store.read(known) is store.read(known)
    assert len(store._read) == 2
