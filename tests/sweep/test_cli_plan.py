"""`scalingsweep plan` from a target and a budget, around a manifest, and after a rung of a ladder that stands."""

import contextlib
import io
import json

import pytest
from local_ladder import MANIFEST, Folder
from ruamel.yaml import YAML

from sweep_operator.cli import main

WISH = ("--target", "30M:600M", "--budget", "0.01h")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """A finished ladder, far below its target."""
    folder = Folder(tmp_path_factory.mktemp("climbed"))
    folder.edit("{parameters: 170K, tokens: 3.4M}", "{parameters: 700K, tokens: 14M}")
    assert folder.run().returncode == 0
    return folder


@pytest.fixture
def called(monkeypatch, capsys):
    """Call the command line in this process: exit status, output, errors."""

    def call(folder, *arguments):
        monkeypatch.chdir(folder.path)
        status = main([str(a) for a in arguments])
        done = capsys.readouterr()
        return status, done.out, done.err

    return call


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """One plan with everything asked, as JSON, and the manifest it wrote."""
    path = tmp_path_factory.mktemp("plan") / "sweep.yaml"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(
            ["plan", *WISH, "--gpus", "8", "--inference-tokens", "10B", "--corpus-tokens", "100M",
             "--labels", "accuracy=0.9", "--manifest", str(path), "-o", "json"]
        )  # fmt: skip
    assert status == 0
    return json.loads(out.getvalue()), path


# --- a target and a budget -------------------------------------------------------------------------------------------


def test_a_plan_for_a_target_keeps_within_its_budget_and_says_what_it_will_know(planned):
    plan, _ = planned
    assert plan["gpuHours"]["value"] <= plan["budgetGpuHours"] == 0.01
    assert plan["target"]["parameters"] == pytest.approx(30e6, rel=0.25)
    assert 0 < plan["forecast"]["halfWidth"] < 1
    assert plan["evenSpacing"]["ratio"] > 1


def test_a_plan_prices_every_rung_and_the_target_with_intervals_and_both_conventions(planned):
    plan, _ = planned
    assert [row["name"] for row in plan["prices"]] == [*(rung["name"] for rung in plan["rungs"]), "target"]
    for row, rung in zip(plan["prices"], [*plan["rungs"], plan["target"]], strict=True):
        assert row["gpuHours"]["low"] < row["gpuHours"]["value"] < row["gpuHours"]["high"]
        assert row["dollars"]["value"] == pytest.approx(2.5 * row["gpuHours"]["value"])
        assert {"zeroStage", "checkpointing", "totalBytes"} <= row["memory"].keys()
        assert rung["flops"]["detailed"] > 0 < rung["flops"]["sixND"]


def test_a_plan_answers_split_serving_plateau_exponent_data_and_labels(planned):
    plan, _ = planned
    assert plan["splits"]["servedParameters"]["value"] < plan["splits"]["optimalParameters"]["value"]
    assert plan["plateau"]["lastStep"] >= plan["plateau"]["step"]
    assert 0 < plan["exponent"]["split"] < 0.2
    assert plan["data"]["epochs"] == pytest.approx(6, rel=0.01)
    assert plan["labels"][0]["measuredBy"] > 3000
    assert all(entry["source"] for entry in plan["assumptions"].values())


def test_the_written_manifest_is_accepted_and_is_the_plan(planned, called, folder):
    plan, path = planned
    status, out, errors = called(folder, "lint", str(path))
    assert (status, errors) == (0, "")
    assert "fine" in out
    document = YAML(typ="safe").load(path.read_text())
    sizes = [rung["runs"][0]["parameters"] for rung in document["spec"]["ladder"]["rungs"]]
    assert sizes == [rung["parameters"] for rung in plan["rungs"]]
    assert document["spec"]["target"]["inferenceTokens"] == "10B"
    assert document["spec"]["budget"] == {"gpuHours": 0.01}
    status, out, _ = called(folder, "plan", str(path), "-o", "json")
    again = json.loads(out)
    assert [rung["tokens"] for rung in again["rungs"]] == [rung["tokens"] for rung in plan["rungs"]]
    assert again["flops"] == pytest.approx(plan["flops"])


