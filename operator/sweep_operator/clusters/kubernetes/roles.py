"""Who may do what on a cluster, as documents: the operator, a sweep's trainers, and the people who write sweeps.

Owns every RBAC document of the project: the chart renders these, the adapter applies the trainers', the tests bind real
users to them. A rule names exactly the verbs that the code uses; `tests/cluster/test_security.py` shows that the whole
work is done with them and that nothing else is allowed. Talks to no cluster.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters.kubernetes.ownership import owner_reference
from sweep_operator.clusters.kubernetes.resources import GROUP, SWEEP_LABEL
from sweep_operator.names import label_value

RBAC = "rbac.authorization.k8s.io"
LEASE = "scalingsweep-operator"

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a role, and why it stands there."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()
    """Only these objects; all of them when empty."""

    def to_json(self) -> JSON:
        """The rule as RBAC writes it."""
        rule: JSON = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        if self.names:
            rule["resourceNames"] = list(self.names)
        return rule


@dataclass(frozen=True, slots=True)
class Account:
    """A service account."""

    namespace: str
    name: str

    @property
    def username(self) -> str:
        """The name under which the API server knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def subject(self) -> JSON:
        """It, as the subject of a binding."""
        return {"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}


OPERATOR_RULES: tuple[Rule, ...] = (
    Rule(GROUP, ("scalingsweeps",), ("list", "watch"), "reads what people wish; never writes it"),
    Rule(GROUP, ("scalingruns",), ("get", "list", "watch", "create"), "creates runs; their deletion is the owner's"),
    Rule(GROUP, ("scalingsweeps/status",), ("update",), "writes what it found, over the version that it read"),
    Rule(GROUP, ("scalingruns/status",), ("get", "patch"), "the same, beside the trainers; and may grant it to them"),
    Rule("batch", ("jobs",), ("get", "list", "watch", "create", "patch"), "starts attempts and suspends them"),
    Rule("", ("pods",), ("list", "watch"), "reads how an attempt ended"),
    Rule("", ("configmaps",), ("get",), "earlier records that a sweep names; once, before its first forecast"),
    Rule("", ("persistentvolumeclaims",), ("get", "create"), "storage.claim; never deletes one"),
    Rule("", ("serviceaccounts",), ("get", "create"), "the account of a sweep's trainers"),
    Rule(RBAC, ("roles", "rolebindings"), ("get", "create", "patch"), "what those trainers may write"),
    Rule("events.k8s.io", ("events",), ("create", "patch"), "tells people what happened"),
)
"""In every namespace that is watched. Roles that it makes cannot exceed these: the API server refuses an escalation."""


def lease_rules(lease: str = LEASE) -> tuple[Rule, ...]:
    """In the operator's own namespace: the one Lease that says which replica may write."""
    why = "one writer at a time"
    return (
        Rule("coordination.k8s.io", ("leases",), ("create",), why),  # RBAC cannot restrict a creation to a name
        Rule("coordination.k8s.io", ("leases",), ("get", "update"), why, names=(lease,)),
    )


def operator_access(account: Account, namespaces: Sequence[str] = (), lease: str = LEASE) -> list[JSON]:
    """The operator's roles and bindings: on the namespaces that it watches, or cluster-wide when none is named."""
    name = f"{account.namespace}-{account.name}"
    documents = [
        *_granted(account, account.namespace, f"{account.name}-lease", lease_rules(lease)),
        *(document for namespace in namespaces for document in _granted(account, namespace, name, OPERATOR_RULES)),
    ]
    if not namespaces:
        documents += [
            {**_headed("ClusterRole", name), "rules": [rule.to_json() for rule in OPERATOR_RULES]},
            {
                **_headed("ClusterRoleBinding", name),
                "subjects": [account.subject],
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            },
        ]
    return documents


def trainer_account(sweep: ScalingSweep) -> Account:
    """`<sweep, ≤ 40>-trainer-<8 hex of the sweep's UID>`: a sweep made anew under an old name gets another account."""
    head = sweep.metadata.name[:40].rstrip("-.")
    return Account(sweep.metadata.namespace, f"{head}-trainer-{sweep.metadata.uid.replace('-', '')[:8]}")


def trainer_rules(runs: Iterable[str]) -> tuple[Rule, ...]:
    """What a sweep's trainers may do: read the status of that sweep's own runs and write into it."""
    why = "reports progress and records; reads what earlier attempts measured"
    return (Rule(GROUP, ("scalingruns/status",), ("get", "patch"), why, names=tuple(sorted(runs))),)


def trainer_access(sweep: ScalingSweep, runs: Iterable[str], account: Account | None = None) -> list[JSON]:
    """ServiceAccount, Role and RoleBinding of a sweep's trainers, owned by the sweep.

    `runs` are the names of all its runs so far. With an account of the user's own (`runtime.serviceAccountName`) no
    ServiceAccount is made, and that one is bound instead.
    """
    own = trainer_account(sweep)
    owned = {"ownerReferences": [owner_reference(sweep)], "labels": {SWEEP_LABEL: label_value(sweep.metadata.name)}}
    documents = _granted(account or own, own.namespace, own.name, trainer_rules(runs))
    if account is None:
        documents.insert(0, _headed("ServiceAccount", own.name, own.namespace, api="v1"))
        documents[0]["automountServiceAccountToken"] = False  # a pod asks for the token where it wants it
    for document in documents:
        document["metadata"].update(owned)
    return documents


def user_roles() -> list[JSON]:
    """Roles for people, added to Kubernetes' own `view`, `edit` and `admin` by aggregation.

    The right to write sweeps is the right to run pods with images and commands of one's choice in that namespace,
    which `edit` has anyway. Runs and statuses are written by the operator alone.
    """
    everything = ("scalingsweeps", "scalingruns")
    read = Rule(GROUP, (*everything, *(f"{r}/status" for r in everything)), ("get", "list", "watch"), "look")
    write = Rule(GROUP, ("scalingsweeps",), ("create", "update", "patch", "delete", "deletecollection"), "wish")
    approve = Rule(GROUP, ("scalingsweeps",), ("approve",), "say yes to a verdict")
    return [
        _aggregated("scalingsweep-view", (read,), ("view", "edit", "admin")),
        _aggregated("scalingsweep-edit", (write,), ("edit", "admin")),
        _aggregated("scalingsweep-approve", (approve,), ("admin",)),
    ]


def _aggregated(name: str, rules: tuple[Rule, ...], into: tuple[str, ...]) -> JSON:
    labels = {f"{RBAC}/aggregate-to-{role}": "true" for role in into}
    return {**_headed("ClusterRole", name, labels=labels), "rules": [rule.to_json() for rule in rules]}


def _granted(account: Account, namespace: str, name: str, rules: tuple[Rule, ...]) -> list[JSON]:
    """A Role of that name and its binding to the account."""
    return [
        {**_headed("Role", name, namespace), "rules": [rule.to_json() for rule in rules]},
        {
            **_headed("RoleBinding", name, namespace),
            "subjects": [account.subject],
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        },
    ]


def _headed(
    kind: str, name: str, namespace: str = "", *, api: str = f"{RBAC}/v1", labels: dict[str, str] | None = None
) -> JSON:
    metadata: JSON = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
