"""Predicted against measured peak memory of a training step, on whatever device is here.

    python benchmarks/memory.py [--json FILE]

What is measured is what PyTorch's allocator has handed out: on a GPU its own counter, on a CPU the sum over the
profiler's memory events, which is the same notion. Each setting builds an engine, takes one step to settle, and is
measured over a second one. Exit status 1 when a prediction is more than 10 % off; where the optimizer is offloaded, on
a GPU alone: on a CPU what is offloaded is measured too, and the prediction is of the device without it.
"""

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.memory import peak, setting_of
from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of
from sweep_analysis.shape import Experts, Shape
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Engine
from sweep_trainer.engines.ranks import ALONE, join

TOLERANCE = 0.10
GPU = torch.cuda.is_available()
WIDTH, LAYERS, VOCABULARY, LENGTH, SEQUENCES = (1024, 12, 32_768, 2048, 4) if GPU else (256, 4, 2048, 128, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = table()
    print("engine           precision recompute layers at a time    predicted     measured")
    for row in rows:
        print(
            f"{row['way']:<16} {row['precision']:<9} {'yes' if row['checkpointing'] else 'no':<9} {row['layers']:6}"
            f" {row['sequences']:9} {row['predicted'] / 1e6:9.1f} MB {row['measured'] / 1e6:9.1f} MB"
            f" {row['predicted'] / row['measured'] - 1:+7.1%}",
            flush=True,
        )
    if options.json:
        device = torch.cuda.get_device_name() if GPU else "cpu"
        options.json.write_text(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}, indent=1))
    told = [row for row in rows if GPU or not row["offloadOptimizer"]]
    return 0 if all(abs(row["predicted"] / row["measured"] - 1) <= TOLERANCE for row in told) else 1


def table() -> list[dict[str, Any]]:
    """A row a setting."""
    cases: list[dict[str, Any]] = [
        {"precision": precision, "activation_checkpointing": recompute, "layers": layers, "micro_batch": SEQUENCES}
        for precision in ("fp32", "bf16")
        for recompute in (None, True)
        for layers in (LAYERS, 2 * LAYERS)
    ]
    cases += [{"precision": "bf16", "micro_batch": 1}, {"precision": "fp32", "vocabulary": 2 * VOCABULARY}]
    cases += [
        {"precision": precision, "stage": stage, "micro_batch": SEQUENCES}
        for precision in ("fp32", "bf16")
        for stage in (1, 2, 3)
    ]
    cases += [{"precision": "fp32", "stage": 1, "micro_batch": 1}]
    cases += [
        {"precision": precision, "experts": Experts(count=8, top_k=2), "micro_batch": SEQUENCES}
        for precision in ("fp32", "bf16")
    ]
    cases += [{"precision": "fp32", "experts": Experts(count=4, top_k=1, shared=1), "micro_batch": SEQUENCES}]
    cases += [
        {"precision": precision, "stage": stage, "offload": True, "micro_batch": SEQUENCES}
        for precision in ("fp32", "bf16")
        for stage in (1, 2, 3)
    ]
    return [row_of(**case) for case in cases]


def row_of(
    *,
    precision: str,
    stage: int | None = None,
    layers: int = LAYERS,
    vocabulary: int = VOCABULARY,
    micro_batch: int | None = None,
    activation_checkpointing: bool | None = None,
    experts: Experts | None = None,
    offload: bool = False,
) -> dict[str, Any]:
    """One setting's prediction and measurement."""
    training = Training(
        data=Data(corpus="Classics"),
        sequence_length=LENGTH,
        batch_tokens=SEQUENCES * LENGTH,
        precision=precision,
        engine="DeepSpeed" if stage else "Torch",
        deepspeed=DeepSpeed(zero_stage=stage, offload_optimizer="Cpu" if offload else None) if stage else None,
        micro_batch=micro_batch,
        activation_checkpointing=activation_checkpointing,
    )
    hyper = resolve(training, shape_of(training, 9_000).parameters, (SEQUENCES * LENGTH * 50,))
    shape = Shape(layers=layers, width=WIDTH, heads=WIDTH // 64, hidden=8 * round(WIDTH / 3), vocabulary=vocabulary)
    if experts:
        shape = shape.changed(experts=experts)
    hyper = hyper.changed(shape=shape)
    setting = setting_of(training, hyper, gpus=1)
    return {
        "way": (f"ZeRO {stage}" if stage else "PyTorch") + ", experts" * bool(experts) + ", offload" * offload,
        "layers": layers,
        "vocabulary": vocabulary,
        "parameters": shape.parameters,
        **setting.to_json(),
        "predicted": peak(shape, LENGTH, setting).total_bytes,
        "measured": measured(training, hyper),
    }


def measured(training: Training, hyper: Hyperparameters) -> int:
    """Bytes at the peak of the second step."""
    gc.collect()  # or what an earlier engine still holds is given back in the middle
    batch = np.random.default_rng(0).integers(0, hyper.shape.vocabulary, (SEQUENCES, LENGTH + 1))
    if GPU:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        engine = build(training, hyper)
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            engine.step(batch, 1e-3)
            engine.measured()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        engine = build(training, hyper)
        engine.step(batch, 1e-3)
        engine.measured()
        with torch.profiler.record_function("the second step"):
            pass
        engine.step(batch, 1e-3)
        engine.measured()
    results = profiler.profiler.kineto_results if profiler.profiler else None
    assert results is not None, "the profiler ran"
    now, most, counting = 0, 0, False
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "the second step":
            counting, most = True, now
        elif event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now) if counting else most
    return most


def build(training: Training, hyper: Hyperparameters) -> Engine:
    if training.engine == "DeepSpeed":
        from sweep_trainer.engines.zero import Zero

        join(ALONE)
        return Zero(training, hyper, 0, 1, ALONE)
    return PlainTorch(hyper, 0, 1, execution=training)


if __name__ == "__main__":
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    sys.exit(main())
