"""Runs of several context lengths in one sweep: each trained at its own, and the gate judges by the target's alone."""

import json

import pytest
from local_ladder import Folder
from simulated_cluster import SimulatedCluster, World, climb, healthy

from sweep_analysis.rung import Purpose, Run, RunOrder
from sweep_operator.acceptance import Accepted, Refused, accept
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.capacity import needed_bytes
from sweep_operator.clusters.kubernetes.jobs import Images, job_document
from sweep_operator.names import config_digest, run_name
from sweep_operator.policy import Policy
from sweep_operator.run import objection_to

SIZES = {"a": "20K", "b": "27K", "c": "46K", "d": "67K", "e": "96K"}


def ladder(*contexts, rung="e"):
    """The laptop ladder; one of its rungs is trained at these context lengths too."""
    plan = {"tokensPerParameter": [10, 20]}
    rungs = [{"name": n, "runs": [{"parameters": N, "seeds": [0, 1], **plan}]} for n, N in SIZES.items()]
    own = next(entry for entry in rungs if entry["name"] == rung)
    own["runs"] += [{"parameters": SIZES[rung], "sequenceLength": context, **plan} for context in contexts]
    return {"rungs": rungs}


def accepted(sweep: ScalingSweep) -> Accepted:
    verdict = accept(sweep, Policy())
    assert isinstance(verdict, Accepted), verdict
    return verdict


def contexts_of(runs: tuple[Run, ...]) -> list[int | None]:
    return [run.sequence_length for run in runs]


def test_a_run_is_trained_at_its_own_context_and_is_another_run_for_it(manifest):
    sweep = manifest(ladder=ladder(64, 256))
    rung = accepted(sweep).rungs[-1]
    training = sweep.spec.training
    assert contexts_of(rung.runs) == [None, None, 64, 256]
    assert [run.resolved(training).sequence_length for run in rung.runs] == [128, 128, 64, 256]
    assert [run.purpose for run in rung.runs] == [Purpose.LADDER] * 2 + [Purpose.CONTEXT] * 2
    assert contexts_of(rung.judged) == [None, None]
    assert len({run_name(sweep, "e", 1, run) for run in rung.runs}) == 4
    assert len({config_digest(training, run) for run in rung.runs}) == 4


def test_the_recipes_own_context_is_no_other(manifest):
    assert accepted(manifest(ladder=ladder(128))).rungs == accepted(manifest(ladder=ladder())).rungs


def test_a_run_without_a_context_of_its_own_is_written_as_before(manifest):
    (run, *_) = accepted(manifest()).rungs[0].runs
    assert "sequenceLength" not in run.to_json()


def test_another_context_neither_bends_nor_holds_what_the_gate_judges(manifest):
    def loss(run, tokens):
        return healthy(run, tokens) * (1.0 if run.sequence_length is None else 1.5)

    plain = climb(SimulatedCluster(manifest()))
    cluster = SimulatedCluster(manifest(ladder=ladder(64, 256, rung="c")), World(loss=loss))
    status = climb(cluster)
    assert status.phase == plain.phase == "Succeeded"
    for rung, alone in zip(status.rungs, plain.rungs, strict=True):
        assert rung.forecast is not None
        assert alone.forecast is not None
        assert rung.forecast.outcome == alone.forecast.outcome
        assert rung.loss == alone.loss
    assert status.law == plain.law
    assert status.spent.flops > plain.spent.flops
    measured = [r for c in cluster.children.values() for r in c.status.accepted if r.purpose is Purpose.CONTEXT]
    assert sorted(record.context_length or 0 for record in measured) == [64, 64, 256, 256]


def test_a_rung_with_nothing_to_judge_is_refused(manifest):
    only = ladder()
    only["rungs"][1]["runs"][0]["sequenceLength"] = 256
    refused = accept(manifest(ladder=only), Policy())
    assert isinstance(refused, Refused)
    assert refused.reason == "NothingToJudge"
    assert "rung 'b' has no run at the target's context of 128 tokens" in refused.message


