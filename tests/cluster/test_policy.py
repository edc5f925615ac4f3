"""The platform's policy on what a cluster's pods may be: accounts, pod templates, and pools that passes must earn."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from local_ladder import MANIFEST
from pydantic import ValidationError
from simulated_cluster import SimulatedCluster, World, climb, healthy, settle

from sweep_analysis.rung import Run
from sweep_operator.acceptance import Accepted, Refused, accept
from sweep_operator.api import Approval, ScalingSweep
from sweep_operator.manifest import read_manifest, read_policy
from sweep_operator.policy import Policy, Pool

DEAR = {"pool": "dear"}


FIVE = MANIFEST.replace("170K, tokens: 3.4M", "300K, tokens: 9M").replace(
    "  gate:", "    - {name: e, runs: [{parameters: 150K, tokensPerParameter: [10, 20]}]}\n  gate:"
)


@pytest.fixture
def sweep(tmp_path) -> ScalingSweep:
    """Five rungs a to e, of which the first three warm up."""
    (tmp_path / "sweep.yaml").write_text(FIVE)
    return read_manifest(tmp_path / "sweep.yaml").sweep


def answer(sweep: ScalingSweep, policy: Policy) -> str:
    """The sentence of a violation, or nothing."""
    said = accept(sweep, policy)
    if isinstance(said, Accepted):
        return ""
    assert isinstance(said, Refused)
    assert said.reason == "PolicyViolation", said
    return said.message


def running(sweep: ScalingSweep, **runtime: Any) -> ScalingSweep:
    return sweep.changed(spec=sweep.spec.changed(runtime=runtime))


def placed(sweep: ScalingSweep, rung: str, **placement: Any) -> ScalingSweep:
    """One rung with a placement of its own."""
    rungs = [r.to_json() | ({"placement": placement} if r.name == rung else {}) for r in sweep.spec.ladder.rungs]
    return sweep.changed(spec=sweep.spec.changed(ladder={"rungs": rungs}))


def test_an_account_of_the_users_own_must_be_allowed(sweep):
    own = running(sweep, serviceAccountName="builder")
    assert answer(own, Policy()) == (
        "runtime.serviceAccountName is builder; this platform allows none; leave it out and one is made"
    )
    assert "allows reader or writer" in answer(own, Policy(service_accounts=("reader", "writer")))
    assert answer(own, Policy(service_accounts=("builder",))) == ""


HARMLESS = {
    "labels": {"metadata": {"labels": {"team": "research"}, "annotations": {"a": "b"}}},
    "a sidecar": {"spec": {"containers": [{"name": "tensorboard", "image": "tb", "ports": [{"containerPort": 6006}]}]}},
    "a volume": {"spec": {"volumes": [{"name": "x", "emptyDir": {}}], "hostAliases": [{"ip": "10.0.0.1"}]}},
    "another user": {"spec": {"securityContext": {"runAsUser": 1000, "fsGroup": 1000}}},
    "dropped capabilities": {
        "spec": {"containers": [{"name": "trainer", "securityContext": {"capabilities": {"drop": ["ALL"]}}}]}
    },
    "more memory for a sidecar": {"spec": {"containers": [{"name": "s", "resources": {"limits": {"memory": "1Gi"}}}]}},
    "spread": {"spec": {"topologySpreadConstraints": [], "affinity": {"podAntiAffinity": {}}}},
    "what is no pod at all": {"spec": {"volumes": "none", "containers": [7], "securityContext": []}},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_fields_of_a_pod_template_need_no_permission(name, sweep):
    assert answer(running(sweep, podTemplate=HARMLESS[name]), Policy()) == ""


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


def beside(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "x", **fields}])


DANGEROUS = {
    "hostNetwork": (pod(hostNetwork=True), ".spec.hostNetwork"),
    "hostPID": (pod(hostPID=True), ".spec.hostPID"),
    "hostIPC": (pod(hostIPC=True), ".spec.hostIPC"),
    "hostUsers": (pod(hostUsers=True), ".spec.hostUsers"),
    "shareProcessNamespace": (pod(shareProcessNamespace=True), ".spec.shareProcessNamespace"),
    "nodeName": (pod(nodeName="dear-1"), ".spec.nodeName"),
    "schedulerName": (pod(schedulerName="mine"), ".spec.schedulerName"),
    "runtimeClassName": (pod(runtimeClassName="none"), ".spec.runtimeClassName"),
    "priorityClassName": (pod(priorityClassName="system-node-critical"), ".spec.priorityClassName"),
    "priority": (pod(priority=10**9), ".spec.priority"),
    "nodeSelector": (pod(nodeSelector=DEAR), ".spec.nodeSelector"),
    "nodeAffinity": (pod(affinity={"nodeAffinity": {}}), ".spec.affinity.nodeAffinity"),
    "tolerations": (pod(tolerations=[{"operator": "Exists"}]), ".spec.tolerations"),
    "serviceAccountName": (pod(serviceAccountName="default"), ".spec.serviceAccountName"),
    "automountServiceAccountToken": (pod(automountServiceAccountToken=True), ".spec.automountServiceAccountToken"),
    "resourceClaims": (pod(resourceClaims=[{"name": "gpu"}]), ".spec.resourceClaims"),
    "ephemeralContainers": (pod(ephemeralContainers=[]), ".spec.ephemeralContainers"),
    "sysctls": (pod(securityContext={"sysctls": []}), ".spec.securityContext.sysctls"),
    "root": (pod(securityContext={"runAsUser": 0}), ".spec.securityContext.runAsUser"),
    "hostPath": (pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), ".spec.volumes[0].hostPath"),
    "nfs": (pod(volumes=[{"name": "h", "nfs": {"server": "s", "path": "/"}}]), ".spec.volumes[0].nfs"),
    "hostPort": (beside(ports=[{"hostPort": 22}]), ".spec.containers[0].ports[0].hostPort"),
    "privileged": (beside(securityContext={"privileged": True}), ".spec.containers[0].securityContext.privileged"),
    "allowPrivilegeEscalation": (
        pod(initContainers=[{"name": "x", "securityContext": {"allowPrivilegeEscalation": True}}]),
        ".spec.initContainers[0].securityContext.allowPrivilegeEscalation",
    ),
    "capabilities": (
        beside(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        ".spec.containers[0].securityContext.capabilities.add",
    ),
    "procMount": (beside(securityContext={"procMount": "Unmasked"}), ".spec.containers[0].securityContext.procMount"),
    "seccompProfile": (
        beside(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        ".spec.containers[0].securityContext.seccompProfile",
    ),
    "GPUs": (
        pod(containers=[{"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": 8}}}]),
        ".spec.containers[0].resources.limits[nvidia.com/gpu]",
    ),
    "scalingsweep.dev/": (
        {"metadata": {"labels": {"scalingsweep.dev/run": "another"}}},
        ".metadata.labels[scalingsweep.dev/run]",
    ),
    "status": ({"status": {}}, ".status"),
    "aFieldOfTomorrow": (pod(aFieldOfTomorrow=True), ".spec.aFieldOfTomorrow"),
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_everything_else_in_a_pod_template_must_be_allowed_by_name(name, sweep):
    template, path = DANGEROUS[name]
    own = running(sweep, podTemplate=template)
    said = answer(own, Policy())
    assert said.startswith(f"runtime.podTemplate{path} is not allowed on this platform (podTemplate: {name}); ")
    assert answer(own, Policy(pod_template=(name,))) == ""


def test_what_a_template_must_not_say_has_a_place_of_its_own(sweep):
    own = running(sweep, podTemplate=pod(nodeSelector=DEAR))
    assert answer(own, Policy()).endswith("say it in placement.nodeSelector")


POOLS = {
    "nodeSelector": (Pool(node_selector=DEAR, requires=1), {"nodeSelector": DEAR | {"zone": "a"}}, "pool=dear"),
    "priorityClassName": (Pool(priority_class_name="high", requires=1), {"priorityClassName": "high"}, "high"),
    "gpusPerRun": (Pool(gpus_per_run=8, requires=1), {"gpusPerNode": 16}, "gpusPerNode 16"),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_dearer_pool_may_be_named_only_after_rungs_that_can_pass(name, sweep):
    pool, placement, words = POOLS[name]
    policy = Policy(pools=(pool,))
    assert answer(sweep, policy) == ""
    assert answer(placed(sweep, "e", **placement), policy) == ""
    said = answer(placed(sweep, "d", **placement), policy)
    assert words in said
    assert said.endswith("but rung 'c' is a warm-up rung, which is not judged; give 'd' another placement")
    assert "only 0 rungs come before it" in answer(placed(sweep, "a", **placement), policy)


def test_the_sweeps_own_placement_counts_for_every_rung_and_the_targets_for_the_target(sweep):
    policy = Policy(pools=(Pool(node_selector=DEAR, requires=2),))
    everywhere = sweep.changed(spec=sweep.spec.changed(placement={"nodeSelector": DEAR}))
    assert "'a' asks for nodeSelector pool=dear" in answer(everywhere, policy)
    target = sweep.spec.target.to_json() | {"placement": {"nodeSelector": DEAR}, "launch": "Automatic"}
    assert answer(sweep.changed(spec=sweep.spec.changed(target=target)), policy) == ""
    strict = Policy(pools=(Pool(node_selector=DEAR, requires=3),))
    assert "'target' asks for" in answer(sweep.changed(spec=sweep.spec.changed(target=target)), strict)
    never = target | {"launch": "Never"}
    assert answer(sweep.changed(spec=sweep.spec.changed(target=never)), strict) == ""


def test_a_persons_approval_promotes_a_rung_and_earns_no_pool(sweep):
    def bent(run: Run, tokens: int) -> float:
        return healthy(run, tokens) * (1.15 if 90_000 < run.parameters < 130_000 else 1)

    policy = Policy(pools=(Pool(node_selector=DEAR, requires=1),))
    cluster = SimulatedCluster(placed(sweep, "e", nodeSelector=DEAR), World(loss=bent))
    status = climb(cluster, policy)
    stopped = next(r for r in status.rungs if r.state in ("Held", "Stopped"))
    assert stopped.name == "d"
    assert stopped.verdict is not None
    yes = Approval(rung="d", verdict=stopped.verdict.digest)
    spec = cluster.stored.spec.changed(approvals=(yes,))
    cluster.stored = cluster.stored.changed(metadata=cluster.stored.metadata.changed(generation=2), spec=spec)
    status = climb(cluster, policy)
    accepted = status.condition("Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "PolicyViolation")
    assert "but rung 'd' was promoted on " in accepted.message
    assert not [child for child in cluster.children.values() if child.spec.rung == "e"]


@pytest.mark.parametrize("name", ["nodeSelector", "priorityClassName"])
def test_a_rung_that_runs_is_moved_to_no_pool_that_it_has_not_earned(name, sweep):
    pool, placement, words = POOLS[name]
    policy = Policy(pools=(pool,))
    cluster = SimulatedCluster(sweep)
    while not any(r.name == "b" and r.state == "Running" for r in cluster.stored.status.rungs):
        cluster.now += timedelta(seconds=settle(cluster, policy))
    assert words in answer(placed(cluster.stored, "b", **placement), policy)
    assert answer(placed(cluster.stored, "b", memory="64Gi"), policy) == ""
    assert answer(placed(cluster.stored, "a", **placement), policy) == "", "which starts nothing any more"


def test_a_rung_keeps_the_pool_that_it_was_started_in(sweep):
    cluster = SimulatedCluster(placed(sweep, "b", nodeSelector=DEAR, gpusPerNode=8))
    while not any(r.name == "b" and r.state == "Running" for r in cluster.stored.status.rungs):
        cluster.now += timedelta(seconds=settle(cluster))
    stricter = Policy(pools=(Pool(node_selector=DEAR, requires=1), Pool(gpus_per_run=8, requires=1)))
    assert answer(cluster.stored, stricter) == ""


def test_a_pool_has_exactly_one_name():
    for names in ({}, {"gpusPerRun": 8, "priorityClassName": "high"}):
        with pytest.raises(ValidationError, match="name a pool by exactly one of"):
            Pool.model_validate({"requires": 1, **names})


def test_the_policy_that_the_docs_show_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "resources.md").read_text()
    shown = page.partition("## The platform's policy")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "policy.yaml").write_text(shown)
    policy = read_policy(tmp_path / "policy.yaml")
    assert {pool.requires for pool in policy.pools} == {1, 2}
    assert policy.model_fields_set == set(Policy.model_fields)
