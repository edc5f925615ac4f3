"""What RBAC cannot say, as two ValidatingAdmissionPolicies: who writes which part of a status, and who may approve.

Owns their documents, which the chart renders and the tests apply. RBAC grants a resource; these restrict its fields.
Without them everything still works: the operator checks each record and each approval itself.
"""

from typing import Any

from sweep_operator.clusters.kubernetes.resources import GROUP
from sweep_operator.clusters.kubernetes.roles import Account

API = "admissionregistration.k8s.io/v1"
TRAINERS = f"trainers.{GROUP}"
APPROVALS = f"approvals.{GROUP}"
TRAINERS_FIELDS = ("progress", "records")

JSON = dict[str, Any]


def policies(operator: Account) -> list[JSON]:
    """Both policies with their bindings; `operator` is the one account that writes whole statuses."""
    return [trainers_policy(operator), _binding(TRAINERS), approvals_policy(), _binding(APPROVALS)]


def trainers_policy(operator: Account) -> JSON:
    """Any service account but the operator's writes only the trainer's fields, and only those of its own attempt.

    The token that a kubelet hands to a pod names that pod, and a run's pods are named `<run>-<attempt>-<suffix>`: a
    trainer that was cut off and comes back finds that it may no longer speak for the run's newest attempt, and one run
    of a sweep cannot write into another, although one role covers them all.
    """
    fields = "[" + ", ".join(f"'{field}'" for field in TRAINERS_FIELDS) + "]"
    return _policy(
        TRAINERS,
        {"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["scalingruns/status"]},
        conditions={
            "not-the-operator": "request.userInfo.username.startsWith('system:serviceaccount:')"
            f" && request.userInfo.username != '{operator.username}'"
        },
        variables={
            "before": "has(oldObject.status) ? oldObject.status : {}",
            "after": "has(object.status) ? object.status : {}",
            "pod": "has(request.userInfo.extra) && 'authentication.kubernetes.io/pod-name' in request.userInfo.extra"
            " ? request.userInfo.extra['authentication.kubernetes.io/pod-name'][0] : ''",
            "setsBefore": "'records' in variables.before ? variables.before['records'] : []",
            "setsAfter": "'records' in variables.after ? variables.after['records'] : []",
        },
        validations={
            f"variables.after.all(k, k in {fields} || (k in variables.before"
            " && variables.before[k] == variables.after[k]))"
            f" && variables.before.all(k, k in {fields} || k in variables.after)": (
                "a trainer writes status.progress and status.records and nothing else of a run"
            ),
            "variables.pod.startsWith(object.metadata.name + '-')": (
                "a trainer writes into the run of its own pod and no other; use the token that the pod was given"
            ),
            "!('progress' in variables.after) || ('progress' in variables.before"
            " && variables.before['progress'] == variables.after['progress'])"
            " || variables.pod.startsWith(object.metadata.name + '-'"
            " + string(variables.after['progress']['attempt']) + '-')": (
                "status.progress.attempt is not the attempt of this pod"
            ),
            "variables.setsAfter.all(s, variables.pod.startsWith(object.metadata.name + '-'"
            " + string(s['attempt']) + '-') || variables.setsBefore.exists(b, b['attempt'] == s['attempt'] && b == s))"
            " && variables.setsBefore.all(b, variables.pod.startsWith(object.metadata.name + '-'"
            " + string(b['attempt']) + '-') || variables.setsAfter.exists(s, s['attempt'] == b['attempt']))": (
                "status.records of another attempt is not this pod's to write"
            ),
            "!('progress' in variables.after) || !('progress' in variables.before)"
            " || variables.after['progress']['attempt'] >= variables.before['progress']['attempt']": (
                "a newer attempt reports progress; this one is over"
            ),
        },
    )


def approvals_policy() -> JSON:
    """Only who has the RBAC verb `approve` on the sweep changes `spec.approvals`, in either direction."""
    return _policy(
        APPROVALS,
        {
            "apiGroups": [GROUP],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["scalingsweeps"],
        },
        conditions={},
        variables={
            "before": "oldObject != null && has(oldObject.spec.approvals) ? oldObject.spec.approvals : []",
            "after": "has(object.spec.approvals) ? object.spec.approvals : []",
        },
        validations={
            "variables.before == variables.after"
            f" || authorizer.group('{GROUP}').resource('scalingsweeps').namespace(object.metadata.namespace)"
            ".name(object.metadata.name).check('approve').allowed()": (
                "spec.approvals may be changed only by who has the verb approve on scalingsweeps in this namespace"
            ),
        },
    )


def _policy(
    name: str, rule: JSON, conditions: dict[str, str], variables: dict[str, str], validations: dict[str, str]
) -> JSON:
    spec: JSON = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": name, "expression": expression} for name, expression in variables.items()],
        "validations": [
            {"expression": expression, "message": message, "reason": "Forbidden"}
            for expression, message in validations.items()
        ],
    }
    if conditions:
        spec["matchConditions"] = [{"name": name, "expression": text} for name, text in conditions.items()]
    return {"apiVersion": API, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec}


def _binding(policy: str) -> JSON:
    return {
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": policy},
        "spec": {"policyName": policy, "validationActions": ["Deny"]},
    }
