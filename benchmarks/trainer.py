"""What the trainer costs: its tokens a second against a bare PyTorch loop of the same model, side by side in one run.

    python benchmarks/trainer.py [--sizes 20000 46000 96000 163000] [--others 46000 163000] [--rounds 5] [--json FILE]
    python benchmarks/trainer.py --docs

Three loops take turns, round after round, on the same batches and one thread each:

    bare      the same model by autograd, fused AdamW, clip_grad_norm_: what one writes first
    engine    the trainer's own step (`engines.plain.PlainTorch`), and nothing around it
    trainer   a whole run as `sweep_trainer train` carries it out: its loop, progress and learning curve on disk,
              checkpoints, without the evaluations that its records are for

At `--sizes` the model is the plain dense one, whose gradients the trainer computes by hand; at `--others`, what goes
through autograd: norms of queries and keys, experts, bf16, and a model of `transformers` where that is installed. The
command says at its end whether the trainer's loop made `GOAL` of the bare one everywhere, and ends with status 1 where
it did not. `--docs` only puts the table of the file (default: results/trainer.json) into docs/engines.md.

The figure of a loop is the best of its rounds, in tokens per second of CPU time: on one thread that is the wall's
figure on an idle machine, and a busy one disturbs it little.
"""

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of, whole_batches
from sweep_analysis.rung import Run, RunOrder
from sweep_trainer.build import build
from sweep_trainer.data import Prepared, prepare
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.interruption import Interruption
from sweep_trainer.report import Report
from sweep_trainer.train import run

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "trainer.json"
PAGE = HERE.parent / "docs" / "engines.md"
GOAL = 0.97
PLAIN = "plain, by hand"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "query norms": {"model": {"qkNorm": True}},
    "experts, 2 of 4": {"model": {"experts": {"count": 4, "topK": 2}}},
    "bf16": {"precision": "bf16"},
    "transformers, Qwen3": {"model": {"family": "HuggingFace", "architecture": "qwen3"}},
}
"""Fields of the recipe; all but the first go through autograd."""
HEADER = "| | parameters | bare | engine | trainer | trainer / bare | trainer / engine |"
BATCH_TOKENS = 2048
STEPS = 100
"""Of a round. Enough for a progress file a second and a curve."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20_000, 46_000, 96_000, 163_000])
    parser.add_argument("--others", type=int, nargs="*", default=[46_000, 163_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--docs", action="store_true", help="only put the file's table into docs/engines.md")
    options = parser.parse_args()
    if options.docs:
        rows = json.loads((options.json or RESULTS).read_text())["rows"]
        PAGE.write_text(with_table(PAGE.read_text(), rows))
        return 0
    torch.set_num_threads(1)
    wanted = [(PLAIN, size) for size in options.sizes]
    wanted += [(way, size) for way in WAYS if way != PLAIN for size in options.others]
    rows = []
    print("\n".join(table([])))
    with tempfile.TemporaryDirectory() as folder:
        for way, size in wanted:
            if "transformers" in way and importlib.util.find_spec("transformers") is None:
                print(f"{way}: the extra `huggingface` is not installed")
                continue
            rows.append(measure(way, size, options.rounds, Path(folder)))
            print(table(rows)[-1], flush=True)
    worst = min(rows, key=lambda row: row["trainer"] / row["bare"])
    ratio = worst["trainer"] / worst["bare"]
    print(
        f"the least of the bare loop's tokens/s is {ratio:.3f}: {worst['way']} at {worst['parameters']:,}; goal {GOAL}"
    )
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        kept = {"machine": machine, "batchTokens": BATCH_TOKENS, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if ratio >= GOAL else 1


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row a way and size; tokens a second of CPU time, and the ratios."""
    lines = [HEADER, f"|---{'|---:' * (HEADER.count('|') - 2)}|"]
    for row in rows:
        ratios = f"{row['trainer'] / row['bare']:.3f} | {row['trainer'] / row['engine']:.3f}"
        speeds = " | ".join(f"{row[loop]:,.0f}" for loop in ("bare", "engine", "trainer"))
        lines.append(f"| {row['way']} | {row['parameters']:,} | {speeds} | {ratios} |")
    return lines


def with_table(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with the table in the place of the one that stands there. Raises ValueError where none does."""
    before, found, rest = page.partition(HEADER)
    if not found:
        raise ValueError(f"the page has no table that begins with {HEADER}")
    return before + "\n".join(table(rows)) + "\n\n" + rest.partition("\n\n")[2]


def measure(way: str, size: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Best tokens per CPU second of each loop over the rounds."""
    recipe = {"data": text(folder), "batch_tokens": BATCH_TOKENS, "checkpoint_seconds": 20}
    training = Training.model_validate(recipe | WAYS[way])
    data = prepare(training, folder, folder / "cache")
    parameters = shape_of(training, size).parameters
    hyper = resolve(training, parameters, whole_batches(training, (STEPS * BATCH_TOKENS,)))
    loops: dict[str, Callable[[], float]] = {
        "bare": bare_loop(hyper, data),
        "engine": engine_loop(way, training, hyper, data),
        "trainer": trainer_loop(training, parameters, folder / f"{way}-{size}"),
    }
    best = dict.fromkeys(loops, 0.0)
    for _ in range(rounds):
        for name, loop in loops.items():
            best[name] = max(best[name], STEPS * BATCH_TOKENS / loop())
    return {"way": way, "parameters": parameters, **best}


def bare_loop(hyper: Hyperparameters, data: Prepared) -> Callable[[], float]:
    """The loop that one writes first, with PyTorch's own speed-ups."""
    model = build(hyper, 0, torch.device("cpu"))
    cast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=hyper.precision == "bf16")
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=hyper.learning_rate, betas=(0.9, 0.95), fused=True)

    def loop() -> float:
        started = time.process_time()
        for step in range(STEPS):
            batch = data.batch(0, step, BATCH_TOKENS // hyper.sequence_length)
            with cast():
                loss = model.loss(torch.from_numpy(batch.astype(np.int64)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, hyper.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - started

    return loop


def engine_loop(way: str, training: Training, hyper: Hyperparameters, data: Prepared) -> Callable[[], float]:
    """The trainer's step alone. Raises RuntimeError where it is not the way that the row says."""
    engine = PlainTorch(hyper, seed=0, threads=1, execution=training)
    if engine.path.startswith("autograd") == (way == PLAIN):
        raise RuntimeError(f"{way}: the trainer takes {engine.path}")

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
