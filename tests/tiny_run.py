"""Carrying out a tiny run, reading what it left behind, and writing the order that it starts from."""

import errno
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweep_analysis.recipe import Training, shape_of, whole_batches
from sweep_analysis.record import Failure, Progress, Record, RecordSet
from sweep_analysis.rung import Run, RunOrder
from sweep_trainer.interruption import Interruption
from sweep_trainer.report import Report


class AfterLooks(Interruption):
    """Asks the run to stop at the n-th time that it looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def order_of(training: Training, size: float, steps: Sequence[int], folder: Path) -> RunOrder:
    """A run of about so many parameters, with a record at each number of steps; all it writes is in the folder."""
    return RunOrder(
        uid="run-1",
        name="tiny",
        attempt=1,
        run=Run(
            parameters=shape_of(training, size).parameters,
            tokens=whole_batches(training, [training.batch_tokens * count for count in steps]),
            seed=3,
        ),
        training=training,
        config_digest="sha256:tiny",
        storage=str(folder / "storage"),
        report=str(folder / "report"),
        cache=str(folder / "cache"),
    )


def carried_out(order: RunOrder, interruption: Interruption | None = None) -> None:
    """In this process, from the first step or a checkpoint to the last record."""
    from sweep_trainer.train import run  # imports torch

    run(order, interruption or Interruption(), Report(order), begun=time.monotonic())


def records_of(order: RunOrder) -> dict[int, Record]:
    """What the attempt reported, by token count."""
    path = Path(order.report) / f"records-{order.attempt}.json"
    return {r.tokens: r for r in RecordSet.model_validate_json(path.read_bytes()).records}


def losses_of(order: RunOrder) -> dict[int, float]:
    return {tokens: record.loss for tokens, record in records_of(order).items()}


def failure_of(order: RunOrder) -> Failure:
    return Failure.model_validate_json((Path(order.report) / f"failure-{order.attempt}.json").read_bytes())


def curve_of(order: RunOrder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(order.storage) / "curve.jsonl").read_text().splitlines()]


def step_of(order: RunOrder) -> int:
    """What its progress last told; nought before it told anything."""
    path = Path(order.report) / "progress.json"
    return Progress.model_validate_json(path.read_bytes()).step if path.exists() else 0


def has_checkpoint(order: RunOrder) -> bool:
    """Of two ranks."""
    return bool(list(Path(order.storage).glob("checkpoint-*.2-of-2.safetensors")))


def moved(order: RunOrder, to: Path, **changes: object) -> RunOrder:
    """The same order with folders of its own (the cache stays), and whatever else is changed."""
    return order.changed(storage=str(to / "storage"), report=str(to / "report"), **changes)


def written(order: RunOrder) -> Path:
    """The order as a file, where the trainer reads it."""
    path = Path(order.report).with_name(f"order-{order.attempt}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(order.to_json()))
    return path


def train_and_exit(order_path: str) -> None:
    """A trainer's whole life in a process that was forked for it."""
    from sweep_trainer.__main__ import train

    os._exit(train(order_path))


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Files of that name are there and may not be opened."""
    opened = Path.open

    def opening(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", opening)
