"""The CustomResourceDefinitions and their page in the docs, as generated from the models."""

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from sweep_operator import crd
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.structural import structural

CRDS = Path(__file__).parents[2] / "crds"
DOCS = Path(__file__).parents[2] / "docs"


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a schema, with its path as `kubectl explain` takes it."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, inner
        yield from fields(inner, here)
        for below in (inner.get("items"), inner.get("additionalProperties")):
            if isinstance(below, dict):
                yield from fields({"properties": {"": below}}, here)


@pytest.mark.parametrize("name", ["scalingsweeps.yaml", "scalingruns.yaml"])
def test_the_files_are_what_the_models_give(name: str) -> None:
    assert (CRDS / name).read_text() == crd.render(crd.definitions()[name]), "run `make crds`"


def test_the_page_of_the_docs_is_what_the_models_give() -> None:
    place = spec_from_file_location("resources", DOCS / "resources.py")
    assert place is not None
    assert place.loader is not None
    resources = module_from_spec(place)
    place.loader.exec_module(resources)
    text = (DOCS / "resources.md").read_text()
    assert text == resources.page(text), "run `make crds`"


@pytest.mark.parametrize("name", ["scalingsweeps.yaml", "scalingruns.yaml"])
def test_a_definition_fits_into_the_annotation_of_kubectl_apply(name: str) -> None:
    assert (CRDS / name).stat().st_size < crd.MAX_BYTES


@pytest.mark.parametrize("model", [ScalingSweep, ScalingRun])
def test_every_field_is_described_and_every_text_and_list_is_bounded(model: type) -> None:
    bare, unbounded = [], []
    for path, schema in fields(structural(model)):
        if path in (".apiVersion", ".kind", ".metadata"):
            continue
        if not schema.get("description") and not path.endswith("."):
            bare.append(path)
        bound = {"string": "maxLength", "array": "maxItems"}.get(schema.get("type", ""))
        if bound and bound not in schema and "enum" not in schema:
            unbounded.append(path)
    assert not bare, "give these fields a docstring in their model"
    assert not unbounded, "give these fields a max_length in their model"
