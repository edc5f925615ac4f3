"""Checkpoints: whole or not at all, beside training, to any address, through storage that fails."""

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.execution import Checkpoints as Policy
from sweep_analysis.record import FailureReason
from sweep_trainer import storage as storages
from sweep_trainer.checkpoint import Checkpoint, Checkpoints, Position
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.engines.state import keeper
from sweep_trainer.failure import RunError
from sweep_trainer.storage import Folder, Storage, probe, storage_at

IDENTITY = "this run"


def checkpoint(executed: int) -> Checkpoint:
    state = {f"weight-{i}": np.full((2, 3), executed + i, np.float32) for i in range(6)}
    return Checkpoint(Position(1, executed, executed, 1.5), state, {"weight-0": np.zeros(3, np.float32)})


def saved(storage: Storage, executed: int, **options: object) -> None:
    checkpoints = Checkpoints(storage, IDENTITY, **options)  # type: ignore[arg-type]
    checkpoints.write(checkpoint(executed))
    checkpoints.settle()


def part(executed: int, ranks: Ranks) -> Checkpoint:
    whole = checkpoint(executed)
    mine = {name: t for name, t in whole.state.items() if keeper(name, ranks.world) == ranks.rank}
    return Checkpoint(whole.position, mine, None)


class Rank(Ranks):
    """One rank's view without the others: what the first says is known to all, and nobody objects."""

    def most(self, *values: int) -> tuple[int, ...]:
        return values


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    saved(Folder(tmp_path), 7)
    found = next(Checkpoints(Folder(tmp_path), IDENTITY).read())
    assert found.position == Position(1, 7, 7, 1.5)
    assert {name: t.tolist() for name, t in found.state.items()} == {
        name: t.tolist() for name, t in checkpoint(7).state.items()
    }
    assert found.trunk is not None
    assert list(found.trunk) == ["weight-0"]


def test_the_newest_stay_and_of_the_older_ones_the_first_in_every_so_many_steps(tmp_path: Path) -> None:
    for executed in range(10, 110, 10):
        saved(Folder(tmp_path), executed, policy=Policy(keep=3, keep_every_steps=40))
    kept = sorted(int(path.stem.split("-")[1]) for path in tmp_path.iterdir())
    assert kept == [10, 40, 80, 90, 100]


def test_parts_of_several_ranks_make_one_checkpoint_that_any_number_of_ranks_reads(tmp_path: Path) -> None:
    for rank in range(3):
        ranks = Rank(rank, 3)
        writer = Checkpoints(Folder(tmp_path), IDENTITY, ranks)
        assert not list(Checkpoints(Folder(tmp_path), IDENTITY).read())  # not whole yet
        writer.write(part(5, ranks))
        writer.settle()
    alone = next(Checkpoints(Folder(tmp_path), IDENTITY).read())
    assert sorted(alone.state) == sorted(checkpoint(5).state)
    first = next(Checkpoints(Folder(tmp_path), IDENTITY, Rank(0, 2)).read())
    assert set(first.state) == {name for name in checkpoint(5).state if keeper(name, 2) == 0}


class Listening(Folder):
    """A folder that remembers what was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[str] = []

    def get(self, name: str) -> bytes:
        self.read.append(name)
        return super().get(name)


class Listing(Rank):
    """Any rank, which lists the checkpoints itself instead of hearing of them."""

    @property
    def first(self) -> bool:
        return True


def test_as_many_ranks_as_wrote_a_checkpoint_each_read_their_own_part_alone(tmp_path: Path) -> None:
    for rank in range(3):
        writer = Checkpoints(Folder(tmp_path), IDENTITY, Rank(rank, 3))
        writer.write(part(5, Rank(rank, 3)))
        writer.settle()
    for rank in range(3):
        storage = Listening(tmp_path)
        found = next(Checkpoints(storage, IDENTITY, Listing(rank, 3)).read())
        assert found.state.keys() == part(5, Rank(rank, 3)).state.keys()
        assert storage.read == [f"checkpoint-000000005.{rank + 1}-of-3.safetensors"]


def test_parts_that_read_other_batches_are_no_checkpoint_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rank wrote its part again after a spike, and another did not come to it."""
    for rank, left_out in enumerate([(), ((3, 2),)]):
        ranks = Rank(rank, 2)
        mine = part(5, ranks)
        writer = Checkpoints(Folder(tmp_path), IDENTITY, ranks)
        writer.write(replace(mine, position=replace(mine.position, left_out=left_out)))
        writer.settle()
    assert not list(Checkpoints(Folder(tmp_path), IDENTITY).read())
    assert "parts of the checkpoint at step 5 are of different ways" in caplog.text
    caplog.clear()
    assert not list(Checkpoints(Folder(tmp_path), IDENTITY, OfTwo(0, 2)).read())
    assert "parts of the checkpoint at step 5 are of different ways" in caplog.text


