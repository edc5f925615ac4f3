"""`kubectl apply` for a folder: a manifest's fields into the sweep that stands there.

Owns the three-way merge (what the manifest says, what it said last time, what stands there now), so that fields which
commands have set and the manifest never named (approvals, suspend) stay, and the growth of `generation`.
"""

import json
from typing import Any

from sweep_operator.api import ScalingSweep, SweepSpec
from sweep_operator.clusters.local.store import sweep_uid
from sweep_operator.manifest import Manifest, ManifestError

LAST_APPLIED = "scalingsweep.dev/last-applied-configuration"
"""Annotation with the manifest as it was applied last."""


def applied(standing: ScalingSweep | None, manifest: Manifest, now: str) -> ScalingSweep:
    """The sweep after the manifest was applied; `standing` itself when nothing changes. Raises ManifestError."""
    said = json.dumps(manifest.written, sort_keys=True)
    if standing is None:
        metadata = manifest.sweep.metadata
        uid = sweep_uid(metadata.namespace, metadata.name)
        annotations = {**metadata.annotations, LAST_APPLIED: said}
        fresh = metadata.changed(uid=uid, generation=1, creation_timestamp=now, annotations=annotations)
        return manifest.sweep.changed(metadata=fresh)
    previous = json.loads(standing.metadata.annotations.get(LAST_APPLIED, "{}"))
    merged = merge(standing.to_json()["spec"], manifest.written.get("spec", {}), previous.get("spec", {}))
    spec = type(standing.spec).model_validate(merged)
    if standing.status.frozen and (field := frozen_difference(standing.spec, spec)):
        raise ManifestError(
            f"{manifest.path}: {field} may not change once a forecast has been written;"
            " put it back, or start a ladder of its own in another --workdir"
        )
    labels = {**standing.metadata.labels, **manifest.sweep.metadata.labels}
    annotations = {**standing.metadata.annotations, **manifest.sweep.metadata.annotations, LAST_APPLIED: said}
    metadata = standing.metadata.changed(labels=labels, annotations=annotations)
    after = with_spec(standing.changed(metadata=metadata), spec.to_json())
    return standing if after == standing else after


def with_spec(sweep: ScalingSweep, spec: dict[str, Any]) -> ScalingSweep:
    """The sweep with another spec; its generation grows when that makes a difference."""
    changed = sweep.changed(spec=spec)
    if changed.spec == sweep.spec:
        return sweep
    return changed.changed(metadata=sweep.metadata.changed(generation=sweep.metadata.generation + 1))


def merge(standing: Any, wanted: Any, previous: Any) -> Any:
    """What the manifest says wins; what it no longer says goes; what it never said stays. Lists are taken whole."""
    if not (isinstance(standing, dict) and isinstance(wanted, dict)):
        return wanted
    before = previous if isinstance(previous, dict) else {}
    result = {key: value for key, value in standing.items() if key in wanted or key not in before}
    for key, value in wanted.items():
        result[key] = merge(standing.get(key), value, before.get(key)) if key in standing else value
    return result


def frozen_difference(before: SweepSpec, after: SweepSpec) -> str | None:
    """The first field, as a path from `spec`, of the frozen part in which two specs differ."""
    old, new = before.frozen_part, after.frozen_part
    for field in old | new:
        if old.get(field) != new.get(field):
            then, now = (json_at(spec.to_json(), field) for spec in (before, after))
            return first_difference(then, now, f"spec.{field}") or f"spec.{field}"
    return None


def json_at(value: Any, path: str) -> Any:
    """The value at a dotted path; None where there is nothing."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def first_difference(before: Any, after: Any, path: str = "") -> str | None:
    """Path of the first field at which two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            found = first_difference(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    return None if before == after else path
