"""Where a sweep's runs keep checkpoints, curves and weights: the claim, the volume, and each run's folder in it.

Owns the meaning of `spec.storage` on a cluster. A claim that the operator makes is deleted with the sweep only where
`whenDeleted: Delete` says so, and then by Kubernetes' garbage collection; the operator itself never deletes one.
"""

from pathlib import PurePosixPath
from typing import Any

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.ownership import SWEEP_UID, owner_reference
from sweep_operator.clusters.kubernetes.resources import SWEEP_LABEL
from sweep_operator.names import label_value

JSON = dict[str, Any]

MOUNT = "/storage"


def claim_name(sweep: ScalingSweep) -> str:
    """`<sweep, ≤ 40>-storage-<8 hex of the sweep's UID>`: a sweep made anew under an old name never finds old files."""
    return f"{sweep.metadata.name[:40].rstrip('-.')}-storage-{sweep.metadata.uid.replace('-', '')[:8]}"


def claim_document(sweep: ScalingSweep) -> JSON | None:
    """The PersistentVolumeClaim that the operator makes, where `storage.claim` asks for one."""
    storage = sweep.spec.storage
    if storage is None or storage.claim is None:
        return None
    metadata: JSON = {
        "name": claim_name(sweep),
        "namespace": sweep.metadata.namespace,
        "labels": {SWEEP_LABEL: label_value(sweep.metadata.name)},
        "annotations": {SWEEP_UID: sweep.metadata.uid},
    }
    if storage.when_deleted == "Delete":
        metadata["ownerReferences"] = [owner_reference(sweep)]
    spec: JSON = {
        "accessModes": [storage.claim.access_mode],
        "resources": {"requests": {"storage": storage.claim.size}},
    }
    if storage.claim.storage_class_name:
        spec["storageClassName"] = storage.claim.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def source_of(sweep: ScalingSweep) -> JSON:
    """What stands behind the folder `/storage` in a pod: a claim, or an empty folder that goes with the pod."""
    storage = sweep.spec.storage
    if storage is not None and storage.claim is not None:
        return {"persistentVolumeClaim": {"claimName": claim_name(sweep)}}
    if storage is not None and storage.mounted is not None:
        return {"persistentVolumeClaim": {"claimName": storage.mounted[0]}}
    return {"emptyDir": {}}


def folder_of(sweep: ScalingSweep, run: ScalingRun) -> str:
    """Where a run keeps its own state: below /storage, or below a URI that is handed on as it is."""
    storage = sweep.spec.storage
    if storage is None or storage.uri is None:
        return str(PurePosixPath(MOUNT, run.metadata.name))
    if storage.mounted is None:
        return f"{storage.uri.rstrip('/')}/{run.metadata.name}"
    return str(PurePosixPath(MOUNT, storage.mounted[1], run.metadata.name))