class OfTwo(Rank):
    """The first of two ranks, whose other says of its part that it was another way."""

    def most(self, *values: int) -> tuple[int, ...]:
        return (values[0], values[1] + 1, values[2]) if len(values) == 3 else values


def test_a_rank_without_a_share_of_the_trunk_knows_that_one_was_set_aside(tmp_path: Path) -> None:
    for rank in range(2):
        writer = Checkpoints(Folder(tmp_path), IDENTITY, Rank(rank, 2))
        writer.write(replace(part(5, Rank(rank, 2)), trunk={"of-the-other": np.zeros(3, np.float32)} if rank else {}))
        writer.settle()
    assert next(Checkpoints(Folder(tmp_path), IDENTITY, WithTrunk(0, 2)).read()).trunk == {}


class WithTrunk(Rank):
    """A rank that hears of another that a trunk was set aside."""

    def most(self, *values: int) -> tuple[int, ...]:
        return (*values[:2], 1) if len(values) == 3 else values


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "another identity", "a part is gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(Folder(tmp_path), 1)
    newest = tmp_path / "checkpoint-000000002.safetensors"
    saved(Folder(tmp_path), 2)
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    if damage == "a flipped bit":
        newest.write_bytes(content)
    elif damage == "cut short":
        newest.write_bytes(content[:200])
    elif damage == "another identity":
        newest.unlink()
        other = Checkpoints(Folder(tmp_path), "another run")
        other.write(checkpoint(2))
        other.settle()
    else:
        newest.rename(tmp_path / "checkpoint-000000002.1-of-2.safetensors")
    assert [found.position.executed for found in Checkpoints(Folder(tmp_path), IDENTITY).read()] == [1]
    assert ("is not used" in caplog.text) == (damage != "a part is gone")


class Moody(Folder):
    """A folder whose server is away until it is told to come back."""

    def __init__(self, path: Path, number: int = errno.EIO) -> None:
        super().__init__(path)
        self.away = threading.Event()
        self.number = number
        self.refused = 0

    def put(self, name: str, content: bytes) -> None:
        if self.away.is_set():
            self.refused += 1
            raise OSError(self.number, os.strerror(self.number), name)
        super().put(name, content)


def test_storage_that_fails_for_a_while_costs_no_checkpoint_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes of failing, on a clock that runs a hundred times as fast."""
    monkeypatch.setattr(storages.time, "sleep", lambda seconds: _REAL_SLEEP(seconds / 100))
    moody = Moody(tmp_path)
    moody.away.set()
    checkpoints = Checkpoints(moody, IDENTITY)
    checkpoints.write(checkpoint(3))  # returns: training goes on
    _wait_for(lambda: moody.refused >= 8)  # 0.25 + 0.5 + … + 15 s: about a minute and a half of pauses
    assert checkpoints.busy
    moody.away.clear()
    checkpoints.settle()
    assert [found.position.executed for found in Checkpoints(moody, IDENTITY).read()] == [3]


def test_a_full_disk_is_told_at_once(tmp_path: Path) -> None:
    moody = Moody(tmp_path, errno.ENOSPC)
    moody.away.set()
    checkpoints = Checkpoints(moody, IDENTITY)
    checkpoints.write(checkpoint(3))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.settle()
    assert moody.refused == 1


_REAL_SLEEP = time.sleep


def _wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        _REAL_SLEEP(0.02)


def test_an_address_of_an_unknown_kind_is_refused_in_one_sentence() -> None:
    with pytest.raises(RunError, match="storage at ftps-like://somewhere"):
        storage_at("ftps-like://somewhere")


@pytest.mark.parametrize("said", [OSError("Forbidden: bucket/run-1"), ValueError("Bad Request: bucket/run-1")])
def test_what_a_client_of_google_says_without_a_number_is_known_as_a_refusal(
    said: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_at("memory://runs/refused")

    def refusing(*arguments: object, **more: object) -> None:
        raise said

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", refusing)
    monkeypatch.setattr(storages.time, "sleep", lambda seconds: pytest.fail("it is asked again"))
    with pytest.raises(RunError, match=str(said)) as refused:
        probe(storage)
    assert refused.value.reason is FailureReason.BAD_CONFIGURATION


def test_objects_of_any_address_that_fsspec_knows_are_put_listed_read_and_removed() -> None:
    storage = storage_at("memory://runs/one")
    probe(storage)
    storage.put("a", b"1")
    assert (storage.names(), storage.get("a")) == (["a"], b"1")
    storage.remove("a")
    storage.remove("a")
    assert storage.names() == []
    with pytest.raises(FileNotFoundError):
        storage.get("a")
