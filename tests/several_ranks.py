"""Engines on several processes: what each rank of a test does, and ways to start them all."""

import contextlib
import itertools
import json
import multiprocessing
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of
from sweep_analysis.rung import Run, RunOrder

SEQUENCES, LENGTH = 16, 16


@dataclass(frozen=True)
class Case:
    """An engine, and how it is to carry out the steps."""

    engine: str = "Torch"
    stage: int = 0
    world: int = 1
    precision: str = "fp32"
    micro_batch: int | None = None
    recompute: bool = False
    recipe: str = "{}"
    """Fields of the recipe besides, as JSON; their text is part of the name."""
    size: int = 9_000
    """Parameters, about."""
    runs_out: tuple[int, ...] = ()
    """Forward passes of training, counted from 1, in which memory runs out, simulated: alternately on the way forward,
    as a device says it, and on the way back, as the machine's allocator does."""

    @property
    def name(self) -> str:
        zero = f"-zero{self.stage}" if self.engine == "DeepSpeed" else ""
        pieces = f"-micro{self.micro_batch}" if self.micro_batch else ""
        rest = f"{'-recompute' if self.recompute else ''}{self.recipe}"
        out = f"-out{self.runs_out}" if self.runs_out else ""
        return f"{self.engine}{zero}-{self.size}-{self.world}-{self.precision}{pieces}{rest}{out}"

    @property
    def training(self) -> Training:
        fields = {
            "data": Data(corpus="Classics"),
            "sequence_length": LENGTH,
            "batch_tokens": SEQUENCES * LENGTH,
            "precision": self.precision,
            "engine": self.engine,
            "deepspeed": DeepSpeed(zero_stage=self.stage) if self.engine == "DeepSpeed" else None,
            "micro_batch": self.micro_batch,
            "activation_checkpointing": self.recompute or None,
        }
        return Training.model_validate(fields | json.loads(self.recipe))

    @property
    def hyper(self) -> Hyperparameters:
        parameters = shape_of(self.training, self.size).parameters
        return resolve(self.training, parameters, (SEQUENCES * LENGTH * 50,))


def batch(step: int) -> npt.NDArray[np.int64]:
    """The same for every engine; with some structure, so that there is something to learn."""
    tokens = np.random.default_rng(step).integers(97, 123, (SEQUENCES, LENGTH + 1))
    tokens[:, 1::2] = tokens[:, 0:-1:2]
    return tokens


def asked(step: int) -> npt.NDArray[np.int64]:
    """A batch for fine-tuning: of each sequence a prompt of another length, up to all but its last two tokens."""
    tokens = batch(step)
    prompt = np.arange(LENGTH + 1) < np.random.default_rng(1000 + step).integers(0, LENGTH - 1, (SEQUENCES, 1))
    return np.where(prompt, ~tokens, tokens)


@contextlib.contextmanager
def memory_that_runs_out(passes: Sequence[int]) -> Iterator[None]:
    """As `Case.runs_out` says, for the decoder's losses with gradients."""
    import torch

    from sweep_trainer.model import Decoder

    loss, seen = Decoder.loss, itertools.count(1)

    def backward(gradient: torch.Tensor) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def starved(self: Decoder, tokens: torch.Tensor) -> torch.Tensor:
        number = next(seen) if torch.is_grad_enabled() else 0
        if number in passes and passes.index(number) % 2 == 0:
            raise torch.OutOfMemoryError("simulated")
        result = loss(self, tokens)
        if number in passes:
            result.register_hook(backward)
        return result

    Decoder.loss = starved  # type: ignore[method-assign]  # in a process of its own
    try:
        yield
    finally:
        Decoder.loss = loss  # type: ignore[method-assign]  # as above


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def carry_out(jobs: Sequence[tuple[Case, int, str | None, str | None]], rank: int, port: int, folder: str) -> None:
    """One rank of several jobs, each (case, steps, state to begin from, state to leave); writes what was measured."""
    from sweep_trainer.engines.choose import engine_for
    from sweep_trainer.engines.ranks import Ranks, join
    from sweep_trainer.engines.state import kept_by

    world = jobs[0][0].world
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ["LOCAL_RANK"] = str(rank)
    ranks = Ranks(rank, world, rank)
    join(ranks, patience=240)
    results = {}
    for case, steps, begin, leave in jobs:
        hyper = case.hyper
        run = Run(parameters=hyper.shape.parameters, tokens=(hyper.batch_tokens * hyper.steps[0],), seed=0)
        places = {"config_digest": "", "storage": "", "report": "", "cache": ""}
        order = RunOrder(uid="1", name="1", attempt=1, run=run, training=case.training, **places)
        batch_of = asked if case.training.objective else batch
        with memory_that_runs_out(case.runs_out):
            engine = engine_for(order, hyper, ranks)
            first = 0
            if begin is not None:
                whole = dict(np.load(f"{folder}/{begin}.npz"))
                first = int(whole.pop("first"))
                engine.load({name: whole[name] for name in kept_by(whole, ranks)})
            for step in range(first, first + steps):
                engine.step(batch_of(step)[ranks.share(SEQUENCES)], hyper.learning_rate)
        results[case.name] = [list(pair) for pair in engine.measured()]
        results[case.name + " at a time"] = engine.sequences
        results[case.name + " evaluated"] = engine.evaluate(batch_of(1000)[:4])
        if leave is not None:
            np.savez(f"{folder}/{leave}.part{rank}.npz", **engine.state())
    if rank == 0:
        (Path(folder) / f"results-{port}.json").write_text(json.dumps(results))


def together(
    context: ForkServerContext, jobs: Sequence[tuple[Case, int, str | None, str | None]], folder: Path
) -> dict[str, list[list[float]]]:
    """Carry out jobs of one world size, in as many processes; a state that is left is put together for the next."""
    port, world = free_port(), jobs[0][0].world
    processes = [context.Process(target=carry_out, args=(jobs, rank, port, str(folder))) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)  # on a busy machine; seconds on an idle one
    assert [process.exitcode for process in processes] == [0] * world, [asdict(job[0]) for job in jobs]
    for _, steps, begin, leave in jobs:
        if leave is not None:
            first = int(np.load(folder / f"{begin}.npz")["first"]) if begin else 0
            parts = [dict(np.load(folder / f"{leave}.part{rank}.npz")) for rank in range(world)]
            np.savez(folder / f"{leave}.npz", first=first + steps, **{k: v for part in parts for k, v in part.items()})
    results: dict[str, list[list[float]]] = json.loads((folder / f"results-{port}.json").read_text())
    return results


def warm(*modules: str) -> ForkServerContext:
    """Processes that need not import torch first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_trainer.train", "sweep_trainer.__main__", *modules])
    return context
