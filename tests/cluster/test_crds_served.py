"""The two resources as a real API server serves them: printed, explained, defaulted, and what may no longer change."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from local_ladder import MANIFEST
from simulated_cluster import Outcome, SimulatedCluster, World, climb, healthy

from sweep_analysis.record import FailureReason
from sweep_analysis.rung import Run
from sweep_operator.acceptance import MAX_RECORDS
from sweep_operator.api import RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.api.status import MAX_IMPORTED
from sweep_operator.clusters import Ending
from sweep_operator.clusters.kubernetes.client import Api, Patience
from sweep_operator.clusters.kubernetes.errors import Invalid
from sweep_operator.clusters.kubernetes.resources import RUNS, SWEEPS
from sweep_operator.manifest import read_manifest
from sweep_operator.structural import structural

CRDS = Path(__file__).parents[2] / "crds"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1alpha1"
JSON = dict[str, Any]


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Api:
    """A client with every right, and the resources installed."""
    control_plane.install(CRDS)
    return Api.connect(control_plane.kubeconfig(), patience=Patience(write_seconds=30.0))


@pytest.fixture
def sweep(tmp_path: Path) -> ScalingSweep:
    (tmp_path / "sweep.yaml").write_text(MANIFEST)
    return read_manifest(tmp_path / "sweep.yaml").sweep


class Mirrored(SimulatedCluster):
    """Every object and every status is written to a real API server too, and must come back as it was."""

    def __init__(self, sweep: ScalingSweep, world: World, api: Api, namespace: str) -> None:
        document = sweep.to_json() | {"metadata": {"name": sweep.metadata.name}}
        document.pop("status")
        stored = api.create(SWEEPS.path(namespace), document)
        uid = stored["metadata"]["uid"]
        super().__init__(sweep.changed(metadata=sweep.metadata.changed(uid=uid)), world)
        self.api, self.namespace = api, namespace

    def create_run(self, run: ScalingRun) -> None:
        super().create_run(run)
        document = run.to_json() | {"metadata": {"name": run.metadata.name}}
        document.pop("status")
        self.api.create(RUNS.path(self.namespace), document)

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        super().write_sweep_status(sweep, status)
        back = self._mirror(SWEEPS.path(self.namespace, sweep.metadata.name), status.to_json())
        assert SweepStatus.model_validate(back) == status

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        super().write_run_status(run, status)
        back = self._mirror(RUNS.path(self.namespace, run.metadata.name), status.to_json())
        assert RunStatus.model_validate(back) == status

    def _mirror(self, path: str, status: JSON) -> JSON:
        stored = self.api.get(path)
        written: JSON = self.api.replace(f"{path}/status", stored | {"status": status})["status"]
        return written


def mistuned(run: Run, tokens: int) -> float:
    """The last rung was trained at four times its best learning rate."""
    worse = 90_000 < run.parameters < 130_000 and run.learning_rate_factor > 0.5
    return healthy(run.changed(learning_rate_factor=1.0), tokens) * (1.12 if worse else 1)


def unlucky(run: ScalingRun, attempt: int) -> Outcome:
    """Every first attempt ends badly, in words of ten kilobytes."""
    if attempt == 1:
        return Outcome(Ending.FAILED, FailureReason.CRASHED, "ü" * 10_000, share=0.3)
    return Outcome()


WORLDS = {"mistuned": World(loss=mistuned), "unlucky": World(outcome=unlucky)}


@pytest.mark.parametrize("name", WORLDS)
def test_every_status_of_a_climb_is_stored_as_it_was_written(
    name: str, sweep: ScalingSweep, api: Api, namespace: str
) -> None:
    cluster = Mirrored(sweep, WORLDS[name], api, namespace)
    climb(cluster)
    stored = ScalingSweep.model_validate(api.get(SWEEPS.path(namespace, "tiny")))
    assert stored.status == cluster.stored.status
    assert stored.spec == sweep.spec
    assert len(stored.status.rungs) >= 4


@pytest.fixture
def climbing(sweep: ScalingSweep, api: Api, namespace: str) -> JSON:
    """A stored sweep whose first forecast has been written."""
    document = sweep.to_json() | {"metadata": {"name": "tiny"}}
    document["status"] = None
    stored = api.create(SWEEPS.path(namespace), {k: v for k, v in document.items() if k != "status"})
    rungs = [{"name": "a", "revision": 1, "forecast": FORECAST}, {"name": "b", "revision": 1}]
    status = {"frozen": {"law": "sha256:0"}, "rungs": rungs, "phase": "Running"}
    return api.replace(SWEEPS.path(namespace, "tiny", "status"), stored | {"status": status})


FORECAST = {
    "time": "2026-01-01T00:00:00Z",
    "outcome": {"reason": "TooFewRecords", "message": "no records yet", "evidence": "sha256:0", "records": 0},
    "thresholds": {"confidence": 0.95},
}

FROZEN = {
    "gate": {"gate": {"tolerance": 0.1}},
    "training": {"training": {"batchTokens": 4096}},
    "target.parameters": {"target": {"parameters": "200K"}},
    "target.tokens": {"target": {"tokens": "5M"}},
    "target.maxLoss": {"target": {"maxLoss": 3.0}},
    "target.inferenceTokens": {"target": {"inferenceTokens": "2T"}},
    "storage": {"storage": {"uri": "s3://bucket/elsewhere"}},
    "ladder.generate": {
        "ladder": {"rungs": None, "generate": {"from": 20000, "to": 90000, "rungs": 4, "tokensPerParameter": [10, 20]}}
    },
}


@pytest.mark.parametrize("field", FROZEN)
def test_what_forecasts_were_made_by_may_not_change(field: str, climbing: JSON, api: Api, namespace: str) -> None:
    with pytest.raises(Invalid, match=f"spec.{field} may not change once a forecast has been written"):
        api.patch(SWEEPS.path(namespace, "tiny"), {"spec": FROZEN[field]})


FREE = {
    "suspend": {"suspend": True},
    "retryToken": {"retryToken": "again"},
    "budget": {"budget": {"gpuHours": 5}},
    "limits": {"limits": {"parallelism": 2}},
    "retry": {"retry": {"limit": 0}},
    "approvals": {"approvals": [{"rung": "a", "verdict": "sha256:0"}]},
    "launch": {"target": {"launch": "Approval"}},
    "placement": {"placement": {"gpusPerNode": 4}},
    "runtime": {"runtime": {"image": "trainer:2"}},
}


@pytest.mark.parametrize("field", FREE)
def test_everything_else_may(field: str, climbing: JSON, api: Api, namespace: str) -> None:
    api.patch(SWEEPS.path(namespace, "tiny"), {"spec": FREE[field]})


def test_later_rungs_may_be_edited_and_appended(climbing: JSON, api: Api, namespace: str) -> None:
    rungs = climbing["spec"]["ladder"]["rungs"]
    rungs[-1]["runs"][0]["seeds"] = [7]
    rungs.append({"name": "e", "runs": [{"parameters": "150K", "tokensPerParameter": [10]}]})
    api.patch(SWEEPS.path(namespace, "tiny"), {"spec": {"ladder": {"rungs": rungs}}})


def test_the_law_is_free_until_the_first_forecast(sweep: ScalingSweep, api: Api, namespace: str) -> None:
    document = sweep.to_json() | {"metadata": {"name": "tiny"}}
    api.create(SWEEPS.path(namespace), document)
    for edit in FROZEN.values():
        if "ladder" not in edit:
            api.patch(SWEEPS.path(namespace, "tiny"), {"spec": edit})


def test_an_aborted_sweep_stays_aborted(climbing: JSON, api: Api, namespace: str) -> None:
    api.patch(SWEEPS.path(namespace, "tiny"), {"spec": {"abort": True}})
    with pytest.raises(Invalid, match="an aborted sweep stays aborted; apply a new one"):
        api.patch(SWEEPS.path(namespace, "tiny"), {"spec": {"abort": False}})


REWRITES = {
    "another time": [{"name": "a", "revision": 1, "forecast": FORECAST | {"time": "2026-01-02T00:00:00Z"}}],
    "another threshold": [{"name": "a", "revision": 1, "forecast": FORECAST | {"thresholds": {"confidence": 0.5}}}],
    "none at all": [{"name": "a", "revision": 1}],
    "no such rung": [{"name": "b", "revision": 1}],
    "another revision": [{"name": "a", "revision": 2, "forecast": FORECAST}],
}


@pytest.mark.parametrize("how", REWRITES)
def test_a_forecast_is_never_rewritten(how: str, climbing: JSON, api: Api, namespace: str) -> None:
    with pytest.raises(Invalid, match=r"a forecast is written once|stays in the status, with its forecast"):
        api.patch(SWEEPS.path(namespace, "tiny", "status"), {"status": {"rungs": REWRITES[how]}})


def test_a_status_that_was_forecast_by_is_not_taken_away(climbing: JSON, api: Api, namespace: str) -> None:
    with pytest.raises(Invalid, match="stays in the status, with its forecast"):
        api.patch(SWEEPS.path(namespace, "tiny", "status"), {"status": None})


def test_a_forecast_may_be_neither_of_both_forms_nor_of_none(climbing: JSON, api: Api, namespace: str) -> None:
    for outcome in ({"evidence": "sha256:0", "records": 1}, FORECAST["outcome"] | {"method": "m"}):
        other = {"name": "b", "revision": 1, "forecast": FORECAST | {"outcome": outcome}}
        rungs = [*climbing["status"]["rungs"][:1], other]
        with pytest.raises(Invalid):
            api.patch(SWEEPS.path(namespace, "tiny", "status"), {"status": {"rungs": rungs}})


def test_the_largest_ladder_run_twice_fits_into_one_object_and_its_rules_into_their_cost(
    api: Api, namespace: str
) -> None:
    document = json.loads((FIXTURES / "scalingsweep.json").read_text())
    like = next(rung for rung in document["status"]["rungs"] if rung["name"] == "e")
    prediction, run = like["forecast"]["outcome"]["predictions"][0], like["runs"][0]
    rungs, each = 32, MAX_RECORDS // 32
    like["runs"] = [run | {"seed": seed} for seed in range(each)]
    like["forecast"]["outcome"]["predictions"] = [prediction | {"tokens": 10**6 + i} for i in range(each)]
    status = document.pop("status")
    status["rungs"] = [like | {"name": f"r{i}", "revision": k} for i in range(rungs) for k in (1, 2)]
    columns = {name: [2**53 - i for i in range(MAX_IMPORTED)] for name in ("parameters", "tokens", "uniqueTokens")}
    losses = [2.0 + i / 7919 for i in range(MAX_IMPORTED)]
    status["imports"] = {"digest": "sha256:0", **columns, "runs": list(range(MAX_IMPORTED)), "loss": losses}
    stored = api.create(SWEEPS.path(namespace), document | {"metadata": {"name": "large"}})
    path = SWEEPS.path(namespace, "large", "status")
    stored = api.replace(path, stored | {"status": status})
    again = api.replace(path, stored | {"status": status | {"phase": "Again"}})
    assert again["status"]["phase"] == "Again"
    status["rungs"][-1] = status["rungs"][-1] | {"forecast": FORECAST}
    with pytest.raises(Invalid, match="a forecast is written once"):
        api.replace(path, again | {"status": status})


@pytest.fixture
def run(climbing: JSON, api: Api, namespace: str) -> JSON:
    """A stored ScalingRun."""
    what = {"parameters": 27000, "tokens": [270000], "seed": 0}
    spec = {"sweep": "tiny", "sweepUid": "u", "rung": "a", "revision": 1, "run": what, "configDigest": "sha256:0"}
    document = {"apiVersion": RUNS.group_version, "kind": RUNS.kind, "metadata": {"name": "tiny-a-0"}, "spec": spec}
    return api.create(RUNS.path(namespace), document)


def test_the_spec_of_a_run_never_changes(run: JSON, api: Api, namespace: str) -> None:
    for edit in ({"rung": "b"}, {"run": {"seed": 1}}, {"placement": {"gpusPerNode": 8}}):
        with pytest.raises(Invalid, match="the spec of a run never changes; another run has another name"):
            api.patch(RUNS.path(namespace, "tiny-a-0"), {"spec": edit})
    api.patch(RUNS.path(namespace, "tiny-a-0"), {"metadata": {"labels": {"mine": "yes"}}})


def test_a_progress_write_drops_no_record_and_an_attempt_no_other_attempts(run: JSON, api: Api, namespace: str) -> None:
    path = RUNS.path(namespace, "tiny-a-0", "status")

    def report(manager: str, status: JSON) -> JSON:
        document = {"apiVersion": RUNS.group_version, "kind": RUNS.kind, "metadata": {"name": "tiny-a-0"}}
        written: JSON = api.patch(path, document | {"status": status}, kind="apply", field_manager=manager)["status"]
        return written

    progress = {"attempt": 1, "step": 1, "steps": 9, "tokens": 1, "lastUpdated": "2026-01-01T00:00:00Z"}
    report("trainer-progress", {"progress": progress | {"loss": 3.0}})
    report("trainer-records-1", {"records": [{"attempt": 1, "records": []}]})
    report("trainer-records-2", {"records": [{"attempt": 2, "records": []}]})
    status = report("trainer-progress", {"progress": progress | {"step": 2}})
    assert [entry["attempt"] for entry in status["records"]] == [1, 2]
    assert status["progress"]["step"] == 2
    assert "loss" not in status["progress"]
    assert status["state"] == "Queued", "as every run is before its status is written"
    assert "attempt" not in status, "the API server writes no other default into a status"


def test_defaults_are_written_down_except_where_leaving_out_means_something(
    control_plane: ControlPlane, api: Api, namespace: str
) -> None:
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=MANIFEST)
    spec = api.get(SWEEPS.path(namespace, "tiny"))["spec"]
    assert spec["gate"] | {"tolerance": 0.01} == {
        "confidence": 0.95,
        "tolerance": 0.01,
        "maxHalfWidth": 0.05,
        "warmupRungs": 3,
        "promotion": "Automatic",
        "diagnose": {"learningRateFactors": [0.25, 4.0], "replicates": 1},
    }
    assert spec["limits"] == {"progressSeconds": 3600, "pendingSeconds": 86400, "ttlSecondsAfterFinished": 86400}
    assert (spec["law"], spec["suspend"], spec["target"]["launch"]) == ("Chinchilla", False, "Never")
    assert spec["ladder"]["rungs"][1]["runs"][0]["seeds"] == [0]
    assert "placement" not in spec
    rungs = spec["ladder"]["rungs"]
    assert all("placement" not in rung for rung in rungs), "own fields replace the sweep's: none may be made up"
    assert spec["training"] == {"data": {"files": ["text.txt"]}, "batchTokens": 2048}


def test_kubectl_prints_a_sweep_in_one_row(
    sweep: ScalingSweep, control_plane: ControlPlane, api: Api, namespace: str
) -> None:
    climb(Mirrored(sweep, World(), api, namespace))
    for name in ("sweep", "sweeps", "scalingsweeps"):
        header, row = control_plane.kubectl("get", name, "-n", namespace).stdout.splitlines()[:2]
        assert " ".join(header.split()) == "NAME RUNG RUNS LOSS FORECAST VERDICT TARGET GPU-H PHASE AGE"
        assert row.split()[:3] == ["tiny", "d", "1/1"]
        assert " Pass " in row
        assert " Succeeded " in row
    runs = control_plane.kubectl("get", "srun", "-n", namespace).stdout.splitlines()
    assert " ".join(runs[0].split()) == "NAME SWEEP RUNG PARAMETERS STATE ATTEMPT STEP STEPS LOSS AGE"
    assert len(runs) == 6
    assert len(control_plane.kubectl("get", "scaling", "-n", namespace, "-o", "name").stdout.split()) == 6
    control_plane.kubectl("wait", "--for=condition=Succeeded", "sweep/tiny", "-n", namespace, "--timeout=10s")


@pytest.mark.parametrize(("short", "model"), [("sweep", ScalingSweep), ("srun", ScalingRun)])
def test_kubectl_explains_every_field(short: str, model: type, control_plane: ControlPlane, api: Api) -> None:
    for path, schema in objects(structural(model)):
        text = control_plane.kubectl("explain", short + path).stdout
        assert "<no description>" not in text.partition("FIELDS:")[2].replace("metadata\t<ObjectMeta>", ""), path
        for field in schema["properties"]:
            assert f"\n  {field}\t<" in text, f"{path}.{field}"


def objects(schema: JSON, path: str = "") -> Iterator[tuple[str, JSON]]:
    """Every object of a schema that has fields, with its path."""
    if "properties" in schema:
        yield path, schema
        for name, inner in schema["properties"].items():
            if (path, name) != ("", "metadata"):
                yield from objects(inner, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from objects(inner, path)
