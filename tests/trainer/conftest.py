"""A run so small that it trains in a second, and ways to start it."""

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import several_ranks
from tiny_run import order_of, train_and_exit, written

from sweep_analysis.recipe import Data, Training
from sweep_analysis.rung import RunOrder

WORDS = "the lord of a house and his sons went down to the sea in ships that do business in great waters".split()  # noqa: SIM905  # reads better than a list


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 KB of words in an order without much sense."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    generator = random.Random(0)
    lines = (" ".join(generator.choice(WORDS) for _ in range(12)) for _ in range(2000))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def training(text: Path) -> Training:
    return Training(
        data=Data(files=(str(text),), validation_tokens=1024),
        sequence_length=16,
        batch_tokens=128,
        checkpoint_seconds=3600,
    )


@pytest.fixture
def order(tmp_path: Path, training: Training) -> RunOrder:
    """A run of two token counts, 40 and 60 steps; the trunk has 42 steps, the branches 12 and 18."""
    return order_of(training, 7_000, (40, 60), tmp_path)


@pytest.fixture(scope="session")
def warm() -> ForkServerContext:
    """Processes that need not import torch first, forked as the local launcher does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_trainer.train", "sweep_trainer.__main__"])
    return context


@pytest.fixture
def start(warm: ForkServerContext) -> Callable[[RunOrder], multiprocessing.process.BaseProcess]:
    """Start a trainer of an order in a process of its own."""

    def starter(order: RunOrder) -> multiprocessing.process.BaseProcess:
        process = warm.Process(target=train_and_exit, args=(str(written(order)),))
        process.start()
        return process

    return starter


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """The same for ranks of any engine (`several_ranks.together`)."""
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    return several_ranks.warm("sweep_trainer.engines.choose", "sweep_trainer.engines.zero")
