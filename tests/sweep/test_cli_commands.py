"""The small commands: lint, plan, get, the decisions; their forms, their sentences, and how quickly they start."""

import json
import subprocess
import sys

import pytest
from local_ladder import MANIFEST, Folder
from ruamel.yaml import YAML

from sweep_operator.cli import COMMANDS, main


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """A finished ladder."""
    folder = Folder(tmp_path_factory.mktemp("climbed"))
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


# --- lint ----------------------------------------------------------------------------------------------------------


def test_lint_calls_a_good_manifest_fine(folder, called):
    assert called(folder, "lint", "sweep.yaml") == (0, "sweep.yaml: tiny: fine, 4 rungs of 5 runs in all\n", "")


def test_lint_names_every_fault_of_every_file(folder, called):
    (folder.path / "wrong.yaml").write_text(MANIFEST.replace("27K", "30 K").replace("warmupRungs: 3", "warmupRungs: 9"))
    (folder.path / "empty.yaml").write_text("")
    (folder.path / "many.yaml").write_text(MANIFEST + "---\napiVersion: v1\nkind: ConfigMap\n")
    status, out, errors = called(folder, "lint", "wrong.yaml", "empty.yaml", "many.yaml", "none.yaml")
    assert status == 2
    assert out.splitlines() == [
        "many.yaml: tiny: fine, 4 rungs of 5 runs in all",
        "many.yaml: ConfigMap: not checked, it is no ScalingSweep",
    ]
    assert errors.splitlines() == [
        "wrong.yaml: spec.ladder.rungs[0].runs[0].parameters: '30 K' is not a size: did you mean 30K?",
        "wrong.yaml: spec.gate.warmupRungs: 9 is not taken; it must be at most 8",
        "empty.yaml is empty; it should hold a ScalingSweep",
        "none.yaml: there is no such file",
    ]


def test_lint_says_what_the_operator_would_object_to(folder, called):
    folder.write(MANIFEST.replace("[10, 20]", "[20]"))
    status, _, errors = called(folder, "lint", "sweep.yaml")
    assert status == 2
    assert errors.startswith("sweep.yaml: DesignCannotIdentify: ")


# --- plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_has_exact_sizes_both_conventions_shares_and_the_jump(folder, called):
    status, out, _ = called(folder, "plan", "sweep.yaml", "-o", "json")
    plan = json.loads(out)
    assert status == 0
    assert [step["name"] for step in plan["rungs"]] == ["a", "b", "c", "d"]
    first = plan["rungs"][0]
    assert first["parameters"] == [27_048]
    assert all(tokens % 2048 == 0 for tokens in first["tokens"])
    assert first["flops"]["detailed"] > first["flops"]["sixND"]
    assert sum(step["share"] for step in plan["rungs"]) == pytest.approx(1)
    target, largest = plan["target"], plan["rungs"][-1]
    assert plan["jump"] == pytest.approx(
        target["parameters"][0] * target["tokens"][0] / (largest["parameters"][0] * largest["tokens"][-1])
    )
    assert plan["gpuSeconds"] is None


def test_a_plan_is_priced_by_a_ladder_that_was_measured(climbed, called):
    _, out, _ = called(climbed, "plan", "sweep.yaml", "-o", "json")
    assert json.loads(out)["gpuSeconds"] > 0
    _, text, _ = called(climbed, "plan", "sweep.yaml", "--workdir", "tiny")
    assert "of device time, " in text


def test_a_plan_for_people_is_a_table_with_the_target_last(folder, called):
    _, out, _ = called(folder, "plan", "sweep.yaml")
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["RUNG", "RUNS", "PARAMETERS", "TOKENS"]
    assert lines[5].startswith("target")
    assert "the target is 2.3 times its largest run" in out
    assert "unknown: nothing was measured on this machine yet" in out


def test_a_plan_of_what_would_be_refused_is_refused(folder, called):
    folder.edit("27K", "30m")
    status, out, errors = called(folder, "plan", "sweep.yaml")
    assert (status, out) == (2, "")
    assert "did you mean 30M?" in errors


