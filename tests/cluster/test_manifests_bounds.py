"""Every field's limits, one step within and one beyond: the API server and lint must agree on each.

Owns no list of fields: it walks the schema. What lint refuses and the API server takes is left to the operator, which
says it on the sweep; what the API server refuses, lint must never call fine.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from local_ladder import MANIFEST

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError
from sweep_operator.clusters.kubernetes.resources import SWEEPS
from sweep_operator.manifest import ManifestError, read_documents, understand
from sweep_operator.structural import structural

CRDS = Path(__file__).parents[2] / "crds"
Step = str | int
JSON = dict[str, Any]
SPEC = structural(ScalingSweep)["properties"]["spec"]
WRONG: tuple[Any, ...] = ("", "a", "ü b", "1Gi", "30M", "-a", 0, -1, 2.5, True, [], {}, [1, 2], ["a"], {"a": "b"}, [{}])
"""Tried everywhere, whatever the field's type."""


def leaves(schema: JSON, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], JSON]]:
    """Every place below the spec with its schema; lists by their first entry, mappings by some key."""
    if path:
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, (*path, name))
    for step, below in ((0, schema.get("items")), ("some-key", schema.get("additionalProperties"))):
        if isinstance(below, dict):
            yield from leaves(below, (*path, step))


def limits(schema: JSON) -> Iterator[Any]:
    """Values on both sides of each limit of a field."""
    yield from schema.get("enum", ())
    for bound, beyond in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            yield from (schema[bound], schema[bound] + beyond)
    letters = [schema[bound] for bound in ("minLength", "maxLength") if bound in schema]
    yield from ("a" * n for length in letters for n in (length - 1, length, length + 1) if n >= 0)
    entries = [schema[bound] for bound in ("minItems", "maxItems") if bound in schema]
    yield from ([like(schema["items"])] * n for length in entries for n in (length - 1, length, length + 1) if n >= 0)


def like(schema: JSON) -> Any:
    """Something of a type."""
    return {"integer": 1, "number": 1.5, "boolean": True, "object": {}, "array": []}.get(schema.get("type", ""), "a")


def changed(document: JSON, path: tuple[Step, ...], value: Any) -> JSON | None:
    """The document with one value put in, what is above it made where it is missing; None where something stands."""
    whole = copy.deepcopy(document)
    here: Any = whole
    for step, after in zip(("spec", *path), (*path, None), strict=True):
        fresh: Any = value if after is None else [] if isinstance(after, int) else {}
        if isinstance(step, int):
            if not isinstance(here, list):
                return None
            here[:] = here or [fresh]
            if after is None:
                here[0] = value
        elif not isinstance(here, dict):
            return None
        elif after is None:
            here[step] = value
        else:
            here.setdefault(step, fresh)
        here = here[step]
    return whole


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> JSON:
    path = tmp_path_factory.mktemp("bounds") / "sweep.yaml"
    path.write_text(MANIFEST)
    return next(iter(read_documents(path)))


@pytest.mark.parametrize("part", sorted(SPEC["properties"]))
def test_lint_never_calls_fine_what_the_api_server_refuses(
    part: str, document: JSON, control_plane: ControlPlane
) -> None:
    control_plane.install(CRDS)
    api, tried, taken, apart = Api.connect(control_plane.kubeconfig()), 0, 0, []
    for path, schema in leaves(SPEC["properties"][part], (part,)):
        for value in (*limits(schema), *WRONG):
            manifest = changed(document, path, value)
            if manifest is None:
                continue
            servers, lints = of_server(api, manifest), of_lint(manifest)
            tried, taken = tried + 1, taken + (not servers and not lints)
            if servers and not lints:
                apart.append((".".join(map(str, path)), str(value)[:40], servers[:300]))
    assert not apart
    assert taken
    assert tried - taken > 10


def of_server(api: Api, manifest: JSON) -> str:
    try:
        api.create(SWEEPS.path("default"), manifest, dryRun="All", fieldValidation="Strict")
    except ApiError as refusal:
        return str(refusal)
    return ""


def of_lint(manifest: JSON) -> str:
    try:
        understand(Path("sweep.yaml"), manifest)
    except ManifestError as refusal:
        return str(refusal)
    return ""
