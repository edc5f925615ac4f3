"""Sweeps of every fate on a control plane, the operator over them under the chart's own rights, and Prometheus at it.

The operator is the program that users run, with the arguments of the chart's Deployment and a token of its service
account. Nodes are simulated and trainers are played (`standin_trainers`); everything that is watched is real.

    climb    climbs to its target within a budget          held     waits for a person at each rung
    broken   its larger rungs are worse than forecast      unlucky  its trainers run out of memory
    running  trains and reports                            queued   asks for more devices than there are
    refused  wants Jobs after the operator has lost the right to create them
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane import ControlPlane, free_port
from helm_chart import CHART, MONITORING, Documents, Helm, only
from live_operator import KINDS, Place, manifest, until
from prometheus import Prometheus
from simulated_cluster import healthy
from standin_trainers import Play, StandinTrainers
from trace_collector import TraceCollector

from sweep_analysis.record import Progress
from sweep_analysis.rung import Run
from sweep_operator.api import ScalingRun
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError
from sweep_operator.clusters.kubernetes.resources import RUNS, SWEEPS
from sweep_operator.conditions import timestamp

NAMESPACE, RELEASE = "research", "sweeps"
OFF = 77
"""Seeds from here on are those of the sweep whose law breaks; diagnosis takes the next ones."""
VALUES: dict[str, Any] = {
    "watch": {"namespaces": [NAMESPACE]},
    "operator": {"runMetrics": True},
    "alerts": {"thresholds": {"heldFor": "1s"}},
}


def fate(name: str) -> dict[str, Any]:
    """The manifest of one of the sweeps."""
    changes: dict[str, dict[str, Any]] = {
        "climb": {
            "target": {"parameters": "300K", "tokens": "6M", "launch": "Automatic", "maxLoss": 3.0},
            "budget": {"gpuHours": 1, "flops": "5e13"},
        },
        "held": {"gate": {"warmupRungs": 3, "tolerance": 0.03, "promotion": "Manual"}},
        "unlucky": {"retry": {"limit": 2}},
        "queued": {"placement": {"gpusPerNode": 16}},
    }
    document = manifest(**changes.get(name, {}))
    document["metadata"] |= {"name": name, "namespace": NAMESPACE}
    if name == "broken":
        for rung in document["spec"]["ladder"]["rungs"]:
            rung["runs"][0]["seeds"] = [OFF]
    return document


def loss(run: Run, tokens: int) -> float:
    """Healthy, but for the larger runs of one sweep."""
    return healthy(run, tokens) * (1.3 if run.seed >= OFF and run.parameters > 60_000 else 1.0)


def play(run: ScalingRun, attempt: int) -> Play:
    """What a trainer does, by its sweep's name."""
    if run.spec.sweep == "unlucky":
        return Play("Failed", exit_code=137, reason="OOMKilled", share=0.2)
    if run.spec.sweep == "running":
        return Play("Runs")
    return Play(seconds=1.0)