def test_a_manifest_is_not_written_over_unless_asked(planned, called, folder):
    _, path = planned
    before = path.read_text()
    status, out, errors = called(folder, "plan", *WISH, "--manifest", str(path))
    assert (status, out) == (2, "")
    assert "exists already; name another file, or add --force" in errors
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "7B", "--budget", "5h"], "tokens are missing; write parameters:tokens, such as 7B:140B"),
        (["--target", "7b:140B", "--budget", "5h"], "'7b' is not a size: did you mean 7B?"),
        (["--target", "7B:1K", "--budget", "5h"], "tokens per parameter; between 0.1 and 100,000 would be right"),
        (["--target", "7B:140B"], "--target needs --budget"),
        (["--target", "7B:140B", "--budget", "5000"], "such as 5000h or 200d"),
        (["--target", "7B:140B", "--budget", "0.00001h"], "too small for three rungs"),
        (["--target", "7B:140B", "--budget", "5h", "--gpu", "h1000"], "did you mean h100?"),
        (["--target", "7B:140B", "--budget", "5h", "--mfu", "0.5:0.2"], "lower end first, such as 0.3:0.45"),
        (["--target", "7B:140B", "--budget", "5h", "--price", "-1"], "greater than zero"),
        (["--target", "7B:140B", "--budget", "5h", "--gpus", "0"], "at least one GPU must train"),
        (["--target", "7B:140B", "--budget", "5h", "--workdir", "x"], "belong to a ladder that stands"),
        (["sweep.yaml", "--target", "7B:140B"], "name one of the two"),
        (["--budget", "5h"], "--budget belongs to a new ladder: add --target"),
        (["--target", "7B:140B", "--budget", "5h", "--sequence-length", "0"], "between 8 and 65536 would be right"),
        (["sweep.yaml", "--price", "0"], "greater than zero"),
        (["sweep.yaml", "--gpus", "0"], "at least one GPU must train"),
        (["sweep.yaml", "--labels", "acuracy=0.9"], "did you mean accuracy?"),
        (["sweep.yaml", "--pilot", "x.csv"], "say which metric it should reach"),
        (["sweep.yaml", "--corpus-tokens", "1M"], "no law is known at"),
        (["--workdir", "nowhere"], "nowhere holds no ladder"),
    ],
)
def test_a_wrong_wish_is_answered_in_one_sentence(folder, called, arguments, sentence):
    status, out, errors = called(folder, "plan", *arguments)
    assert (status, out) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


# --- a manifest ------------------------------------------------------------------------------------------------------


def test_a_manifest_is_priced_on_gpus_when_they_are_named(folder, called):
    _, out, _ = called(folder, "plan", "sweep.yaml", "--gpu", "a100", "--price", "1.25", "-o", "json")
    plan = json.loads(out)
    assert plan["assumptions"]["dollarsPerGpuHour"] == {"value": 1.25, "source": "given"}
    assert plan["prices"][-1]["name"] == "target"
    _, plain, _ = called(folder, "plan", "sweep.yaml", "-o", "json")
    assert "prices" not in json.loads(plain)


def test_far_below_published_runs_no_law_is_assumed(folder, called):
    _, out, _ = called(folder, "plan", "sweep.yaml", "-o", "json")
    assert "law" not in json.loads(out)


# --- a ladder that stands --------------------------------------------------------------------------------------------


def test_after_a_ladder_the_next_runs_are_proposed_with_prices_and_forecasts(climbed, called):
    status, out, _ = called(climbed, "plan", "--workdir", "tiny", "-o", "json")
    plan = json.loads(out)
    assert status == 0
    assert plan["promoted"] == ["a", "b", "c", "d"]
    assert plan["proposals"]
    for proposal in plan["proposals"]:
        assert proposal["gpuSeconds"] > 0
        assert proposal["halfWidth"] < plan["halfWidth"]
        assert proposal["loss"]["low"] < proposal["loss"]["value"] < proposal["loss"]["high"]
    assert "this ladder's own" in plan["law"]


def test_the_proposals_for_people_are_a_table_below_what_is_known(climbed, called):
    _, out, _ = called(climbed, "plan", "--workdir", "tiny")
    assert out.startswith("now      target ")
    assert "TARGET AFTER" in out


def test_a_ladder_without_a_promoted_rung_points_to_its_manifest(folder, called):
    folder.write(MANIFEST.replace("gate: {warmupRungs: 3", "suspend: true\n  gate: {warmupRungs: 3"))
    assert folder.run().returncode == 3
    status, _, errors = called(folder, "plan", "--workdir", "tiny")
    assert status == 2
    assert "plan its manifest instead" in errors
