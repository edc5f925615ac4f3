"""`scalingsweep fit` and `forecast`: the documented JSON, lines for people, and one sentence for bad input."""

import json

import numpy as np
import pytest

from sweep_analysis.laws import LAWS
from sweep_operator.cli import main

TRUTH = {"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


@pytest.fixture
def runs(tmp_path):
    N, r = (v.ravel() for v in np.meshgrid(np.geomspace(5e7, 5e9, 8), [5.0, 20.0, 80.0]))
    noise = np.random.default_rng(0).standard_normal(24)
    L = LAWS["Chinchilla"].predict(TRUTH, parameters=N, tokens=N * r) * np.exp(2e-3 * noise)
    path = tmp_path / "runs.csv"
    path.write_text("N,D,L\n" + "\n".join(f"{n},{n * k},{v}" for n, k, v in zip(N, r, L, strict=True)) + "\n")
    return path


COLUMNS = ["--columns", "parameters=N,tokens=D,loss=L"]


def _json(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_fit_prints_the_documented_json(runs, capsys):
    document = _json(capsys, "fit", runs, "--law", "Chinchilla", *COLUMNS, "-o", "json")
    assert list(document) == ["law", "records", "status", "objective", "parameters"]
    assert (document["law"], document["records"], document["status"]) == ("Chinchilla", 24, "Converged")
    assert list(document["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    for interval in document["parameters"].values():
        assert list(interval) == ["value", "low", "high"]
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_forecast_prints_the_documented_json(runs, capsys):
    document = _json(capsys, "forecast", runs, "--at", "parameters=7B,tokens=140B", "-o", "json")
    assert list(document) == ["loss", "jump", "law", "evidence"]
    assert list(document["loss"]) == ["value", "low", "high", "confidence"]
    assert document["loss"]["confidence"] == 0.95
    assert document["loss"]["low"] < document["loss"]["value"] < document["loss"]["high"]
    assert document["evidence"].startswith("sha256:")


def test_fit_chooses_a_law_and_says_why_not_the_others(runs, capsys):
    document = _json(capsys, "fit", runs, "--choose", *COLUMNS, "-o", "json")
    assert list(document) == ["law", "records", "status", "objective", "parameters", "candidates"]
    chosen, *others = document["candidates"]
    assert (chosen["law"], chosen["chosen"], chosen["heldOut"] < 0.01) == (document["law"], True, True)
    assert {c["law"] for c in others} >= {"SaturatingCompute", "KaplanCompute", "BrokenPower"}
    assert all(c["reason"].startswith("ruled out") for c in others)
    assert main(["fit", str(runs), "--choose", *COLUMNS]) == 0
    out = capsys.readouterr().out
    assert out.startswith("law ")
    assert f"\n{document['law']}: {document['status']}, 24 records\n" in out


def test_a_law_is_named_or_chosen(runs, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(runs), "--choose", "--law", "Chinchilla"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_yaml_says_the_same_as_json(runs, capsys):
    from ruamel.yaml import YAML

    document = _json(capsys, "fit", runs, *COLUMNS, "-o", "json")
    assert main(["fit", str(runs), *COLUMNS, "-o", "yaml"]) == 0
    assert YAML(typ="safe").load(capsys.readouterr().out) == document


def test_a_table_for_people_is_plain_lines(runs, capsys):
    assert main(["fit", str(runs), *COLUMNS]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Chinchilla: Converged, 24 records\n")
    assert "\x1b" not in out
    assert main(["forecast", str(runs), "--at", "parameters=7B,tokens=140B"]) == 0
    assert capsys.readouterr().out.startswith("loss 2.")


def test_bootstrap_intervals_are_taken_when_asked_for(runs, capsys):
    plain = _json(capsys, "fit", runs, "-o", "json")
    drawn = _json(capsys, "fit", runs, "--bootstrap", "200", "-o", "json")
    assert drawn["parameters"]["alpha"]["value"] == plain["parameters"]["alpha"]["value"]
    assert drawn["parameters"]["alpha"]["low"] != plain["parameters"]["alpha"]["low"]


def test_confidence_and_delta_reach_the_fit(runs, capsys):
    wide = _json(capsys, "fit", runs, "-o", "json", "--confidence", "0.99")["parameters"]["alpha"]
    narrow = _json(capsys, "fit", runs, "-o", "json", "--confidence", "0.5")["parameters"]["alpha"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    assert _json(capsys, "fit", runs, "-o", "json", "--delta", "1")["objective"] != pytest.approx(
        _json(capsys, "fit", runs, "-o", "json")["objective"]
    )


def test_other_laws_fit_and_forecast_from_the_same_file(runs, capsys):
    document = _json(capsys, "fit", runs, "--law", "SaturatingCompute", "-o", "json")
    assert list(document["parameters"]) == ["E", "K", "gamma"]
    told = _json(capsys, "forecast", runs, "--law", "SaturatingCompute", "--at", "flops=1e23", "-o", "json")
    assert told["law"] == "SaturatingCompute"


def test_a_rung_column_is_read(runs, tmp_path, capsys):
    lines = runs.read_text().splitlines()
    named = [lines[0] + ",step"] + [f"{line},r{i % 8}" for i, line in enumerate(lines[1:])]
    path = tmp_path / "rungs.csv"
    path.write_text("\n".join(named) + "\n")
    at = ["--at", "parameters=7B,tokens=140B", "-o", "json"]
    by_rung = _json(capsys, "forecast", path, "--columns", "rung=step", *at)
    assert by_rung["evidence"] != _json(capsys, "forecast", runs, *at)["evidence"] or by_rung["loss"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--law", "Newton"], "no law is called 'Newton'"),
        (["--columns", "loss=M"], "no column 'M'"),
        (["--delta", "0"], "delta is 0"),
        (["--bootstrap", "3"], "at least 100"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(runs, capsys, arguments, said):
    assert main(["fit", str(runs), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scalingsweep fit: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "parameters=7m,tokens=140B"], "did you mean 7M"),
        (["--at", "parameters"], "is not NAME=VALUE"),
        (["--at", "parameters=7B,parameters=8B"], "given twice"),
        (["--at", "parameters=7B,tokens=140B", "--confidence", "95"], "not between 0 and 1"),
    ],
)
def test_a_wrong_option_is_refused_by_the_parser(runs, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(["forecast", str(runs), *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("at", "said"), [("parameters=7B", "missing: tokens"), ("parameters=-1,tokens=1", "greater than zero")]
)
def test_an_impossible_run_is_refused(runs, capsys, at, said):
    assert main(["forecast", str(runs), "--at", at]) == 2
    assert said in capsys.readouterr().err


def test_a_refused_fit_prints_its_status_and_ends_with_two(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text("N,D,loss\n" + "\n".join(f"{n},{20 * n},{3 - i / 10}" for i, n in enumerate(range(100, 900, 100))))
    assert main(["fit", str(path), "-o", "json"]) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["status"] == "Unidentified"
    assert document["objective"] is None
    assert "add a second ratio" in captured.err
    assert main(["forecast", str(path), "--at", "parameters=7B,tokens=140B"]) == 2
    assert "no forecast" in capsys.readouterr().err


def test_suspicions_are_said_beside_the_result(runs, tmp_path, capsys):
    path = tmp_path / "billions.csv"
    rows = [line.split(",") for line in runs.read_text().splitlines()[1:]]
    path.write_text("N,D,L\n" + "\n".join(f"{n},{float(d) / 1e9},{v}" for n, d, v in rows) + "\n")
    assert main(["fit", str(path), "-o", "json"]) == 0
    assert "counted in billions" in capsys.readouterr().err


def test_missing_values_are_refused_or_dropped(runs, capsys):
    runs.write_text(runs.read_text() + "1e9,2e10,\n")
    assert main(["fit", str(runs), "-o", "json"]) == 2
    assert "line 26 of runs.csv: loss is missing" in capsys.readouterr().err
    assert _json(capsys, "fit", runs, "--drop-missing", "-o", "json")["records"] == 24
