"""The adapters that the suite runs on: each with a sweep in it, a way to let time pass and a way to change the spec."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from local_ladder import MANIFEST, STANDIN
from simulated_cluster import SimulatedCluster, World

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters import Cluster
from sweep_operator.clusters.local import LocalCluster
from sweep_operator.clusters.local.apply import applied
from sweep_operator.clusters.local.store import Store
from sweep_operator.manifest import read_manifest

KEY = "default/tiny"


class Place(Protocol):
    """An adapter under test."""

    cluster: Cluster

    def until(self, what: Callable[[], Any]) -> Any:
        """Let time pass until the answer is true."""

    def change_spec(self) -> None:
        """A person suspends the sweep."""

    def began(self) -> int:
        """How many attempts have really been begun."""


class Simulated:
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

    def began(self) -> int:
        return len(self.cluster.started)


class Local:
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

    def began(self) -> int:
        return len(list(self.store.workdir.glob("runs/*/attempts/*.json")))


@pytest.fixture(params=["simulated", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Every adapter in turn."""
    if request.param == "simulated":
        (tmp_path / "sweep.yaml").write_text(MANIFEST)
        yield Simulated(read_manifest(tmp_path / "sweep.yaml").sweep)
        return
    monkeypatch.setenv("PYTHONPATH", str(STANDIN), prepend=os.pathsep)
    monkeypatch.setenv("STANDIN", json.dumps({"seconds": 1.0}))
    local = Local(tmp_path)
    yield local
    local.cluster.close()
