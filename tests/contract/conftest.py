"""The adapters that the suite runs on: each with a sweep in it, a way to let time pass and a way to change the spec."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from control_plane import ControlPlane
from live_operator import install_resources
from local_ladder import MANIFEST, STANDIN
from ruamel import yaml
from simulated_cluster import SimulatedCluster, World
from standin_trainers import Play, StandinTrainers

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters import Cluster, Event
from sweep_operator.clusters.kubernetes.cache import Caches
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.resources import JOBS, PODS, RUN_LABEL, RUNS, SWEEPS
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.clusters.local import LocalCluster
from sweep_operator.clusters.local.apply import applied
from sweep_operator.clusters.local.store import Store
from sweep_operator.manifest import read_manifest


class Place(Protocol):
    """An adapter under test."""

    cluster: Cluster
    key: str
    """Of the sweep in it."""

    def until(self, what: Callable[[], Any]) -> Any:
        """Let time pass until the answer is true."""

    def change_spec(self) -> None:
        """A person suspends the sweep."""

    def importing(self, text: str) -> ScalingSweep:
        """The sweep, as if it named this CSV as earlier records."""

    def began(self) -> int:
        """How many attempts have really been begun."""


def naming(sweep: ScalingSweep | None, source: dict[str, str]) -> ScalingSweep:
    """The sweep with that source of earlier records."""
    assert sweep is not None
    return sweep.changed(spec={**sweep.spec.to_json(), "records": [source]})


class Simulated:
    key = "default/tiny"

    def __init__(self, sweep: ScalingSweep) -> None:
        self.cluster = SimulatedCluster(sweep.changed(metadata=sweep.metadata.changed(uid="u-1")), World())

    def until(self, what: Callable[[], Any]) -> Any:
        for _ in range(1000):
            if answer := what():
                return answer
            self.cluster.now += timedelta(seconds=30)
        raise AssertionError("it did not come about")

    def change_spec(self) -> None:
        self.cluster.stored = self.cluster.stored.changed(spec=self.cluster.stored.spec.changed(suspend=True))

    def importing(self, text: str) -> ScalingSweep:
        self.cluster.texts["earlier.csv"] = text
        return naming(self.cluster.stored, {"file": "earlier.csv"})

    def began(self) -> int:
        return len(self.cluster.started)


class Local:
    key = "default/tiny"

    def __init__(self, folder: Path) -> None:
        (folder / "text.txt").write_text("some text\n")
        (folder / "sweep.yaml").write_text(MANIFEST)
        self.store = Store(folder / "ladder")
        self.store.workdir.mkdir()
        self.store.write_sweep(applied(None, read_manifest(folder / "sweep.yaml"), "2026-01-01T00:00:00Z"))
        self.cluster = LocalCluster(self.store, folder, folder / "cache")

    def until(self, what: Callable[[], Any]) -> Any:
        for _ in range(600):
            if answer := what():
                return answer
            self.cluster.wait(0.1)
        raise AssertionError("it did not come about")

    def change_spec(self) -> None:
        sweep = self.store.sweep()
        assert sweep is not None
        self.store.write_sweep(sweep.changed(spec=sweep.spec.changed(suspend=True)))

    def importing(self, text: str) -> ScalingSweep:
        (self.cluster.root / "earlier.csv").write_text(text)
        return naming(self.store.sweep(), {"file": "earlier.csv"})

    def began(self) -> int:
        return len(list(self.store.workdir.glob("runs/*/attempts/*.json")))


class OnKubernetes:
    """A real API server with simulated nodes, and somebody who plays the trainers."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.key = f"{namespace}/tiny"
        self._plane, self._namespace = plane, namespace
        install_resources(plane)
        document = yaml.YAML(typ="safe").load(MANIFEST)
        plane.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(document))
        self._api = Api.connect(plane.kubeconfig())
        caches = Caches.empty()
        self._watches = [
            Watch(self._api, SWEEPS, caches.sweeps, namespace),
            Watch(self._api, RUNS, caches.runs, namespace),
            Watch(self._api, JOBS, caches.jobs, namespace, RUN_LABEL),
            Watch(self._api, PODS, caches.pods, namespace, RUN_LABEL),
        ]
        for watch in self._watches:
            watch.start()
            assert watch.wait_synced(10)
        self.events: list[Event] = []
        self.cluster = KubernetesCluster(self._api, caches, self)
        self._trainers = StandinTrainers(self._api, namespace, lambda run, attempt: Play(seconds=2.0)).start()

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        self.events.append(event)

    def until(self, what: Callable[[], Any]) -> Any:
        for _ in range(600):
            if answer := what():
                return answer
            time.sleep(0.1)
        raise AssertionError("it did not come about")

    def change_spec(self) -> None:
        patch = json.dumps({"spec": {"suspend": True}})
        self._plane.kubectl("patch", "scalingsweep", "tiny", "-n", self._namespace, "--type=merge", "-p", patch)
        self.until(lambda: self.cluster.sweep(self.key).spec.suspend)

    def importing(self, text: str) -> ScalingSweep:
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "earlier"},
            "data": {"rows.csv": text},
        }
        self._plane.kubectl("create", "-n", self._namespace, "-f", "-", stdin=json.dumps(document))
        return naming(self.cluster.sweep(self.key), {"configMap": "earlier", "key": "rows.csv"})

    def began(self) -> int:
        return sum(len(pods) for pods in self._trainers.begun.values())

    def close(self) -> None:
        self._trainers.stop()
        for watch in self._watches:
            watch.stop()
        self._api.close()


@pytest.fixture(params=["simulated", "local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Every adapter in turn."""
    if request.param == "simulated":
        (tmp_path / "sweep.yaml").write_text(MANIFEST)
        yield Simulated(read_manifest(tmp_path / "sweep.yaml").sweep)
        return
    if request.param == "kubernetes":
        request.getfixturevalue("simulated_nodes")
        there = OnKubernetes(request.getfixturevalue("control_plane"), request.getfixturevalue("namespace"))
        yield there
        there.close()
        return
    monkeypatch.setenv("PYTHONPATH", str(STANDIN), prepend=os.pathsep)
    monkeypatch.setenv("STANDIN", json.dumps({"seconds": 1.0}))
    local = Local(tmp_path)
    yield local
    local.cluster.close()
