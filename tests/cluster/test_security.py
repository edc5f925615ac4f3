"""Who may do what, on an API server that enforces it: tables of every verb on every resource, and attempts at more."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from run_on_cluster import OPERATOR, Ground, installed

from sweep_analysis.record import Progress, RecordSet
from sweep_operator.api import Runtime
from sweep_operator.clusters.kubernetes import roles
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.jobs import Images, job_document, reports_by
from sweep_operator.clusters.kubernetes.resources import GROUP
from sweep_trainer.status_api import StatusApi, Unavailable

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
SPECIAL = (
    (roles.RBAC, "roles", "escalate"),
    (roles.RBAC, "roles", "bind"),
    (roles.RBAC, "clusterroles", "bind"),
    ("", "users", "impersonate"),
    ("", "groups", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("", "serviceaccounts/token", "create"),
    ("", "pods/exec", "create"),
    ("", "pods/attach", "create"),
    ("", "pods/eviction", "create"),
    ("", "pods/log", "get"),
    ("", "pods/ephemeralcontainers", "patch"),
    ("", "nodes/proxy", "get"),
    ("batch", "jobs/status", "patch"),
    (GROUP, "scalingsweeps", "approve"),
    (GROUP, "scalingsweeps/finalizers", "update"),
    ("certificates.k8s.io", "signers", "approve"),
)
"""Verbs and subresources beyond the usual that would be worth having for an attacker."""

Right = tuple[str, str, str]
"""API group, resource, verb."""


@pytest.fixture(scope="module")
def secured(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The plane with the resources, the admission policies, the people's roles and the operator's account."""
    with installed(control_plane):
        yield control_plane


@pytest.fixture
def ground(secured: ControlPlane, namespace: str) -> Ground:
    return Ground(secured, namespace)


@dataclass
class Asking:
    """An account, asked of the API server."""

    plane: ControlPlane
    api: Api

    def rights(self, namespace: str) -> set[tuple[str, ...]]:
        """All that the account may in that namespace or in the whole cluster, beyond what every account may.

        A right that is restricted to objects has their names as a fourth part.
        """
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        rules = self.api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
        assert rules["incomplete"] is False
        found = {
            (group, resource, verb, *sorted(rule.get("resourceNames", ())))
            for rule in rules["resourceRules"]
            for group, resource, verb in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
        }
        return found - EVERY_ACCOUNT

    def may(self, right: Right, namespace: str, name: str = "") -> bool:
        """Whether the account may do this one thing."""
        group, resource, verb = right
        resource, _, subresource = resource.partition("/")
        attributes = {
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "verb": verb,
            "name": name,
            "namespace": namespace,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"]["allowed"])


def everything(plane: ControlPlane) -> Iterator[Right]:
    """Every verb on every resource that this API server serves, and the special ones."""
    listed = plane.kubectl("api-resources", "--no-headers", "-o", "wide").stdout.splitlines()
    for line in listed:
        columns = line.split()
        version = next(c for c in columns if re.fullmatch(r"([a-z0-9.-]+/)?v[0-9][a-z0-9]*", c))
        group = version.rpartition("/")[0]
        for resource in (columns[0], f"{columns[0]}/status"):
            yield from ((group, resource, verb) for verb in VERBS)
    yield from SPECIAL
    yield from (("*", "*", "*"), ("", "secrets", "*"))


def granted(rules: tuple[roles.Rule, ...]) -> set[Right]:
    return {(r.group, resource, verb) for r in rules for resource, verb in itertools.product(r.resources, r.verbs)}


EVERY_ACCOUNT = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
    *(("certificates.k8s.io", "clustertrustbundles", verb) for verb in ("get", "list", "watch")),
}
"""What Kubernetes itself lets every account do."""


def operator_of(plane: ControlPlane, namespace: str) -> Asking:
    token = plane.service_account_token(OPERATOR.namespace, OPERATOR.name)
    return Asking(plane, Api.connect(plane.kubeconfig_for(token, "the-operator", namespace)))


