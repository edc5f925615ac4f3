"""What was stored by v1alpha1's first version is still read, still accepted and still means the same runs.

The two documents in tests/fixtures/v1alpha1 are never edited and never generated anew: they stand for the objects that
lie in somebody's etcd. A change that breaks one of these tests breaks every sweep that climbs when it is rolled out.
"""

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane

from sweep_operator import crd
from sweep_operator.acceptance import Accepted, accept
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import NotFound
from sweep_operator.clusters.kubernetes.resources import RUNS, SWEEPS, Resource
from sweep_operator.names import config_digest, run_name
from sweep_operator.policy import Policy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1alpha1"
CRDS = Path(__file__).parents[2] / "crds"
JSON = dict[str, Any]


def stored(name: str) -> JSON:
    document: JSON = json.loads((FIXTURES / name).read_text())
    return document


SWEEP, RUN = stored("scalingsweep.json"), stored("scalingrun.json")


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths of values that stood in a document and stand no longer."""
    if isinstance(before, dict):
        for key, inner in before.items():
            yield from lost(inner, after.get(key) if isinstance(after, dict) else None, f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, inner in enumerate(before):
            yield from lost(inner, after[i], f"{path}[{i}]")
    elif before != after:
        yield path


def test_a_stored_sweep_is_read_and_nothing_of_its_status_is_lost() -> None:
    sweep = ScalingSweep.model_validate(SWEEP)
    assert list(lost(SWEEP["status"], sweep.to_json()["status"])) == []
    assert [r.name for r in sweep.status.rungs] == ["a", "b", "c", "d", "d", "e", "target"]


def test_a_stored_run_is_read_and_nothing_of_it_is_lost() -> None:
    run = ScalingRun.model_validate(RUN)
    assert list(lost({key: RUN[key] for key in ("spec", "status")}, run.to_json())) == []


def test_a_stored_sweep_still_means_the_runs_that_it_meant() -> None:
    """Digests of the frozen spec, names of children and digests of configurations are what they were."""
    sweep, run = ScalingSweep.model_validate(SWEEP), ScalingRun.model_validate(RUN)
    accepted = accept(sweep, Policy())
    assert isinstance(accepted, Accepted)
    for rung in accepted.rungs:
        first = next(r for r in sweep.status.rungs if r.name == rung.name)
        assert rung.runs == first.runs
    assert run_name(sweep, run.spec.rung, run.spec.revision, run.spec.run) == RUN["metadata"]["name"]
    assert config_digest(sweep.spec.training, run.spec.run) == RUN["spec"]["configDigest"]


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    control_plane.install(CRDS)
    return Api.connect(control_plane.kubeconfig())


def put(api: Api, resource: Resource, namespace: str, document: JSON) -> str:
    """Store a fixture, its status too; returns its path."""
    body = {key: value for key, value in document.items() if key != "status"}
    body["metadata"] = {"name": document["metadata"]["name"]}
    created = api.create(resource.path(namespace), body)
    path = resource.path(namespace, document["metadata"]["name"])
    api.replace(f"{path}/status", created | {"status": document["status"]})
    return path


def test_stored_objects_fit_the_schema_of_today(api: Api, namespace: str) -> None:
    for resource, document in ((SWEEPS, SWEEP), (RUNS, RUN)):
        back = api.get(put(api, resource, namespace, document))
        assert list(lost({key: document[key] for key in ("spec", "status")}, back)) == []


def test_a_later_version_may_be_served_beside_this_one(api: Api, control_plane: ControlPlane, namespace: str) -> None:
    """How v1beta1 would come: the same objects under both names, stored as v1alpha1 until nobody reads that."""
    path = put(api, SWEEPS, namespace, SWEEP)
    both = copy.deepcopy(crd.definitions()["scalingsweeps.yaml"])
    [alpha] = both["spec"]["versions"]
    beta = copy.deepcopy(alpha) | {"name": "v1beta1", "storage": False}
    beta["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["added"] = {"type": "string"}
    both["spec"]["versions"].append(beta)
    try:
        control_plane.apply(both, "--force-conflicts")
        later = path.replace("v1alpha1", "v1beta1")
        until_served(api, later)
        document = api.get(later)
        assert document["apiVersion"] == "scalingsweep.dev/v1beta1"
        assert list(lost({key: SWEEP[key] for key in ("spec", "status")}, document)) == []
    finally:
        control_plane.install(CRDS)
    assert ScalingSweep.model_validate(api.get(path)).status == ScalingSweep.model_validate(SWEEP).status


def until_served(api: Api, path: str) -> None:
    """The API server takes up a new version within a second or two."""
    for _ in range(300):
        try:
            api.get(path)
        except NotFound:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{path} is not served")
