"""Projections of Jobs and Pods: what evidence and scheduling need of them, a tenth of their size.

Owns the two views and how they are read from the API's documents. Draws no conclusion from them.
"""

from dataclasses import dataclass
from typing import Any

from sweep_operator.clusters.kubernetes.resources import ATTEMPT_LABEL, RUN_LABEL, RUNG_LABEL, STOPPED_FOR, SWEEP_LABEL


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object this is, at which version, and whose."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    owner_uid: str
    """UID of the controlling owner, empty without one."""
    sweep: str
    rung: str
    run: str
    attempt: int
    """As labelled; 0 where the label is missing or no number."""
    created_at: str
    deleted_at: str
    """When it shall be gone, grace included; empty when nobody deleted it."""


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition of a Job or a Pod."""

    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class JobView:
    """One attempt's Job."""

    identity: Identity
    suspended: bool
    stopped_for: str
    """The annotation with which we asked it to end."""
    started_at: str
    completed_at: str
    active: int
    ready: int
    terminating: int
    succeeded: int
    failed: int
    conditions: tuple[ConditionView, ...]

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of that type where it is True."""
        return next((c for c in self.conditions if c.type == kind and c.status == "True"), None)

    @property
    def finished(self) -> bool:
        """Whether the Job controller has nothing left to do."""
        return self.condition("Complete") is not None or self.condition("Failed") is not None


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container's present state."""

    name: str
    state: str
    """`waiting`, `running`, `terminated`, or empty before the kubelet has said anything."""
    reason: str
    message: str
    exit_code: int | None
    signal: int | None
    started_at: str
    finished_at: str
    restarts: int


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of an attempt; `identity.owner_uid` is its Job's."""

    identity: Identity
    phase: str
    reason: str
    message: str
    node: str
    started_at: str
    conditions: tuple[ConditionView, ...]
    containers: tuple[ContainerView, ...]
    """Init containers (sidecars among them) first."""

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of that type, whatever its status."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def scheduled_at(self) -> str:
        """When it was given its node; empty before."""
        scheduled = self.condition("PodScheduled")
        return scheduled.since if scheduled is not None and scheduled.status == "True" else ""

    @property
    def ended(self) -> bool:
        """Whether none of its containers will run again."""
        return self.phase in ("Succeeded", "Failed")


def identity_of(document: dict[str, Any]) -> Identity:
    """Of any object."""
    metadata = document.get("metadata") or {}
    labels = metadata.get("labels") or {}
    owners = metadata.get("ownerReferences") or ()
    attempt = labels.get(ATTEMPT_LABEL, "")
    return Identity(
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        resource_version=int(metadata.get("resourceVersion") or 0),
        owner_uid=next((owner["uid"] for owner in owners if owner.get("controller")), ""),
        sweep=labels.get(SWEEP_LABEL, ""),
        rung=labels.get(RUNG_LABEL, ""),
        run=labels.get(RUN_LABEL, ""),
        attempt=int(attempt) if attempt.isascii() and attempt.isdigit() else 0,
        created_at=metadata.get("creationTimestamp") or "",
        deleted_at=metadata.get("deletionTimestamp") or "",
    )


def job_view(document: dict[str, Any]) -> JobView:
    """The projection of a Job."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    annotations = document["metadata"].get("annotations") or {}
    return JobView(
        identity=identity_of(document),
        suspended=bool(spec.get("suspend")),
        stopped_for=annotations.get(STOPPED_FOR, ""),
        started_at=status.get("startTime") or "",
        completed_at=status.get("completionTime") or "",
        active=status.get("active") or 0,
        ready=status.get("ready") or 0,
        terminating=status.get("terminating") or 0,
        succeeded=status.get("succeeded") or 0,
        failed=status.get("failed") or 0,
        conditions=_conditions(status),
    )


def pod_view(document: dict[str, Any]) -> PodView:
    """The projection of a Pod."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    statuses = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return PodView(
        identity=identity_of(document),
        phase=status.get("phase") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        node=spec.get("nodeName") or "",
        started_at=status.get("startTime") or "",
        conditions=_conditions(status),
        containers=tuple(_container(one) for one in statuses),
    )


def _conditions(status: dict[str, Any]) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=one.get("type", ""),
            status=one.get("status", ""),
            reason=one.get("reason") or "",
            message=one.get("message") or "",
            since=one.get("lastTransitionTime") or "",
        )
        for one in status.get("conditions") or ()
    )


def _container(status: dict[str, Any]) -> ContainerView:
    states: dict[str, dict[str, Any]] = status.get("state") or {}
    state, detail = next(iter(states.items()), ("", {}))
    return ContainerView(
        name=status.get("name", ""),
        state=state,
        reason=detail.get("reason") or "",
        message=detail.get("message") or "",
        exit_code=detail.get("exitCode"),
        signal=detail.get("signal"),
        started_at=detail.get("startedAt") or "",
        finished_at=detail.get("finishedAt") or "",
        restarts=status.get("restartCount") or 0,
    )
