"""The command line over a cluster, against the real API server; no operator is at work, the tests write its status."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane, program
from ruamel.yaml import YAML
from run_on_cluster import MANIFEST, Ground, installed

from sweep_analysis.flops import six_nd
from sweep_analysis.gate import Outcome, Verdict
from sweep_analysis.record import FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import Run
from sweep_operator.acceptance import Accepted, accept
from sweep_operator.api import Metadata, RungState, RungStatus, RunSpec, ScalingRun, SweepStatus
from sweep_operator.cli import main
from sweep_operator.clusters.kubernetes.ownership import run_labels
from sweep_operator.names import run_name
from sweep_operator.policy import Policy

Call = Callable[..., tuple[int, str, str]]
VERDICT = Verdict(outcome=Outcome.INCONCLUSIVE, reason="ForecastTooWide", message="too wide to promote on", checks=())


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    with installed(control_plane):
        yield control_plane


@pytest.fixture
def ground(plane: ControlPlane, namespace: str) -> Ground:
    ground = Ground(plane, namespace)
    for run in ground.runs:
        labels = [f"{name}={value}" for name, value in run_labels(run).items()]
        plane.kubectl("label", "scalingrun", run.metadata.name, "-n", namespace, *labels)
    return ground


@pytest.fixture
def called(ground: Ground, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process, on the ground's namespace: exit status, output, errors."""

    def call(*arguments: str, user: str = "admin") -> tuple[int, str, str]:
        kubeconfig = ground.plane.kubeconfig(user, ground.namespace)
        status = main([*arguments, "--kubeconfig", str(kubeconfig)])
        done = capsys.readouterr()
        return status, done.out, done.err

    return call


def sweep_of(ground: Ground, name: str = "web") -> dict[str, Any]:
    return ground.plane.get("scalingsweep", name, "-n", ground.namespace)


def held(ground: Ground) -> None:
    """The sweep waits for a person at its first rung."""
    rung = RungStatus(name="30k", state=RungState.HELD, runs=(ground.runs[0].spec.run,), verdict=VERDICT)
    progressing = {"type": "Progressing", "status": "False", "reason": "Held", "message": "30k is held"}
    waiting = {"type": "AwaitingApproval", "status": "True", "reason": "ForecastTooWide", "message": VERDICT.message}
    generation = sweep_of(ground)["metadata"]["generation"]
    status = SweepStatus(
        observed_generation=generation, conditions=(progressing, waiting), rungs=(rung,), phase="Held"
    ).to_json()
    how = ("--subresource=status", "--type=merge", "--patch-file=/dev/stdin")
    body = json.dumps({"status": status})
    ground.plane.kubectl("patch", "scalingsweep", "web", "-n", ground.namespace, *how, stdin=body)


# --- get ---------------------------------------------------------------------------------------------------------


def test_get_shows_a_sweep_and_what_a_person_may_do_about_it(ground: Ground, called: Call) -> None:
    held(ground)
    status, out, errors = called("get", "web")
    assert (status, errors) == (0, "")
    assert out.startswith("web  Held\n\nRUNG")
    assert f"accept it with: scalingsweep approve web 30k -n {ground.namespace}" in out


def test_json_and_yaml_are_the_object_as_it_is_stored(ground: Ground, called: Call) -> None:
    stored = sweep_of(ground)
    assert json.loads(called("get", "web", "-o", "json")[1]) == stored
    assert YAML(typ="safe").load(called("get", "web", "-o", "yaml")[1]) == stored


