"""The bills of materials of the images say what their locks pin."""

import json
import re

import pytest
from helm_chart import ROOT

from sweep_chart.files import IMAGES
from sweep_chart.sbom import bill


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_lists_what_the_lock_pins_and_nothing_else(image: str) -> None:
    lock = (ROOT / "requirements" / f"{image}.txt").read_text()
    pinned = {tuple(match) for match in re.findall(r"^(\S+)==([^\s;]+)", lock, re.MULTILINE)}
    document = json.loads((ROOT / "requirements" / f"{image}.cdx.json").read_text())
    assert {(c["name"], c["version"]) for c in document["components"]} == pinned
    known = {c["bom-ref"] for c in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    assert {d["ref"] for d in document["dependencies"]} == known
    wanted = {ref for d in document["dependencies"] for ref in d["dependsOn"]}
    assert known - wanted == {document["metadata"]["component"]["bom-ref"]}  # nothing is there that nobody wants


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_is_built_from_that_very_lock(image: str) -> None:
    dockerfile = (ROOT / image / "Dockerfile").read_text()
    assert f"--no-deps -r requirements/{image}.txt" in dockerfile


def test_the_same_lock_gives_the_same_bill() -> None:
    lock = ROOT / "requirements" / "operator.txt"
    assert bill(lock, "0.1.0") == bill(lock, "0.1.0")
