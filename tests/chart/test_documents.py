"""What the chart would install, over a matrix of values: valid by the published schemas, and safe by default."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from helm_chart import CHART, KUEUE, MONITORING, ROOT, Helm, invalid, only

from sweep_chart.files import generated
from sweep_operator.clusters.kubernetes import admission, roles
from sweep_operator.policy import Policy

OLDEST, NEWEST = "1.32.0", "1.37.0"
EVERYTHING: dict[str, Any] = {
    "commonLabels": {"team": "platform"},
    "commonAnnotations": {"contact": "platform@example.com"},
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 3,
    "operator": {"runMetrics": True, "extraArgs": ["--workers=8"]},
    "policy": {"maxTolerance": 0.02, "launch": ["Never", "Approval"]},
    "tracing": {"endpoint": "http://collector.observability:4318"},
    "serviceAccount": {"annotations": {"cloud/identity": "sweeps"}},
    "admissionPolicies": {"approvals": True, "otherOperators": ["lab/other"]},
    "podLabels": {"a": "b"},
    "podAnnotations": {"c": "d"},
    "deploymentAnnotations": {"e": "f"},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "priorityClass": {"create": True},
    "podSecurityContext": {"runAsUser": 1234},
    "securityContext": {"runAsUser": 1234},
    "extraEnv": [{"name": "A", "value": "b"}],
    "envFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
    "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority"}],
    "helmTest": {
        "annotations": {"sidecar.istio.io/inject": "false"},
        "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority"}],
    },
    "extraContainers": [{"name": "beside", "image": "beside:1"}],
    "initContainers": [{"name": "before", "image": "before:1"}],
    "service": {"annotations": {"prometheus.io/scrape": "true"}},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {}}],
        "extraEgress": [{"ports": [{"port": 3128, "protocol": "TCP"}]}],
    },
    "monitor": {
        "labels": {"release": "prometheus"},
        "relabelings": [{"action": "labeldrop", "regex": "pod"}],
        "metricRelabelings": [{"action": "labeldrop", "regex": "container"}],
    },
    "alerts": {"labels": {"release": "prometheus"}, "extraLabels": {"team": "research"}},
    "dashboards": {"namespace": "grafana"},
    "kueue": {
        "resourceFlavors": [{"name": "h100", "spec": {"nodeLabels": {"gpu": "h100"}}}],
        "clusterQueues": [
            {
                "name": "ladder",
                "spec": {
                    "namespaceSelector": {},
                    "resourceGroups": [
                        {
                            "coveredResources": ["cpu", "memory", "nvidia.com/gpu"],
                            "flavors": [
                                {
                                    "name": "h100",
                                    "resources": [
                                        {"name": "cpu", "nominalQuota": 64},
                                        {"name": "memory", "nominalQuota": "512Gi"},
                                        {"name": "nvidia.com/gpu", "nominalQuota": 8},
                                    ],
                                }
                            ],
                        }
                    ],
                },
            }
        ],
        "localQueues": [{"name": "ladder", "namespace": "research", "clusterQueue": "ladder"}],
    },
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {}}
    ],
}
MATRIX: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "everything": EVERYTHING,
    "namespaces": {"watch": {"namespaces": ["research", "lab"]}},
    "a pod monitor": {"monitor": {"kind": "PodMonitor"}},
    "nothing optional": {
        "replicas": 1,
        "serviceAccount": {"create": False, "name": "theirs"},
        "rbac": {"create": False, "userRoles": False},
        "crds": {"enabled": False},
        "admissionPolicies": {"trainers": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "monitor": {"kind": "None"},
        "alerts": {"enabled": False},
        "dashboards": {"enabled": False},
        "helmTest": {"enabled": False},
    },
}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("case", MATRIX)
def test_what_is_installed_is_valid_by_the_published_schemas(helm: Helm, case: str, version: str) -> None:
    documents = helm.documents(f"--kube-version={version}", *MONITORING, *KUEUE, values=MATRIX[case])
    assert invalid(documents, version) == []


def test_every_object_carries_what_is_common_to_all(helm: Helm) -> None:
    documents = helm.documents(*MONITORING, *KUEUE, values=EVERYTHING)
    for metadata in (d["metadata"] for d in documents if not d["metadata"]["name"].endswith("-more")):
        assert EVERYTHING["commonLabels"].items() <= metadata["labels"].items(), metadata["name"]
        assert EVERYTHING["commonAnnotations"].items() <= metadata["annotations"].items(), metadata["name"]


@pytest.mark.parametrize("case", MATRIX)
def test_the_chart_passes_lint(helm: Helm, case: str) -> None:
    helm("lint", "--strict", str(CHART), values=MATRIX[case])


def test_the_chart_is_of_the_projects_version() -> None:
    head = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert head["appVersion"] == project["version"]


def test_generated_files_are_as_generated() -> None:
    stale = [path for path, text in generated().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make chart`"


@pytest.mark.parametrize("namespaces", [(), ("research", "lab")])
def test_the_operator_has_the_rights_that_the_project_says_it_needs_and_no_other(
    helm: Helm, namespaces: tuple[str, ...]
) -> None:
    documents = helm.documents(values={"watch": {"namespaces": list(namespaces)}, "rbac": {"userRoles": False}})
    account = roles.Account("ops", "sweeps-scalingsweep")
    expected = roles.operator_access(account, namespaces, lease="sweeps-scalingsweep")
    kinds = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    assert _bare(d for d in documents if d["kind"] in kinds) == _bare(expected)


def test_the_roles_for_people_and_the_admission_policies_are_the_projects_own(helm: Helm) -> None:
    documents = helm.documents(values={"rbac": {"create": False}, "admissionPolicies": {"approvals": True}})
    kinds = {"ClusterRole", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    account = roles.Account("ops", "sweeps-scalingsweep")
    expected = _bare([*roles.user_roles(), *admission.policies(account)])
    found = _bare(d for d in documents if d["kind"] in kinds)
    for document in (*expected.values(), *found.values()):
        for condition in document.get("spec", {}).get("matchConditions", ()):
            # the chart names every release's operator in one list; the project's own document names one
            condition["expression"] = re.sub(
                r"!\(request\.userInfo\.username in \[\"([^\"]+)\"\]\)",
                r"request.userInfo.username != '\1'",
                condition["expression"],
            )
    assert found == expected


def test_operators_of_other_releases_may_write_whole_statuses(helm: Helm) -> None:
    documents = helm.documents(values={"admissionPolicies": {"otherOperators": ["lab/other"]}})
    policy = only(documents, "ValidatingAdmissionPolicy", admission.TRAINERS)
    expression = policy["spec"]["matchConditions"][0]["expression"]
    assert '["system:serviceaccount:ops:sweeps-scalingsweep", "system:serviceaccount:lab:other"]' in expression


def _bare(documents: Any) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Documents by what they are, without the chart's labels."""
    bare = {}
    for document in documents:
        metadata = document["metadata"]
        labels = {k: v for k, v in metadata.get("labels", {}).items() if k.startswith("rbac.")}
        key = (document["kind"], metadata.get("namespace", ""), metadata["name"])
        bare[key] = {k: v for k, v in document.items() if k != "metadata"} | {"labels": labels}
    return bare