@dataclass
class WatchedSweeps:
    """The whole of it, from `start` to `stop`."""

    plane: ControlPlane
    helm: Helm
    folder: Path
    chart: Path = CHART
    """What is installed first."""
    fates: Sequence[str] = ("climb", "held", "broken", "unlucky", "running", "queued")
    """The sweeps that `start` applies."""
    train: Callable[[ScalingRun, int], Play] = play
    """What a trainer does in an attempt."""
    held: ExitStack = field(default_factory=ExitStack)
    """What ends what was started."""
    _reports: int = 0

    def start(self) -> "WatchedSweeps":
        """Install, let the operator lead, apply the sweeps."""
        for name in (NAMESPACE, "ops"):
            self.plane.kubectl("create", "namespace", name)
        self.helm("install", RELEASE, str(self.chart), "-n", "ops", values=VALUES)
        self.held.callback(self.helm, "uninstall", RELEASE, "-n", "ops")
        self.plane.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in KINDS))
        documents = self._render()
        self.place = Place(self.plane, NAMESPACE)
        self.operator = self._start_operator()
        rules = only(documents, "PrometheusRule")["spec"]["groups"]
        self.prometheus = Prometheus(self.folder, {RELEASE: [f"127.0.0.1:{self.metrics_port}"]}, rules).start()
        self.held.callback(self.prometheus.stop)
        self.api = Api.connect(self.plane.kubeconfig("admin", NAMESPACE))
        self.trainers = StandinTrainers(self.api, NAMESPACE, self.train, loss).start()
        self.held.callback(self.trainers.stop)
        until(lambda: self.prometheus.query("scalingsweep_leader == 1"), 60, self._said)
        for name in self.fates:
            self.place.apply(fate(name))
        return self

    def stop(self) -> None:
        """End everything that was started."""
        self.held.close()

    def let_them_live(self) -> None:
        """Wait until each sweep has come to its fate, then take a right from the operator and ask for more."""
        self.place.until_phase("AwaitingApproval", "held")
        until(lambda: self._runs("unlucky", "failures"), 120, self._said)
        until(lambda: self._runs("running", "progress"), 120, self._said)
        until(lambda: self.prometheus.query('scalingsweep_rung_waiting_since_timestamp_seconds{sweep="queued"}'), 60)
        for _ in range(5):
            self.report_training()
            time.sleep(1)
        until(lambda: self.place.condition("Finished", "climb").get("status") == "True", 240, self._said)
        until(lambda: self.place.condition("Consistent", "broken").get("status") == "False", 240, self._said)
        role = self.plane.get("role", "ops-sweeps-scalingsweep", "-n", NAMESPACE)
        for rule in role["rules"]:
            if rule["resources"] == ["jobs"]:
                rule["verbs"].remove("create")
        self.plane.kubectl("replace", "-f", "-", stdin=json.dumps(role))
        self.place.apply(fate("refused"))
        until(lambda: self.prometheus.query('rate(scalingsweep_api_calls_total{code="403"}[30s]) > 0'), 60, self._said)
        until(lambda: self.prometheus.query('ALERTS{alertstate="firing"}'), 60)
        self.report_training()
        time.sleep(2)

    def replace_operator(self) -> None:
        """Start another as a rolling upgrade does; end the first once that one is ready."""
        first = self.operator
        self._render()
        self.operator = self._start_operator()
        until(self._ready, 60, self._said)
        first.terminate()
        assert first.wait(20) == 0

    @contextmanager
    def operator_alone(self) -> Iterator["WatchedSweeps"]:
        """The operator on an installation that stands already, with nothing to do."""
        self._render()
        self._start_operator()
        yield self
        self.stop()

    def _render(self) -> Documents:
        """What the chart says of pods and policy."""
        documents = self.helm.documents(*MONITORING, values=VALUES)
        self.pod = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        self.test_pod = only(documents, "Pod")["spec"]["containers"][0]
        policy = only(documents, "ConfigMap", "sweeps-scalingsweep-policy")["data"]["policy.yaml"]
        (self.folder / "policy.yaml").write_text(policy)
        self.health_port, self.metrics_port = free_port(), free_port()
        return documents

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):  # not listening yet, or 503
            urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/readyz", timeout=5).close()
            return True
        return False

    def _start_operator(self) -> subprocess.Popen[bytes]:
        token = self.plane.service_account_token("ops", "sweeps-scalingsweep")
        kubeconfig = self.plane.kubeconfig_for(token, "sweeps-operator", "ops")
        replaced = {
            "--policy": str(self.folder / "policy.yaml"),
            "--health-port": str(self.health_port),
            "--metrics-port": str(self.metrics_port),
        }
        arguments = [self._replaced(argument, replaced) for argument in self.pod["args"]]
        command = [sys.executable, "-m", "sweep_operator.cli", "operator", *arguments, "--kubeconfig", str(kubeconfig)]
        self.traces = self.held.enter_context(TraceCollector())
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "KUBERNETES_SERVICE_HOST": ""}
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.traces.endpoint
        with (self.folder / "operator.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.held.callback(process.wait, 20)
        self.held.callback(process.terminate)
        return process

    @staticmethod
    def _replaced(argument: str, replaced: dict[str, str]) -> str:
        name, _, _ = argument.partition("=")
        return f"{name}={replaced[name]}" if name in replaced else argument

    def _said(self) -> str:
        """How they stand, and the operator's last words."""
        phases = {
            sweep["metadata"]["name"]: sweep.get("status", {}).get("printed") for sweep in self.place.items(SWEEPS)
        }
        return f"{phases}\n{(self.folder / 'operator.log').read_text()[-1500:]}"

    def _runs(self, sweep: str, field: str) -> list[dict[str, Any]]:
        """Runs of a sweep whose status has that field."""
        return [r for r in self.place.runs() if r["spec"]["sweep"] == sweep and r.get("status", {}).get(field)]

    def report_training(self) -> None:
        """What real trainers would report of the runs in hand, devices' utilisation included."""
        for run in self.place.runs():
            status = run.get("status", {})
            if status.get("state") != "Running" or status.get("progress", {}).get("step", 100) == 100:
                continue
            self._reports += 1
            progress = Progress(
                attempt=status["attempt"],
                step=60,
                steps=100,
                tokens=60_000,
                loss=2.9 + 2.0 / (1 + 0.05 * self._reports),
                tokens_per_second=51_000.0 + 400 * (self._reports % 5),
                mfu=0.41 + 0.004 * (self._reports % 3),
                eta_seconds=120.0,
                last_updated=timestamp(datetime.now(UTC)),
            )
            document = {
                "apiVersion": run["apiVersion"],
                "kind": run["kind"],
                "metadata": {"name": run["metadata"]["name"]},
                "status": {"progress": progress.to_json()},
            }
            path = RUNS.path(NAMESPACE, run["metadata"]["name"], "status")
            with contextlib.suppress(ApiError):  # the run ended in the meantime
                self.api.patch(path, document, kind="apply", field_manager="trainer-progress", force=True)
