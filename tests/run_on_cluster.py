"""A sweep and its runs as objects of a real API server, and pods whose tokens may report on them.

No operator is at work here: the test puts objects there as it would, under its documents of `roles`.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from live_operator import install_resources

from sweep_analysis.rung import Run
from sweep_operator.api import Metadata, RunSpec, RunStatus, ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes import admission, roles

OPERATOR = roles.Account("scalingsweep-system", "operator")
TOKENS = (20_480, 40_960)

MANIFEST: dict[str, Any] = {
    "apiVersion": "scalingsweep.dev/v1alpha1",
    "kind": "ScalingSweep",
    "spec": {
        "target": {"parameters": "1M", "tokens": "20M"},
        "ladder": {"generate": {"from": "30K", "to": "300K", "rungs": 3, "tokensPerParameter": [10, 20]}},
        "gate": {"warmupRungs": 3},
        "training": {"data": {"corpus": "Classics"}},
    },
}


@dataclass
class Ground:
    """One namespace with a sweep and two of its runs, whose trainers' access stands."""

    plane: ControlPlane
    namespace: str
    sweep: ScalingSweep = field(init=False)
    runs: list[ScalingRun] = field(init=False)

    def __post_init__(self) -> None:
        self.sweep = self.add_sweep("web")
        self.runs = [self.add_run(self.sweep, name) for name in ("web-30k-0000000a", "web-30k-0000000b")]
        self.grant(self.sweep, [run.metadata.name for run in self.runs])

    def add_sweep(self, name: str, user: str = "admin", **spec: Any) -> ScalingSweep:
        """Create a sweep from the manifest, with further fields of the spec."""
        document = json.loads(json.dumps(MANIFEST))
        document["metadata"] = {"name": name, "namespace": self.namespace}
        document["spec"].update(spec)
        self.plane.kubectl("create", "-f", "-", user=user, stdin=json.dumps(document))
        return ScalingSweep.model_validate(self.plane.get("scalingsweep", name, "-n", self.namespace))

    def add_run(self, sweep: ScalingSweep, name: str, attempt: int = 1) -> ScalingRun:
        """Create a run of the sweep whose attempt is open."""
        run = ScalingRun(
            metadata=Metadata(name=name, namespace=self.namespace),
            spec=RunSpec(
                sweep=sweep.metadata.name,
                sweep_uid=sweep.metadata.uid,
                rung="30k",
                revision=1,
                run=Run(parameters=30_000, tokens=TOKENS),
                config_digest="sha256:c",
            ),
        )
        document = run.to_json()
        document["metadata"] = {"name": name, "namespace": self.namespace}
        status = RunStatus(attempt=attempt).to_json()
        for field_of_trainer in ("progress", "records"):
            status.pop(field_of_trainer, None)
        self.plane.kubectl("create", "-f", "-", stdin=json.dumps(document))
        self.set_status(name, status)
        return ScalingRun.model_validate(self.run(name))

    def set_status(self, run: str, status: dict[str, Any]) -> None:
        """Merge fields into a run's status, as an administrator."""
        how = ("--subresource=status", "--type=merge", "--patch-file=/dev/stdin")
        self.plane.kubectl("patch", "scalingrun", run, *self._here, *how, stdin=json.dumps({"status": status}))

    def run(self, name: str) -> dict[str, Any]:
        """The run as it stands."""
        return self.plane.get("scalingrun", name, "-n", self.namespace)

    def grant(self, sweep: ScalingSweep, runs: list[str], account: roles.Account | None = None) -> None:
        """Apply the access of the sweep's trainers."""
        items = roles.trainer_access(sweep, runs, account)
        self.plane.apply({"apiVersion": "v1", "kind": "List", "items": items}, "--force-conflicts")

    def pod(self, run: str, attempt: int = 1, account: roles.Account | None = None) -> Path:
        """A pod of the run's attempt; the folder that a kubelet would mount into it: token, ca.crt and namespace."""
        account = account or roles.trainer_account(self.sweep)
        name = f"{run}-{attempt}-x7x7x"
        spec = {"serviceAccountName": account.name, "containers": [{"name": "trainer", "image": "any"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        self.plane.apply(pod)
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}")
        token = self.plane.kubectl("create", "token", account.name, *self._here, *bound).stdout.strip()
        folder = self.plane.folder / "pods" / self.namespace / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(token)
        (folder / "namespace").write_text(self.namespace)
        (folder / "ca.crt").write_bytes(self.plane.authority.read_bytes())
        return folder

    def as_pod(self, folder: Path) -> Path:
        """A kubeconfig with which kubectl speaks as that pod."""
        return self.plane.kubeconfig_for((folder / "token").read_text(), folder.name, self.namespace)

    @property
    def _here(self) -> tuple[str, str]:
        return ("-n", self.namespace)


@contextlib.contextmanager
def installed(plane: ControlPlane) -> Iterator[None]:
    """The resources, the operator's account and the people's roles; the admission policies while the context lasts.

    Other tests may share the plane, with operators that go by other names.
    """
    install_resources(plane)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR.namespace}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": OPERATOR.name}}
    plane.apply(namespace)
    plane.apply(account, "-n", OPERATOR.namespace)
    policies = {"apiVersion": "v1", "kind": "List", "items": admission.policies(OPERATOR)}
    plane.apply({"apiVersion": "v1", "kind": "List", "items": roles.user_roles()})
    plane.apply(policies)
    yield
    plane.kubectl("delete", "-f", "-", stdin=json.dumps(policies))