# --- get -----------------------------------------------------------------------------------------------------------


def test_get_shows_the_object_as_on_a_cluster_in_json_and_yaml(climbed, called):
    _, out, _ = called(climbed, "get", "--workdir", "tiny", "-o", "json")
    sweep = json.loads(out)
    assert (sweep["apiVersion"], sweep["kind"]) == ("scalingsweep.dev/v1alpha1", "ScalingSweep")
    assert sweep["spec"]["ladder"]["rungs"][0]["name"] == "a"
    assert sweep["status"]["phase"] == "Succeeded"
    assert [c["type"] for c in sweep["status"]["conditions"]]
    _, text, _ = called(climbed, "get", "--workdir", "tiny", "-o", "yaml")
    assert YAML(typ="safe").load(text) == sweep


def test_what_get_prints_may_be_applied_again(climbed, called):
    _, out, _ = called(climbed, "get", "--workdir", "tiny", "-o", "yaml")
    (climbed.path / "again.yaml").write_text(out)
    assert called(climbed, "lint", "again.yaml")[0] == 0


def test_get_for_people_is_the_table(climbed, called):
    status, out, _ = called(climbed, "get", "tiny", "--workdir", "tiny")
    assert status == 0
    assert out.startswith("tiny  Succeeded\n\nRUNG")


@pytest.mark.parametrize("command", ["get", "suspend", "resume", "abort", "retry", "report"])
def test_a_folder_without_a_ladder_is_named_with_what_begins_one(folder, called, command):
    status, out, errors = called(folder, command, "--workdir", "nowhere")
    assert (status, out) == (2, "")
    assert errors == (
        f"scalingsweep {command}: nowhere holds no ladder;"
        " begin one with: scalingsweep run SWEEP.yaml --workdir nowhere\n"
    )


def test_another_name_than_the_ladders_is_refused(climbed, called):
    status, _, errors = called(climbed, "get", "other", "--workdir", "tiny")
    assert status == 2
    assert "holds the sweep tiny, not other" in errors


# --- decisions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["approve", "z"], "there is no rung 'z' (there are: a, b, c, d); nothing is waiting"),
        (["approve", "a"], "rung a is Promoted and waits for no approval; nothing is waiting"),
        (["suspend"], "the sweep has succeeded; nothing is left to decide"),
        (["resume"], "the sweep has succeeded; nothing is left to decide"),
        (["abort"], "the sweep has succeeded; nothing is left to decide"),
        (["retry"], "no run of this sweep has failed; there is nothing to retry"),
    ],
)
def test_a_decision_that_would_have_no_effect_is_refused(climbed, called, arguments, sentence):
    before = (climbed.workdir / "sweep.json").read_bytes()
    status, out, errors = called(climbed, *arguments, "--workdir", "tiny")
    assert (status, out) == (2, "")
    assert errors == f"scalingsweep {arguments[0]}: {sentence}\n"
    assert (climbed.workdir / "sweep.json").read_bytes() == before


# --- the program ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


def test_an_unknown_command_or_option_ends_with_2(capsys):
    for arguments in (["climb"], ["lint", "--wrong", "x"], ["plan"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert capsys.readouterr().err


def imported(folder, *arguments):
    """Top-level packages that a command has imported."""
    program = (
        "import sys; from sweep_operator.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder.path,
        env=folder.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["--help"], {"numpy", "pydantic", "scipy", "rich", "torch"}),
        (["lint", "sweep.yaml"], {"torch", "rich", "prometheus_client", "matplotlib", "kubernetes"}),
        (["plan", "sweep.yaml"], {"torch", "rich", "prometheus_client", "matplotlib", "kubernetes"}),
        (["run", "--help"], {"torch", "rich", "prometheus_client", "matplotlib", "kubernetes"}),
    ],
)
def test_a_command_imports_only_what_it_needs(folder, arguments, without):
    assert not imported(folder, *arguments) & without


def test_the_driver_imports_neither_torch_nor_what_it_does_not_show(folder):
    packages = imported(folder, "run", "sweep.yaml")
    assert not packages & {"torch", "kubernetes", "prometheus_client", "rich"}
