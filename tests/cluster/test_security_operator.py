"""The operator at work with no more rights than its own documents give it, its trainers with theirs, users with theirs.

The process authenticates as its service account, each played trainer with the token that its pod was given, and both
admission policies stand. What a user with edit rights may try through a sweep is tried.
"""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane, free_port
from live_operator import OperatorProcess, Place, manifest, until
from run_on_cluster import OPERATOR, installed
from standin_trainers import Play, StandinTrainers

from sweep_operator.api import ScalingRun
from sweep_operator.clusters.kubernetes import roles
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import JOBS, PODS, RUNS, SERVICE_ACCOUNTS
from sweep_operator.clusters.kubernetes.views import Identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WRITES = {"create", "update", "patch", "delete", "deletecollection"}


class ConfinedTrainers(StandinTrainers):
    """Each speaks with the token of its own pod."""

    def _report(self, run: ScalingRun, pod: Identity, play: Play, *, done: bool) -> None:
        everything = self.api
        self.api = self._api_of(pod)
        try:
            super()._report(run, pod, play, done=done)
        finally:
            self.api.close()
            self.api = everything

    def _api_of(self, pod: Identity) -> Api:
        account = self.api.get(PODS.path(pod.namespace, pod.name))["spec"]["serviceAccountName"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"boundObjectRef": bound},
        }
        answer = self.api.create(SERVICE_ACCOUNTS.path(pod.namespace, account, "token"), request)
        kubeconfig = self.plane.kubeconfig_for(answer["status"]["token"], pod.name, pod.namespace)
        return Api.connect(kubeconfig)

    plane: ControlPlane


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, simulated_nodes: list[str]) -> Iterator[ControlPlane]:
    with installed(control_plane):
        yield control_plane


class Confined(OperatorProcess):
    """The operator as its own account, for one namespace."""

    port: int

    def calls(self) -> dict[tuple[str, str, str], float]:
        """What it has asked of the API server: (verb, resource, code) to how often."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found = {}
        for line in lines:
            if line.startswith("scalingsweep_api_calls_total{"):
                labels = dict(part.split("=") for part in line.partition("{")[2].partition("}")[0].split(","))
                verb, resource, code = (labels[name].strip('"') for name in ("verb", "resource", "code"))
                found[verb, resource, code] = float(line.split()[-1])
        return found


@pytest.fixture
def operator(plane: ControlPlane, namespace: str, tmp_path) -> Iterator[Confined]:
    items = roles.operator_access(OPERATOR, [namespace])
    plane.apply({"apiVersion": "v1", "kind": "List", "items": items})
    token = plane.service_account_token(OPERATOR.namespace, OPERATOR.name)
    kubeconfig = plane.kubeconfig_for(token, "confined", namespace)
    port = free_port()
    arguments = ("--kubeconfig", str(kubeconfig), "--lease-namespace", OPERATOR.namespace, "--metrics-port", str(port))
    process = Confined(plane, tmp_path, namespace, arguments)
    process.port = port
    process.start()
    yield process
    print(process.log.read_text()[-6000:])  # shown where a test fails
    assert process.stop() == 0


@pytest.fixture
def place(plane: ControlPlane, operator: Confined, namespace: str) -> Place:
    return Place(plane, namespace)


@pytest.fixture
def trainers(plane: ControlPlane, namespace: str) -> Iterator[StandinTrainers]:
    playing = ConfinedTrainers(Api.connect(plane.kubeconfig()), namespace)
    playing.plane = plane
    playing.start()
    yield playing
    playing.stop()


def a_volume(plane: ControlPlane, namespace: str) -> None:
    """A volume for the claim that the operator makes."""
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": "/any"},
        "storageClassName": "",
    }
    name = f"volume-{namespace[-6:]}"
    plane.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})


def damage_what_trainers_may(place: Place) -> None:
    """Somebody empties the role and the binding of the sweep's trainers."""
    for kind, what in (("role", "rules"), ("rolebinding", "subjects")):
        [name] = [n for n in place.kubectl("get", kind, "-o", "name").split() if "-trainer-" in n]
        place.kubectl("patch", name, "--type=merge", "-p", json.dumps({what: []}))


