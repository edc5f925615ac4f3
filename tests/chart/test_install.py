"""The chart on a real API server with the real helm: installed, upgraded, rolled back, removed; alone and in company.

Pods are simulated: that they are admitted, placed and counted is real; what runs in them is tested by
`test_watching.py`, `test_upgrade.py` and `tests/e2e`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from helm_chart import CHART, SHARED, Helm, older_chart
from live_operator import KINDS, manifest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("chart")]
WAIT = ("--wait", "--timeout=120s")


@pytest.fixture
def ops(plane: ControlPlane, live_helm: Helm) -> Iterator[str]:
    """A namespace where restricted Pod Security is enforced; releases and sweeps go with it."""
    plane.kubectl("create", "namespace", "ops")
    plane.kubectl("label", "namespace", "ops", "pod-security.kubernetes.io/enforce=restricted")
    yield "ops"
    for release in json.loads(live_helm("list", "-A", "-o", "json").stdout):
        live_helm("uninstall", release["name"], "-n", release["namespace"])
    plane.kubectl("delete", "namespace", "ops")
    plane.kubectl("delete", "crd", "--ignore-not-found", *KINDS)


def with_a_sweep(plane: ControlPlane) -> dict[str, Any]:
    """A sweep with a status, as a person and an operator left it."""
    document = manifest()
    document["metadata"] |= {"namespace": "default"}
    plane.apply(document)
    status = {"phase": "Running", "rungs": [{"name": "a", "revision": 1, "state": "Running"}]}
    plane.kubectl(
        "patch", "scalingsweep", "climb", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    return plane.get("scalingsweep", "climb")


def same_sweep(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return (before["metadata"]["uid"], before["spec"], before["status"]) == (
        after["metadata"]["uid"],
        after["spec"],
        after["status"],
    )


def test_an_installation_becomes_ready_under_restricted_pod_security(
    plane: ControlPlane, live_helm: Helm, ops: str
) -> None:
    said = live_helm("install", "sweeps", str(CHART), "-n", ops, *WAIT).stdout
    assert "scalingsweep 0.1.0 works in every namespace" in said
    deployment = plane.get("deployment", "sweeps-scalingsweep", "-n", ops)
    assert deployment["status"]["readyReplicas"] == 2
    pods = plane.get("pods", "-n", ops)["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert plane.get("sweeps", "-A")["items"] == []


def test_an_older_chart_is_upgraded_across_a_crd_change_rolled_back_and_removed_and_no_sweep_is_lost(
    plane: ControlPlane, live_helm: Helm, ops: str, tmp_path: Path
) -> None:
    older = older_chart(tmp_path)
    live_helm("install", "sweeps", str(older), "-n", ops)
    plane.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in KINDS))
    before = with_a_sweep(plane)
    assert "printer column that was" in columns(plane)

    live_helm("upgrade", "sweeps", str(CHART), "-n", ops)
    assert "printer column that was" not in columns(plane)
    assert "retryToken" in spec_of(plane)
    assert same_sweep(before, plane.get("scalingsweep", "climb"))

    live_helm("rollback", "sweeps", "1", "-n", ops)
    assert "printer column that was" in columns(plane)
    assert same_sweep(before, plane.get("scalingsweep", "climb"))

    live_helm("upgrade", "sweeps", str(CHART), "-n", ops)
    live_helm("uninstall", "sweeps", "-n", ops)
    assert plane.get("deployments", "-n", ops)["items"] == []
    assert same_sweep(before, plane.get("scalingsweep", "climb"))

    live_helm("install", "sweeps", str(CHART), "-n", ops)  # the same release takes up what it left
    assert same_sweep(before, plane.get("scalingsweep", "climb"))


def version_of(plane: ControlPlane) -> dict[str, Any]:
    version: dict[str, Any] = plane.get("crd", KINDS[0])["spec"]["versions"][0]
    return version


def columns(plane: ControlPlane) -> str:
    return json.dumps(version_of(plane).get("additionalPrinterColumns", []))


def spec_of(plane: ControlPlane) -> dict[str, Any]:
    properties: dict[str, Any] = version_of(plane)["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return properties


def test_who_says_so_has_the_sweeps_deleted_with_the_release(plane: ControlPlane, live_helm: Helm, ops: str) -> None:
    live_helm("install", "sweeps", str(CHART), "-n", ops, values={"crds": {"keep": False}})
    plane.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in KINDS))
    with_a_sweep(plane)
    live_helm("uninstall", "sweeps", "-n", ops, "--wait")
    assert "not found" in plane.kubectl("get", "crd", KINDS[0], check=False).stderr


def test_a_second_release_is_told_what_it_may_not_own_and_where_it_may_not_work(
    plane: ControlPlane, live_helm: Helm, ops: str
) -> None:
    for namespace in ("lab", "research"):
        plane.kubectl("create", "namespace", namespace)
    live_helm("install", "first", str(CHART), "-n", ops, values={"watch": {"namespaces": ["lab"]}})
    done = live_helm("install", "second", str(CHART), "-n", ops, check=False)
    assert (
        "release ops/first owns what one release of a cluster owns; install this one with --set crds.enabled=false"
        " --set rbac.userRoles=false --set admissionPolicies.trainers=false" in done.stderr
    )
    assert "admissionPolicies.otherOperators: ops/second-scalingsweep" in done.stderr
    modest: dict[str, Any] = {
        "crds": {"enabled": False},
        "rbac": {"userRoles": False},
        "admissionPolicies": {"trainers": False},
        "watch": {"namespaces": ["lab"]},
    }
    done = live_helm("install", "second", str(CHART), "-n", ops, values=modest, check=False)
    assert "release ops/first works in [lab] already" in done.stderr
    modest["watch"] = {"namespaces": ["research"]}
    live_helm("install", "second", str(CHART), "-n", ops, *WAIT, values=modest)
    leases = {d["metadata"]["name"] for d in plane.get("deployments", "-n", ops)["items"]}
    assert leases == {"first-scalingsweep", "second-scalingsweep"}
    live_helm("upgrade", "first", str(CHART), "-n", ops, values={"watch": {"namespaces": ["lab"]}})  # still its own


def test_two_releases_over_the_whole_cluster_are_refused(plane: ControlPlane, live_helm: Helm, ops: str) -> None:
    live_helm("install", "first", str(CHART), "-n", ops, values={"nameOverride": "climber"})  # it is known by its chart
    modest = {"crds": {"enabled": False}, "rbac": {"userRoles": False}, "admissionPolicies": {"trainers": False}}
    done = live_helm("install", "second", str(CHART), "-n", ops, values=modest, check=False)
    assert "two operators must not work on the same sweeps: give each its own watch.namespaces" in done.stderr


def test_monitors_and_alerts_come_where_their_kinds_are(plane: ControlPlane, live_helm: Helm, ops: str) -> None:
    crds = sorted((SHARED / "crds").glob("monitoring.coreos.com_*.yaml"))
    if not crds:
        pytest.skip(f"the Prometheus operator's resource definitions are not in {SHARED / 'crds'}")
    for path in crds:
        plane.kubectl("apply", "--server-side", "-f", str(path))
    plane.kubectl("wait", "--for=condition=Established", "crd/prometheusrules.monitoring.coreos.com")
    try:
        live_helm("install", "sweeps", str(CHART), "-n", ops)
        assert plane.get("servicemonitor", "sweeps-scalingsweep", "-n", ops)
        assert len(plane.get("prometheusrule", "sweeps-scalingsweep", "-n", ops)["spec"]["groups"]) == 2
        live_helm("upgrade", "sweeps", str(CHART), "-n", ops, values={"monitor": {"kind": "PodMonitor"}})
        assert plane.get("servicemonitors", "-n", ops)["items"] == []
    finally:
        for path in crds:
            plane.kubectl("delete", "-f", str(path))


def test_a_release_name_of_53_characters_installs(plane: ControlPlane, live_helm: Helm, ops: str) -> None:
    live_helm("install", "r" * 53, str(CHART), "-n", ops, *WAIT, values={"priorityClass": {"create": True}})
