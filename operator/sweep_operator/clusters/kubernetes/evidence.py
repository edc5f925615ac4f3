"""What became of an attempt, told from its Job and its pods alone: a pure function from what is seen to a `Workload`.

Owns the table from Kubernetes' words to ours: what is the machine's fault (preemption, eviction, drain, a lost node,
a Job taken away) and is not counted, what is the run's (memory, image, configuration, a script that fails), and what to
do about each. Two witnesses are heard: the pod, which knows most and goes first, and the Job's own condition, whose
failure policy has a rule for each kind of end so that it still says which when the pod is gone.

An attempt has ended when its Job is finished, suspended or gone and no pod of it may still run; not before, since a
second attempt beside a living first would write into the same folder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sweep_analysis.record import ExitStatus, Failure, FailureReason, RecordSet, Refused
from sweep_operator.api import ScalingRun, WorkloadReference
from sweep_operator.clusters import ABSENT, Cause, Ending, Workload, WorkloadState
from sweep_operator.clusters.kubernetes.jobs import TRAINER
from sweep_operator.clusters.kubernetes.termination import Refusal, parse_termination_message
from sweep_operator.clusters.kubernetes.views import ContainerView, JobView, PodView

PATIENCE_SECONDS = 60.0
"""For how long an image or a configuration that is missing may still turn up."""
KILLED, TERMINATED = 137, 143
"""Exit statuses of a process that SIGKILL or SIGTERM ended."""

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}
_WRONG_IMAGE = {"InvalidImageName", "ErrImageNeverPull"}
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "CreatePodSandboxError"}
_NEVER_STARTED = {"StartError", "ContainerCannotRun", "RunContainerError"}


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, and why."""

    ending: Ending
    reason: FailureReason | None = None
    message: str = ""


def workload_of(
    run: ScalingRun,
    attempt: int,
    job: JobView | None,
    pods: Sequence[PodView],
    now: datetime,
    patience_seconds: float = PATIENCE_SECONDS,
    ran: bool = False,
) -> Workload:
    """What is known of the attempt. `pods` are those of this run's attempt, `job` is its Job, if it is there.

    `ran` says that it was seen to run, though nobody has written that down yet.
    """
    living = [pod for pod in pods if not pod.ended]
    if job is None and not living:
        if not ran and not _was_seen(run, attempt):
            return ABSENT
        gone = f"its Job was deleted by hand; attempt {attempt} is not made again"
        return _ended(run, None, pods, End(Ending.PREEMPTED, None, gone), now)
    if not living and (job is None or job.finished or (job.suspended and not job.active and not job.terminating)):
        assert job is not None, "without a Job and without living pods it is gone"
        return _ended(run, job, pods, _end_of(run, attempt, job, pods), now)
    if job is not None and not pods and not job.active and not job.terminating:
        return _waiting(job, "NoPod", f"no pod yet; kubectl describe job {job.identity.name} tells what is in its way")
    started = min((at for pod in pods if (at := _started(pod))), default="")
    if not started:
        return _pending(job, living, now, patience_seconds)
    node = next((pod.node for pod in pods if pod.node), "")
    return Workload(
        WorkloadState.RUNNING,
        message=_lingering(living),
        created_at=_created(job),
        scheduled_at=_scheduled(pods),
        started_at=started,
        gpu_seconds=_devices(run) * max(0.0, (now - _time(started)).total_seconds()),
        node=node,
        reference=_reference(job),
    )


def _was_seen(run: ScalingRun, attempt: int) -> bool:
    """Whether anything tells that this attempt's Job was there: the reference to it, or a word of its trainer's."""
    status = run.status
    reported = any(reported.attempt == attempt for reported in status.records)
    progressed = status.progress is not None and status.progress.attempt == attempt
    return reported or progressed or (status.attempt == attempt and status.workload is not None)


# --- before it runs --------------------------------------------------------------------------------------------------


