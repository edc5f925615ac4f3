"""What engines and launchers cost on this machine's CPU, side by side. Prints two tables and writes JSON.

    python benchmarks/engines.py [--size 300K] [--rounds 2] [--without-ray]      under four minutes on two idle cores
    python benchmarks/engines.py --docs             only put the last sitting's table into docs/engines.md

    ways        the same run by PyTorch in the process that is called, by DeepSpeed in one process, and by one worker of
                a Ray that starts for it: tokens a second of the step loop, its first steps left out; seconds from the
                process's start to the end of its first step; and the same for the attempt after it, which takes up the
                checkpoint that the first one left. The best of the rounds, all ways in turn, none by hand-derived
                gradients
    steps       CPU seconds of a training step in one process, at each ZeRO stage, in turns

CPU seconds bear a busy machine; all others are of an idle one or mean nothing.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Data, Training, resolve, shape_of, whole_batches
from sweep_analysis.record import ExitStatus, Progress
from sweep_analysis.rung import Run, RunOrder
from sweep_analysis.scale import parse_scale
from sweep_trainer import data
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Engine
from sweep_trainer.engines.ranks import ALONE, join

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "engines.json"
PAGE = HERE.parent / "docs" / "engines.md"
LENGTH, SEQUENCES = 128, 16
ROUNDS, STEPS = 3, 5
"""Of what is measured in CPU seconds."""
SETTLED, LOOP = 5, 40
"""Steps of a way before its loop is measured, and those that are."""
PATIENCE_SECONDS = 120.0
WAYS: dict[str, tuple[int | None, str | None]] = {
    "PyTorch": (None, None),
    "DeepSpeed, ZeRO 1": (1, None),
    "Ray, one worker": (None, "local"),
}
"""ZeRO's stage and the Ray of each; the first is the one that the others are held against."""
MEASURES = {"tokensPerSecond": "tokens/s", "firstStep": "first step, s", "resumed": "resumed, s"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="300K", help="parameters; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of the ways; default: %(default)s")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--docs", action="store_true", help="only put the last sitting's table into docs/engines.md")
    options = parser.parse_args()
    if options.docs:
        PAGE.write_text(with_table(PAGE.read_text(), json.loads(options.json.read_text())["ways"]))
        return 0
    began, load = time.monotonic(), os.getloadavg()[0]
    torch.set_num_threads(1)
    parameters = parse_scale(options.size)
    names = [name for name, (_, ray) in WAYS.items() if not (ray and options.without_ray)]
    with tempfile.TemporaryDirectory() as folder:
        ways_ = ways(parameters, names, options.rounds, Path(folder))
    print("\n".join(table(ways_)), flush=True)
    steps_ = steps(parameters)
    for name, seconds in steps_.items():
        print(f"{name:<20} {seconds * 1e3:8.1f} ms of CPU a step   {seconds / steps_['PyTorch']:5.2f} of PyTorch's")
    sitting = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": load},
        "size": options.size,
        "ways": ways_,
        "steps": steps_,
        "seconds": round(time.monotonic() - began),
    }
    print(f"{sitting['seconds']} s; the load was {load:.1f} on {os.cpu_count()} cores when it began")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(sitting, indent=1) + "\n")
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


def ways(parameters: int, names: list[str], rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """What was measured of each way, in every round."""
    data.prepare(recipe(), folder, folder / "cache")
    found: dict[str, dict[str, list[float]]] = {name: {measure: [] for measure in MEASURES} for name in names}
    for turn in range(rounds):
        for number, name in enumerate(names):
            for measure, value in way(parameters, name, folder / "cache", folder / f"{turn}-{number}").items():
                found[name][measure].append(value)
    return found


def way(parameters: int, name: str, cache: Path, folder: Path) -> dict[str, float]:
    """One attempt that is told to stop after some steps, and the one after it, which goes on from its checkpoint."""
    stage, ray = WAYS[name]
    training = recipe(stage)
    order = RunOrder(
        uid="benchmark",
        name="benchmark",
        attempt=1,
        run=Run(
            parameters=shape_of(training, parameters).parameters,
            tokens=whole_batches(training, (10_000 * SEQUENCES * LENGTH,)),
        ),
        training=training,
        config_digest="sha256:benchmark",
        storage=str(folder / "storage"),
        report=str(folder / "report"),
        cache=str(cache),
        ray=ray,
    )
    folder.mkdir(parents=True)
    begun, ends = attempt(order, folder, SETTLED + LOOP)
    begun_again, ends_again = attempt(order.changed(attempt=2), folder, 1)
    progress = Progress.model_validate_json((folder / "report" / "progress.json").read_bytes())
    if progress.step < len(ends) + len(ends_again):
        raise RuntimeError(f"{name}: the second attempt began anew and is at step {progress.step}")
    loop = ends[SETTLED - 1 :]
    return {
        "tokensPerSecond": (len(loop) - 1) * SEQUENCES * LENGTH / (loop[-1] - loop[0]),
        "firstStep": ends[0] - begun,
        "resumed": ends_again[0] - begun_again,
    }


def attempt(order: RunOrder, folder: Path, steps: int) -> tuple[float, list[float]]:
    """When the process was started and when its steps ended; it is told to stop once there are so many.

    Raises RuntimeError where it ends otherwise.
    """
    path, log = folder / f"order-{order.attempt}.json", folder / f"log-{order.attempt}"
    times = folder / f"steps-{order.attempt}"
    path.write_text(json.dumps(order.to_json()))
    times.touch()
    environment = os.environ | {"STEP_TIMES": str(times), "PYTHONPATH": str(HERE / "step_times")}
    with log.open("wb") as output:
        begun = time.monotonic()
        command = [sys.executable, "-m", "sweep_trainer", "train", str(path)]
        with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
            while process.poll() is None and len(times.read_text().splitlines()) < steps:
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)  # which does nothing to one that has ended
            status = process.wait(PATIENCE_SECONDS)
    ends = [float(line) for line in times.read_text().splitlines()]
    if status != ExitStatus.INTERRUPTED or len(ends) < steps:
        raise RuntimeError(f"{path}: status {status} after {len(ends)} steps\n{log.read_text()[-3000:]}")
    return begun, ends


def table(ways: dict[str, dict[str, list[float]]]) -> list[str]:
    """Markdown: a row a way, each measure's best round and its ratio to the first way's."""
    best = {
        name: {m: (max if m == "tokensPerSecond" else min)(measured[m]) for m in MEASURES}
        for name, measured in ways.items()
    }
    lines = [
        f"| | {' | '.join(f'{title} | ratio' for title in MEASURES.values())} |",
        f"|---{'|---:' * 2 * len(MEASURES)}|",
    ]
    first = next(iter(best.values()))
    for name, one in best.items():
        cells = [
            f"{value:,.0f} | {value / first[m]:.3f}"
            if m == "tokensPerSecond"
            else f"{value:.1f} | {value / first[m]:.2f}"
            for m, value in one.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def with_table(page: str, ways: dict[str, dict[str, list[float]]]) -> str:
    """The page with the table in the place of the one that stands there. Raises ValueError where none does."""
    lines = table(ways)
    before, found, rest = page.partition(lines[0])
    if not found:
        raise ValueError(f"the page has no table that begins with {lines[0]}")
    return before + "\n".join(lines) + "\n\n" + rest.partition("\n\n")[2]


if __name__ == "__main__":
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    sys.exit(main())