def test_without_a_name_all_sweeps_are_listed_in_kubectls_columns(ground: Ground, called: Call) -> None:
    ground.add_sweep("news")
    lines = called("get")[1].splitlines()
    headings = ground.plane.kubectl("get", "scalingsweeps", "-n", ground.namespace).stdout.splitlines()[0]
    assert lines[0].split() == headings.split()
    assert [line.split()[0] for line in lines[1:]] == ["news", "web"]
    everywhere = called("get", "-A")[1].splitlines()
    assert everywhere[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert any(line.split()[:2] == [ground.namespace, "news"] for line in everywhere)
    items = json.loads(called("get", "-o", "json")[1])["items"]
    assert [item["kind"] for item in items] == ["ScalingSweep", "ScalingSweep"]


def test_a_namespace_without_sweeps_says_so(ground: Ground, called: Call) -> None:
    assert called("get", "-n", "kube-public") == (0, "no sweeps in kube-public\n", "")


def test_watching_ends_when_nothing_will_happen_by_itself(ground: Ground, called: Call) -> None:
    later = threading.Timer(1.0, held, [ground])
    later.start()
    status, out, _ = called("get", "web", "-w")
    later.join()
    assert status == 0
    assert "30k" in out.splitlines()[-1]


def test_watching_a_list_says_nothing_where_only_time_has_passed(ground: Ground) -> None:
    command = [sys.executable, "-m", "sweep_operator.cli", "get", "-w", "-n", ground.namespace]
    environment = {**os.environ, "KUBECONFIG": str(ground.plane.kubeconfig())}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        time.sleep(5)  # two more looks, by which the sweep has aged
        held(ground)
        lines.append(watching.stdout.readline())
        watching.terminate()
    assert [line.split()[0] for line in lines] == ["NAME", "web", "web"]
    assert "Held" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "exit_status", "sentence"),
    [
        (("get", "wev"), 2, "there is no sweep wev in namespace {namespace} (there are: web)"),
        (("get", "web", "-n", "kube-public"), 2, "there is no sweep web in namespace kube-public (there is none)"),
        (("get", "web", "-A"), 2, "-A lists all sweeps"),
        (("suspend",), 2, "name the sweep, or a local ladder's folder with --workdir"),
        (("get", "--workdir", "."), 2, "--workdir names a ladder on this machine, --kubeconfig one on a cluster"),
        (("get", "web", "--context", "nowhere"), 2, "no API server is known"),
        (("resume", "web"), 2, "the sweep is not suspended"),
        (("retry", "web"), 2, "no run of this sweep has failed"),
        (("approve", "web", "30k"), 2, "there is no rung '30k' (there are: none yet); nothing is waiting"),
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(
    ground: Ground, called: Call, arguments: tuple[str, ...], exit_status: int, sentence: str
) -> None:
    status, out, errors = called(*arguments)
    assert (status, out) == (exit_status, "")
    assert sentence.format(namespace=ground.namespace) in errors
    assert errors.count("\n") == 1


def test_what_the_api_server_forbids_is_said_in_its_words_with_status_1(ground: Ground, called: Call) -> None:
    status, out, errors = called("get", "web", user="stranger")
    assert (status, out) == (1, "")
    assert 'User "stranger" cannot get resource "scalingsweeps"' in errors


def test_an_api_server_that_is_away_is_said_with_status_1(tmp_path: Path, ground: Ground) -> None:
    document = json.loads(ground.plane.kubeconfig().read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(document))
    assert main(["get", "web", "--kubeconfig", str(kubeconfig)]) == 1


def test_kubectl_finds_the_same_program_as_its_plugin(ground: Ground) -> None:
    command = [str(program("kubectl")), "scalingsweep", "get", "-o", "json", "-n", ground.namespace]
    environment = {"PATH": str(Path(sys.executable).parent), "KUBECONFIG": str(ground.plane.kubeconfig())}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert [item["metadata"]["name"] for item in json.loads(done.stdout)["items"]] == ["web"]


# --- decisions ---------------------------------------------------------------------------------------------------


def test_approve_fills_in_the_digest_of_the_verdict_that_waits(ground: Ground, called: Call) -> None:
    held(ground)
    status, out, _ = called("approve", "web", "30k")
    assert (status, out.splitlines()[-1]) == (0, "the operator takes it from here")
    assert sweep_of(ground)["spec"]["approvals"] == [{"rung": "30k", "verdict": VERDICT.digest}]
    assert "this verdict on 30k is accepted already" in called("approve", "web", "30k")[2]


def test_suspend_resume_and_abort_are_one_field_each(ground: Ground, called: Call) -> None:
    assert called("suspend", "web")[0] == 0
    assert sweep_of(ground)["spec"]["suspend"] is True
    assert "suspended already" in called("suspend", "web")[2]
    assert called("resume", "web")[0] == 0
    assert sweep_of(ground)["spec"]["suspend"] is False
    assert called("abort", "web")[0] == 0
    assert sweep_of(ground)["spec"]["abort"] is True
    assert "aborted, and that is for good" in called("resume", "web")[2]


def test_retry_gives_failed_runs_a_new_token(ground: Ground, called: Call) -> None:
    ground.set_status(ground.runs[0].metadata.name, {"state": "Failed"})
    status, out, _ = called("retry", "web")
    assert (status, out.splitlines()[0]) == (0, "1 failed runs will be tried once more")
    assert sweep_of(ground)["spec"]["retryToken"]


def test_a_decision_of_somebody_who_may_not_decide_is_refused_in_the_policys_words(
    ground: Ground, called: Call
) -> None:
    held(ground)
    for role in ("scalingsweep-edit", "scalingsweep-view"):
        names = (f"editor-{role}", f"--clusterrole={role}", "--user=editor", "-n", ground.namespace)
        ground.plane.kubectl("create", "rolebinding", *names)
    status, _, errors = called("approve", "web", "30k", user="editor")
    assert status == 1
    assert "only by who has the verb approve" in errors
    assert called("suspend", "web", user="editor")[0] == 0


def test_every_decision_is_a_plain_kubectl_patch(ground: Ground, called: Call) -> None:
    held(ground)
    plane, here = ground.plane, ("-n", ground.namespace)
    digest = plane.kubectl(
        *("get", "sweep", "web", *here, "-o", 'jsonpath={.status.rungs[?(@.name=="30k")].verdict.digest}')
    ).stdout
    approval = {"spec": {"approvals": [{"rung": "30k", "verdict": digest}]}}
    for patch in (approval, {"spec": {"suspend": True}}, {"spec": {"suspend": False}}, {"spec": {"retryToken": "2"}}):
        plane.kubectl("patch", "sweep", "web", *here, "--type=merge", "-p", json.dumps(patch))
    by_hand = sweep_of(ground)["spec"]
    plane.kubectl("patch", "sweep", "web", *here, "--type=merge", "-p", '{"spec": {"approvals": null}}')
    assert called("approve", "web", "30k")[0] == 0
    assert sweep_of(ground)["spec"]["approvals"] == by_hand["approvals"]


def test_two_people_deciding_at_once_lose_nothing_of_each_other(ground: Ground, called: Call) -> None:
    kubeconfig = str(ground.plane.kubeconfig("admin", ground.namespace))
    ground.set_status(ground.runs[0].metadata.name, {"state": "Failed"})
    both = [
        threading.Thread(target=main, args=([command, "web", "--kubeconfig", kubeconfig],))
        for command in ("suspend", "retry")
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    spec = sweep_of(ground)["spec"]
    assert spec["suspend"] is True
    assert spec["retryToken"]


# --- report and render -------------------------------------------------------------------------------------------


def test_a_report_of_a_sweep_on_a_cluster_is_a_page_without_curves(
    ground: Ground, called: Call, tmp_path: Path
) -> None:
    held(ground)
    page = tmp_path / "web.html"
    assert called("report", "web", "--to", str(page))[:2] == (0, f"{page}\n")
    text = page.read_text()
    assert "30k" in text
    assert "learning curves lie in the sweep&#x27;s storage" in text or "learning curves lie in the sweep's" in text


def test_what_render_prints_the_api_server_takes(ground: Ground, capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(json.dumps({**MANIFEST, "metadata": {"name": "web"}}))
    assert main(["render", str(manifest)]) == 0
    jobs = capsys.readouterr().out
    names = [job["metadata"]["name"] for job in YAML(typ="safe").load_all(jobs)]
    assert len(names) == len(set(names)) == 3
    assert "&" not in jobs
    done = ground.plane.kubectl("create", "--dry-run=server", "-n", "default", "-f", "-", stdin=jobs)
    assert done.stdout.count("created (server dry run)") == 3
    assert main(["render", str(manifest), "--rung", "1m"]) == 2
    assert "there is no rung '1m'; there are: " in capsys.readouterr().err
    assert main(["render", str(manifest), "--rung", "target", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 1


# --- plan ----------------------------------------------------------------------------------------------------------


def climbed(ground: Ground) -> None:
    """All rungs of the sweep are promoted, with records of one law."""
    accepted = accept(ground.sweep, Policy())
    assert isinstance(accepted, Accepted)
    for rung in accepted.rungs:
        for run in rung.runs:
            name = run_name(ground.sweep, rung.name, 1, run)
            uid = ground.sweep.metadata.uid
            spec = RunSpec(sweep="web", sweep_uid=uid, rung=rung.name, revision=1, run=run, config_digest="sha256:c")
            child = ScalingRun(metadata=Metadata(name=name, namespace=ground.namespace), spec=spec)
            document = child.to_json()
            document["metadata"] = {"name": name, "namespace": ground.namespace, "labels": run_labels(child)}
            ground.plane.kubectl("create", "-f", "-", stdin=json.dumps(document))
            ground.set_status(name, {"accepted": [record_of(run, tokens, name) for tokens in run.tokens]})
    rungs = tuple(RungStatus(name=r.name, state=RungState.PROMOTED, runs=r.runs) for r in accepted.rungs)
    how = ("--subresource=status", "--type=merge", "--patch-file=/dev/stdin")
    body = json.dumps({"status": {"rungs": [rung.to_json() for rung in rungs]}})
    ground.plane.kubectl("patch", "scalingsweep", "web", "-n", ground.namespace, *how, stdin=body)


def record_of(run: Run, tokens: int, name: str) -> dict[str, Any]:
    N = run.parameters
    return Record(
        run=RunReference(uid=name, attempt=1, config_digest="sha256:c"),
        purpose=run.purpose,
        parameters=ParameterCounts(total=N, non_embedding=N, active=N),
        tokens=tokens,
        unique_tokens=tokens,
        epochs=1.0,
        flops=FlopCounts(six_nd=six_nd(N, tokens), detailed=six_nd(N, tokens)),
        seed=run.seed,
        loss=1.05 + 18 / N**0.33 + 60 / tokens**0.36,
        validation_digest="sha256:v",
        tokenizer_digest="sha256:t",
        gpu_seconds=1.0,
        trainer_version="1",
        finished_at="2026-01-01T00:00:00Z",
    ).to_json()


def test_plan_proposes_the_next_runs_of_a_sweep_by_its_name(ground: Ground, called: Call) -> None:
    climbed(ground)
    status, out, errors = called("plan", "web", "-o", "json")
    assert (status, errors) == (0, "")
    plan = json.loads(out)
    assert (plan["sweep"], len(plan["promoted"])) == ("web", 3)
    widths = [proposal["halfWidth"] for proposal in plan["proposals"]]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] < plan["halfWidth"]
    assert "nats/token" in called("plan", "web")[1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["web"], 2, "web: no rung has been promoted yet"),
        (["absent"], 2, "there is no sweep absent in namespace"),
        (["absent.v2"], 2, "there is no sweep absent.v2 in namespace"),
        (["absent.yaml"], 2, "absent.yaml is a file"),
        (["--target", "7B:140B", "--budget", "5h"], 2, "--kubeconfig is for a sweep on a cluster"),
    ],
)
def test_what_cannot_be_planned_on_a_cluster_is_said(
    called: Call, arguments: list[str], status: int, said: str
) -> None:
    ended, out, errors = called("plan", *arguments)
    assert (ended, out) == (status, "")
    assert said in errors


@pytest.mark.parametrize("name", ["web", "web.v2"])
def test_a_folder_of_the_same_name_hides_no_sweep(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert main(["plan", name, "--kubeconfig", "absent"]) == 2
    assert "no API server is known: absent does not exist" in capsys.readouterr().err
