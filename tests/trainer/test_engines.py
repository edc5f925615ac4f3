"""Engines: each, at any number of processes, takes the same steps, and goes on from any other's state."""

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch
from several_ranks import LENGTH, SEQUENCES, Case, batch, together
from tiny_run import failure_of, written

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Training, resolve
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.__main__ import main, train
from sweep_trainer.engines.choose import engine_for
from sweep_trainer.engines.deepspeed_config import deepspeed_config
from sweep_trainer.engines.micro_batch import MicroBatch
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.ranks import Ranks, launched
from sweep_trainer.failure import RunError

STEPS = 4
ZERO = [Case("DeepSpeed", stage, micro_batch=4) for stage in (0, 1, 2, 3)]
OFFLOADED = [
    Case("DeepSpeed", stage, recipe=json.dumps({"deepspeed": {"zeroStage": stage, "offloadOptimizer": "Cpu", **more}}))
    for stage, more in ((1, {}), (3, {"offloadParameters": "Cpu"}))
]


@pytest.fixture(scope="module")
def alone(processes: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[float]]]:
    """Each engine in a process of its own; (loss, gradient norm) of every step by the case's name."""
    cases = [Case(), Case(micro_batch=3), Case(recompute=True), *ZERO, *OFFLOADED, *_sixteen_bit(1)]
    return together(processes, [(case, STEPS, None, None) for case in cases], tmp_path_factory.mktemp("alone"))


def _sixteen_bit(world: int) -> list[Case]:
    return [
        Case(world=world, precision="bf16"),
        Case("DeepSpeed", 2, world, "bf16"),
        Case(world=world, precision="fp16"),
    ]


@pytest.mark.slow
def test_in_fp32_every_engine_takes_the_same_steps_to_five_decimals(alone: dict[str, list[list[float]]]) -> None:
    for case in (Case(micro_batch=3), Case(recompute=True), *ZERO, *OFFLOADED):
        np.testing.assert_allclose(alone[case.name], alone[Case().name], atol=1e-5, err_msg=case.name)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_take_the_same_steps_as_one_to_five_decimals(
    world: int, alone: dict[str, list[list[float]]], processes: ForkServerContext, tmp_path: Path
) -> None:
    cases = [Case(world=world), *(Case("DeepSpeed", stage, world, micro_batch=2) for stage in (0, 1, 2, 3))]
    measured = together(processes, [(case, STEPS, None, None) for case in cases], tmp_path)
    for case in cases:
        np.testing.assert_allclose(measured[case.name], alone[Case().name], atol=1e-5, err_msg=case.name)


@pytest.mark.slow
def test_sixteen_bits_stay_within_two_hundredths_of_a_nat(alone: dict[str, list[list[float]]]) -> None:
    for case in _sixteen_bit(1):
        losses = np.array(alone[case.name])[:, 0]
        np.testing.assert_allclose(losses, np.array(alone[Case().name])[:, 0], atol=0.02, err_msg=case.name)


@pytest.mark.slow
def test_a_state_goes_on_in_another_engine_stage_and_number_of_processes(
    alone: dict[str, list[list[float]]], processes: ForkServerContext, tmp_path: Path
) -> None:
    """Two processes at stage 3 → one at stage 1 → two of plain PyTorch: the steps that one would have taken."""
    first, second, third = Case("DeepSpeed", 3, 2), Case("DeepSpeed", 1), Case(world=2)
    steps = together(processes, [(first, 2, None, "two")], tmp_path)[first.name]
    steps += together(processes, [(second, 1, "two", "one")], tmp_path)[second.name]
    steps += together(processes, [(third, 1, "one", None)], tmp_path)[third.name]
    np.testing.assert_allclose(steps, alone[Case().name], atol=1e-5)


