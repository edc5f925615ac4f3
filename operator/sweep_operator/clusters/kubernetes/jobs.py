"""From one attempt at a run to the Job that carries it out, as a pure function; `render` prints the same document.

Owns the pod: its containers, environment, limits, and what a user's `runtime.podTemplate` may add below them. It asks
nothing of the cluster; what the Job's folder, account and claim are called is told by their own modules.
"""

import json
from dataclasses import dataclass
from typing import Any

from sweep_analysis.record import ExitStatus
from sweep_analysis.rung import RunOrder
from sweep_operator.api import Placement, Runtime, ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes import storage
from sweep_operator.clusters.kubernetes.ownership import RUN_UID, job_labels, owner_reference
from sweep_operator.clusters.kubernetes.roles import trainer_account

JSON = dict[str, Any]

TRAINER, REPORTER = "trainer", "reporter"
REPORT_FOLDER, REPORT_FILE = "/report", "/report/report.json"
TERMINATION_LOG = "/dev/termination-log"
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
CACHE = "/cache"
USER = 65532
"""Numeric, as `runAsNonRoot` wants it; an image that needs another says so in `runtime.podTemplate`."""

TOLD_EXIT_STATUSES = (ExitStatus.INTERRUPTED, ExitStatus.BAD_CONFIGURATION, 137)
"""Each has a rule of its own in the pod failure policy, so that the Job's condition names it when the pod is gone."""


@dataclass(frozen=True, slots=True)
class Images:
    """The project's own images, from the operator's configuration."""

    trainer: str = "scalingsweep/trainer"
    reporter: str = "scalingsweep/operator"


def job_name(run: ScalingRun, attempt: int) -> str:
    """`<run>-<attempt>`: asking twice for an attempt makes one Job."""
    return f"{run.metadata.name}-{attempt}"


def job_document(sweep: ScalingSweep, run: ScalingRun, attempt: int, images: Images) -> JSON:
    """The Job of one attempt."""
    labels = job_labels(run, attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(run, attempt),
            "namespace": run.metadata.namespace,
            "labels": labels,
            "annotations": {RUN_UID: run.metadata.uid},
            "ownerReferences": [owner_reference(run)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": sweep.spec.limits.ttl_seconds_after_finished,
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": _pod(sweep, run, attempt, images, labels),
        },
    }


def _failure_rules() -> list[JSON]:
    """One rule a kind of end: each fails the Job, and its message keeps the evidence beyond the pod."""
    told = sorted(int(status) for status in TOLD_EXIT_STATUSES)
    others = {"containerName": TRAINER, "operator": "NotIn", "values": [0, *told]}
    return [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        *(
            {"action": "FailJob", "onExitCodes": {"containerName": TRAINER, "operator": "In", "values": [status]}}
            for status in told
        ),
        {"action": "FailJob", "onExitCodes": others},
    ]


def reports_by(runtime: Runtime) -> str:
    """How results leave the pod, where the sweep does not say: ours by itself, another by a reporter beside it."""
    return runtime.report or ("Sidecar" if runtime.command or runtime.args else "Direct")