def bind(plane: ControlPlane, documents: list[dict[str, Any]]) -> None:
    plane.apply({"apiVersion": "v1", "kind": "List", "items": documents})


# --- the operator ------------------------------------------------------------------------------------------------


def test_the_operator_has_the_verbs_of_its_rules_and_no_other(secured: ControlPlane, namespace: str) -> None:
    bind(secured, roles.operator_access(OPERATOR, [namespace]))
    operator = operator_of(secured, namespace)
    assert operator.rights(namespace) == granted(roles.OPERATOR_RULES)
    allowed = {right for right in everything(secured) if operator.may(right, namespace)}
    assert allowed - EVERY_ACCOUNT == granted(roles.OPERATOR_RULES)


def test_the_page_on_security_lists_these_very_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    listed = [line for line in page.partition("| on | verbs | why |")[2].partition("\n\n")[0].splitlines() if line][1:]
    for line, rule in zip(listed, (*roles.OPERATOR_RULES, *roles.lease_rules()), strict=True):
        named = f" named {', '.join(rule.names)}" if rule.names else ""
        assert line == f"| {', '.join(rule.resources)}{named} | {', '.join(rule.verbs)} | {rule.why} |"


def test_the_operator_of_one_namespace_has_nothing_in_another_nor_in_the_cluster(
    secured: ControlPlane, namespace: str
) -> None:
    bind(secured, roles.operator_access(OPERATOR, [namespace]))
    operator = operator_of(secured, namespace)
    assert operator.rights("kube-system") == operator.rights("default") == set()


def test_of_leases_the_operator_touches_its_own_alone(secured: ControlPlane, namespace: str) -> None:
    bind(secured, roles.operator_access(OPERATOR, [namespace]))
    operator = operator_of(secured, namespace)
    group = "coordination.k8s.io"
    for verb in ("get", "update"):
        assert operator.may((group, "leases", verb), OPERATOR.namespace, roles.LEASE)
        assert not operator.may((group, "leases", verb), OPERATOR.namespace, "another")
    assert operator.may((group, "leases", "create"), OPERATOR.namespace)
    assert not operator.may((group, "leases", "delete"), OPERATOR.namespace, roles.LEASE)
    assert not operator.may((group, "leases", "list"), OPERATOR.namespace)