def test_a_context_too_long_for_a_device_is_refused(manifest):
    recipe = {"data": {"corpus": "Classics"}, "model": {"layers": 3}, "microBatch": 1}
    sweep = manifest(ladder=ladder(4096), training=recipe)
    short, long = (needed_bytes(sweep, "e", accepted(sweep).rungs[-1].runs[i]) for i in (0, -1))
    assert long > 3 * short
    between = {"gpuMemory": f"{2 * short / 1e6:.3f}M"}
    assert isinstance(accept(manifest(placement=between, training=recipe), Policy()), Accepted)
    refused = accept(manifest(placement=between, ladder=ladder(4096), training=recipe), Policy())
    assert isinstance(refused, Refused)
    assert refused.reason == "DoesNotFit"


def child_of(sweep: ScalingSweep, context: int) -> ScalingRun:
    cluster = SimulatedCluster(sweep)
    climb(cluster)
    return next(c for c in cluster.children.values() if c.spec.run.sequence_length == context)


def test_a_pod_is_given_the_recipe_and_the_variable_of_its_own_context(manifest):
    sweep = manifest(ladder=ladder(64))

    def told(run: ScalingRun, **spec: object) -> dict[str, str]:
        changed = sweep.changed(spec=sweep.spec.changed(**spec))
        (container,) = job_document(changed, run, 1, Images())["spec"]["template"]["spec"]["containers"]
        return {one["name"]: one["value"] for one in container["env"]}

    run = child_of(sweep, 64)
    order = RunOrder.model_validate_json(told(run)["SCALINGSWEEP_ORDER"])
    assert (order.training.sequence_length, order.run.sequence_length) == (64, 64)
    assert told(run, runtime={"command": ["own"]})["SCALINGSWEEP_SEQUENCE_LENGTH"] == "64"
    usual = run.changed(spec=run.spec.changed(run=run.spec.run.changed(sequence_length=None)))
    assert "SCALINGSWEEP_SEQUENCE_LENGTH" not in told(usual)


def test_a_record_of_another_context_is_not_this_runs(manifest):
    run = child_of(manifest(ladder=ladder(64)), 64)
    record = run.status.accepted[0]
    assert record.context_length == 64
    assert objection_to(record, 1, run) is None
    assert objection_to(record.changed(context_length=128), 1, run) == "its context length is 128, not 64"
    assert objection_to(record.changed(context_length=None), 1, run) == "its context length is None, not 64"


def test_an_order_of_two_contexts_is_refused(manifest):
    run = child_of(manifest(ladder=ladder(64)), 64)
    paths = dict.fromkeys(("storage", "report", "cache"), "x")
    order = {"uid": "u", "name": "n", "attempt": 1, "run": run.spec.run, "configDigest": "sha256:c", **paths}
    training = manifest().spec.training
    with pytest.raises(ValueError, match=r"run.sequenceLength is 64 and training.sequenceLength is 128"):
        RunOrder.model_validate(order | {"training": training})
    assert RunOrder.model_validate(order | {"training": run.spec.run.recipe(training)}).training.sequence_length == 64


def test_one_machine_trains_and_keeps_them_and_plan_shows_them(tmp_path):
    folder = Folder(tmp_path)
    folder.edit(
        "runs: [{parameters: 44K, tokensPerParameter: [10, 20]}]",
        "runs: [{parameters: 44K, tokensPerParameter: [10, 20]},"
        " {parameters: 44K, tokensPerParameter: [20], sequenceLength: 512}]",
    )
    planned = folder.call("plan", "sweep.yaml")
    assert planned.returncode == 0
    assert "CONTEXT" in planned.stdout
    assert "128, 512" in planned.stdout
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(file.read_text()) for file in folder.workdir.glob("runs/*/run.json")]
    found = {run["spec"]["run"].get("sequenceLength") for run in runs}
    assert found == {None, 512}
    rung = folder.status()["rungs"][1]
    assert rung["state"] == "Promoted"
    assert len(rung["runs"]) == 2
    assert rung["verdict"]["outcome"] != "Fail"