def test_the_operator_does_its_whole_work_with_the_verbs_that_it_has_and_needs_each(
    place: Place, operator: Confined, trainers: StandinTrainers
) -> None:
    a_volume(place.plane, place.namespace)
    trainers.play = lambda run, attempt: Play("Runs") if (run.spec.rung, attempt) == ("b", 1) else Play()
    place.apply(manifest(storage={"claim": {"size": "1Gi"}}))
    until(lambda: place.state("b") == "Running")
    place.patch({"suspend": True})
    place.until_phase("Suspended")
    before = operator.calls()
    assert operator.stop() == 0
    damage_what_trainers_may(place)  # which a new process finds and puts right
    operator.start()
    place.patch({"suspend": False})
    place.until_phase("Succeeded")
    calls = {*before, *operator.calls()}
    assert {call for call in calls if call[2] in ("401", "403")} == set()
    rules = (*roles.OPERATOR_RULES, *roles.lease_rules())
    granted = {(verb, resource) for rule in rules for resource in rule.resources for verb in WRITES & {*rule.verbs}}
    used = {(verb, resource) for verb, resource, _ in calls if verb in WRITES}
    assert used <= granted
    assert granted - used <= {("patch", "events")}, "an event that is told again is a patch"
    assert all(len(pods) == 1 for pods in trainers.begun.values())


def test_earlier_records_of_a_config_map_are_read_once_by_the_right_to_get_it(
    place: Place, operator: Confined, trainers: StandinTrainers
) -> None:
    lines = ["N,D,L", *(f"{N},{N * r},{0.6 + 60 * N**-0.34 + 230 * (N * r) ** -0.39}" for N in SIZES for r in (10, 30))]
    place.kubectl("create", "configmap", "earlier", f"--from-literal=rows.csv={chr(10).join(lines)}")
    place.apply(manifest(records=[{"configMap": "earlier", "key": "other.csv"}]))
    refused = until(lambda: next((c for c in conditions(place) if c["reason"] == "RecordsUnavailable"), None))
    assert "ConfigMap earlier has no key other.csv: it has rows.csv" in refused["message"]
    assert not place.runs()
    place.patch({"records": [{"configMap": "earlier", "key": "rows.csv"}]})
    until(lambda: place.sweep()["status"].get("imports"))
    place.kubectl("delete", "configmap", "earlier")
    status = place.until_phase("Succeeded")
    assert len(status["imports"]["loss"]) == len(SIZES) * 2
    assert status["rungs"][0]["forecast"]["outcome"]["records"] == len(SIZES) * 2
    assert status["rungs"][0]["verdict"]["outcome"] == "NotJudged"
    assert {code for (verb, what, code) in operator.calls() if what == "configmaps"} == {"200"}
    with pytest.raises(AssertionError, match=r"spec\.records may not change once a forecast has been written"):
        place.patch({"records": []})


SIZES = (8_000, 12_000, 17_000)
"""N of earlier runs."""


def conditions(place: Place) -> list[dict[str, Any]]:
    return place.sweep().get("status", {}).get("conditions", [])


# --- what a user may try -----------------------------------------------------------------------------------------


@pytest.fixture
def editor(plane: ControlPlane, namespace: str) -> Place:
    """The namespace as a user sees it who may edit sweeps and nothing else."""
    for role in ("scalingsweep-edit", "scalingsweep-view"):
        names = (f"editor-{role}", f"--clusterrole={role}", "--user=editor", "-n", namespace)
        plane.kubectl("create", "rolebinding", *names)

    class AsEditor(Place):
        def kubectl(self, *arguments: str, **options: Any) -> str:
            return super().kubectl(*arguments, **{"user": "editor", **options})

    return AsEditor(plane, namespace)


def on_the_host(**pod: Any) -> dict[str, Any]:
    return {"podTemplate": {"spec": pod}}