def _pending(job: JobView | None, living: Sequence[PodView], now: datetime, patience: float) -> Workload:
    """Why nothing runs yet, and whether waiting is of use."""
    for pod in living:
        if pod.identity.deleted_at:
            return _waiting(job, "Terminating", f"pod {pod.identity.name} is going")
        scheduled = pod.condition("PodScheduled")
        if scheduled is not None and scheduled.status == "False":
            return _waiting(job, "Unschedulable", scheduled.message or scheduled.reason)
        for container in pod.containers:
            if container.state == "waiting" and container.reason not in ("", "PodInitializing", "ContainerCreating"):
                hopeless = _hopeless(container)
                lasting = container.reason in _WRONG_IMAGE or _age(pod, now) > timedelta(seconds=patience)
                return _waiting(job, container.reason, _sentence(container), hopeless if hopeless and lasting else None)
    return _waiting(job, "ContainersStarting", "its pod is placed and starts")


def _hopeless(container: ContainerView) -> FailureReason | None:
    if container.reason in _IMAGE | _WRONG_IMAGE:
        return FailureReason.IMAGE_UNAVAILABLE
    if container.reason in _CONFIGURATION | _NEVER_STARTED:
        return FailureReason.BAD_CONFIGURATION
    return None


def _sentence(container: ContainerView) -> str:
    said = f"{container.reason}: {container.message}" if container.message else container.reason
    if container.reason in _IMAGE | _WRONG_IMAGE:
        return f"{said}; check runtime.image and runtime.imagePullSecrets"
    if container.reason in _CONFIGURATION:
        return f"{said}; check runtime.env, envFrom and volumes"
    return said


def _waiting(job: JobView | None, reason: str, message: str, hopeless: FailureReason | None = None) -> Workload:
    return Workload(
        WorkloadState.PENDING,
        reason=hopeless,
        message=message,
        waiting=reason,
        created_at=_created(job),
        reference=_reference(job),
    )


def _age(pod: PodView, now: datetime) -> timedelta:
    return now - _time(pod.started_at or pod.identity.created_at)


def _lingering(living: Sequence[PodView]) -> str:
    """What holds an attempt open that should be over: a pod that its node does not confirm to be gone."""
    for pod in living:
        if pod.identity.deleted_at:
            return (
                f"pod {pod.identity.name} on {pod.node} is going; if the node is lost for good, delete the Node or"
                " taint it node.kubernetes.io/out-of-service, as a second attempt beside a living first is never made"
            )
    return ""


# --- after it ran ----------------------------------------------------------------------------------------------------


def _end_of(run: ScalingRun, attempt: int, job: JobView, pods: Sequence[PodView]) -> End:
    """The end that the evidence tells: our own request first, then the pod's words, then the Job's."""
    if job.condition("Complete") is not None:
        return End(Ending.COMPLETED)
    if job.suspended:
        return _stopped(job)
    reported = _reported_failure(run, attempt, pods)
    for pod in pods:
        end = _of_pod(pod)
        if end is not None:
            return _in_its_words(end, reported)
    failed = job.condition("Failed")
    return _in_its_words(_of_job(failed.reason, failed.message) if failed else _lost(), reported)


def _stopped(job: JobView) -> End:
    """It was suspended: by us, with the cause written on it, or by somebody else."""
    if not job.stopped_for:
        return End(Ending.PREEMPTED, None, "its Job was suspended by somebody else; the run goes on with a new attempt")
    cause = read_cause(job.stopped_for)
    return End(Ending.FAILED if cause.reason else Ending.INTERRUPTED, cause.reason, cause.message)