def test_when_memory_runs_out_a_step_is_done_in_halves_and_stays_the_same_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that holds four sequences, simulated: the model refuses more."""
    hyper = Case().hyper
    roomy, tight = PlainTorch(hyper, 0, 1), PlainTorch(hyper, 0, 1, execution=Case(micro_batch=16).training)
    loss = tight.model.loss

    def starved(tokens: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 4:
            raise torch.OutOfMemoryError("simulated")
        result: torch.Tensor = loss(tokens)
        return result

    monkeypatch.setattr(tight, "_loss", starved)
    for step in range(STEPS):
        for engine in (roomy, tight):
            engine.step(batch(step), hyper.learning_rate)
    np.testing.assert_allclose(tight.measured(), roomy.measured(), atol=1e-5)
    assert "8 sequences at a time instead of 16; a step still has 16" in caplog.text
    assert "4 sequences at a time instead of 8; a step still has 16" in caplog.text


def test_memory_that_is_too_small_for_one_sequence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PlainTorch(Case().hyper, 0, 1, execution=Case(micro_batch=1).training)

    def starved(tokens: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(engine, "_loss", starved)
    with pytest.raises(torch.OutOfMemoryError):
        engine.step(batch(0), 1e-3)


def test_pieces_weigh_as_much_as_the_sequences_in_them() -> None:
    pieces = list(MicroBatch(3).pieces(batch(0)))
    assert [len(piece) for piece, _ in pieces] == [3, 3, 3, 3, 3, 1]
    assert sum(weight for _, weight in pieces) == pytest.approx(1.0)


def test_the_configuration_of_deepspeed_follows_from_the_recipe_and_can_be_extended() -> None:
    case = Case("DeepSpeed", 3, 2, "bf16", micro_batch=3)
    extended = DeepSpeed(
        zero_stage=3,
        offload_optimizer="Cpu",
        config={"zero_optimization": {"sub_group_size": 1000}, "prescale_gradients": True},
    )
    training = case.training.changed(deepspeed=extended)
    config = deepspeed_config(training, case.hyper, 2)
    assert config["train_batch_size"] == SEQUENCES
    assert config["train_micro_batch_size_per_gpu"] == 2  # three would not divide a rank's eight
    assert config["gradient_accumulation_steps"] == 4
    assert config["zero_optimization"]["stage"] == 3
    assert config["zero_optimization"]["sub_group_size"] == 1000
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert config["bf16"] == {"enabled": True}
    assert config["prescale_gradients"] is True


def test_a_command_shows_it_for_an_order(order: RunOrder, capsys: pytest.CaptureFixture[str]) -> None:
    training = order.training.changed(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=2))
    two = order.changed(workers=2, training=training)
    assert main(["deepspeed", str(written(two))]) == ExitStatus.DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["train_batch_size"], shown["zero_optimization"]["stage"]) == (8, 2)
    assert main(["deepspeed", str(written(order.changed(workers=3, attempt=2)))]) == ExitStatus.BAD_CONFIGURATION
    assert "multiple of 48" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"zero_stage": 2, "offload_parameters": "Cpu"}, "offloadParameters needs zeroStage 3, not 2"),
        ({"zero_stage": 0, "offload_optimizer": "Cpu"}, "offloadOptimizer needs zeroStage 1 or higher"),
        ({"zero_stage": 3, "offload_optimizer": "Nvme"}, "needs nvmePath"),
        ({"config": {"fp16": {"enabled": True}}}, "config.fp16 follows from training.precision"),
        ({"config": {"zero_optimization": {"stage": 2}}}, "has a field of its own"),
    ],
)
def test_options_of_deepspeed_that_contradict_each_other_are_refused_in_one_sentence(
    options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        DeepSpeed(**options)


def test_options_of_deepspeed_without_it_are_refused(training: Training) -> None:
    with pytest.raises(ValueError, match="no effect without engine: DeepSpeed"):
        Training(data=training.data, deepspeed=DeepSpeed())


def test_a_batch_that_does_not_divide_among_the_processes_is_refused_with_one_that_does() -> None:
    case = Case("DeepSpeed", 1, 3)
    with pytest.raises(ValueError, match=f"set training.batchTokens to a multiple of {3 * LENGTH}"):
        deepspeed_config(case.training, case.hyper, 3)
    with pytest.raises(ValueError, match="16 sequences do not divide among 3 processes"):
        Ranks(0, 3).share(SEQUENCES)


@pytest.mark.parametrize("engine", ["Torch", "DeepSpeed"])
def test_a_run_whose_batch_does_not_divide_is_bad_configuration_under_either_engine(
    engine: str, order: RunOrder
) -> None:
    training = order.training.changed(engine=engine)
    hyper = resolve(training, order.run.parameters, order.run.tokens)
    with pytest.raises(
        RunError, match=r"8 sequences does not divide among 3 processes; set .* a multiple of 48$"
    ) as said:
        engine_for(order.changed(training=training, workers=3), hyper, Ranks(0, 3))
    assert said.value.reason is FailureReason.BAD_CONFIGURATION


def test_sixteen_bits_at_stage_zero_are_refused_with_what_to_take_instead() -> None:
    case = Case("DeepSpeed", 0, 1, "bf16")
    with pytest.raises(ValueError, match="zeroStage 1"):
        deepspeed_config(case.training, case.hyper, 1)


def test_a_launcher_that_started_another_number_of_processes_is_refused(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    assert failure_of(order).reason is FailureReason.BAD_CONFIGURATION
    assert "asks for 1 workers and the launcher started 2" in failure_of(order).message


def test_a_launchers_variables_say_who_a_process_is() -> None:
    assert launched({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(3, 8, 1)
    assert launched({}) is None
