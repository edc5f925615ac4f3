"""What became of an attempt, from every kind of evidence that Kubernetes leaves; pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from live_operator import a_sweep
from local_ladder import a_run
from simulated_cluster import record_of

from sweep_analysis.record import Failure, FailureReason, Progress, RecordSet
from sweep_operator.api import WorkloadReference
from sweep_operator.clusters import Cause, Ending, WorkloadState
from sweep_operator.clusters.kubernetes.evidence import read_cause, workload_of, write_cause
from sweep_operator.clusters.kubernetes.jobs import Images, job_document, job_name
from sweep_operator.clusters.kubernetes.views import (
    ConditionView,
    ContainerView,
    Identity,
    PodView,
    job_view,
)

NOW = datetime(2026, 1, 1, 1, 0, 0, tzinfo=UTC)
BEGAN, ENDED = "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"


def the_run(**status):
    run = a_run(a_sweep(placement={"gpusPerNode": 4}))
    run = run.changed(metadata=run.metadata.changed(uid="r-1"))
    placed = run.spec.changed(placement=run.spec.placement.changed(gpus_per_node=4))
    return run.changed(spec=placed, status=run.status.changed(attempt=1, **status))


def a_job(*conditions, **fields):
    document = job_document(a_sweep(), the_run(), 1, Images())
    document["metadata"]["uid"] = "j-1"
    seen = job_view(document)
    views = tuple(ConditionView(kind, "True", reason, message, ENDED) for kind, reason, message in conditions)
    return replace(seen, started_at=BEGAN, conditions=views, **fields)


def a_pod(phase="Running", *, deleted="", conditions=(), reason="", trainer=True, exit_code=None, why="", said=""):
    """A pod on gpu-0; `why` and `said` are reason and message of its trainer's container."""
    identity = Identity("default", "p-1", "p-1", 1, "j-1", "", "", "", 1, BEGAN, deleted)
    ended = phase in ("Succeeded", "Failed")
    container = ContainerView(
        name="trainer",
        state="terminated" if ended else "waiting" if phase == "Pending" else "running",
        reason=why,
        message=said,
        exit_code=exit_code if exit_code is not None else {"Succeeded": 0, "Failed": 1}.get(phase),
        signal=None,
        started_at="" if phase == "Pending" else BEGAN,
        finished_at=ENDED if ended else "",
        restarts=0,
    )
    views = tuple(ConditionView(*c, since=ENDED) for c in conditions)
    return PodView(identity, phase, reason, "", "gpu-0", BEGAN, views, (container,) if trainer else ())


def seen(job, *pods, run=None, now=NOW):
    return workload_of(run or the_run(), 1, job, pods, now)


def failed(message="", reason="PodFailurePolicy"):
    return a_job(("Failed", reason, message))


# --- before an end ---------------------------------------------------------------------------------------------------


def test_what_was_never_seen_and_is_not_there_is_absent():
    assert seen(None).state is WorkloadState.ABSENT


def test_a_job_without_a_pod_waits_and_says_where_to_look():
    waiting = seen(a_job())
    assert (waiting.state, waiting.waiting) == (WorkloadState.PENDING, "NoPod")
    assert "kubectl describe job" in waiting.message


def test_a_pod_without_a_node_waits_with_the_schedulers_own_sentence():
    sentence = "0/8 nodes are available: 8 Insufficient nvidia.com/gpu."
    pod = a_pod("Pending", trainer=False, conditions=[("PodScheduled", "False", "Unschedulable", sentence)])
    waiting = seen(a_job(active=1), pod)
    assert (waiting.waiting, waiting.message, waiting.reason) == ("Unschedulable", sentence, None)


@pytest.mark.parametrize(
    ("reason", "age", "failure"),
    [
        ("ImagePullBackOff", 30, None),
        ("ImagePullBackOff", 90, FailureReason.IMAGE_UNAVAILABLE),
        ("ErrImagePull", 90, FailureReason.IMAGE_UNAVAILABLE),
        ("InvalidImageName", 1, FailureReason.IMAGE_UNAVAILABLE),
        ("ErrImageNeverPull", 1, FailureReason.IMAGE_UNAVAILABLE),
        ("CreateContainerConfigError", 30, None),
        ("CreateContainerConfigError", 90, FailureReason.BAD_CONFIGURATION),
        ("ContainerCreating", 600, None),
        ("PodInitializing", 600, None),
    ],
)
def test_what_a_container_waits_for_is_hopeless_after_some_patience_or_at_once(reason, age, failure):
    pod = a_pod("Pending", why=reason, said="it is told why")
    waiting = seen(a_job(active=1), pod, now=datetime.fromisoformat(BEGAN) + timedelta(seconds=age))
    assert (waiting.state, waiting.reason) == (WorkloadState.PENDING, failure)
    if failure:
        assert "check runtime." in waiting.message