BEYOND: tuple[tuple[str, dict[str, Any]], ...] = (
    ("hostPath", on_the_host(volumes=[{"name": "root", "hostPath": {"path": "/"}}])),
    ("hostNetwork", on_the_host(hostNetwork=True)),
    ("hostPID", on_the_host(hostPID=True)),
    ("privileged", on_the_host(containers=[{"name": "trainer", "securityContext": {"privileged": True}}])),
    ("hostPort", on_the_host(containers=[{"name": "trainer", "ports": [{"containerPort": 80, "hostPort": 80}]}])),
    ("serviceAccountName", on_the_host(serviceAccountName="default")),
    ("automountServiceAccountToken", on_the_host(automountServiceAccountToken=True)),
    ("nodeName", on_the_host(nodeName="gpu-0")),
    ("labels", {"podTemplate": {"metadata": {"labels": {"scalingsweep.dev/run": "another"}}}}),
    ("ownerReferences", {"podTemplate": {"metadata": {"ownerReferences": []}}}),
    ("serviceAccountName", {"serviceAccountName": "default"}),
)
"""What the refusal names, and the `spec.runtime` that asks for it."""


def test_a_template_that_reaches_beyond_its_pod_is_refused_by_name_and_starts_nothing(
    editor: Place, place: Place
) -> None:
    for number, (_, runtime) in enumerate(BEYOND):
        document = manifest(runtime=runtime)
        document["metadata"]["name"] = f"beyond-{number}"
        editor.apply(document)
    for number, (named, _) in enumerate(BEYOND):
        accepted = until(lambda number=number: editor.condition("Accepted", f"beyond-{number}"))
        assert (number, accepted["status"], accepted["reason"]) == (number, "False", "PolicyViolation"), accepted
        assert named in accepted["message"]
    assert place.items(JOBS) == place.items(RUNS) == []


@pytest.mark.parametrize(
    "runtime",
    [on_the_host(volumes=[{"name": "root", "hostPath": {"path": "/"}}]), {"serviceAccountName": "default"}],
    ids=["hostPath", "serviceAccountName"],
)
def test_what_is_edited_in_while_a_run_is_there_reaches_none_of_its_further_pods(
    editor: Place, place: Place, trainers: StandinTrainers, runtime: dict[str, Any]
) -> None:
    trainers.play = lambda run, attempt: Play("Runs")
    editor.apply(manifest())
    until(lambda: place.state("a") == "Running")
    editor.patch({"runtime": runtime})
    [pod] = place.pods("a")
    place.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    until(lambda: (place.run("a")["status"].get("attempt"), place.state("a")) == (2, "Queued"))
    until(lambda: editor.condition("Accepted")["reason"] == "PolicyViolation")
    time.sleep(3.0)
    assert [job["metadata"]["name"][-2:] for job in place.items(JOBS)] == ["-1"]
    editor.patch({"runtime": dict.fromkeys(runtime)})
    until(lambda: [one for one in place.pods("a") if one["metadata"]["name"] != pod["metadata"]["name"]])
    trainers.play = lambda run, attempt: Play()
    trainers.release()
    place.until_phase("Succeeded")


def under(operator: Confined, path: Path, policy: str) -> None:
    """The operator started anew with the platform's policy."""
    path.write_text(policy)
    operator.kill()
    operator.arguments += ("--policy", str(path))
    operator.start()


def test_an_account_that_the_platform_allows_may_be_named_while_runs_are_there(
    editor: Place, place: Place, operator: Confined, trainers: StandinTrainers, tmp_path
) -> None:
    under(operator, tmp_path / "policy.yaml", "serviceAccounts: [team]\n")
    place.kubectl("create", "serviceaccount", "team")
    trainers.play = lambda run, attempt: Play("Runs") if (run.spec.rung, attempt) == ("b", 1) else Play()
    editor.apply(manifest())
    until(lambda: place.state("b") == "Running")
    editor.patch({"runtime": {"serviceAccountName": "team"}})
    [pod] = place.pods("b")
    place.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    place.until_phase("Succeeded")
    [further] = [pod for pod in place.items(PODS, "scalingsweep.dev/rung=b") if pod["metadata"]["name"].count("-2-")]
    assert further["spec"]["serviceAccountName"] == "team"
    assert place.run("b")["status"]["attempts"][1]["outcome"] == "Succeeded"