def _of_pod(pod: PodView) -> End | None:
    """What the pod tells, or None where it tells nothing (it is gone, or was never finished)."""
    disrupted = pod.condition("DisruptionTarget")
    if disrupted is not None and disrupted.status == "True":
        return End(Ending.PREEMPTED, None, _with_node(f"{disrupted.reason}: {disrupted.message}".rstrip(": "), pod))
    trainer = next((c for c in pod.containers if c.name == TRAINER), None)
    if trainer is None or trainer.state != "terminated" or trainer.exit_code is None:
        if pod.phase != "Failed":
            return None
        # The kubelet ended or refused the pod itself: Evicted, NodeShutdown, NodeLost, UnexpectedAdmissionError …
        said = f"{pod.reason}: {pod.message}" if pod.message else pod.reason or "the pod was lost"
        return End(Ending.PREEMPTED, None, _with_node(said, pod))
    if trainer.exit_code == 0:
        return End(Ending.COMPLETED) if pod.phase == "Succeeded" else None
    if trainer.reason == "OOMKilled":
        return End(Ending.FAILED, FailureReason.OUT_OF_MEMORY, _with_node(_OUT_OF_MEMORY, pod))
    if trainer.reason in _NEVER_STARTED:
        said = f"{trainer.reason}: {trainer.message}; check runtime.command and runtime.image"
        return End(Ending.FAILED, FailureReason.BAD_CONFIGURATION, said)
    if pod.identity.deleted_at and trainer.exit_code in (KILLED, TERMINATED):
        return End(Ending.PREEMPTED, None, _with_node("its pod was deleted by somebody else", pod))
    if pod.reason:
        return End(Ending.PREEMPTED, None, _with_node(f"{pod.reason}: {pod.message}".rstrip(": "), pod))
    return _of_exit_status(trainer.exit_code, _last_line(trainer.message))


_OUT_OF_MEMORY = "the kernel ended it for want of memory (OOMKilled); raise placement.memory or train smaller batches"


def _of_exit_status(status: int, said: str) -> End:
    """What an exit status means that nothing else explains."""
    if status == ExitStatus.INTERRUPTED:
        return End(Ending.PREEMPTED, None, "it was asked to stop by somebody else and checkpointed")
    if status == TERMINATED:
        return End(Ending.PREEMPTED, None, "it was ended by SIGTERM, which this operator did not send")
    told = f"exit status {status}" + (f": {said}" if said else "")
    if status == KILLED:
        return End(
            Ending.FAILED,
            FailureReason.KILLED,
            f"{told}; SIGKILL without a word of the kubelet's is mostly memory: raise placement.memory",
        )
    if status == ExitStatus.BAD_CONFIGURATION:
        return End(Ending.FAILED, FailureReason.BAD_CONFIGURATION, told)
    return End(Ending.FAILED, FailureReason.CRASHED, told)


def _of_job(reason: str, message: str) -> End:
    """What the Job's own condition kept of a pod that is gone."""
    if reason == "PodFailurePolicy":
        if "DisruptionTarget" in message:
            return End(Ending.PREEMPTED, None, message)
        status = re.search(r"exit code (\d+)", message)
        if status:
            return _of_exit_status(int(status[1]), "")
    if reason == "DeadlineExceeded":
        return End(Ending.FAILED, FailureReason.CRASHED, f"{reason}: {message}; raise activeDeadlineSeconds")
    return _lost()


def _lost() -> End:
    """A pod that went without an exit status: whatever ended it, it was not the trainer."""
    return End(Ending.PREEMPTED, None, "its pod was lost before it could say how it ended")


def _in_its_words(end: End, reported: Failure | None) -> End:
    """A failure in the trainer's own words, where it had any; what the machine did is not the trainer's to say."""
    if end.ending is not Ending.FAILED or reported is None:
        return end
    return End(Ending.FAILED, reported.reason, reported.message)


def _reported_failure(run: ScalingRun, attempt: int, pods: Sequence[PodView]) -> Failure | None:
    sets = [*(_left(run, pods) or ()), *run.status.records]
    return next((s.failure for s in sets if s.attempt == attempt and s.failure is not None), None)