def test_a_running_pod_is_counted_by_its_gpus_from_when_its_trainer_began():
    running = seen(a_job(active=1), a_pod())
    assert running.state is WorkloadState.RUNNING
    assert running.gpu_seconds == 4 * 3600
    assert (running.node, running.reference) == (
        "gpu-0",
        WorkloadReference(kind="Job", name=job_name(the_run(), 1), uid="j-1"),
    )


def test_a_running_or_ended_attempt_says_when_its_pod_was_scheduled():
    scheduled = [("PodScheduled", "True", "", "")]
    assert seen(a_job(active=1), a_pod(conditions=scheduled)).scheduled_at == ENDED  # a condition's own time
    over = seen(a_job(("Complete", "", "")), a_pod("Succeeded", conditions=scheduled))
    assert (over.state, over.scheduled_at) == (WorkloadState.ENDED, ENDED)
    assert seen(a_job(active=1), a_pod()).scheduled_at is None
    assert seen(a_job(active=1), a_pod(conditions=[("PodScheduled", "False", "", "")])).scheduled_at is None


def test_a_pod_that_still_goes_keeps_the_attempt_open_whatever_its_job_says():
    for job in (a_job(suspended=True), failed("exit code 1"), None):
        lingering = seen(job, a_pod(deleted=ENDED))
        assert lingering.state is WorkloadState.RUNNING
        assert "out-of-service" in lingering.message


def test_a_suspended_job_is_over_only_when_its_controller_counts_no_pod_any_more():
    assert seen(a_job(suspended=True, active=1)).state is WorkloadState.PENDING
    assert seen(a_job(suspended=True, terminating=1)).state is WorkloadState.PENDING
    assert seen(a_job(suspended=True, stopped_for="Paused: x")).state is WorkloadState.ENDED


# --- the machine's fault: not counted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason",
    [
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "TerminationByKubelet",
        "DeletionByPodGC",
    ],
)
def test_a_disruption_is_preempted_whatever_the_exit_status(reason):
    pod = a_pod("Failed", exit_code=137, conditions=[("DisruptionTarget", "True", reason, "somebody needed room")])
    ended = seen(failed("Pod default/p has condition DisruptionTarget matching FailJob rule at index 0"), pod)
    assert (ended.state, ended.ending, ended.reason) == (WorkloadState.ENDED, Ending.PREEMPTED, None)
    assert reason in ended.message
    assert "gpu-0" in ended.message


def test_a_disruption_is_known_from_the_job_alone_when_the_pod_is_gone():
    ended = seen(failed("Pod default/p has condition DisruptionTarget matching FailJob rule at index 0"))
    assert ended.ending is Ending.PREEMPTED


@pytest.mark.parametrize("reason", ["Evicted", "NodeLost", "Shutdown", "UnexpectedAdmissionError"])
def test_a_pod_that_the_kubelet_ended_or_refused_is_preempted(reason):
    assert (
        seen(failed("", "BackoffLimitExceeded"), a_pod("Failed", reason=reason, trainer=False)).ending
        is Ending.PREEMPTED
    )
    assert seen(failed("exit code 137"), a_pod("Failed", reason=reason, exit_code=137)).ending is Ending.PREEMPTED


def test_a_pod_that_somebody_deleted_is_preempted():
    assert seen(failed("exit code 143"), a_pod("Failed", deleted=ENDED, exit_code=143)).ending is Ending.PREEMPTED
    assert seen(failed("exit code 137"), a_pod("Failed", deleted=ENDED, exit_code=137)).ending is Ending.PREEMPTED
    assert seen(failed("Container trainer for pod x failed with exit code 143 …")).ending is Ending.PREEMPTED


def test_a_trainer_that_somebody_else_asked_to_stop_is_preempted():
    assert seen(failed("exit code 75 …"), a_pod("Failed", exit_code=75)).ending is Ending.PREEMPTED
    assert seen(failed("Container trainer for pod x failed with exit code 75 matching …")).ending is Ending.PREEMPTED


def test_a_pod_that_went_without_an_exit_status_is_preempted():
    assert (
        seen(failed("Job has reached the specified backoff limit", "BackoffLimitExceeded")).ending is Ending.PREEMPTED
    )


def test_a_job_that_was_seen_and_is_gone_is_preempted_and_not_made_again():
    reference = WorkloadReference(kind="Job", name="j", uid="j-1")
    progress = Progress(attempt=1, step=5, steps=10, tokens=5, last_updated=BEGAN)
    record = record_of(the_run(), 1, 270_336, 3.0, NOW)
    for status in (
        {"workload": reference},
        {"progress": progress},
        {"records": (RecordSet(attempt=1, records=(record,)),)},
    ):
        gone = seen(None, run=the_run(**status))
        assert (gone.state, gone.ending) == (WorkloadState.ENDED, Ending.PREEMPTED)
        assert "deleted by hand" in gone.message


def test_a_job_that_somebody_else_suspended_is_preempted():
    assert seen(a_job(suspended=True)).ending is Ending.PREEMPTED


# --- our own request -------------------------------------------------------------------------------------------------


