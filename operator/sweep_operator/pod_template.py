"""What a sweep may write into `runtime.podTemplate`: the harmless fields of a pod, and what a platform allows besides.

Owns the list of harmless fields. It says what is allowed, so that a field of a later Kubernetes is refused until
somebody has looked at it. Nothing here weakens a pod: what the operator sets itself wins over every template.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any

JSON = Mapping[str, Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TEMPLATE = frozenset({"metadata", "spec"})
_METADATA = frozenset({"labels", "annotations"})
_POD = _words(
    "affinity containers dnsConfig dnsPolicy hostAliases hostname imagePullSecrets initContainers os readinessGates"
    " resources schedulingGates securityContext setHostnameAsFQDN subdomain terminationGracePeriodSeconds"
    " topologySpreadConstraints volumes"
)
_AFFINITY = frozenset({"podAffinity", "podAntiAffinity"})
_VOLUME = _words("name configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret")
_CONTAINER = _words(
    "name image imagePullPolicy command args workingDir env envFrom ports resources resizePolicy restartPolicy"
    " restartPolicyRules volumeMounts volumeDevices livenessProbe readinessProbe startupProbe lifecycle"
    " terminationMessagePath terminationMessagePolicy securityContext stdin stdinOnce tty"
)
_PORT = frozenset({"name", "containerPort", "protocol"})
_SECURITY = _words(
    "runAsUser runAsGroup runAsNonRoot fsGroup fsGroupChangePolicy supplementalGroups supplementalGroupsPolicy"
    " readOnlyRootFilesystem allowPrivilegeEscalation capabilities seccompProfile"
)
_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})

_ELSEWHERE = {
    "nodeSelector": "placement.nodeSelector",
    "tolerations": "placement.tolerations",
    "priorityClassName": "placement.priorityClassName",
    "nodeAffinity": "placement.nodeSelector",
    "serviceAccountName": "runtime.serviceAccountName",
    "serviceAccount": "runtime.serviceAccountName",
    "GPUs": "placement.gpusPerNode",
}
"""Where a sweep says what a template must not, because the platform's policy and the budget look there."""

OURS = "scalingsweep.dev/"


def refused(template: JSON, allowed: Set[str]) -> str | None:
    """One sentence on the first thing in a template that is neither harmless nor among `allowed`, or None."""
    for path, name in _unusual(template):
        if name not in allowed:
            remedy = f"say it in {_ELSEWHERE[name]}" if name in _ELSEWHERE else "leave it out"
            where = f"runtime.podTemplate{path}"
            return f"{where} is not allowed on this platform (podTemplate: {name}); {remedy}"
    return None


def _unusual(template: JSON) -> Iterator[tuple[str, str]]:
    """Path and name of everything that is not known to be harmless."""
    yield from _fields(template, "", _TEMPLATE)
    metadata, spec = _mapping(template, "metadata"), _mapping(template, "spec")
    yield from _fields(metadata, ".metadata", _METADATA)
    for part in _METADATA:
        for key in _mapping(metadata, part):
            if str(key).startswith(OURS):
                yield f".metadata.{part}[{key}]", OURS
    yield from _fields(spec, ".spec", _POD)
    yield from _fields(_mapping(spec, "affinity"), ".spec.affinity", _AFFINITY)
    yield from _security(_mapping(spec, "securityContext"), ".spec.securityContext")
    yield from _resources(_mapping(spec, "resources"), ".spec.resources")
    for path, volume in _entries(spec, "volumes", ".spec"):
        yield from _fields(volume, path, _VOLUME)
    for kind in ("containers", "initContainers"):
        for path, container in _entries(spec, kind, ".spec"):
            yield from _container(container, path)


def _container(container: JSON, path: str) -> Iterator[tuple[str, str]]:
    yield from _fields(container, path, _CONTAINER)
    yield from _security(_mapping(container, "securityContext"), f"{path}.securityContext")
    yield from _resources(_mapping(container, "resources"), f"{path}.resources")
    for where, port in _entries(container, "ports", path):
        yield from _fields(port, where, _PORT)


def _security(context: JSON, path: str) -> Iterator[tuple[str, str]]:
    """What Pod Security's `restricted` refuses."""
    yield from _fields(context, path, _SECURITY)
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(field) == 0:
            yield f"{path}.{field}", "root"
    if context.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot", "root"
    if context.get("allowPrivilegeEscalation"):
        yield f"{path}.allowPrivilegeEscalation", "allowPrivilegeEscalation"
    if _mapping(context, "capabilities").get("add"):
        yield f"{path}.capabilities.add", "capabilities"
    if _mapping(context, "seccompProfile").get("type", "RuntimeDefault") != "RuntimeDefault":
        yield f"{path}.seccompProfile", "seccompProfile"


def _resources(resources: JSON, path: str) -> Iterator[tuple[str, str]]:
    """Devices are counted by the sweep's placement and budget, so a template may not take any."""
    yield from _fields(resources, path, frozenset({"limits", "requests"}))
    for part in ("limits", "requests"):
        for name in _mapping(resources, part):
            if name not in _RESOURCES:
                yield f"{path}.{part}[{name}]", "GPUs" if "/" in str(name) else str(name)


def _fields(given: JSON, path: str, harmless: Set[str]) -> Iterator[tuple[str, str]]:
    for name in given:
        if name not in harmless:
            yield f"{path}.{name}", str(name)


def _mapping(given: JSON, field: str) -> JSON:
    """The mapping under a field; what is none is the API server's to refuse, when the Job is made."""
    found = given.get(field)
    return found if isinstance(found, Mapping) else {}


def _entries(given: JSON, field: str, path: str) -> Iterator[tuple[str, JSON]]:
    found = given.get(field)
    for i, entry in enumerate(found if isinstance(found, list) else ()):
        if isinstance(entry, Mapping):
            yield f"{path}.{field}[{i}]", entry
