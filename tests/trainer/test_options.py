"""Options that need something of the machine: they run where it is there, and are refused with the remedy where not."""

import json
import os
import shutil
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from several_ranks import Case, together
from tiny_run import failure_of, written

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.__main__ import train

STEPS = 4
SWAPPED = 600_000
"""Parameters, about: what is smaller than a megabyte stays in memory."""
HALF_PRECISION = """
import json, os
os.environ["DS_ACCELERATOR"] = "cpu"
import numpy as np, torch
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from several_ranks import Case, batch
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.ranks import Ranks, join
from sweep_trainer.engines.zero import Zero

CPU_Accelerator.is_fp16_supported = lambda self: True
CPU_Accelerator.supported_dtypes = lambda self: [torch.float, torch.bfloat16, torch.float16]
join(Ranks())
FACTOR, GOOD = "lossScale.factor", "lossScale.good"

def stepped(engine, first, last):
    for step in range(first, last):
        engine.step(batch(step), hyper.learning_rate)
    return engine.measured()

told = {}
for stage in (1, 2, 3):
    case = Case("DeepSpeed", stage, precision="fp16")
    hyper = case.hyper
    plain, zero = PlainTorch(hyper, 0, 1), Zero(case.training, hyper, 0, 1, Ranks())
    entry = told[stage] = {"plain": stepped(plain, 0, 4), "zero": stepped(zero, 0, 2)}
    left = zero.state()
    entry["scale"] = [float(left[FACTOR]), float(left[GOOD])]
    taken = PlainTorch(hyper, 1, 1)
    taken.load(left)
    entry["on"] = stepped(taken, 2, 4)
    overflowing = taken.state() | {FACTOR: np.float32(2.0**40)}
    zero.load(overflowing)
    stepped(zero, 4, 5)
    after = zero.state()
    entry["overflowed"] = [float(after[FACTOR]), float(after[GOOD])]
    entry["moved"] = max(float(abs(after[n] - overflowing[n]).max()) for n in after if not n.startswith("lossScale"))
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile makes C++ on a CPU, and there is no g++")
def test_a_compiled_model_takes_the_same_steps_to_five_decimals(processes: ForkServerContext, tmp_path: Path) -> None:
    cases = [Case(), Case(recipe=json.dumps({"compile": True}))]
    measured = together(processes, [(case, STEPS, None, None) for case in cases], tmp_path)
    plain, compiled = (measured[case.name] for case in cases)
    np.testing.assert_allclose(compiled, plain, atol=1e-5)


@pytest.mark.slow
def test_fp16_under_deepspeed_scales_the_loss_by_our_rule_and_hands_the_scale_on() -> None:
    """On a CPU that computes fp16 slowly, and of which DeepSpeed is told that it does so fast."""
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    path = os.pathsep.join(str(Path(__file__).parents[1] / part) for part in ("", "../trainer", "../analysis"))
    done = subprocess.run(
        [sys.executable, "-c", HALF_PRECISION],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for stage in ("1", "2", "3"):
        entry = told[stage]
        losses = [loss for loss, _ in entry["zero"] + entry["on"]]
        np.testing.assert_allclose(losses, [loss for loss, _ in entry["plain"]], atol=0.02, err_msg=stage)
        assert entry["scale"] == [2.0**16, 2.0], stage
        assert entry["overflowed"] == [2.0**39, 0.0], stage
        assert entry["moved"] == 0.0, stage


def test_fp16_where_deepspeed_has_none_is_refused_before_the_first_step(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = pytest.importorskip("deepspeed.accelerator")
    monkeypatch.setattr(type(accelerator.get_accelerator()), "is_fp16_supported", lambda self: False)
    training = order.training.changed(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=2), precision="fp16")
    assert "DeepSpeed does not compute in fp16 on this cpu; set training.precision to fp32" in refused(order, training)


def test_offloading_to_a_disk_without_libaio_or_the_folder_is_refused_before_the_first_step(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    gone = DeepSpeed(zero_stage=3, offload_optimizer="Nvme", nvme_path=str(tmp_path / "gone"))
    training = order.training.changed(engine="DeepSpeed", deepspeed=gone)
    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self, verbose=True: False)
    assert "offloading to Nvme needs libaio with its headers and a C++ compiler" in refused(order, training)
    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self, verbose=True: True)
    assert "gone is no folder that can be written here; make it" in refused(order, training)


@pytest.mark.slow
@pytest.mark.skipif(
    "SCALINGSWEEP_NVME" not in os.environ,
    reason="DeepSpeed compiles its async_io for minutes in every new environment; SCALINGSWEEP_NVME=1 asks for it",
)
def test_with_state_offloaded_to_a_disk_the_steps_are_the_same_and_a_state_goes_on_either_way(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    offloads = ({"offloadOptimizer": "Nvme"}, {"offloadOptimizer": "Nvme", "offloadParameters": "Nvme"})
    for place, offload in enumerate(offloads):
        recipe = json.dumps({"deepspeed": {"zeroStage": 3, "nvmePath": str(disk), **offload}})
        plain, away = Case(size=SWAPPED), Case("DeepSpeed", 3, recipe=recipe, size=SWAPPED)
        whole = together(processes, [(plain, STEPS, None, None)], tmp_path)[plain.name]
        first, second = f"first-{place}", f"second-{place}"
        steps = together(processes, [(away, 2, None, first)], tmp_path)[away.name]
        steps += together(processes, [(plain, 1, first, second)], tmp_path)[plain.name]
        steps += together(processes, [(away, 1, second, None)], tmp_path)[away.name]
        np.testing.assert_allclose(np.array(steps)[:, 0], np.array(whole)[:, 0], atol=1e-5, err_msg=recipe)
        np.testing.assert_allclose(steps, whole, rtol=1e-4, err_msg=recipe)
    moved = sum(file.stat().st_size for file in disk.rglob("*") if file.is_file())
    assert moved > 4 * SWAPPED


def refused(order: RunOrder, training: object) -> str:
    """The sentence with which a run of the recipe ends before its first step."""
    asked = order.changed(training=training)
    assert train(str(written(asked))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(asked)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert len(failure.message.splitlines()) == 1
    assert not list(Path(asked.storage).glob("checkpoint-*"))
    return failure.message
