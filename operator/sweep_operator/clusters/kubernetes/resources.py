"""Where each kind of object stands in the API: group, version, plural, and the paths made of them.

Owns nothing but names. Knows no transport and no document.
"""

from dataclasses import dataclass

GROUP = "scalingsweep.dev"
SWEEP_LABEL = f"{GROUP}/sweep"
RUNG_LABEL = f"{GROUP}/rung"
RUN_LABEL = f"{GROUP}/run"
ATTEMPT_LABEL = f"{GROUP}/attempt"
STOPPED_FOR = f"{GROUP}/stopped-for"
"""Annotation of a Job that was asked to end: why."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object."""

    group_version: str
    """`v1` for the core group, otherwise `group/version`."""
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
        """The path of one object, of a namespace's, or (without a namespace) of the whole cluster's."""
        root = "/api/" if "/" not in self.group_version else "/apis/"
        parts = [root + self.group_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, sub) if part is not None]
        return "/".join(parts)


SWEEPS = Resource(f"{GROUP}/v1alpha1", "scalingsweeps", "ScalingSweep")
RUNS = Resource(f"{GROUP}/v1alpha1", "scalingruns", "ScalingRun")
JOBS = Resource("batch/v1", "jobs", "Job")
PODS = Resource("v1", "pods", "Pod")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io/v1", "events", "Event")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
CLAIMS = Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")


def resource_of(path: str) -> str:
    """`plural` or `plural/sub` of an API path, for counting calls."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join((*parts[:1], *parts[2:3])) or "api"