def test_the_platforms_policy_binds_a_sweep_as_it_is_written_and_as_it_is_edited(
    editor: Place, place: Place, operator: Confined, trainers: StandinTrainers, tmp_path
) -> None:
    under(operator, tmp_path / "policy.yaml", "launch: [Never]\npools: [{priorityClassName: urgent, requires: 1}]\n")
    trainers.play = lambda run, attempt: Play("Runs")
    target = manifest()["spec"]["target"]
    editor.apply(manifest(target=target | {"launch": "Approval"}))
    refused = until(lambda: editor.condition("Accepted"))
    assert refused["reason"] == "PolicyViolation"
    assert refused["message"] == "target.launch is Approval; this platform allows Never"
    editor.patch({"target": {"launch": "Never"}})
    until(lambda: place.state("a") == "Running")
    editor.patch({"placement": {"priorityClassName": "urgent"}})
    until(lambda: editor.condition("Accepted")["reason"] == "PolicyViolation")
    assert "'a' asks for priorityClassName urgent" in editor.condition("Accepted")["message"]
    [first] = place.pods("a")
    place.kubectl("delete", "pod", first["metadata"]["name"], "--wait=false")
    until(lambda: (place.run("a")["status"].get("attempt"), place.state("a")) == (2, "Queued"))
    time.sleep(2.0)
    assert len(place.items(JOBS)) == 1
    editor.patch({"placement": {"priorityClassName": None}})
    [second] = until(lambda: [pod for pod in place.pods("a") if pod["metadata"]["uid"] != first["metadata"]["uid"]])
    assert not second["spec"].get("priorityClassName")


def test_a_pod_is_what_pod_security_calls_restricted(
    plane: ControlPlane, place: Place, trainers: StandinTrainers
) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    plane.kubectl("label", "namespace", place.namespace, label)
    place.apply(manifest())
    place.until_phase("Succeeded")


def test_a_run_that_is_forged_makes_the_operator_do_nothing(place: Place, trainers: StandinTrainers) -> None:
    trainers.play = lambda run, attempt: Play("Runs")
    place.apply(manifest())
    until(lambda: place.state("a") == "Running")
    genuine = place.run("a")
    marks = {mark: genuine["metadata"][mark] for mark in ("ownerReferences", "labels")}
    forged = {**genuine, "metadata": {"name": "climb-a-deadbeef", **marks}}
    forged["spec"] = {**genuine["spec"], "run": {**genuine["spec"]["run"], "tokens": [1]}}
    del forged["status"]
    place.kubectl("create", "-f", "-", stdin=json.dumps(forged))
    until(lambda: "ForgedRun" in place.events())
    assert len(place.items(JOBS)) == 1


def test_a_user_makes_the_operator_act_in_no_other_namespace(
    plane: ControlPlane, editor: Place, place: Place, trainers: StandinTrainers
) -> None:
    elsewhere = f"{place.namespace}-other"
    plane.kubectl("create", "namespace", elsewhere)
    plane.kubectl("create", "secret", "generic", "theirs", "-n", elsewhere, "--from-literal=key=value")
    document = manifest(
        runtime={"envFrom": [{"secret": "theirs"}], "podTemplate": {"metadata": {"namespace": elsewhere}}}
    )
    editor.apply(document)
    until(lambda: editor.condition("Accepted"))
    document["spec"]["runtime"].pop("podTemplate")
    editor.apply(document)
    [pod] = until(lambda: place.pods("a"))
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "theirs"}}], "of its own namespace"
    assert plane.get("pods,jobs,scalingruns,roles,serviceaccounts", "-n", elsewhere)["items"] == [
        one for one in plane.get("serviceaccounts", "-n", elsewhere)["items"] if one["metadata"]["name"] == "default"
    ]


def test_who_may_only_edit_sweeps_touches_neither_runs_nor_jobs_nor_secrets(editor: Place) -> None:
    for verb, kind in (("create", "scalingruns"), ("patch", "scalingruns"), ("create", "jobs"), ("get", "secrets")):
        done = editor.plane.kubectl(
            *("auth", "can-i", verb, kind, "-n", editor.namespace), user="editor", check=False
        ).stdout
        assert done.strip() == "no"
