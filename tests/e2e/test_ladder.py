"""The whole of it in real containers: helm install, a sweep applied, the operator in its pod, trainers in theirs."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane, UnavailableError, program
from ruamel.yaml import YAML

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import image  # noqa: E402 - beside this file, which is no package
import lent  # noqa: E402 - as above
import node  # noqa: E402 - as above

PAUSE, OURS = "docker.io/library/pause:e2e", "docker.io/scalingsweep/e2e:1"
OPS, RELEASE = "scalingsweep-system", "scalingsweep"
EXAMPLE = lent.REPOSITORY / "examples" / "laptop.yaml"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.Node]:
    """This machine as the node of a control plane, with the images that pods name."""
    if objection := node.missing():
        pytest.skip(objection)
    folder = tmp_path_factory.mktemp("e2e")
    try:
        plane = ControlPlane(folder / "plane").start()
        plane.run_workloads()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    path = f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
    busybox = {"busybox": Path("/bin/busybox").read_bytes()}
    images = [
        image.archive(folder / "pause.tar", PAUSE, busybox, entrypoint=("/busybox", "sleep", "2147483647")),
        image.archive(folder / "ours.tar", OURS, path=path),
    ]
    (folder / "node").mkdir()
    machine = node.Node(plane, folder / "node", PAUSE)
    try:
        yield machine.start(images)
    finally:
        machine.stop()
        plane.stop()


@pytest.fixture(scope="module")
def cluster(machine: node.Node) -> ControlPlane:
    """Its control plane."""
    return machine.plane


@pytest.fixture(scope="module")
def operator(machine: node.Node, cluster: ControlPlane) -> str:
    """The chart, installed under `restricted` Pod Security; returns the namespace that sweeps are applied in."""
    volumes, mounts = lent.claimed_volumes()
    repository, _, tag = OURS.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "trainers": {"image": OURS},
        "replicas": 1,
        "extraVolumes": volumes,
        "extraVolumeMounts": mounts,
        "helmTest": {"extraVolumes": volumes, "extraVolumeMounts": mounts},
    }
    for namespace in (OPS, "research"):
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        cluster.apply({"apiVersion": "v1", "kind": "List", "items": lent.claims(namespace)})
    chart = str(lent.REPOSITORY / "charts" / "scalingsweep")
    done = _helm(cluster, "install", RELEASE, chart, "--values", "-", "--wait", "--timeout", "3m", values=values)
    assert done.returncode == 0, done.stderr + _pods(cluster, OPS)
    machine.publish(OPS, RELEASE)
    return "research"


def test_helm_test_finds_the_operator_serving(cluster: ControlPlane, operator: str) -> None:
    done = _helm(cluster, "test", RELEASE, "--logs", "--timeout", "3m")
    assert done.returncode == 0, done.stdout + done.stderr + _pods(cluster, OPS)
    assert re.search(r"Phase: +Succeeded", done.stdout)
    health, metrics = (rf"http://{RELEASE}\.{OPS}\.svc:\d+/{page} 200 [1-9]\d*" for page in ("readyz", "metrics"))
    assert re.search(rf"{health}\n{metrics}\n", done.stdout)
    (hook,) = YAML(typ="safe").load_all(_helm(cluster, "get", "hooks", RELEASE).stdout)
    assert [container["image"] for container in hook["spec"]["containers"]] == [OURS]  # and no other image than that
    assert cluster.kubectl("get", "pod", hook["metadata"]["name"], "-n", OPS, check=False).returncode  # it is tidied up


def _helm(
    cluster: ControlPlane, *arguments: str, values: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """The real helm in the operator's namespace."""
    command = [str(program("helm")), *arguments, "-n", OPS, "--kubeconfig", str(cluster.kubeconfig())]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, timeout=300)


def test_the_laptop_ladder_in_pods_gets_the_verdicts_of_the_laptop(
    cluster: ControlPlane, operator: str, tmp_path: Path
) -> None:
    sweep = _sweep()
    cluster.apply(sweep | {"metadata": {"name": "laptop", "namespace": operator}})
    status = _until_finished(cluster, operator)
    local = _on_this_machine(tmp_path)
    assert _verdicts(status) == _verdicts(local)
    for here, there in zip(status["rungs"], local["rungs"], strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-4), here["name"]
    assert _condition(status, "Succeeded")["status"] == _condition(local, "Succeeded")["status"]


def _sweep() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(EXAMPLE.read_text())
    document["spec"]["placement"] = {"gpusPerNode": 0, "cpu": "900m", "memory": "2Gi"}
    document["spec"]["runtime"] = {"imagePullPolicy": "Never", "volumes": lent.run_volumes()}
    document["spec"]["limits"] = {"parallelism": 2}
    return document


def _on_this_machine(folder: Path) -> dict[str, Any]:
    """The same ladder as `scalingsweep run` climbs it."""
    command = [sys.executable, "-m", "sweep_operator.cli"]
    subprocess.run([*command, "run", str(EXAMPLE), "--workdir", str(folder / "laptop")], check=True, timeout=900)
    return dict(json.loads((folder / "laptop" / "status.json").read_text()))


def _until_finished(cluster: ControlPlane, namespace: str, seconds: float = 1200) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        status = cluster.get("scalingsweep", "laptop", "-n", namespace).get("status", {})
        finished = _condition(status, "Finished")
        if finished.get("status") == "True" or _condition(status, "AwaitingApproval").get("status") == "True":
            return status
        assert _condition(status, "Accepted").get("status") != "False", status["conditions"]
        assert time.monotonic() < deadline, json.dumps(status, indent=1)[-4000:] + _pods(cluster, namespace)
        time.sleep(2)


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def _verdicts(status: dict[str, Any]) -> list[tuple[str, int, str, str, str]]:
    return [
        (r["name"], r["revision"], r["state"], r.get("verdict", {}).get("outcome"), r.get("verdict", {}).get("reason"))
        for r in status["rungs"]
    ]


def _pods(cluster: ControlPlane, namespace: str) -> str:
    """What a person would look at: the pods, why they wait, and what they said last."""
    said = cluster.kubectl("get", "pods,jobs,events", "-n", namespace, check=False).stdout[-6000:]
    names = cluster.kubectl("get", "pods", "-n", namespace, "-o", "name", check=False).stdout.split()
    for name in names[-3:]:
        said += cluster.kubectl("logs", "-n", namespace, name, "--tail=30", check=False).stdout[-3000:]
    return "\n" + said