def _pod(sweep: ScalingSweep, run: ScalingRun, attempt: int, images: Images, labels: dict[str, str]) -> JSON:
    runtime, placement = sweep.spec.runtime, _placement(sweep, run)
    way = reports_by(runtime)
    environment = _environment(sweep, run, attempt, way)
    volumes = _volumes(sweep)
    spec: JSON = {
        "restartPolicy": "Never",
        "serviceAccountName": runtime.service_account_name or trainer_account(sweep).name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": runtime.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_trainer(sweep, run, images, environment, way)],
        "volumes": [volume for volume, _, _ in volumes],
    }
    if way == "Sidecar":
        spec["initContainers"] = [_reporter(images, environment, runtime)]
    if way != "TerminationMessage":
        spec["volumes"].append(_account_volume())
    if runtime.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in runtime.image_pull_secrets]
    if placement.node_selector:
        spec["nodeSelector"] = placement.node_selector
    if placement.tolerations:
        spec["tolerations"] = [toleration.to_json() for toleration in placement.tolerations]
    if placement.priority_class_name:
        spec["priorityClassName"] = placement.priority_class_name
    fixed = {"metadata": {"labels": labels}, "spec": spec}
    adjustable = {"spec": {"securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}}}
    template: JSON = merged(merged(adjustable, runtime.pod_template), fixed)
    return template


def _placement(sweep: ScalingSweep, run: ScalingRun) -> Placement:
    """The run's devices, and all else as the sweep has it now: an attempt after an OutOfMemory finds what was added."""
    planned = run.spec.placement
    return sweep.spec.placement_of(run.spec.rung).changed(
        gpus_per_node=planned.gpus_per_node, gpu_resource=planned.gpu_resource, gpu_memory=planned.gpu_memory
    )


def _trainer(sweep: ScalingSweep, run: ScalingRun, images: Images, environment: JSON, way: str) -> JSON:
    runtime, placement = sweep.spec.runtime, _placement(sweep, run)
    limits: dict[str, str | int] = {}
    if placement.gpus_per_node:
        limits[placement.gpu_resource] = placement.gpus_per_node
    if placement.cpu:
        limits["cpu"] = placement.cpu
    if placement.memory:
        limits["memory"] = placement.memory
    mounts = [
        {"name": volume["name"], "mountPath": path, **({"readOnly": True} if read_only else {})}
        for volume, path, read_only in _volumes(sweep)
    ]
    if way == "Direct":
        mounts.append(_account_mount())
    own_names = {one.name for one in runtime.env}
    writable = {} if "HOME" in own_names else {"HOME": "/tmp"}  # noqa: S108 - the one folder that any library may use
    own = [{"name": one.name, "value": one.value} for one in runtime.env if one.name not in environment]
    container: JSON = {
        "name": TRAINER,
        "image": runtime.image or images.trainer,
        "env": [*_listed({**environment, **writable}), *own],
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": mounts,
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _confined(),
    }
    if runtime.command or not runtime.args:
        container["command"] = list(runtime.command) or ["python", "-m", "sweep_trainer", "train"]
    if runtime.args:
        container["args"] = list(runtime.args)
    if runtime.image_pull_policy:
        container["imagePullPolicy"] = runtime.image_pull_policy
    if runtime.env_from:
        container["envFrom"] = [
            {"configMapRef": {"name": s.config_map}} if s.config_map else {"secretRef": {"name": s.secret}}
            for s in runtime.env_from
        ]
    return container


def _reporter(images: Images, environment: JSON, runtime: Runtime) -> JSON:
    """The native sidecar that applies an own trainer's document; the trainer itself holds no token."""
    container: JSON = {
        "name": REPORTER,
        "image": images.reporter,
        "restartPolicy": "Always",
        "command": ["python", "-m", "sweep_trainer.reporter"],
        "env": _listed({name: value for name, value in environment.items() if name != "SCALINGSWEEP_ORDER"}),
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"memory": "128Mi"},
        },
        "volumeMounts": [{"name": "report", "mountPath": REPORT_FOLDER, "readOnly": True}, _account_mount()],
        "terminationMessagePath": TERMINATION_LOG,
        "securityContext": _confined(),
    }
    if runtime.image_pull_policy:
        container["imagePullPolicy"] = runtime.image_pull_policy
    return container


