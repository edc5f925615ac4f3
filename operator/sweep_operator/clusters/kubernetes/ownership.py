"""How children are marked as ours: owner references, labels, and annotations that outlast both.

Owns who an object says it belongs to, and whether that is true. Writes nothing.
"""

from typing import Any

from sweep_operator.api import API_VERSION, ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.resources import ATTEMPT_LABEL, GROUP, RUN_LABEL, RUNG_LABEL, SWEEP_LABEL
from sweep_operator.names import config_digest, label_value, run_name

JSON = dict[str, Any]

RUN_UID = f"{GROUP}/run-uid"
"""Annotation by which a Job is known as ours although somebody took its owner away."""
SWEEP_UID = f"{GROUP}/sweep-uid"
"""Annotation of a claim: the sweep that it was made for, which it may outlive."""


def owner_reference(owner: ScalingSweep | ScalingRun) -> JSON:
    """By which a child belongs to it: found by its UID, and collected as garbage after it."""
    return _reference(owner.kind, owner.metadata.name, owner.metadata.uid)


def _reference(kind: str, name: str, uid: str) -> JSON:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def run_labels(run: ScalingRun) -> dict[str, str]:
    """By which people find what belongs to a sweep, a rung or a run."""
    return {
        SWEEP_LABEL: label_value(run.spec.sweep),
        RUNG_LABEL: run.spec.rung,
        RUN_LABEL: run.metadata.name,
    }


def job_labels(run: ScalingRun, attempt: int) -> dict[str, str]:
    """Of an attempt's Job and its pods; the operator watches what carries them."""
    return {**run_labels(run), ATTEMPT_LABEL: str(attempt)}


def run_document(run: ScalingRun) -> JSON:
    """A ScalingRun as it is created: owned by its sweep, and labelled for people."""
    document = run.to_json()
    del document["status"]
    document["metadata"] = {
        "name": run.metadata.name,
        "namespace": run.metadata.namespace,
        "labels": run_labels(run),
        "ownerReferences": [_reference("ScalingSweep", run.spec.sweep, run.spec.sweep_uid)],
    }
    return document


def is_of(sweep: ScalingSweep, run: ScalingRun) -> bool:
    """Whether a run that names the sweep as its owner is one that we would have made of it.

    An owner reference is easily forged; name and configuration follow from the sweep, its UID included, and what is
    planned, on which devices, stands in its status, which only the operator writes and which is written before a run
    exists. (While its training stands edited against the rules, the sweep is refused, and the configuration cannot be
    told from it. Where the status is of a version that kept no placement, none is asked for.)
    """
    spec = run.spec
    if spec.sweep_uid != sweep.metadata.uid:
        return False
    key = spec.rung, spec.revision
    rung = next((r for r in sweep.status.rungs if (r.name, r.revision) == key and r.forecast is not None), None)
    if rung is None or spec.run not in (*rung.runs, *rung.experiments):
        return False
    if rung.placement is not None and spec.placement != rung.placement:
        return False
    if run.metadata.name != run_name(sweep, spec.rung, spec.revision, spec.run):
        return False
    frozen = sweep.status.frozen.get("training")
    edited = frozen is not None and frozen != sweep.spec.frozen_part["training"]
    return edited or spec.config_digest == config_digest(sweep.spec.training, spec.run)


def controller_of(document: JSON) -> JSON | None:
    """The owner that an object is controlled by, if it has one."""
    owners = document["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_leaving(document: JSON) -> bool:
    """Whether it is being deleted."""
    return bool(document["metadata"].get("deletionTimestamp"))