def test_the_pod_is_restricted_non_root_and_cannot_write_its_root(helm: Helm) -> None:
    for document in helm.documents():
        if document["kind"] not in ("Deployment", "Pod"):
            continue
        pod = document["spec"]["template"]["spec"] if document["kind"] == "Deployment" else document["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_pod_of_helm_test_is_of_the_operators_image_and_takes_what_its_cluster_needs(helm: Helm) -> None:
    documents = helm.documents(*MONITORING, *KUEUE, values=EVERYTHING)
    pod = only(documents, "Pod")
    (container,) = pod["spec"]["containers"]
    operator = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == operator["image"]
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert (pod["spec"]["volumes"], container["volumeMounts"]) == (
        EVERYTHING["extraVolumes"],
        EVERYTHING["extraVolumeMounts"],
    )


def test_the_pod_of_helm_test_is_under_no_rule_of_the_operators_and_let_in_by_its_policy(helm: Helm) -> None:
    values = {"networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]}}
    documents = helm.documents(*MONITORING, values=values)
    labels = only(documents, "Pod")["metadata"]["labels"].items()
    policy = only(documents, "NetworkPolicy")["spec"]
    selectors = [
        policy["podSelector"]["matchLabels"],
        only(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(documents, "Service")["spec"]["selector"],
        only(documents, "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert not selector.items() <= labels
    (metrics,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "metrics"]
    assert metrics["from"][0] == values["networkPolicy"]["metricsFrom"][0]
    assert metrics["from"][1]["podSelector"]["matchLabels"].items() <= labels
    assert "from" not in next(rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "health")


def test_the_operator_may_speak_to_names_the_api_server_and_the_collector_alone(helm: Helm) -> None:
    def ports(**values: Any) -> set[int]:
        egress = only(helm.documents(values=values), "NetworkPolicy")["spec"]["egress"]
        return {port["port"] for rule in egress for port in rule["ports"]}

    assert ports() == {53, 443, 6443}
    assert ports(tracing={"endpoint": "http://collector.observability:4318"}) == {53, 443, 6443, 4318}
    assert ports(tracing={"endpoint": "http://collector.observability/v1"}) == {53, 443, 6443, 80}
    assert ports(networkPolicy={"apiServerPorts": [16443]}) == {53, 16443}


def test_a_digest_pins_what_runs(helm: Helm) -> None:
    digest = "sha256:" + "ab" * 32
    documents = helm.documents(values={"image": {"digest": digest, "tag": "ignored"}})
    images = {
        container["image"]
        for document in documents
        if document["kind"] in ("Deployment", "Pod")
        for container in document["spec"].get("template", document)["spec"]["containers"]
    }
    assert images == {f"scalingsweep/operator@{digest}"}


def test_the_policy_reaches_the_operator_and_a_changed_one_starts_it_anew(helm: Helm) -> None:
    def digest(**policy: Any) -> tuple[Any, str]:
        documents = helm.documents(values={"policy": policy})
        text = only(documents, "ConfigMap", "sweeps-scalingsweep-policy")["data"]["policy.yaml"]
        template = only(documents, "Deployment")["spec"]["template"]
        return yaml.safe_load(text), template["metadata"]["annotations"]["scalingsweep.dev/policy-digest"]

    document, before = digest(maxTolerance=0.02, minRungs=4)
    policy = Policy.model_validate(document)
    assert (policy.max_tolerance, policy.min_rungs) == (0.02, 4)
    assert digest(maxTolerance=0.03, minRungs=4)[1] != before


def test_the_arguments_are_ones_that_the_operator_knows(helm: Helm) -> None:
    import argparse

    from sweep_operator.cli import operator

    deployment = only(helm.documents(*KUEUE, values=EVERYTHING), "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    parser = argparse.ArgumentParser()
    operator.configure(parser, "operator")
    options = parser.parse_args(arguments)
    assert options.run_metrics
    assert options.workers == 8


def test_two_replicas_lead_by_turns_and_lie_apart(helm: Helm) -> None:
    documents = helm.documents()
    spec = only(documents, "Deployment")["spec"]
    assert spec["replicas"] == 2
    pod = spec["template"]["spec"]
    assert {c["topologyKey"] for c in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    assert "--lease-name=sweeps-scalingsweep" in pod["containers"][0]["args"]
    assert only(documents, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    lone = helm.documents(values={"replicas": 1})
    assert not [d for d in lone if d["kind"] == "PodDisruptionBudget"]  # it would block every drain


def test_monitors_and_alerts_are_left_out_or_missed_by_value_where_their_kinds_are_absent(helm: Helm) -> None:
    kinds = {d["kind"] for d in helm.documents()}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    said = helm.refusal(values={"monitor": {"whenAbsent": "Fail"}})
    assert "monitor.kind asks for monitoring.coreos.com/v1/ServiceMonitor, which this cluster does not have" in said
    assert "set monitor.whenAbsent to Skip" in said
    said = helm.refusal(values={"alerts": {"whenAbsent": "Fail"}})
    assert "alerts.enabled asks for monitoring.coreos.com/v1/PrometheusRule" in said
    said = helm.refusal(values={"kueue": {"resourceFlavors": [{"name": "h100"}]}})
    assert "which this cluster does not have" in said
    assert "set kueue.whenAbsent to Skip" in said


def test_a_release_name_of_53_characters_gives_names_that_kubernetes_takes(helm: Helm) -> None:
    release = "r" * 53
    documents = helm.documents(*MONITORING, *KUEUE, values=EVERYTHING, release=release)
    names = [(d["kind"], d["metadata"]["name"]) for d in documents]
    assert len(names) == len(set(names))
    assert [name for kind, name in names if kind not in ("ClusterRole", "ClusterRoleBinding") and len(name) > 63] == []
    labels = {v for d in documents for v in d["metadata"].get("labels", {}).values()}
    assert max(map(len, labels)) <= 63
    other = {d["metadata"]["name"] for d in helm.documents(release="r" * 52 + "s") if d["kind"] == "Deployment"}
    assert other.isdisjoint(name for _, name in names)


def test_crds_stay_by_default_when_a_release_goes(helm: Helm) -> None:
    for keep in (True, False):
        crds = [d for d in helm.documents(values={"crds": {"keep": keep}}) if d["kind"] == "CustomResourceDefinition"]
        assert {crd["spec"]["names"]["kind"] for crd in crds} == {"ScalingSweep", "ScalingRun"}
        for crd in crds:
            assert (crd["metadata"]["annotations"].get("helm.sh/resource-policy") == "keep") is keep
            path = ROOT / "crds" / f"{crd['spec']['names']['plural']}.yaml"
            assert crd["spec"] == yaml.safe_load(path.read_text())["spec"]


@pytest.mark.parametrize("newest", ["kueue.x-k8s.io/v1beta1", "kueue.x-k8s.io/v1beta2"])
def test_queues_are_written_in_a_version_that_the_cluster_has(helm: Helm, newest: str) -> None:
    documents = helm.documents(f"--api-versions={newest}", values={"kueue": EVERYTHING["kueue"]})
    queues = [d for d in documents if d["kind"] in ("ResourceFlavor", "ClusterQueue", "LocalQueue")]
    assert {d["apiVersion"] for d in queues} == {newest}
    assert len(queues) == 3
