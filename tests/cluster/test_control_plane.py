"""The control plane that other tests stand on."""

from typing import Any

from control_plane import ControlPlane
from control_plane.build import KUBERNETES


def job(name: str, **annotations: str) -> dict[str, Any]:
    said = {f"simulated/{key.replace('_', '-')}": value for key, value in annotations.items()}
    container = {"name": "trainer", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 4}}}
    template = {"metadata": {"annotations": said}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def test_a_user_may_do_nothing_until_a_role_is_bound(control_plane: ControlPlane, namespace: str) -> None:
    assert control_plane.kubectl("auth", "can-i", "list", "pods", user="stranger", check=False).stdout.strip() == "no"
    assert control_plane.kubectl("auth", "can-i", "list", "pods").stdout.strip() == "yes"


def test_the_server_says_the_pinned_version(control_plane: ControlPlane) -> None:
    assert f"Server Version: v{KUBERNETES}" in control_plane.kubectl("version").stdout


def test_a_job_on_simulated_gpus_ends_as_its_annotations_say(
    control_plane: ControlPlane, namespace: str, simulated_nodes: list[str]
) -> None:
    plane = control_plane
    plane.apply(job("good", outcome="Succeeded", after="1s"), "-n", namespace)
    plane.apply(job("bad", outcome="Failed", exit_code="137", reason="OOMKilled", message="too large"), "-n", namespace)
    plane.kubectl("wait", "--for=condition=Complete", "job/good", "-n", namespace, "--timeout=60s")
    plane.kubectl("wait", "--for=condition=Failed", "job/bad", "-n", namespace, "--timeout=60s")
    [pod] = plane.get("pods", "-l", "job-name=bad", "-n", namespace)["items"]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (137, "OOMKilled", "too large")


def test_a_service_account_has_a_token_that_the_server_believes(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "trainer", "-n", namespace)
    token = control_plane.service_account_token(namespace, "trainer")
    path = control_plane.kubeconfig_for(token, "trainer", namespace)
    said = control_plane.kubectl(f"--kubeconfig={path}", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    assert said.stdout == f"system:serviceaccount:{namespace}:trainer"
