"""What the trainer costs: its tokens a second against a bare PyTorch loop of the same model, side by side in one run.

    python benchmarks/trainer.py [--sizes 20000 46000 96000 163000] [--rounds 5] [--json FILE]

Three loops take turns, round after round, on the same batches and one thread each:

    bare      the decoder by autograd, fused AdamW, clip_grad_norm_: what one writes first
    engine    the trainer's own step (`engines.plain.PlainTorch`), and nothing around it
    trainer   a whole run as `sweep_trainer train` carries it out: its loop, progress and learning curve on disk,
              checkpoints, without the evaluations that its records are for

The figure of a loop is the best of its rounds, in tokens per second of CPU time: on one thread that is the wall's
figure on an idle machine, and a busy one disturbs it little.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of, whole_batches
from sweep_analysis.rung import Run, RunOrder
from sweep_trainer.data import Prepared, prepare
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.interruption import Interruption
from sweep_trainer.model import Decoder
from sweep_trainer.report import Report
from sweep_trainer.train import run

BATCH_TOKENS = 2048
STEPS = 100
"""Of a round. Enough for a progress file a second and a curve."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 46_000, 96_000, 163_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'N':>8} {'bare':>9} {'engine':>9} {'trainer':>9}   tokens/s   trainer/bare  trainer/engine")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            row = measure(size, options.rounds, Path(folder))
            rows.append(row)
            print(
                f"{row['parameters']:8,} {row['bare']:9,.0f} {row['engine']:9,.0f} {row['trainer']:9,.0f}"
                f" {row['trainer'] / row['bare']:22.2f} {row['trainer'] / row['engine']:15.3f}",
                flush=True,
            )
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "batchTokens": BATCH_TOKENS, "rows": rows}, indent=1))
    return 0


def measure(size: int, rounds: int, folder: Path) -> dict[str, float]:
    """Best tokens per CPU second of each loop over the rounds."""
    training = Training(data=text(folder), batch_tokens=BATCH_TOKENS, checkpoint_seconds=20)
    data = prepare(training, folder, folder / "cache")
    parameters = shape_of(training, size).parameters
    hyper = resolve(training, parameters, whole_batches(training, (STEPS * BATCH_TOKENS,)))
    loops: dict[str, Callable[[], float]] = {
        "bare": bare_loop(hyper, data),
        "engine": engine_loop(hyper, data),
        "trainer": trainer_loop(training, parameters, folder / str(size)),
    }
    best = dict.fromkeys(loops, 0.0)
    for _ in range(rounds):
        for name, loop in loops.items():
            best[name] = max(best[name], STEPS * BATCH_TOKENS / loop())
    return {"parameters": parameters, **best}


def bare_loop(hyper: Hyperparameters, data: Prepared) -> Callable[[], float]:
    """The loop that one writes first, with PyTorch's own speed-ups."""
    model = Decoder(hyper.shape, hyper.sequence_length, seed=0)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=hyper.learning_rate, betas=(0.9, 0.95), fused=True)

    def loop() -> float:
        started = time.process_time()
        for step in range(STEPS):
            batch = data.batch(0, step, BATCH_TOKENS // hyper.sequence_length)
            loss = model.loss(torch.from_numpy(batch.astype(np.int64)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, hyper.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - started

    return loop


def engine_loop(hyper: Hyperparameters, data: Prepared) -> Callable[[], float]:
    """The trainer's step alone."""
    engine = PlainTorch(hyper, seed=0, threads=1)

    def loop() -> float:
        started = time.process_time()
        for step in range(STEPS):
            engine.step(data.batch(0, step, BATCH_TOKENS // hyper.sequence_length), hyper.learning_rate)
        engine.measured()
        return time.process_time() - started

    return loop


def trainer_loop(training: Training, parameters: int, folder: Path) -> Callable[[], float]:
    """A whole run, from the first step to the last; start-up and evaluation are not counted."""
    attempt = 0

    def loop() -> float:
        nonlocal attempt
        attempt += 1
        here = folder / str(attempt)
        order = RunOrder(
            uid="benchmark",
            name="benchmark",
            attempt=1,
            run=Run(parameters=parameters, tokens=whole_batches(training, (STEPS * BATCH_TOKENS,))),
            training=training,
            config_digest="sha256:benchmark",
            storage=str(here / "storage"),
            report=str(here / "report"),
            cache=str(folder.parent / "cache"),
        )
        clock = Stopwatch()
        run(order, clock, Report(order), begun=time.monotonic())
        return clock.seconds

    return loop


class Stopwatch(Interruption):
    """Never interrupts; the loop asks it after every step, which tells the time between the first step and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[float] = []

    @property
    def requested(self) -> bool:
        super().requested  # noqa: B018  # what it costs belongs to the loop
        self.looks.append(time.process_time())
        return False

    @property
    def seconds(self) -> float:
        """For all steps, from those after the first."""
        return (self.looks[STEPS - 1] - self.looks[0]) * STEPS / (STEPS - 1)


def text(folder: Path) -> Data:
    """Random bytes: what they say does not matter here."""
    path = folder / "text.txt"
    if not path.exists():
        letters = np.random.default_rng(0).integers(97, 123, 2_000_000, dtype=np.uint8)
        path.write_bytes(letters.tobytes())
    return Data(files=(str(path),))


if __name__ == "__main__":
    sys.exit(main())
