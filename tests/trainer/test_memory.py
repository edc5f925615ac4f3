"""The memory plan: what is predicted is what is measured, and what cannot fit is refused with what would."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.memory import USABLE, Setting, peak, refusal, setting_of
from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of
from sweep_analysis.shape import Experts, Shape


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("benchmark_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"precision": "fp32", "micro_batch": 4},
        {"precision": "fp32", "micro_batch": 4, "activation_checkpointing": True},
        {"precision": "bf16", "micro_batch": 4},
        {"precision": "bf16", "micro_batch": 4, "activation_checkpointing": True},
        {"precision": "fp32"},  # gradients by hand, which keep other things
        {"precision": "fp32", "micro_batch": 4, "experts": Experts(count=8, top_k=2)},
    ],
    ids=str,
)
def test_the_predicted_peak_is_within_a_tenth_of_the_measured_one(
    case: dict[str, object], benchmark: ModuleType
) -> None:
    row = benchmark.row_of(**case)
    assert row["predicted"] == pytest.approx(row["measured"], rel=0.1)


def test_the_table_has_experts_and_an_offloaded_optimizer(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measured", lambda training, hyper: 1)
    rows = benchmark.table()
    assert sum("experts" in row["way"] for row in rows) == 3
    offloaded = [row for row in rows if row["offloadOptimizer"]]
    assert [row["way"] for row in offloaded] == 2 * [f"ZeRO {stage}, offload" for stage in (1, 2, 3)]


def test_the_kept_table_has_every_setting_of_the_command_and_is_within_a_tenth_where_a_cpu_can_judge(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measured", lambda training, hyper: 1)
    kept = json.loads((Path(benchmark.__file__).parent / "results" / "memory.json").read_text())["rows"]
    assert [row["way"] for row in kept] == [row["way"] for row in benchmark.table()]
    assert [row["predicted"] for row in kept] == pytest.approx([row["predicted"] for row in benchmark.table()])
    for row in kept:
        assert row["offloadOptimizer"] or row["predicted"] == pytest.approx(row["measured"], rel=benchmark.TOLERANCE)


def recipe(**fields: object) -> tuple[Training, Hyperparameters]:
    training = Training(
        data=Data(corpus="Classics"), sequence_length=2048, batch_tokens=64 * 2048, precision="bf16", **fields
    )
    return training, resolve(training, shape_of(training, 350_000_000).parameters, (64 * 2048 * 50,))


def test_a_run_that_fits_is_not_refused() -> None:
    assert refusal(*recipe(micro_batch=1), gpus=1, capacity=80e9) is None


def test_a_run_that_finds_its_own_micro_batch_is_judged_at_the_smallest() -> None:
    training, hyper = recipe()
    assert refusal(training, hyper, gpus=1, capacity=80e9) is None
    assert refusal(training.changed(micro_batch=64), hyper, gpus=1, capacity=80e9) is not None


def test_two_answers_to_a_prompt_are_never_set_apart() -> None:
    data = {"sources": [{"name": "a", "files": ["a.jsonl"]}]}
    training = Training.model_validate(
        {"data": data, "objective": {"kind": "RewardModel"}, "sequenceLength": 2048, "microBatch": 64}
        | {"batchTokens": 64 * 2048}
    )
    hyper = resolve(training, shape_of(training, 350_000_000).parameters, (64 * 2048 * 50,))
    said = refusal(training, hyper, gpus=1, capacity=13.5e9)
    assert said is not None
    assert "set training.microBatch: 2" in said


def test_a_smaller_micro_batch_is_offered_first() -> None:
    training, hyper = recipe(micro_batch=64)
    said = refusal(training, hyper, gpus=1, capacity=80e9)
    assert said is not None
    assert "need" in said
    assert "set training.microBatch: " in said
    size = int(said.rsplit("training.microBatch: ", 1)[1].split(",")[0])
    assert refusal(training.changed(micro_batch=size), hyper, gpus=1, capacity=80e9) is None
    assert refusal(training.changed(micro_batch=2 * size), hyper, gpus=1, capacity=80e9) is not None


@pytest.mark.parametrize("micro_batch", [1, None])
def test_what_is_offered_fits_once_it_is_done(micro_batch: int | None) -> None:
    training, hyper = recipe(micro_batch=micro_batch)
    for capacity, gpus in ((8e9, 1), (6e9, 1), (6e9, 4), (3e9, 1)):
        said = refusal(training, hyper, gpus=gpus, capacity=capacity)
        assert said is not None
        changed = training
        if "microBatch" in said:
            changed = changed.changed(micro_batch=int(said.rsplit("microBatch: ", 1)[1].split(",")[0]))
        if "activationCheckpointing" in said:
            changed = changed.changed(activation_checkpointing=True)
        if "zeroStage: " in said:
            stage = int(said.rsplit("zeroStage: ", 1)[1][0])
            offload = "Cpu" if "offloadOptimizer: Cpu" in said else None
            weights = "Cpu" if "offloadParameters: Cpu" in said else None
            zero = DeepSpeed(zero_stage=stage, offload_optimizer=offload, offload_parameters=weights)
            changed = changed.changed(engine="DeepSpeed", deepspeed=zero)
        if "gpusPerNode" in said:
            gpus = int(said.rsplit("gpusPerNode: ", 1)[1])
        assert refusal(changed, hyper, gpus=gpus, capacity=capacity) is None, said


def test_what_nothing_makes_fit_is_said_to_be_so() -> None:
    training, hyper = recipe(micro_batch=1)
    said = refusal(training, hyper, gpus=1, capacity=1e6)
    assert said is not None
    assert "nothing short of splitting its layers" in said


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sharing_out_and_offloading_only_ever_save(precision: str) -> None:
    shape = Shape(layers=24, width=2048, heads=16, hidden=5464, vocabulary=32_000)
    plain = {"engine": "DeepSpeed", "precision": precision, "gpus": 8}
    totals = [peak(shape, 2048, Setting(zero_stage=stage, **plain)).total_bytes for stage in (1, 2, 3)]
    assert totals == sorted(totals, reverse=True)
    off = [
        peak(shape, 2048, Setting(zero_stage=3, offload_optimizer=o, offload_parameters=p, **plain)).total_bytes
        for o, p in ((False, False), (True, False), (True, True))
    ]
    assert off == sorted(off, reverse=True)
    assert off[0] > off[2]


def test_a_recipes_setting_is_read_off_it() -> None:
    training, hyper = recipe(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=3, offload_optimizer="Cpu"))
    setting = setting_of(training, hyper, gpus=8)
    assert (setting.zero_stage, setting.sequences, setting.offload_optimizer) == (3, 8, True)
    assert 0 < USABLE < 1