def test_the_operator_can_grant_trainers_what_they_need_and_nobody_anything_more(ground: Ground) -> None:
    plane, namespace = ground.plane, ground.namespace
    bind(plane, roles.operator_access(OPERATOR, [namespace]))
    token = plane.service_account_token(OPERATOR.namespace, OPERATOR.name)
    kubeconfig = plane.kubeconfig_for(token, "granting", namespace)
    second = ground.add_sweep("second")
    for document in roles.trainer_access(second, ["second-30k-00000001"]):
        plane.kubectl(f"--kubeconfig={kubeconfig}", "create", "-f", "-", stdin=json.dumps(document))
    role = roles.trainer_access(ground.add_sweep("third"), [])[1]
    for group, resource, verb in (
        ("", "secrets", "get"),
        ("", "pods", "delete"),
        (GROUP, "scalingsweeps", "patch"),
    ):
        role["rules"] = [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]
        done = plane.kubectl(f"--kubeconfig={kubeconfig}", "create", "-f", "-", stdin=json.dumps(role), check=False)
        assert "attempting to grant RBAC permissions not currently held" in done.stderr
    role["rules"] = []
    binding = roles.trainer_access(second, [])[2]
    binding["metadata"]["name"] = "to-admin"
    binding["roleRef"] = {"apiGroup": roles.RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
    done = plane.kubectl(f"--kubeconfig={kubeconfig}", "create", "-f", "-", stdin=json.dumps(binding), check=False)
    assert "forbidden" in done.stderr


# --- trainers ----------------------------------------------------------------------------------------------------


def progress(attempt: int = 1, step: int = 1) -> Progress:
    return Progress(attempt=attempt, step=step, steps=10, tokens=step, last_updated="2026-01-01T00:00:00Z")


def trainer_of(
    ground: Ground,
    index: int = 0,
    attempt: int = 1,
    writes_to: int | None = None,
    account: roles.Account | None = None,
) -> StatusApi:
    """The pod of one run's attempt, at the status of that run (or of another)."""
    folder = ground.pod(ground.runs[index].metadata.name, attempt, account)
    target = ground.runs[index if writes_to is None else writes_to].metadata
    host, port = ground.plane.url.removeprefix("https://").split(":")
    return StatusApi(ground.namespace, target.name, target.uid, host, int(port), folder)


def test_a_trainer_has_two_verbs_on_its_own_sweeps_runs_and_no_other(ground: Ground) -> None:
    folder = ground.pod(ground.runs[0].metadata.name)
    trainer = Asking(ground.plane, Api.connect(ground.as_pod(folder)))
    names = sorted(run.metadata.name for run in ground.runs)
    own = {(GROUP, "scalingruns/status", verb, *names) for verb in ("get", "patch")}
    assert trainer.rights(ground.namespace) == own
    assert trainer.rights("default") == trainer.rights("kube-system") == set()
    assert not any(trainer.may(right, ground.namespace) for right in (*SPECIAL, ("", "secrets", "get")))


def test_a_trainer_cannot_read_another_sweeps_run(ground: Ground) -> None:
    other = ground.add_run(ground.add_sweep("other"), "other-30k-0000000c")
    ground.runs.append(other)
    trainer = trainer_of(ground, 0, writes_to=2)
    with pytest.raises(Unavailable, match="403"):
        trainer.read()
    with pytest.raises(Unavailable, match="403"):
        trainer.apply_progress(progress())


def test_a_trainer_writes_progress_and_records_and_nothing_else_of_a_status(ground: Ground) -> None:
    trainer = trainer_of(ground)
    trainer.apply_progress(progress())
    trainer.apply_records(RecordSet(attempt=1, records=()))
    for field, value in (("state", "Succeeded"), ("attempt", 7), ("refusedRecords", 3), ("retryToken", "again")):
        with pytest.raises(Unavailable, match="and nothing else of a run"):
            trainer._apply("any", {field: value})
    status = ground.run(trainer.run)["status"]
    assert (status["progress"]["step"], status["state"], status["attempt"]) == (1, "Queued", 1)


def test_a_trainers_write_to_the_status_changes_neither_spec_nor_metadata(ground: Ground) -> None:
    trainer = trainer_of(ground)
    before = ground.run(trainer.run)
    document = {
        "apiVersion": "scalingsweep.dev/v1alpha1",
        "kind": "ScalingRun",
        "metadata": {"name": trainer.run, "labels": {"mine": "now"}, "finalizers": ["stay/for-ever"]},
        "spec": {"rung": "another"},
        "status": {"progress": progress().to_json()},
    }
    trainer._send("PATCH", {"fieldManager": "x", "force": "true"}, document)
    after = ground.run(trainer.run)
    assert after["spec"] == before["spec"]
    assert {"labels", "finalizers"} & after["metadata"].keys() == set()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_pod_writes_into_its_own_run_and_not_its_neighbours(ground: Ground) -> None:
    with pytest.raises(Unavailable, match="a trainer writes into the run of its own pod and no other"):
        trainer_of(ground, 0, writes_to=1).apply_progress(progress())
    trainer_of(ground, 1).apply_progress(progress())


def test_a_stale_attempt_neither_overwrites_progress_nor_touches_anothers_records(ground: Ground) -> None:
    stale, current = trainer_of(ground, attempt=1), trainer_of(ground, attempt=2)
    stale.apply_progress(progress(1, step=5))
    stale.apply_records(RecordSet(attempt=1, records=()))
    current.apply_progress(progress(2, step=1))
    with pytest.raises(Unavailable, match="a newer attempt reports progress"):
        stale.apply_progress(progress(1, step=6))
    with pytest.raises(Unavailable, match=r"status\.progress\.attempt is not the attempt of this pod"):
        stale.apply_progress(progress(2, step=6))
    with pytest.raises(Unavailable, match="records of another attempt"):
        stale.apply_records(RecordSet(attempt=2, records=()))
    with pytest.raises(Unavailable, match="records of another attempt"):
        current.apply_records(RecordSet(attempt=1, records=(), refused={"documents": 1, "reason": "mine"}))
    with pytest.raises(Unavailable, match="records of another attempt"):
        current._apply("trainer-records-1", {})  # which would take the first attempt's away
    current.apply_records(RecordSet(attempt=2, records=()))
    status = ground.run(current.run)["status"]
    assert [each["attempt"] for each in status["records"]] == [1, 2]
    assert status["progress"]["attempt"] == 2


def test_a_token_that_is_bound_to_no_pod_writes_nothing(ground: Ground) -> None:
    trainer = trainer_of(ground)
    account = roles.trainer_account(ground.sweep)
    (trainer.account / "token").write_text(ground.plane.service_account_token(account.namespace, account.name))
    with pytest.raises(Unavailable, match="use the token that the pod was given"):
        trainer.apply_progress(progress())


def test_a_service_account_of_the_users_own_is_held_to_the_same_fields(ground: Ground) -> None:
    own = roles.Account(ground.namespace, "team")
    ground.plane.kubectl("create", "serviceaccount", own.name, "-n", own.namespace)
    ground.grant(ground.sweep, [run.metadata.name for run in ground.runs], own)
    trainer = trainer_of(ground, account=own)
    trainer.apply_progress(progress())
    with pytest.raises(Unavailable, match="nothing else"):
        trainer._apply("any", {"state": "Succeeded"})


def test_the_policy_bears_a_run_of_very_many_attempts(ground: Ground) -> None:
    record = {
        "apiVersion": "scalingsweep.dev/record-v1",
        "run": {"uid": "u", "attempt": 1, "configDigest": "sha256:c"},
        "purpose": "Ladder",
        "parameters": {"total": 1, "nonEmbedding": 1, "active": 1},
        "flops": {"sixND": 1.0, "detailed": 1.0},
        "uniqueTokens": 1,
        "epochs": 1.0,
        "seed": 0,
        "loss": 1.0,
        "gpuSeconds": 1.0,
        "validationDigest": "v" * 71,
        "tokenizerDigest": "t" * 71,
        "trainerVersion": "1",
        "finishedAt": "now",
    }
    sets = [{"attempt": n, "records": [{**record, "tokens": t} for t in range(1, 17)]} for n in range(1, 100)]
    ground.set_status(ground.runs[0].metadata.name, {"records": sets, "attempt": 100})
    trainer = trainer_of(ground, attempt=100)
    trainer.apply_progress(progress(100))
    trainer.apply_records(RecordSet(attempt=100, records=()))
    assert len(ground.run(trainer.run)["status"]["records"]) == 100


OWN = {"image": "any", "command": ["train"]}


@pytest.mark.parametrize(
    "runtime", [{}, OWN, {**OWN, "report": "TerminationMessage"}], ids=["Direct", "Sidecar", "TerminationMessage"]
)
def test_every_kind_of_pod_is_what_pod_security_calls_restricted(ground: Ground, runtime: dict[str, Any]) -> None:
    plane, namespace = ground.plane, ground.namespace
    plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    sweep = ground.sweep.changed(spec=ground.sweep.spec.changed(runtime=Runtime.model_validate(runtime)))
    spec = job_document(sweep, ground.runs[0], 1, Images())["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "namespace": namespace}, "spec": spec}
    plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    holding = [
        container["name"]
        for container in (*spec["containers"], *spec.get("initContainers", ()))
        if any(mount["name"] == "account" for mount in container["volumeMounts"])
    ]
    assert holding == {"Direct": ["trainer"], "Sidecar": ["reporter"]}.get(reports_by(sweep.spec.runtime), [])


# --- people ------------------------------------------------------------------------------------------------------


def as_user(plane: ControlPlane, namespace: str, user: str, *cluster_roles: str) -> Asking:
    for role in cluster_roles:
        plane.kubectl(
            *("create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}", "-n", namespace)
        )
    return Asking(plane, Api.connect(plane.kubeconfig(user, namespace)))


def test_view_looks_edit_wishes_and_neither_writes_what_the_operator_writes(
    secured: ControlPlane, namespace: str
) -> None:
    viewer = as_user(secured, namespace, "viewer", "scalingsweep-view")
    resources = ("scalingsweeps", "scalingruns", "scalingsweeps/status", "scalingruns/status")
    reading = {(GROUP, r, v) for r in resources for v in ("get", "list", "watch")}
    assert viewer.rights(namespace) == reading
    editor = as_user(secured, namespace, "editor", "scalingsweep-edit")
    wishing = {(GROUP, "scalingsweeps", v) for v in ("create", "update", "patch", "delete", "deletecollection")}
    assert editor.rights(namespace) == wishing


def test_kubernetes_own_roles_include_ours(secured: ControlPlane, namespace: str, simulated_nodes: list[str]) -> None:
    secured.kubectl("wait", "clusterrole/admin", "--for=jsonpath={.rules}", "--timeout=30s")
    expected = {"view": (True, False, False), "edit": (True, True, False), "admin": (True, True, True)}
    for user, role in zip(("viewer", "editor", "approver"), expected, strict=True):
        asking = as_user(secured, namespace, user, role)
        rights = [(GROUP, "scalingsweeps", verb) for verb in ("get", "patch", "approve")]
        assert tuple(asking.may(right, namespace) for right in rights) == expected[role]


APPROVAL = {"spec": {"approvals": [{"rung": "30k", "verdict": "sha256:v"}]}}


def patched(ground: Ground, user: str, patch: dict[str, Any]) -> str:
    """What kubectl says to the user's merge patch of the sweep; nothing when it was taken."""
    arguments = ("patch", "scalingsweep", "web", "-n", ground.namespace, "--type=merge", "-p", json.dumps(patch))
    return ground.plane.kubectl(*arguments, user=user, check=False).stderr


def test_only_who_may_approve_changes_approvals_in_either_direction(ground: Ground) -> None:
    plane, namespace = ground.plane, ground.namespace
    as_user(plane, namespace, "editor", "scalingsweep-edit", "scalingsweep-view")
    as_user(plane, namespace, "approver", "scalingsweep-edit", "scalingsweep-view", "scalingsweep-approve")
    refused = "spec.approvals may be changed only by who has the verb approve"
    assert refused in patched(ground, "editor", APPROVAL)
    assert patched(ground, "approver", APPROVAL) == ""
    assert patched(ground, "editor", {"spec": {"suspend": True}}) == ""
    assert refused in patched(ground, "editor", {"spec": {"approvals": []}})
    assert refused in patched(ground, "editor", {"spec": {"approvals": None}})
    assert patched(ground, "approver", {"spec": {"approvals": []}}) == ""


def test_nobody_creates_a_sweep_with_an_approval_in_it_without_the_verb(ground: Ground) -> None:
    as_user(ground.plane, ground.namespace, "editor", "scalingsweep-edit", "scalingsweep-view")
    with pytest.raises(AssertionError, match="may be changed only by who has the verb"):
        ground.add_sweep("approved", user="editor", **APPROVAL["spec"])
