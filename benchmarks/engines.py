"""What engines, launchers and checkpoints cost on this machine's CPU.

    python benchmarks/engines.py [--size 1M] [--json FILE] [--without-ray]

    step        CPU seconds of a training step: plain PyTorch by autograd, and DeepSpeed at each ZeRO stage, in turns
    start       wall seconds of a whole run of ten steps, from the process's start to its end: this process alone, a
                process group of one with DeepSpeed, and one worker of a Ray that starts for it
    resume      wall seconds to write a checkpoint, and to read, verify and take it up again

CPU seconds bear a busy machine; wall seconds are of an idle one or mean nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Data, Training, resolve, shape_of, whole_batches
from sweep_analysis.rung import Run, RunOrder
from sweep_analysis.scale import parse_scale
from sweep_trainer.checkpoint import Checkpoint, Checkpoints, Position
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Engine
from sweep_trainer.engines.ranks import ALONE, join
from sweep_trainer.storage import Folder

LENGTH, SEQUENCES = 128, 16
ROUNDS, STEPS = 3, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1M")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parameters = parse_scale(options.size)
    with tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {
            "machine": {"processor": platform.processor() or platform.machine(), "load": os.getloadavg()[0]},
            "step": steps(parameters),
            "resume": resume(parameters, Path(folder)),
            "start": starts(Path(folder), with_ray=not options.without_ray),
        }
    for name, seconds in results["step"].items():
        ratio = seconds / results["step"]["PyTorch"]
        print(f"step    {name:<24} {seconds * 1e3:8.1f} ms of CPU   {ratio:5.2f} of PyTorch's")
    for name, seconds in results["start"].items():
        print(f"start   {name:<24} {seconds:8.1f} s")
    for name, seconds in results["resume"].items():
        print(f"resume  {name:<24} {seconds:8.3f} s")
    print(f"the machine's load was {results['machine']['load']:.1f} on {os.cpu_count()} cores")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


def recipe(stage: int | None = None) -> Training:
    return Training(
        data=Data(corpus="Classics"),
        sequence_length=LENGTH,
        batch_tokens=SEQUENCES * LENGTH,
        micro_batch=SEQUENCES,
        engine="Torch" if stage is None else "DeepSpeed",
        deepspeed=None if stage is None else DeepSpeed(zero_stage=stage),
    )


def steps(parameters: int) -> dict[str, float]:
    """Best CPU seconds of a step, by engine."""
    from sweep_trainer.engines.zero import Zero

    join(ALONE)
    training = recipe()
    hyper = resolve(training, shape_of(training, parameters).parameters, (SEQUENCES * LENGTH * 1000,))
    engines: dict[str, Engine] = {"PyTorch": PlainTorch(hyper, 0, 1, execution=training)}
    for stage in (0, 1, 2, 3):
        engines[f"DeepSpeed, ZeRO {stage}"] = Zero(recipe(stage), hyper, 0, 1, ALONE)
    batch = np.random.default_rng(0).integers(0, 256, (SEQUENCES, LENGTH + 1))
    best = dict.fromkeys(engines, float("inf"))
    for _ in range(ROUNDS + 1):  # the first settles
        for name, engine in engines.items():
            started = time.process_time()
            for _ in range(STEPS):
                engine.step(batch, 1e-4)
            engine.measured()
            best[name] = min(best[name], (time.process_time() - started) / STEPS)
    return best


def resume(parameters: int, folder: Path) -> dict[str, float]:
    """Wall seconds to write a checkpoint, and to take it up."""
    training = recipe()
    hyper = resolve(training, shape_of(training, parameters).parameters, (SEQUENCES * LENGTH * 1000,))
    engine = PlainTorch(hyper, 0, 1)
    checkpoints = Checkpoints(Folder(folder / "checkpoints"), "benchmark")
    started = time.perf_counter()
    checkpoints.write(Checkpoint(Position(0, 1, 1, 0.0), engine.state(), None))
    held = time.perf_counter()
    checkpoints.settle()
    written = time.perf_counter()
    engine.load(next(checkpoints.read()).state)
    read = time.perf_counter()
    return {"training waits": held - started, "written after": written - started, "taken up": read - written}


def starts(folder: Path, *, with_ray: bool) -> dict[str, float]:
    """Wall seconds of a whole run of ten steps, data prepared before."""
    ways: dict[str, tuple[int | None, str | None]] = {"process": (None, None), "DeepSpeed, ZeRO 1": (1, None)}
    if with_ray:
        ways["Ray, one worker"] = (None, "local")
    seconds: dict[str, float] = {}
    for name, (stage, ray) in {"(data)": (None, None), **ways}.items():
        training = recipe(stage)
        here = folder / str(len(seconds))
        order = RunOrder(
            uid="benchmark",
            name="benchmark",
            attempt=1,
            run=Run(
                parameters=shape_of(training, 20_000).parameters,
                tokens=whole_batches(training, (10 * SEQUENCES * LENGTH,)),
            ),
            training=training,
            config_digest="sha256:benchmark",
            storage=str(here / "storage"),
            report=str(here / "report"),
            cache=str(folder / "cache"),
            ray=ray,
        )
        here.mkdir()
        (here / "order.json").write_text(json.dumps(order.to_json()))
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "sweep_trainer", "train", str(here / "order.json")],
            check=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        seconds[name] = time.perf_counter() - started
    return {name: seconds[name] for name in ways}


if __name__ == "__main__":
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    sys.exit(main())
