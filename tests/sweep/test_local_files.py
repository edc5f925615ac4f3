"""Files that survive a crash, and locks that say who holds them."""

import errno
import json
import os
import subprocess
import sys

import pytest

from sweep_operator.clusters.local import files
from sweep_operator.clusters.local.files import (
    DamagedError,
    HeldError,
    Lock,
    holder_of,
    in_words,
    read_object,
    remove_leftovers,
    write_atomically,
)


def test_a_document_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, {"a": 1})
    write_atomically(path, {"a": 2})
    assert read_object(path, "") == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_document_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    write_atomically(path, {"a": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(*((files.Path, "replace") if step == "replace" else (os, step)), full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_atomically(path, {"a": 2})
    monkeypatch.undo()
    assert raised.value.filename == str(path)
    assert in_words(raised.value) == f"no space is left for {path}; free some"
    assert read_object(path, "") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_number_that_json_cannot_hold_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_atomically(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "fault"), [("", "empty"), ('{"a": ', "not JSON"), ("[1]", "not a JSON object")])
def test_a_damaged_document_is_named_with_its_remedy(tmp_path, text, fault):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DamagedError) as raised:
        read_object(path, "make it anew")
    assert str(raised.value) == f"{path} is damaged ({fault}); make it anew"


def test_no_document_is_no_damage(tmp_path):
    assert read_object(tmp_path / "a.json", "") is None


def test_what_a_dead_writer_left_behind_is_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".status.json.123.tmp").write_text('{"half')
    (tmp_path / "mine.tmp").write_text("kept: not one of ours")
    assert remove_leftovers(tmp_path) == 1
    assert (tmp_path / "mine.tmp").exists()


def test_a_lock_says_who_holds_it_and_goes_with_its_process(tmp_path):
    path = tmp_path / "driver.lock"
    program = (
        "import sys, time; from pathlib import Path; from sweep_operator.clusters.local.files import Lock;"
        f"Lock(Path({str(path)!r}), {{'pid': 7, 'host': 'there', 'startedAt': 'noon'}});"
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(HeldError, match="process 7 on there, running since noon"):
            Lock(path, {})
        assert holder_of(path) == "process 7 on there, running since noon"
        other.kill()
    assert holder_of(path) is None
    Lock(path, {"pid": 8}).release()


def test_a_lock_that_is_released_can_be_had_again(tmp_path):
    path = tmp_path / "driver.lock"
    first = Lock(path, {"pid": 1})
    assert json.loads(path.read_text()) == {"pid": 1}
    first.release()
    assert path.read_text() == ""
    Lock(path, {"pid": 2}).release()
