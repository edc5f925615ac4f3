"""Checkpoints at gs://, on an emulator of Google's service on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tiny_run import AfterLooks, carried_out, failure_of, losses_of, moved, written

from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.__main__ import train
from sweep_trainer.interruption import Interrupted
from sweep_trainer.storage import probe, storage_at

pytestmark = pytest.mark.slow
EMULATOR = "from gcp_storage_emulator.__main__ import main; import sys; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    pytest.importorskip("gcsfs", reason="the extra `gs` is not installed")
    pytest.importorskip("gcp_storage_emulator", reason="the emulator is not installed")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket"]
    server = subprocess.Popen(
        [sys.executable, "-c", EMULATOR, *place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        with closing(socket.socket()) as attempt:
            while attempt.connect_ex(("127.0.0.1", port)):
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.05)
        yield "gs://bucket"
    finally:
        del os.environ["STORAGE_EMULATOR_HOST"]
        server.kill()
        server.wait()


def test_objects_of_some_megabytes_are_put_listed_read_and_removed(gs: str) -> None:
    storage = storage_at(f"{gs}/objects")
    assert storage.names() == []
    probe(storage)
    content = os.urandom(7_000_000)  # more than goes up in one piece
    storage.put("a", content)
    storage.put("b", b"")
    assert storage.names() == ["a", "b"]
    assert storage.get("a") == content
    storage.remove("a")
    storage.remove("a")
    assert storage.names() == ["b"]
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        storage.get("a")


def test_a_run_that_is_stopped_goes_on_there_and_ends_with_the_same_digits(
    order: RunOrder, tmp_path: Path, gs: str
) -> None:
    carried_out(order)
    remote = moved(order, tmp_path / "remote").changed(storage=f"{gs}/run-1")
    with pytest.raises(Interrupted):
        carried_out(remote, AfterLooks(50))
    storage = storage_at(remote.storage)
    assert [name for name in storage.names() if name.startswith("checkpoint-")]
    second = remote.changed(attempt=2)
    carried_out(second)
    assert losses_of(second) == losses_of(order)
    assert {"configuration.json", *(f"model-{tokens}.safetensors" for tokens in order.run.tokens)} <= set(
        storage.names()
    )
    curve = [json.loads(line) for line in storage.get("curve.jsonl").splitlines()]
    assert [point["step"] for point in curve] == list(range(1, 73))


def test_a_bucket_that_is_not_there_is_named_before_the_first_step(order: RunOrder, gs: str) -> None:
    nowhere = order.changed(storage="gs://no-such-bucket/run-1")
    assert train(str(written(nowhere))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(nowhere)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert "gs://no-such-bucket/run-1/ cannot be used as storage (No such file or directory" in failure.message
