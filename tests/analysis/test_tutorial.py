"""The tutorial runs from top to bottom: on published records where they are, and on records it draws itself."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
SHARED = Path(os.environ.get("SCALINGSWEEP_SHARED", ROOT / ".." / "shared")).resolve()


@pytest.fixture(scope="module")
def cells():
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return document["cells"]


@pytest.mark.parametrize("source", ["published", "drawn"])
def test_every_cell_of_the_tutorial_runs(cells, source, monkeypatch, tmp_path):
    if source == "published" and not (SHARED / "data").is_dir():
        pytest.skip("no published records: neither ../shared nor $SCALINGSWEEP_SHARED is there")
    monkeypatch.setenv("SCALINGSWEEP_SHARED", str(SHARED if source == "published" else tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "tutorial"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"tutorial cell {number}", "exec"), names)
    assert (len(names["records"]["loss"]) == 240) == (source == "published")


def test_the_tutorial_is_kept_without_outputs(cells):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


def test_every_code_cell_ends_with_something_to_see_or_a_claim(cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            text = "".join(cell["source"])
            assert "assert" in text or "print" in text or text.splitlines()[-1].startswith("len(")