def test_what_we_asked_to_end_is_interrupted_or_the_failure_that_we_wrote_on_it():
    paused = seen(a_job(suspended=True, stopped_for="Paused: the sweep wants it to pause"))
    assert (paused.ending, paused.reason) == (Ending.INTERRUPTED, None)
    silent = seen(a_job(suspended=True, stopped_for="NoProgress: no step in 100 s"), a_pod("Failed", exit_code=75))
    assert (silent.ending, silent.reason) == (Ending.FAILED, FailureReason.NO_PROGRESS)
    assert silent.message == "no step in 100 s"


def test_what_finished_before_it_could_be_ended_is_complete():
    job = a_job(("Complete", "", ""), suspended=True, stopped_for="Paused: x")
    assert seen(job, a_pod("Succeeded")).ending is Ending.COMPLETED


@pytest.mark.parametrize(
    "cause", [Cause(), Cause(FailureReason.UNSCHEDULABLE, "0/8 nodes: no GPU"), Cause(None, "a: b")]
)
def test_a_cause_is_read_as_it_was_written(cause):
    assert read_cause(write_cause(cause)) == cause


def test_a_cause_of_a_newer_version_counts_as_no_fault():
    assert read_cause("SomethingNew: text") == Cause(None, "text")


# --- the run's fault: counted ----------------------------------------------------------------------------------------


def test_out_of_memory_is_told_from_the_container_and_says_what_to_do():
    ended = seen(failed("exit code 137"), a_pod("Failed", exit_code=137, why="OOMKilled"))
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.OUT_OF_MEMORY)
    assert "placement.memory" in ended.message


def test_a_sigkill_without_evidence_is_said_to_be_memory_most_likely():
    ended = seen(failed("Container trainer for pod x failed with exit code 137 matching FailJob rule at index 3"))
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.KILLED)
    assert "memory" in ended.message


def test_exit_status_2_is_bad_configuration_with_or_without_the_pod():
    for pods in ((a_pod("Failed", exit_code=2, said="trace\nno such optimizer: adamx"),), ()):
        ended = seen(failed("Container trainer for pod x failed with exit code 2 matching …"), *pods)
        assert ended.reason is FailureReason.BAD_CONFIGURATION


def test_a_command_that_cannot_be_started_is_bad_configuration():
    pod = a_pod("Failed", exit_code=128, why="StartError", said='exec: "trane": not found')
    ended = seen(failed("exit code 128"), pod)
    assert ended.reason is FailureReason.BAD_CONFIGURATION
    assert "trane" in ended.message
    assert "runtime.command" in ended.message


def test_a_failing_script_is_told_with_its_exit_status_and_last_line():
    pod = a_pod("Failed", exit_code=3, said="Traceback …\nValueError: bad shard 7\n")
    ended = seen(failed("exit code 3"), pod)
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.CRASHED)
    assert ended.message == "exit status 3: ValueError: bad shard 7"


def test_a_failure_in_the_trainers_own_words_is_believed_before_its_exit_status():
    failure = Failure(attempt=1, reason=FailureReason.DIVERGED, message="loss is NaN at step 12")
    run = the_run(records=(RecordSet(attempt=1, records=(), failure=failure),))
    for pods in ((a_pod("Failed", exit_code=3),), ()):
        ended = seen(failed("Container trainer for pod x failed with exit code 3 …"), *pods, run=run)
        assert (ended.reason, ended.message) == (FailureReason.DIVERGED, "loss is NaN at step 12")


def test_no_word_of_the_trainers_turns_the_machines_fault_into_its_own():
    failure = Failure(attempt=1, reason=FailureReason.CRASHED, message="connection reset")
    run = the_run(records=(RecordSet(attempt=1, records=(), failure=failure),))
    pod = a_pod("Failed", conditions=[("DisruptionTarget", "True", "EvictionByEvictionAPI", "")])
    assert seen(failed("DisruptionTarget"), pod, run=run).ending is Ending.PREEMPTED


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_complete_job_is_completed_with_its_containers_times():
    ended = seen(a_job(("Complete", "CompletionsReached", "")), a_pod("Succeeded"))
    assert (ended.state, ended.ending) == (WorkloadState.ENDED, Ending.COMPLETED)
    assert (ended.started_at, ended.ended_at, ended.gpu_seconds) == (BEGAN, ENDED, 4 * 600)


def test_without_its_pod_a_complete_job_tells_its_own_times():
    ended = seen(a_job(("Complete", "", ""), completed_at=ENDED))
    assert (ended.started_at, ended.ended_at, ended.gpu_seconds) == (BEGAN, ENDED, 4 * 600)


def test_records_in_a_termination_message_are_taken_up():
    run = the_run()
    left = RecordSet(attempt=1, records=(record_of(run, 1, 270_336, 3.1, NOW),))
    text = left.model_dump_json(by_alias=True, exclude_none=True)
    (found,) = seen(a_job(("Complete", "", "")), a_pod("Succeeded", said=text), run=run).left
    assert [record.loss for record in found.records] == [3.1]
