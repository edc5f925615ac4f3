"""The operator at work on a real control plane: the resources, a namespace's sweeps, and the process itself.

The operator is the program that users run (`scalingsweep operator`); what trainers would do is played
(`standin_trainers`), nodes and pods are simulated (`control_plane.simulated`).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from ruamel import yaml

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import EVENTS, PODS, RUNG_LABEL, RUNS, SWEEPS, Resource

CRDS = Path(__file__).parents[1] / "crds"
KINDS = ("scalingsweeps.scalingsweep.dev", "scalingruns.scalingsweep.dev")

FIVE_RUNGS = """\
apiVersion: scalingsweep.dev/v1alpha1
kind: ScalingSweep
metadata: {name: climb}
spec:
  target: {parameters: 300K, tokens: 6M}
  ladder:
    rungs:
    - {name: a, runs: [{parameters: 20K, tokensPerParameter: [10, 20]}]}
    - {name: b, runs: [{parameters: 27K, tokensPerParameter: [10, 20]}]}
    - {name: c, runs: [{parameters: 46K, tokensPerParameter: [10, 20]}]}
    - {name: d, runs: [{parameters: 67K, tokensPerParameter: [10, 20]}]}
    - {name: e, runs: [{parameters: 96K, tokensPerParameter: [10, 20]}]}
  gate: {warmupRungs: 3, tolerance: 0.03}
  placement: {gpusPerNode: 1}
  training: {data: {corpus: Classics}, model: {layers: 3}, batchTokens: 2048}
"""
"""A run a rung: the shortest ladder of five that judges its last two."""


def install_resources(plane: ControlPlane) -> None:
    """The two resources; waits until they are served."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    until(lambda: all(plane.kubectl("get", kind, "-A", check=False).returncode == 0 for kind in KINDS))


def manifest(text: str = FIVE_RUNGS, **spec: Any) -> dict[str, Any]:
    """The manifest as a document, with parts of its spec replaced."""
    document: dict[str, Any] = json.loads(json.dumps(yaml.YAML(typ="safe").load(text)))
    document["spec"] |= spec
    return document


def a_sweep(**spec: Any) -> ScalingSweep:
    """The manifest as the operator reads it, without any cluster."""
    document = manifest(**spec)
    document["metadata"]["uid"] = "u-1"
    return ScalingSweep.model_validate(document)


def until(what: Callable[[], Any], seconds: float = 120.0, saying: Callable[[], Any] = lambda: "") -> Any:
    """Ask again until the answer is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"it did not come about in time: {saying()}"
        time.sleep(0.1)
    return answer


@dataclass
class Place:
    """One namespace, as a person with kubectl sees it. (What is asked again and again is asked without a process.)"""

    plane: ControlPlane
    namespace: str
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api.connect(self.plane.kubeconfig())

    def apply(self, document: dict[str, Any]) -> None:
        """`kubectl apply`."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def patch(self, spec: dict[str, Any], name: str = "climb") -> None:
        """Edit a sweep's spec."""
        self.kubectl("patch", "scalingsweep", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def sweep(self, name: str = "climb") -> dict[str, Any]:
        """The sweep as it stands."""
        return self.api.get(SWEEPS.path(self.namespace, name))

    def condition(self, kind: str, name: str = "climb") -> dict[str, Any]:
        """One of its conditions; empty before it was ever set."""
        conditions = self.sweep(name).get("status", {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == kind), {})

    def phase(self, name: str = "climb") -> str:
        """What kubectl prints last."""
        return str(self.sweep(name).get("status", {}).get("phase", ""))

    def rungs(self, name: str = "climb") -> dict[str, str]:
        """The state of each rung."""
        return {r["name"]: r["state"] for r in self.sweep(name).get("status", {}).get("rungs", ())}

    def runs(self) -> list[dict[str, Any]]:
        """All runs, by rung."""
        return sorted(self.items(RUNS), key=lambda run: run["spec"]["rung"])

    def run(self, rung: str) -> dict[str, Any]:
        """The one run of a rung; empty before it exists."""
        return next((run for run in self.runs() if run["spec"]["rung"] == rung), {})

    def state(self, rung: str) -> str:
        """Where that run stands."""
        return str(self.run(rung).get("status", {}).get("state", ""))

    def items(self, resource: Resource, selector: str = "") -> list[dict[str, Any]]:
        """Everything of a kind."""
        return [item for page in self.api.pages(resource.path(self.namespace), selector) for item in page["items"]]

    def pods(self, rung: str) -> list[dict[str, Any]]:
        """The pods of a rung that are not going."""
        labelled = self.items(PODS, f"{RUNG_LABEL}={rung}")
        return [pod for pod in labelled if "deletionTimestamp" not in pod["metadata"]]

    def events(self) -> set[str]:
        """Reasons of the events told so far."""
        return {event["reason"] for event in self.items(EVENTS) if event.get("reportingController")}

    def until_phase(self, phase: str, name: str = "climb", seconds: float = 180.0) -> dict[str, Any]:
        """Wait until the sweep stands so; returns its status."""

        def saying() -> Any:
            runs = {run["metadata"]["name"]: run.get("status", {}) for run in self.runs()}
            brief = {n: (s.get("state"), s.get("conditions", ())[:1], s.get("failures")) for n, s in runs.items()}
            return self.phase(name), self.rungs(name), brief

        until(lambda: self.phase(name) == phase, seconds, saying)
        status: dict[str, Any] = self.sweep(name)["status"]
        return status

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """kubectl in the namespace; returns what it printed."""
        return self.plane.kubectl(*arguments, "-n", self.namespace, **options).stdout


@dataclass
class OperatorProcess:
    """`scalingsweep operator` over one namespace (or all, where none is named), as a process of its own."""

    plane: ControlPlane
    folder: Path
    namespace: str = ""
    arguments: tuple[str, ...] = ()
    server: str | None = None
    """Another address of the API server, such as a proxy's."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the process finds beside this one's."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> "OperatorProcess":
        """Start it."""
        home = self.namespace or "default"
        kubeconfig = self.plane.kubeconfig("admin", home, server=self.server)
        command = [sys.executable, "-m", "sweep_operator.cli", "operator", "--kubeconfig", str(kubeconfig)]
        command += ["--lease-namespace", home, "--log-format", "text"]
        command += ["--namespace", self.namespace] if self.namespace else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "KUBERNETES_SERVICE_HOST": "", **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *self.arguments], env=environment, stdout=log, stderr=log)
        return self

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "operator.log"

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(5)
