"""The one command for a GPU: every case's way runs, and whatever happens to a case, the table comes."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Batch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # the process beside imports it by its name, from the same path
    import gpu

    return gpu


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_case_runs_on_a_cpu_or_says_that_it_needs_a_gpu(tmp_path: Path) -> None:
    """Tiny shapes; what needs a compiler or `transformers` is measured where they are."""
    kept = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--sizes", "1.3B", "--minutes", "14"]
    done = subprocess.run([*command, "--json", str(kept)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["case"]: row for row in json.loads(kept.read_text())["rows"]}
    assert {name for name, row in rows.items() if "needs a CUDA device" in row.get("failed", "")} == {
        "ours, Fa4",
        "ours, Fa3",
        "ours, Fa2",
    }
    ran = {name: row for name, row in rows.items() if "needs a CUDA device" not in row.get("failed", "")}
    assert [(name, row["failed"]) for name, row in ran.items() if "failed" in row] == []
    assert all(row["tokensPerSecond"] > 0 for row in ran.values())
    assert {f"ours, ZeRO {stage}{more}" for stage in (1, 2, 3) for more in ("", ", offload")} <= ran.keys()
    for minimal in ("nanoGPT-style, compiled", "Llama-style, compiled", "transformers, not compiled"):
        assert ran[minimal]["parameters"] == pytest.approx(ran["ours, compiled"]["parameters"], rel=0.1)
        assert f"ours against {minimal}" in done.stdout


def test_without_a_gpu_the_command_says_so_and_ends_with_status_2() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert done.stdout == "There is no GPU on this machine: nothing was measured, and nothing is claimed of one.\n"


def test_a_case_that_takes_too_long_or_kills_its_process_is_a_row_and_the_next_runs(gpu: ModuleType) -> None:
    plain = gpu.Case("125M", "ours, not compiled")
    killing = gpu.Case("125M", "kills", (("attention", Killer()),))
    with gpu.Beside(gpu.REHEARSAL) as beside:
        assert beside.row(plain, 0.01) == {"failed": "its process did not start in time"}
        assert beside.row(plain, 240)["tokensPerSecond"] > 0
        slow = gpu.Case("125M", "ours, compiled", (("compile", True),))
        assert beside.row(slow, 0.01) == {"failed": "was ended after 0 s"}
        assert beside.row(killing, 240) == {"failed": "its process ended with status 7"}
        assert beside.row(gpu.Case("125M", "wrong", (("attention", "Fa9"),)), 240)["failed"].startswith("Validation")
        assert beside.row(plain, 240)["tokensPerSecond"] > 0


def test_a_row_tells_the_cut_that_was_measured_where_memory_ran_out_within_a_step(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest, compute = 1, PlainTorch._tensor

    def tensor(engine: PlainTorch, batch: Batch) -> torch.Tensor:
        if len(batch) > largest:
            raise torch.OutOfMemoryError("of the device")
        return compute(engine, batch)

    monkeypatch.setattr(PlainTorch, "_tensor", tensor)
    row = gpu.of_ours(gpu.Case("125M", "ours, not compiled"), gpu.REHEARSAL, 2, 2)
    assert (row["pieces"], row["sequences"]) == (4, 1)
    largest = 2
    whole = gpu.of_ours(gpu.Case("125M", "ours, not compiled"), gpu.REHEARSAL, 2, 2)
    assert (whole["pieces"], whole["sequences"]) == (2, 2)
    assert row["predictedBytes"] < whole["predictedBytes"]


def test_a_device_that_computes_no_more_is_told_from_one_that_does(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.still_computes(gpu.REHEARSAL)

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "ones", broken)
    assert not gpu.still_computes(gpu.REHEARSAL)


class Killer:
    """What ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return (os._exit, (7,))


def test_the_summary_says_where_ours_is_ahead_and_how_far_the_memory_plan_was_off(gpu: ModuleType) -> None:
    def row(case: str, speed: float, **more: object) -> dict[str, object]:
        return {"size": "1.3B", "case": case, "tokensPerSecond": speed, "parameters": 100, "mfu": speed / 100} | more

    rows = [
        row("ours, compiled", 56, memoryBytes=50, predictedBytes=54),
        row("ours, ZeRO 1", 40, memoryBytes=50, predictedBytes=40),
        row("nanoGPT-style, compiled", 50),
        row("Llama-style, compiled", 80),
        {"size": "1.3B", "case": "transformers, not compiled", "failed": "ImportError: no transformers"},
    ]
    said = "\n".join(gpu.summary(rows, ["125M ours, compiled"], 8.5))
    assert "ours against nanoGPT-style, compiled        1.120  ahead" in said
    assert "ours against Llama-style, compiled          0.700  behind" in said
    assert "our best MFU is 56.0%; the goal is 55%: met" in said
    assert "memory: 1 of 2 predicted within 10 %; the furthest off is 1.3B ours, ZeRO 1, -20.0%" in said
    assert "failed: 1.3B transformers, not compiled" in said
    assert "not measured within 8.5 minutes: 125M ours, compiled" in said
