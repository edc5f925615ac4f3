"""The adapter itself: documents and workloads read from the stores, written through the API.

Owns the translation between the port and the API: which answer is which of the port's exceptions, what counts as ours,
and what is put right when somebody took our marks off a child. Decides nothing about a ladder. Reads cost no call; a
write's answer goes into the stores, so that the next pass sees it.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from sweep_analysis.record import FailureReason
from sweep_operator.api import Imports, RunStatus, ScalingRun, ScalingSweep, SweepStatus, WorkloadReference
from sweep_operator.clusters import (
    PAUSED,
    Cause,
    Conflict,
    Event,
    NameTaken,
    NotNow,
    StartRefused,
    Workload,
    WorkloadState,
)
from sweep_operator.clusters.kubernetes.access import Access
from sweep_operator.clusters.kubernetes.cache import Caches, Change, Document
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.earlier import imported
from sweep_operator.clusters.kubernetes.errors import AlreadyExists, ConflictError, Forbidden, Invalid, NotFound
from sweep_operator.clusters.kubernetes.evidence import PATIENCE_SECONDS, workload_of, write_cause
from sweep_operator.clusters.kubernetes.jobs import Images, job_document, job_name
from sweep_operator.clusters.kubernetes.ownership import (
    JSON,
    RUN_UID,
    controller_of,
    is_leaving,
    is_of,
    job_labels,
    owner_reference,
    run_document,
)
from sweep_operator.clusters.kubernetes.refusal import refusal
from sweep_operator.clusters.kubernetes.resources import JOBS, RUNS, STOPPED_FOR, SWEEPS
from sweep_operator.clusters.kubernetes.views import Identity, JobView, PodView

_TRAINERS = ("progress", "records")
"""Fields of a run's status that are the trainers' and never written here."""
_REMEMBERED = 20_000


class Events(Protocol):
    """Where events go."""

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        """Tell it, some time."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was heard last of an attempt that runs, which may not have been written down yet."""

    attempt: int
    workload: WorkloadReference | None
    said: str
    """Time stamp of its progress."""
    since: float
    """When this was first seen, by our own clock."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class KubernetesCluster:
    """Implements `Cluster` over Jobs. Safe to use from several threads, each with its own key."""

    api: Api
    caches: Caches
    events: Events
    images: Images = field(default_factory=Images)
    patience_seconds: float = PATIENCE_SECONDS
    """For how long a missing image or configuration may still turn up."""
    _access: Access = field(init=False)
    _heard: dict[str, _Heard] = field(default_factory=dict, init=False)
    """By the UID of a run."""
    _ours: OrderedDict[tuple[str, str], bool] = field(default_factory=OrderedDict, init=False)
    """By the UIDs of a run and of the sweep that owns it: whether it is one that we would have made of that sweep."""

    def __post_init__(self) -> None:
        self._access = Access(self.api)
        self.caches.runs.listen(self._forget)

    # --- documents -------------------------------------------------------------------------------------------------

    def sweep(self, key: str) -> ScalingSweep | None:
        namespace, _, name = key.partition("/")
        known = self.caches.sweeps.get(namespace, name)
        return None if known is None or known.identity.deleted_at else self.caches.sweeps.read(known)

    def run(self, key: str) -> tuple[ScalingSweep, ScalingRun] | None:
        """The run named namespace/name with the sweep that owns it; None when either is gone or they do not match."""
        namespace, _, name = key.partition("/")
        known = self.caches.runs.get(namespace, name)
        owner = self.caches.sweeps.by_uid(known.identity.owner_uid) if known is not None else None
        if known is None or owner is None or known.identity.deleted_at or owner.identity.deleted_at:
            return None
        sweep = self.caches.sweeps.read(owner)
        run = self._child(sweep, known)
        return None if run is None else (sweep, run)

    def runs(self, sweep: ScalingSweep) -> Sequence[ScalingRun]:
        known = self.caches.runs.owned_by(sweep.metadata.uid)
        children = (self._child(sweep, one) for one in known if not one.identity.deleted_at)
        return [child for child in children if child is not None]

    def imported(self, sweep: ScalingSweep) -> Imports:
        return imported(self.api, sweep)

    def create_run(self, run: ScalingRun) -> None:
        namespace, name = run.metadata.namespace, run.metadata.name
        try:
            with _obstacles(f"ScalingRun {name}"):
                document = self.api.create(RUNS.path(namespace), run_document(run))
        except AlreadyExists:
            document = self.api.get(RUNS.path(namespace, name))
            if is_leaving(document):
                raise NotNow("NamesakeLeaving", f"ScalingRun {name} is being deleted") from None
            owner = controller_of(document)
            same = document["spec"] == run_document(run)["spec"]
            forged = self._ours.get((document["metadata"]["uid"], run.spec.sweep_uid)) is False
            if owner is None or owner["uid"] != run.spec.sweep_uid or not same or forged:
                raise NameTaken(_taken("ScalingRun", namespace, name, owner)) from None
        self._remember((document["metadata"]["uid"], run.spec.sweep_uid), ours=True)
        self.caches.runs.put(document)

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        metadata = sweep.metadata
        document = {
            "apiVersion": sweep.api_version,
            "kind": sweep.kind,
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
                "resourceVersion": metadata.resource_version,
            },
            "status": status.to_json(),
        }
        with _conflicts():
            answer = self.api.replace(SWEEPS.path(metadata.namespace, metadata.name, "status"), document)
        self.caches.sweeps.put(answer)

    def refuse(self, identity: Identity, sentence: str, now: datetime) -> None:
        """Say on a sweep that its spec makes no sense, once; the rest of its status stays as it is."""
        known = self.caches.sweeps.by_uid(identity.uid)
        patch = refusal(known, sentence, now) if known is not None else None
        if patch is None:
            return
        path = SWEEPS.path(identity.namespace, identity.name, "status")
        with _conflicts():
            self.caches.sweeps.put(self.api.patch(path, patch))

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        metadata = run.metadata
        before, after = run.status.to_json(), status.to_json()
        own = {
            name: after.get(name)  # a null takes the field away
            for name in sorted(before.keys() | after.keys())
            if name not in _TRAINERS and before.get(name) != after.get(name)
        }
        version = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
        with _conflicts():
            path = RUNS.path(metadata.namespace, metadata.name, "status")
            answer = self.api.patch(path, {"metadata": version, "status": own})
        self.caches.runs.put(answer)

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        self.events.emit(sweep, event)

    # --- workloads -------------------------------------------------------------------------------------------------

    def workload(self, run: ScalingRun, attempt: int) -> Workload:
        heard = self._heard.get(run.metadata.uid)
        ran = heard is not None and heard.attempt == attempt
        reference = run.status.workload if run.status.attempt == attempt else None
        if reference is None and heard is not None and ran:
            reference = heard.workload
        job = self._job(run, attempt)
        if job is None and reference is not None:
            job = self._look_again(run, attempt, reference)
        uid = job.identity.uid if job is not None else reference.uid if reference is not None else None
        pods = [pod for pod in self._pods(run, attempt) if pod.identity.owner_uid == uid]
        found = workload_of(run, attempt, job, pods, _now(), self.patience_seconds, ran)
        if found.state is WorkloadState.ENDED and not _told_everything(run):
            self._hear_it_out(run)
        if found.state is WorkloadState.RUNNING:
            return replace(found, quiet_seconds=self._quiet_seconds(run, attempt, reference or found.reference))
        if run.status.attempts and run.status.attempts[-1].ended_at is not None:
            self._heard.pop(run.metadata.uid, None)  # until its end is written down, only this tells that it ran
        return found

    def start(self, sweep: ScalingSweep, run: ScalingRun, attempt: int) -> None:
        if self._job(run, attempt) is not None:
            return
        pods = self.caches.pods.of_run(run.metadata.namespace, run.metadata.name)
        lingering = [pod for pod in pods if not pod.ended and pod.identity.owner_uid]
        if lingering:
            names = ", ".join(pod.identity.name for pod in lingering)
            raise NotNow("NamesakeLeaving", f"pods of an earlier attempt or of a deleted namesake still go: {names}")
        name, path = job_name(run, attempt), JOBS.path(run.metadata.namespace)
        try:
            with _obstacles(f"Job {name}"):
                self._access.ensure(sweep, run.metadata.name)
                document = self.api.create(path, job_document(sweep, run, attempt, self.images))
        except AlreadyExists:
            document = self._recognised(run, attempt)
        except Invalid as error:
            raise StartRefused(
                FailureReason.BAD_CONFIGURATION, f"the API server does not take the Job: {error.message}"
            ) from None
        except Forbidden as error:
            if "cannot create resource" in error.message or "cannot patch resource" in error.message:
                raise  # the operator's own rights are wanting, which is no fault of the run
            raise StartRefused(FailureReason.BAD_CONFIGURATION, f"the Job is forbidden here: {error.message}") from None
        self.caches.jobs.put(document)

    def stop(self, run: ScalingRun, attempt: int, cause: Cause = PAUSED) -> None:
        job = self._job(run, attempt)
        if job is None or job.finished or job.stopped_for or job.suspended:
            return
        patch = {
            "metadata": {"uid": job.identity.uid, "annotations": {STOPPED_FOR: write_cause(cause)}},
            "spec": {"suspend": True},
        }
        try:
            self.caches.jobs.put(self.api.patch(JOBS.path(job.identity.namespace, job.identity.name), patch))
        except (NotFound, ConflictError, Invalid):
            return  # gone, another one, or finished meanwhile: the next look tells which

    # --- within ----------------------------------------------------------------------------------------------------

    def _forget(self, change: Change[Document]) -> None:
        """What was heard of an attempt goes with its run, however that went."""
        if change.new is None:
            self._heard.pop(change.identity.uid, None)

    def _child(self, sweep: ScalingSweep, known: Document) -> ScalingRun | None:
        """The run, if it is what it claims to be; a forged one is left alone, and that is told once."""
        run = self.caches.runs.read(known)
        which = known.identity.uid, sweep.metadata.uid
        ours = self._ours.get(which)
        if ours is None:
            ours = is_of(sweep, run) or is_of(self._newest(sweep), run)
            self._remember(which, ours)
            if not ours:
                said = (
                    f"ScalingRun {run.metadata.name} names this sweep as its owner but was not made by the operator:"
                    " its name, what it trains or its placement does not follow from the sweep; it is ignored,"
                    f" kubectl delete scalingrun {run.metadata.name} -n {run.metadata.namespace}"
                )
                self.events.emit(sweep, Event("ForgedRun", said, run.spec.rung, run.metadata.name, warning=True))
        return run if ours else None

    def _remember(self, which: tuple[str, str], ours: bool) -> None:
        self._ours[which] = ours
        if len(self._ours) > _REMEMBERED:
            self._ours.popitem(last=False)

    def _newest(self, sweep: ScalingSweep) -> ScalingSweep:
        """The sweep as it is now: a run that another process made may be known before the plan that it follows from."""
        where = SWEEPS.path(sweep.metadata.namespace)
        items = self.api.get(where, fieldSelector=f"metadata.name={sweep.metadata.name}")["items"]
        if not items:
            return sweep
        return ScalingSweep.model_validate({"apiVersion": sweep.api_version, "kind": sweep.kind, **items[0]})

    def _job(self, run: ScalingRun, attempt: int) -> JobView | None:
        """The attempt's Job, as far as is known and if it is this run's (by owner, or as the one that was seen)."""
        job = self.caches.jobs.get(run.metadata.namespace, job_name(run, attempt))
        if job is None:
            return None
        seen = run.status.workload.uid if run.status.workload and run.status.attempt == attempt else ""
        return job if run.metadata.uid == job.identity.owner_uid or job.identity.uid == seen else None

    def _pods(self, run: ScalingRun, attempt: int) -> Iterator[PodView]:
        for pod in self.caches.pods.of_run(run.metadata.namespace, run.metadata.name):
            if pod.identity.attempt == attempt:
                yield pod

    def _look_again(self, run: ScalingRun, attempt: int, seen: WorkloadReference) -> JobView | None:
        """A Job that was seen and is not known any more: gone, or only without the label by which it is watched."""
        path = JOBS.path(run.metadata.namespace, job_name(run, attempt))
        try:
            document = self.api.get(path)
        except NotFound:
            return None
        found = document["metadata"]
        if found["uid"] != seen.uid:
            return None
        labels = job_labels(run, attempt)
        if labels.items() - (found.get("labels") or {}).items() and not is_leaving(document):
            document = self.api.patch(path, {"metadata": {"uid": found["uid"], "labels": labels}})
        self.caches.jobs.put(document)
        return self._job(run, attempt)

    def _quiet_seconds(self, run: ScalingRun, attempt: int, workload: WorkloadReference | None) -> float:
        """Since when this process has heard nothing new of the run."""
        progress = run.status.progress
        said, now = progress.last_updated if progress else "", time.monotonic()
        heard = self._heard.get(run.metadata.uid)
        if heard is not None and (heard.attempt, heard.said) == (attempt, said):
            return now - heard.since
        self._heard[run.metadata.uid] = _Heard(attempt, workload, said, now)
        return 0.0

    def _hear_it_out(self, run: ScalingRun) -> None:
        """Before an end is judged without all its records: whether the trainer's last words are still on their way.

        Runs, Jobs and pods come by watches of their own, so an end may be seen before what was written ahead of it.
        """
        try:
            document = self.api.get(RUNS.path(run.metadata.namespace, run.metadata.name))
        except NotFound as error:
            raise Conflict(error.message) from None
        if document["metadata"]["resourceVersion"] != run.metadata.resource_version:
            self.caches.runs.put(document)
            raise Conflict(f"ScalingRun {run.metadata.name} is newer than it was known")

    def _recognised(self, run: ScalingRun, attempt: int) -> JSON:
        """The object that stands where the attempt's Job should: ours (put right where its marks were taken), or not.

        Raises NotNow for what a deleted namesake left and Kubernetes is about to collect, else NameTaken.
        """
        namespace, name = run.metadata.namespace, job_name(run, attempt)
        path = JOBS.path(namespace, name)
        try:
            document = self.api.get(path)
        except NotFound:
            raise NotNow("NamesakeLeaving", f"Job {name} has just gone") from None
        owner = controller_of(document)
        if is_leaving(document) or (owner and owner["name"] == run.metadata.name and owner["uid"] != run.metadata.uid):
            raise NotNow("NamesakeLeaving", f"Job {name} of a deleted namesake is still going")
        made_for = (document["metadata"].get("annotations") or {}).get(RUN_UID)
        if owner is not None and owner["uid"] == run.metadata.uid:
            return document
        if owner is None and made_for == run.metadata.uid:
            marks = {"labels": job_labels(run, attempt), "ownerReferences": [owner_reference(run)]}
            return self.api.patch(path, {"metadata": {"uid": document["metadata"]["uid"], **marks}})
        raise NameTaken(_taken("Job", namespace, name, owner))


def _told_everything(run: ScalingRun) -> bool:
    """Whether a record is known for each that is due."""
    records = (record for reported in run.status.records for record in reported.records)
    return {record.tokens for record in (*run.status.accepted, *records)} >= set(run.spec.run.tokens)


def _taken(kind: str, namespace: str, name: str, owner: dict[str, Any] | None) -> str:
    whose = f"is controlled by {owner['kind']} {owner['name']}" if owner else "is not the operator's"
    return (
        f"{kind} {name} stands where the sweep's own should, and {whose};"
        f" kubectl delete {kind.lower()} {name} -n {namespace}, then the sweep goes on"
    )


@contextmanager
def _conflicts() -> Iterator[None]:
    """A document that changed since it was read, or has gone, is looked at anew."""
    try:
        yield
    except (ConflictError, NotFound) as error:
        raise Conflict(error.message) from None


@contextmanager
def _obstacles(what: str) -> Iterator[None]:
    """What keeps an object from being created for now, as NotNow."""
    try:
        yield
    except Forbidden as error:
        if "exceeded quota" in error.message:
            said = f"{what} does not fit: {error.message}; it is created as soon as there is room"
            raise NotNow("QuotaExceeded", said) from None
        causes = [cause.get("reason") for cause in error.details.get("causes") or ()]
        if "NamespaceTerminating" in causes or "being terminated" in error.message:
            raise NotNow("NamespaceTerminating", f"{what}: {error.message}") from None
        raise
