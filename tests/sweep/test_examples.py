"""The shipped examples, run as a person would run them, with the real trainer on real text."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

EXAMPLES = Path(__file__).parents[2] / "examples"
SCALINGSWEEP = Path(sys.executable).parent / "scalingsweep"

pytestmark = pytest.mark.timeout(960)


def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCALINGSWEEP, *arguments], cwd=cwd, capture_output=True, text=True, timeout=900, check=False)


def run(example: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return call("run", EXAMPLES / f"{example}.yaml", "--workdir", folder / "ladder", cwd=folder)


def status(folder: Path) -> dict[str, Any]:
    shown = call("get", "--workdir", folder / "ladder", "-o", "json", cwd=folder)
    return json.loads(shown.stdout)["status"]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_but_the_refused_one_is_valid(example, tmp_path):
    linted = call("lint", example, cwd=tmp_path)
    assert linted.returncode == (2 if example.stem == "one-ratio" else 0), linted.stdout + linted.stderr


def test_the_readmes_manifest_is_valid(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text()
    manifest = tmp_path / "readme.yaml"
    manifest.write_text(readme.split("```yaml\n")[1].split("```")[0])
    linted = call("lint", manifest, cwd=tmp_path)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_a_ladder_of_one_ratio_is_refused_with_the_remedy_and_writes_nothing(tmp_path):
    ended = run("one-ratio", tmp_path)
    assert ended.returncode == 2
    assert "DesignCannotIdentify" in ended.stderr
    assert "add a second ratio" in ended.stderr
    assert not (tmp_path / "ladder").exists()


@pytest.mark.slow
def test_a_rung_at_thirty_times_its_learning_rate_is_told_from_a_broken_law_and_rerun(tmp_path):
    ended = run("mistuned", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, second = (rung for rung in status(tmp_path)["rungs"] if rung["name"] == "20k")
    assert (first["state"], first["verdict"]["reason"]) == ("Superseded", "BadlyTuned")
    assert (second["state"], second["revision"]) == ("Promoted", 2)
    assert second["runs"][0]["learningRateFactor"] < 8
    assert second["loss"] < first["loss"]


@pytest.mark.slow
def test_a_corpus_repeated_past_its_use_holds_the_rung(tmp_path):
    ended = run("repeated", tmp_path)
    assert ended.returncode == 3
    held = status(tmp_path)["rungs"][-1]
    assert (held["state"], held["verdict"]["reason"]) == ("Held", "OutOfData")
    assert "scalingsweep approve 20k" in ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_budget_ends_the_ladder_and_raising_it_goes_on_without_repeating_a_run(tmp_path):
    assert run("budget", tmp_path).returncode == 3
    before = status(tmp_path)
    assert before["phase"] == "OverBudget"
    yaml = YAML()
    manifest = yaml.load(EXAMPLES / "budget.yaml")
    manifest["spec"]["budget"]["flops"] = "1e12"
    raised = tmp_path / "budget.yaml"
    yaml.dump(manifest, raised)
    ended = call("run", raised, "--workdir", tmp_path / "ladder", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    after = status(tmp_path)
    assert after["phase"] == "Succeeded"
    assert after["rungs"][0] == before["rungs"][0]


@pytest.mark.slow
def test_every_rung_of_a_manual_ladder_waits_for_its_approval(tmp_path):
    for rung in ("warmup", "20k"):
        assert run("approval", tmp_path).returncode == 3
        assert status(tmp_path)["phase"] == "AwaitingApproval"
        approved = call("approve", rung, "--workdir", tmp_path / "ladder", cwd=tmp_path)
        assert approved.returncode == 0, approved.stderr
    assert run("approval", tmp_path).returncode == 0


@pytest.mark.slow
def test_the_laptop_ladder_climbs_to_its_target(tmp_path):
    ended = run("laptop", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ladder = status(tmp_path)
    assert [rung["state"] for rung in ladder["rungs"]] == ["Promoted"] * 6
    assert ladder["target"]["jump"] >= 3
    width = ladder["target"]["prediction"]
    assert (width["high"] - width["low"]) / width["value"] <= 0.10
    page = (tmp_path / "ladder" / "report.html").read_text()
    assert "laptop" in page
    shutil.rmtree(tmp_path / "ladder")
