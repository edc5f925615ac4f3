"""Whether runs fit their devices: one rule, asked by lint, render, plan and every pass of the operator."""

import json

import pytest
from local_ladder import MANIFEST, Folder
from simulated_cluster import SimulatedCluster, climb

from sweep_analysis.pieces import pieces_of
from sweep_operator.acceptance import Accepted, Refused, accept
from sweep_operator.api import Placement
from sweep_operator.capacity import needed_bytes
from sweep_operator.policy import Policy

ROOM = {"gpuMemory": "1Gi"}
TIGHT = {"gpuMemory": "1M"}


def verdict(sweep):
    return accept(sweep, Policy())


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ({"gpuMemory": "80Gi"}, 80 * 2**30),
        ({"gpuMemory": "24576Mi"}, 24 * 2**30),
        ({"gpuMemory": "1.5T"}, 1.5e12),
        ({"gpuMemory": "80Gi", "gpusPerNode": 0}, None),
        ({}, None),
    ],
)
def test_the_memory_of_a_device_is_read_as_kubernetes_reads_it(placement, said):
    assert Placement.model_validate(placement).gpu_memory_bytes == said


def test_a_rung_that_its_devices_cannot_hold_is_refused_with_what_would_fit(manifest):
    refused = verdict(manifest(placement=TIGHT))
    assert isinstance(refused, Refused)
    assert refused.reason == "DoesNotFit"
    assert refused.message.startswith("rung 'a': ")
    for part in (" GiB on one device of 0.000931 GiB, ", "of which 90% may be planned with; "):
        assert part in refused.message


def test_the_change_that_is_named_makes_the_ladder_fit(manifest):
    sweep = manifest(training={"data": {"corpus": "Classics"}, "model": {"layers": 3}, "microBatch": 16})
    accepted = verdict(sweep)
    assert isinstance(accepted, Accepted)
    needed = needed_bytes(sweep, "target", accepted.target)
    tight = {"gpuMemory": f"{needed / 0.9 / 1e6 - 0.1:.3f}M"}
    training = {"data": {"corpus": "Classics"}, "model": {"layers": 3}}
    refused = verdict(manifest(placement=tight, training=training | {"microBatch": 16}))
    assert isinstance(refused, Refused)
    assert refused.message.endswith("set training.microBatch: 8")
    assert isinstance(verdict(manifest(placement=tight, training=training | {"microBatch": 8})), Accepted)


def test_a_batch_that_the_devices_of_a_node_cannot_share_is_refused_as_the_trainer_would(manifest):
    sweep = manifest(placement={"gpusPerNode": 3})
    refused = verdict(sweep)
    assert isinstance(refused, Refused)
    assert refused.reason == "BatchDoesNotDivide"
    run = verdict(manifest()).rungs[0].runs[0]
    with pytest.raises(ValueError, match="does not divide among 3 processes; set ") as raised:
        pieces_of(sweep.spec.training, run.resolved(sweep.spec.training), 3)
    assert refused.message == f"rung 'a': {raised.value}"
    tokens = int(refused.message.rsplit(" ", 1)[1].replace(",", ""))
    training = {"data": {"corpus": "Classics"}, "batchTokens": tokens}
    assert isinstance(verdict(manifest(placement={"gpusPerNode": 3}, training=training)), Accepted)


def test_a_command_of_ones_own_shares_its_batch_out_as_it_likes(manifest):
    assert isinstance(verdict(manifest(placement={"gpusPerNode": 3}, runtime={"command": ["train"]})), Accepted)


def test_nothing_is_refused_where_the_memory_is_not_known(manifest):
    for placement in ({}, TIGHT | {"gpusPerNode": 0}):
        assert isinstance(verdict(manifest(placement=placement)), Accepted)
    own = {"image": "own", "command": ["train"]}
    assert isinstance(verdict(manifest(placement=TIGHT, runtime=own)), Accepted)


def test_a_target_is_judged_only_where_it_may_be_launched(manifest):
    def with_target(launch):
        target = {"parameters": "163K", "tokens": "3.3M", "launch": launch, "placement": TIGHT}
        return verdict(manifest(target=target, placement=ROOM))

    assert isinstance(with_target("Never"), Accepted)
    refused = with_target("Approval")
    assert isinstance(refused, Refused)
    assert refused.message.startswith("the target: ")


def test_a_rung_that_has_started_is_not_asked_again(manifest):
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    done = cluster.stored
    assert isinstance(verdict(done.changed(spec=done.spec.changed(placement=Placement(gpu_memory="1M")))), Accepted)


def test_a_ladder_that_does_not_fit_starts_nothing(manifest):
    cluster = SimulatedCluster(manifest(placement=TIGHT))
    status = climb(cluster)
    accepted = status.condition("Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "DoesNotFit")
    assert not cluster.children


@pytest.mark.parametrize("command", ["lint", "render", "plan", "run"])
def test_every_command_refuses_it_in_one_sentence_before_anything_is_done(command, tmp_path):
    folder = Folder(tmp_path)
    folder.edit("  training:", "  placement: {gpuMemory: 1M}\n  training:")
    before = folder.files()
    done = folder.call(command, "sweep.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "DoesNotFit: rung 'a': 27,048 parameters need" in done.stderr
    assert folder.files() == before


def test_a_plan_says_what_each_device_needs_and_warns_of_a_target_that_would_not_fit(tmp_path):
    folder = Folder(tmp_path)
    assert "MEMORY/GPU" not in folder.call("plan", "sweep.yaml").stdout
    never = MANIFEST.replace("tokens: 3.4M}", "tokens: 3.4M, placement: {gpuMemory: 2M}}")
    folder.write(never.replace("  training:", "  placement: {gpuMemory: 1Gi}\n  training:"))
    done = folder.call("plan", "sweep.yaml")
    assert done.returncode == 0
    assert "MEMORY/GPU" in done.stdout
    assert "memory   target does not fit: 162,752 parameters need" in done.stdout
    plan = json.loads(folder.call("plan", "sweep.yaml", "-o", "json").stdout)
    memory = [rung["gpuMemory"]["neededBytes"] for rung in plan["rungs"]]
    assert memory == sorted(memory)
    assert "doesNotFit" not in plan["rungs"][0]["gpuMemory"]
    assert plan["target"]["gpuMemory"]["capacityBytes"] == 2e6