def _left(run: ScalingRun, pods: Sequence[PodView]) -> tuple[RecordSet, ...]:
    """What the pods' termination messages hold: records that no API server heard, or documents to refuse."""
    found = []
    for pod in pods:
        for container in pod.containers:
            if container.state != "terminated" or not container.message:
                continue
            attempt = pod.identity.attempt
            parsed = parse_termination_message(container.message, run, attempt, ended_at=container.finished_at)
            if isinstance(parsed, Refusal):
                refused = Refused(documents=1, reason=parsed.reason[:1024])
                found.append(RecordSet(attempt=attempt, records=(), refused=refused))
            elif parsed is not None:
                found.append(parsed)
    return tuple(found)


def _ended(run: ScalingRun, job: JobView | None, pods: Sequence[PodView], end: End, now: datetime) -> Workload:
    """The ended attempt with its times: the trainer's container's, or else the Job's, or else ours."""
    trainers = [c for pod in pods for c in pod.containers if c.name == TRAINER and c.state == "terminated"]
    starts = [c.started_at for c in trainers if c.started_at]
    stops = [c.finished_at for c in trainers if c.finished_at]
    started = min(starts, default=job.started_at if job else "")
    stopped = max(stops, default=_job_ended(job))
    began = started or _running_since(run)
    seconds = max(0.0, ((_time(stopped) if stopped else now) - _time(began)).total_seconds()) if began else 0.0
    return Workload(
        WorkloadState.ENDED,
        end.ending,
        end.reason,
        end.message,
        created_at=_created(job),
        scheduled_at=_scheduled(pods),
        started_at=began or None,
        ended_at=stopped or None,
        gpu_seconds=_devices(run) * seconds,
        node=next((pod.node for pod in pods if pod.node), ""),
        reference=_reference(job),
        left=_left(run, pods),
    )


def _job_ended(job: JobView | None) -> str:
    if job is None:
        return ""
    ends = [c.since for c in job.conditions if c.type in ("Complete", "Failed", "Suspended") and c.status == "True"]
    return job.completed_at or max(ends, default="")


def _running_since(run: ScalingRun) -> str:
    """Since when a run whose Job is gone was known to run."""
    running = next((c for c in run.status.conditions if c.type == "Running" and c.status == "True"), None)
    return running.last_transition_time if running else ""


def _created(job: JobView | None) -> str | None:
    return job.identity.created_at if job else None


def _scheduled(pods: Sequence[PodView]) -> str | None:
    """When the attempt's pod was given its node, as far as a pod is there to tell."""
    return min((pod.scheduled_at for pod in pods if pod.scheduled_at), default=None)


def _started(pod: PodView) -> str:
    """When the trainer's container began to run; empty before."""
    trainer = next((c for c in pod.containers if c.name == TRAINER), None)
    return trainer.started_at if trainer is not None else ""


def _devices(run: ScalingRun) -> int:
    """What a second of it counts in a budget: its GPUs, or one slot without any."""
    return max(1, run.spec.placement.gpus_per_node)


def _reference(job: JobView | None) -> WorkloadReference | None:
    return WorkloadReference(kind="Job", name=job.identity.name, uid=job.identity.uid) if job else None


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _with_node(message: str, pod: PodView) -> str:
    return f"{message} (node {pod.node})" if pod.node else message


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


# --- the cause, as it is written on a Job ----------------------------------------------------------------------------


def write_cause(cause: Cause) -> str:
    """The annotation of a Job that is told to end: `Reason: message`, or `Paused: message` without a reason."""
    return f"{cause.reason or 'Paused'}: {cause.message}"[:1024]


def read_cause(annotation: str) -> Cause:
    """The cause as it was written; an unknown reason (a newer version's) counts as no fault of the run."""
    reason, _, message = annotation.partition(": ")
    known = FailureReason(reason) if reason in FailureReason.__members__.values() else None
    return Cause(known, message)