def _environment(sweep: ScalingSweep, run: ScalingRun, attempt: int, way: str) -> dict[str, str]:
    """What a trainer in any language is told; ours reads the order, which says it all."""
    what = run.spec.run
    folder = storage.folder_of(sweep, run)
    order = RunOrder(
        uid=run.metadata.uid,
        name=run.metadata.name,
        attempt=attempt,
        run=what,
        training=what.recipe(sweep.spec.training),
        config_digest=run.spec.config_digest,
        storage=folder,
        report="api",
        cache=CACHE,
        workers=max(1, run.spec.placement.gpus_per_node),
    )
    told = {
        "ORDER": json.dumps(order.to_json(), separators=(",", ":")) if way == "Direct" else None,
        "RUN_UID": run.metadata.uid,
        "RUN": run.metadata.name,
        "NAMESPACE": run.metadata.namespace,
        "ATTEMPT": str(attempt),
        "PURPOSE": str(what.purpose),
        "PARAMETERS": str(what.parameters),
        "TOKENS": ",".join(map(str, what.tokens)),
        "SEED": str(what.seed),
        "LEARNING_RATE_FACTOR": f"{what.learning_rate_factor:g}",
        "SEQUENCE_LENGTH": str(what.sequence_length) if what.sequence_length is not None else None,
        "CONFIG_DIGEST": run.spec.config_digest,
        "GPUS": str(max(1, run.spec.placement.gpus_per_node)),
        "STORAGE": folder,
        "REPORT": TERMINATION_LOG if way == "TerminationMessage" else REPORT_FILE if way == "Sidecar" else None,
    }
    return {f"SCALINGSWEEP_{name}": value for name, value in told.items() if value is not None}


def _volumes(sweep: ScalingSweep) -> list[tuple[JSON, str, bool]]:
    """Each volume, where the trainer sees it, and whether it may only read it."""
    runtime = sweep.spec.runtime
    volumes: list[tuple[JSON, str, bool]] = [
        ({"name": "tmp", "emptyDir": {}}, "/tmp", False),  # noqa: S108 - the pod's own, on a read-only root
        ({"name": "cache", "emptyDir": {}}, CACHE, False),
        ({"name": "storage", **storage.source_of(sweep)}, storage.MOUNT, False),
    ]
    if reports_by(runtime) == "Sidecar":
        volumes.append(({"name": "report", "emptyDir": {"sizeLimit": "16Mi"}}, REPORT_FOLDER, False))
    if runtime.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": runtime.shared_memory}
        volumes.append(({"name": "shared-memory", "emptyDir": memory}, "/dev/shm", False))  # noqa: S108 - as above
    for own in runtime.volumes:
        source: JSON
        if own.claim_name:
            source = {"persistentVolumeClaim": {"claimName": own.claim_name, "readOnly": own.read_only}}
        elif own.config_map:
            source = {"configMap": {"name": own.config_map}}
        elif own.secret:
            source = {"secret": {"secretName": own.secret}}
        else:
            source = {"emptyDir": {"sizeLimit": own.empty_dir_size}}
        volumes.append(({"name": f"user-{own.name}"[:63].rstrip("-"), **source}, own.mount_path, own.read_only))
    return volumes


def _account_volume() -> JSON:
    """The account's token, which only the container that reports is given."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "account", "projected": {"sources": sources}}


def _account_mount() -> JSON:
    return {"name": "account", "mountPath": ACCOUNT_FOLDER, "readOnly": True}


def _confined() -> JSON:
    """What Pod Security's `restricted` asks of a container, and a root file system that cannot be written."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def _listed(environment: dict[str, str]) -> list[JSON]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def merged(below: Any, above: Any) -> Any:
    """Two parts of a pod template as one: `above` wins, objects are merged, lists of named things by their names."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: merged(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **both}
    if isinstance(below, list) and isinstance(above, list) and _all_named(below) and _all_named(above):
        names = {one["name"] for one in above}
        before = {one["name"]: one for one in below}
        own = [merged(before[one["name"]], one) if one["name"] in before else one for one in above]
        return [*own, *(one for one in below if one["name"] not in names)]
    return above


def _all_named(values: list[Any]) -> bool:
    return all(isinstance(value, dict) and isinstance(value.get("name"), str) for value in values)
