"""All that is claimed of a GPU, in one command and under nine minutes; without one it says so and claims nothing.

    python benchmarks/gpu.py [--minutes 8.5] [--sizes 125M 350M 1.3B] [--json FILE]
    python benchmarks/gpu.py --rehearse

On one GPU in bf16, sequences of 2,048 tokens, for each size: the trainer's own step (with and without torch.compile,
activation checkpointing, each attention kernel that can run, ZeRO stages, an offloaded optimizer) beside the same
shapes as minimal trainers write them (`minimal_trainers.py`). A step is four pieces of as many sequences as the table
says. Tokens a second, MFU by 6·N·D over the data sheet's dense peak, peak memory beside its prediction; at the end
whether ours was ahead of each. Needs no data: tokens are random.

Cases are measured from the most telling to the least, in a process beside this one. A case that fails is a row with its
reason; one that hangs is ended, with that process, when its time or the whole command's is over; what the time does not
allow is left out and named. The command ends with its table within --minutes and a few seconds, whatever happens. What
was compiled is kept on the machine's disk, so that a second time gets further.

`--rehearse` takes every case's way on the CPU with tiny shapes, to see before a GPU is at hand that each still runs;
its figures mean nothing. Exit status: 0 with a table, 2 without a GPU.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import minimal_trainers
import numpy as np
import psutil
import torch

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.flops import six_nd
from sweep_analysis.memory import peak, setting_of
from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve
from sweep_analysis.scale import parse_scale
from sweep_analysis.shape import Shape
from sweep_trainer.failure import RunError
from sweep_trainer.meter import peak_flops

BEGUN = time.monotonic() - (time.time() - psutil.Process().create_time())
"""When the command was started: the imports count."""
NO_GPU = 2
LAST_SECONDS = 5.0
"""Kept for ending the process beside, and for the table."""
GOAL = ("1.3B", 0.55)
"""The MFU that is aimed at."""
OURS = "ours, compiled"
MINIMAL: dict[str, tuple[Callable[..., tuple[minimal_trainers.Step, int]], str]] = {
    "nanoGPT-style, compiled": (minimal_trainers.nano_gpt, "whole"),
    "Llama-style, compiled": (minimal_trainers.llama, "by block"),
    "transformers, not compiled": (minimal_trainers.of_transformers, "not at all"),
}
"""How a step of each is made, and what of it is compiled."""


@dataclass(frozen=True)
class Scale:
    """What is measured, and how long."""

    device: str
    length: int
    vocabulary: int
    shapes: dict[str, tuple[int, int, int]]
    """Layers, width and heads."""
    sequences: dict[str, int]
    """Computed at a time."""
    pieces: int
    """Of a step."""
    settle: int
    """Steps before those that are measured; the first waits for the compiler."""
    seconds: float
    """Of measuring, about."""
    longest: float
    """Seconds that one case may take, its compilation included."""


ON_GPU = Scale(
    device="cuda",
    length=2048,
    vocabulary=50_304,
    # as the GPT-3 paper's table 2.1 has them (Brown et al. 2020, arXiv:2005.14165)
    shapes={"125M": (12, 768, 12), "350M": (24, 1024, 16), "1.3B": (24, 2048, 16)},
    sequences={"125M": 16, "350M": 8, "1.3B": 4},
    pieces=4,
    settle=2,
    seconds=5.0,
    longest=150.0,
)
REHEARSAL = Scale(
    device="cpu",
    length=32,
    vocabulary=256,
    shapes={"125M": (1, 64, 2), "350M": (1, 64, 2), "1.3B": (1, 64, 2)},
    sequences={"125M": 2, "350M": 2, "1.3B": 2},
    pieces=2,
    settle=1,
    seconds=0.1,
    longest=400.0,
)


@dataclass(frozen=True)
class Case:
    """One row: a way at a size."""

    size: str
    name: str
    fields: tuple[tuple[str, Any], ...] = ()
    """Of our recipe; nothing for what a minimal trainer does."""
    alone: bool = False
    """In a new process: DeepSpeed gives back only part of what it took."""


def cases(sizes: list[str]) -> list[Case]:
    """The most telling first, the ways that wait longest for a compiler spread out: ours and the minimal ones at the
    largest size and at the smallest, what the rest costs at the largest, and what is left of the other sizes."""
    largest, smallest = sizes[-1], sizes[0]

    def beside(size: str) -> list[Case]:
        names = [name for name, (_, how) in MINIMAL.items() if size == largest or how != "not at all"]
        return [Case(size, OURS, (("compile", True),)), *(Case(size, name) for name in names)]

    def zero(size: str, offload: Literal["Cpu"] | None) -> list[Case]:
        return [
            Case(
                size,
                f"ours, ZeRO {stage}{', offload' if offload else ''}",
                (("engine", "DeepSpeed"), ("deepspeed", DeepSpeed(zero_stage=stage, offload_optimizer=offload))),
                alone=True,
            )
            for stage in (1, 2, 3)
        ]

    found = beside(largest)
    found += [Case(largest, "ours, not compiled")]
    found += [Case(largest, "ours, checkpointing", (("activation_checkpointing", True),))]
    found += beside(smallest) if smallest != largest else []
    found += zero(largest, None)
    found += [Case(largest, f"ours, {kernel}", (("attention", kernel),)) for kernel in ("Fa4", "Fa3", "Fa2", "Sdpa")]
    for size in sizes[1:-1]:
        found += beside(size)
    found += zero(smallest, "Cpu")
    recomputed = (("compile", True), ("activation_checkpointing", True))
    found += [Case(largest, "ours, checkpointing, compiled", recomputed)]
    return found + [Case(size, "ours, not compiled") for size in sizes[:-1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.5, help="in all; default: %(default)s")
    parser.add_argument("--sizes", nargs="+", default=list(ON_GPU.shapes), choices=list(ON_GPU.shapes))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows go, each as it comes")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU: figures that mean nothing")
    options = parser.parse_args()
    scale = REHEARSAL if options.rehearse else ON_GPU
    if scale.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU on this machine: nothing was measured, and nothing is claimed of one.")
        return NO_GPU
    deadline = BEGUN + 60 * options.minutes - LAST_SECONDS
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    wanted = cases([size for size in scale.shapes if size in options.sizes])
    with Beside(scale) as beside:
        for number, case in enumerate(wanted):
            left = deadline - time.monotonic()
            if left <= 0:
                left_out = [f"{case.size} {case.name}" for case in wanted[number:]]
                break
            rows.append({"size": case.size, "case": case.name, **beside.row(case, min(left, scale.longest))})
            print(told(rows[-1]), flush=True)
            kept(options.json, beside.about, rows, left_out)
    kept(options.json, beside.about, rows, left_out)
    print("\n".join(summary(rows, left_out, options.minutes)), flush=True)
    return 0


class Beside:
    """The process that measures. It is ended when a case takes too long, and made anew for the next."""

    def __init__(self, scale: Scale) -> None:
        self.about: dict[str, Any] = {}
        self._scale = scale
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Connection | None = None

    def row(self, case: Case, seconds: float) -> dict[str, Any]:
        """What came of a case; its failure, and that it took too long, too."""
        until = time.monotonic() + seconds
        if case.alone and self._scale.device == "cuda":
            self._end()
        try:
            pipe = self._begun(until)
            pipe.send(case)
            if not pipe.poll(max(0.0, until - time.monotonic())):
                self._end()
                return {"failed": f"was ended after {seconds:.0f} s"}
            row: dict[str, Any] = pipe.recv()
        except TimeoutError as error:
            self._end()
            return {"failed": str(error)}
        except (EOFError, OSError):
            status = self._end()
            return {"failed": f"its process ended with status {status}"}
        if row.pop("spoilt", False) or case.alone:
            self._end()  # what is left of it must not cost the next
        return row

    def _begun(self, until: float) -> Connection:
        if self._pipe is None:
            self._pipe, other = self._context.Pipe()
            self._process = self._context.Process(target=measuring, args=(other, self._scale))
            self._process.start()
            other.close()
            if not self._pipe.poll(max(0.0, until - time.monotonic())):
                raise TimeoutError("its process did not start in time")
            self.about = self._pipe.recv()
        return self._pipe

    def _end(self) -> int | None:
        """End the process and those that it started, by the group that it made."""
        process, self._process, self._pipe = self._process, None, None
        if process is None:
            return None
        process.join(0.5)  # one that crashed says with what
        status: int | None = process.exitcode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return status

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


def measuring(pipe: Connection, scale: Scale) -> None:
    """The process beside: a row for each case that it is sent."""
    os.setpgrp()
    torch.set_float32_matmul_precision("high")
    device = torch.cuda.get_device_name() if scale.device == "cuda" else "cpu, a rehearsal"
    peak_ = peak_flops() if scale.device == "cuda" else None
    pipe.send({"device": device, "torch": torch.__version__, "peakFlops": peak_})
    while True:
        try:
            case: Case = pipe.recv()
        except EOFError:
            return
        torch.compiler.reset()  # or the ninth model of a kind would not be compiled any more
        gc.collect()
        if scale.device == "cuda":
            torch.cuda.empty_cache()
        try:
            row = measured(case, scale)
        except Exception as error:  # noqa: BLE001  # one kernel that is not installed must not cost the other rows
            lines = str(error).strip().splitlines() or [""]
            refused = isinstance(error, RunError | ImportError | ValueError)  # before anything was computed
            sound = refused and still_computes(scale)
            row = {"failed": f"{type(error).__name__}: {lines[0][:200]}", "spoilt": not sound}
        pipe.send(row)


def still_computes(scale: Scale) -> bool:
    """Whether the device does: a kernel whose probe read where it may not ends all that the process could do there."""
    try:
        return bool(torch.ones(1, device=scale.device).sum().item() == 1)
    except RuntimeError:
        return False


def measured(case: Case, scale: Scale) -> dict[str, Any]:
    """A row. Where memory runs out, again with half as many sequences at a time in twice as many pieces."""
    sequences, pieces = scale.sequences[case.size], scale.pieces
    while True:
        try:
            before = torch.cuda.memory_allocated() if scale.device == "cuda" else 0
            if case.name in MINIMAL:
                row = of_minimal(case, scale, sequences, pieces)
            else:
                row = of_ours(case, scale, sequences, pieces)
        except torch.OutOfMemoryError:
            if sequences == 1:
                raise
        else:
            if "memoryBytes" in row:
                row["memoryBytes"] -= before
            return row
        gc.collect()
        torch.cuda.empty_cache()
        sequences, pieces = sequences // 2, pieces * 2


def of_ours(case: Case, scale: Scale, sequences: int, pieces: int) -> dict[str, Any]:
    """The trainer's own step."""
    from sweep_trainer.engines.plain import PlainTorch
    from sweep_trainer.engines.ranks import ALONE, join

    training = Training(
        data=Data(corpus="Classics"),
        sequence_length=scale.length,
        batch_tokens=pieces * sequences * scale.length,
        precision="bf16",
        micro_batch=sequences,
        **dict(case.fields),
    )
    hyper = resolve(training, parse_scale(case.size), (1000 * pieces * sequences * scale.length,))
    hyper = shaped(hyper, case.size, scale)
    threads = os.cpu_count() or 1
    if training.engine == "DeepSpeed":
        from sweep_trainer.engines.zero import Zero

        join(ALONE)
        engine: Any = Zero(training, hyper, 0, threads, ALONE)
    else:
        engine = PlainTorch(hyper, 0, threads, execution=training)
    batch = np.random.default_rng(0).integers(0, scale.vocabulary, (pieces * sequences, scale.length + 1))
    row = timed(lambda: engine.step(batch, hyper.learning_rate), len(batch), engine.parameters, scale)
    ((loss, _), *_) = engine.measured()
    at_once = engine.sequences  # fewer than asked for where memory ran out within a step
    setting = setting_of(training.changed(micro_batch=at_once), hyper, 1)
    predicted = peak(hyper.shape, scale.length, setting).total_bytes
    cut = {"sequences": at_once, "pieces": -(-len(batch) // at_once)}
    return row | cut | {"attention": engine.attention, "firstLoss": loss, "predictedBytes": predicted}


def of_minimal(case: Case, scale: Scale, sequences: int, pieces: int) -> dict[str, Any]:
    """A minimal trainer's step over a batch of the same size."""
    make, how = MINIMAL[case.name]
    layers, width, heads = scale.shapes[case.size]
    torch.manual_seed(0)
    tokens = torch.randint(0, scale.vocabulary, (sequences, scale.length + 1), device=scale.device)
    sizes = {"vocabulary": scale.vocabulary, "length": scale.length}
    step, parameters = make(layers, width, heads, **sizes, tokens=tokens, pieces=pieces)
    row = timed(step, pieces * sequences, parameters, scale)
    return row | {"compiled": how, "sequences": sequences, "pieces": pieces}


def shaped(hyper: Hyperparameters, size: str, scale: Scale) -> Hyperparameters:
    """The recipe with the published shape instead of the one by our own rule."""
    layers, width, heads = scale.shapes[size]
    hidden = 8 * round(width / 3)
    shape = Shape(layers=layers, width=width, heads=heads, hidden=hidden, vocabulary=scale.vocabulary)
    return hyper.changed(shape=shape)


def timed(step: Callable[[], None], sequences: int, parameters: int, scale: Scale) -> dict[str, Any]:
    """Tokens a second over the steps after the first few, and the peak memory of those."""

    def taken(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if scale.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = taken(1)
    taken(scale.settle)
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = max(3, min(30, int(scale.seconds / taken(1))))
    seconds = taken(steps)
    speed = steps * sequences * scale.length / seconds
    peak_ = peak_flops()
    row = {
        "parameters": parameters,
        "tokensPerSecond": speed,
        "mfu": six_nd(parameters, speed) / peak_ if peak_ else None,
        "stepSeconds": seconds / steps,
        "firstStepSeconds": first,
        "steps": steps,
    }
    return row | ({"memoryBytes": torch.cuda.max_memory_allocated()} if scale.device == "cuda" else {})


def told(row: dict[str, Any]) -> str:
    """A line of the table."""
    start = f"{row['size']:>5}  {row['case']:<30}"
    if "failed" in row:
        return f"{start} {row['failed']}"
    mfu = f"{row['mfu']:6.1%}" if row["mfu"] is not None else "     -"
    memory = ""
    if "memoryBytes" in row:
        memory = f"  {row['memoryBytes'] / 1e9:5.1f} GB"
    if "memoryBytes" in row and "predictedBytes" in row:
        off = row["predictedBytes"] / row["memoryBytes"] - 1
        memory += f", predicted {row['predictedBytes'] / 1e9:5.1f} ({off:+.1%})"
    cut = f"{row['pieces']:2}x{row['sequences']}"
    first = f"first step {row['firstStepSeconds']:5.1f} s"
    return f"{start} {row['tokensPerSecond']:10,.0f} tokens/s  MFU {mfu}  {cut}  {first}{memory}"


def summary(rows: list[dict[str, Any]], left_out: list[str], minutes: float) -> Iterator[str]:
    """Whether ours was ahead of each, whether the goal was met, how far the memory plan was off, what is missing."""
    done = {(row["size"], row["case"]): row for row in rows if "failed" not in row}
    yield ""
    for size in dict.fromkeys(row["size"] for row in rows):
        ours = done.get((size, OURS))
        for name in MINIMAL:
            theirs = done.get((size, name))
            if ours and theirs:  # a token costs each what its parameters say, which differ by a few per mille
                ratio = ours["tokensPerSecond"] / theirs["tokensPerSecond"]
                ratio *= ours["parameters"] / theirs["parameters"]
                yield f"{size:>5}  ours against {name:<30} {ratio:.3f}  {'ahead' if ratio > 1 else 'behind'}"
    size, goal = GOAL
    reached = [row["mfu"] for (at, name), row in done.items() if at == size and name.startswith("ours") and row["mfu"]]
    if reached:
        said = "met" if max(reached) >= goal else "missed"
        yield f"{size:>5}  our best MFU is {max(reached):.1%}; the goal is {goal:.0%}: {said}"
    offs = {
        f"{at} {name}": row["predictedBytes"] / row["memoryBytes"] - 1
        for (at, name), row in done.items()
        if "predictedBytes" in row and row.get("memoryBytes")
    }
    if offs:
        worst = max(offs, key=lambda name: abs(offs[name]))
        within = sum(abs(off) <= 0.1 for off in offs.values())
        yield f"memory: {within} of {len(offs)} predicted within 10 %; the furthest off is {worst}, {offs[worst]:+.1%}"
    failed = [f"{row['size']} {row['case']}" for row in rows if "failed" in row]
    if failed:
        yield f"failed: {', '.join(failed)}"
    if left_out:
        yield f"not measured within {minutes:g} minutes: {', '.join(left_out)}"
    yield f"{time.monotonic() - BEGUN:.0f} s in all"


def kept(file: Path | None, about: dict[str, Any], rows: list[dict[str, Any]], left_out: list[str]) -> None:
    """What there is so far, as JSON."""
    if file is not None:
        file.write_text(json.dumps({**about, "rows": rows, "leftOut": left_out}, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    sys.exit(main())
