"""Reading what a trainer's run left behind, and writing the order that it starts from."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sweep_analysis.record import Failure, Record, RecordSet
from sweep_analysis.rung import RunOrder


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
