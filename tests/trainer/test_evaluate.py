"""Evaluation: the same mean however many processes share it, and never more at a time than one device surely holds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sweep_analysis.recipe import Training, resolve, shape_of, whole_batches
from sweep_trainer import evaluate
from sweep_trainer.data import prepare
from sweep_trainer.data.tasks import in_batches
from sweep_trainer.engines.protocol import Batch
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.evaluate import Evaluator


class OneOf(Ranks):
    """One rank's view: of a mean over all it knows its own part."""

    def mean(self, values: list[float]) -> list[float]:
        return values


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_the_validation_windows_whatever_number_divides(
    world: int, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 windows, three of which a device takes at a time; the loss of one is the mean of its ids."""
    monkeypatch.setattr(evaluate, "_TOKENS", 3 * training.sequence_length)
    data = prepare(training, tmp_path, tmp_path / "cache")
    hyper = resolve(training, shape_of(training, 7_000).parameters, whole_batches(training, (10_000,)))
    taken: dict[int, list[int]] = {rank: [] for rank in range(world)}

    def measured(rank: int) -> float:
        def loss(batch: Batch) -> float:
            taken[rank].append(len(batch))
            return float(batch.mean())

        engine: Any = SimpleNamespace(evaluate=loss)
        return Evaluator(training, hyper, data, engine, OneOf(rank, world), ()).losses(lambda: None).total

    windows = len(data.validation)
    assert windows == 64
    assert np.mean([measured(rank) for rank in range(world)]) == pytest.approx(float(data.validation.mean()))
    assert {len(counts) for counts in taken.values()} == {-(-windows // (3 * world))}  # as few turns as that allows
    assert max(max(counts) for counts in taken.values()) <= 3


def test_questions_are_asked_together_as_long_as_their_tokens_are_few() -> None:
    lengths = [1] * 70 + [3000, 2000, 2000, 5, 4096, 5000, 7]
    rows = [np.full(length, at, np.int64) for at, length in enumerate(lengths)]
    batches = list(in_batches(rows, 0))
    assert [int(row[0]) for batch in batches for row in batch] == list(range(len(rows)))
    assert [len(batch) for batch in batches] == [32, 32, 6, 1, 2, 1, 1, 1, 1]
    assert all(batch.size <= 4096 for batch in batches if len(batch) > 1)
    assert not list(in_batches([], 0))
