"""Checkpoints at s3://, on a real S3 server: its disk outlives it, and it asks who one is and what one may do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_plane import UnavailableError, program
from s3_server import S3Server
from tiny_run import AfterLooks, carried_out, curve_of, failure_of, losses_of, moved, order_of, written

from sweep_analysis.execution import Checkpoints as Policy
from sweep_analysis.recipe import Training
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer import storage as storages
from sweep_trainer.__main__ import train
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.storage import Storage, probe, storage_at

pytestmark = pytest.mark.slow
Become = Callable[[dict[str, str]], None]


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The environment of the tests is its owner's."""
    s3fs = pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
    try:
        server = S3Server(program("versitygw"), tmp_path_factory.mktemp("s3"))
    except UnavailableError as reason:
        pytest.skip(str(reason))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # they keep the credentials that they were made with
        yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.kill()


@pytest.fixture
def become(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Change the variables by which clients know the server and themselves, until the test ends."""
    s3fs = pytest.importorskip("s3fs")

    def change(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield change
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("size", [0, 7_000_000, 110_000_000], ids=["none", "in one piece", "in several"])
def test_an_object_of_any_size_is_put_listed_read_and_removed(size: int, s3_server: S3Server) -> None:
    storage = storage_at(f"{s3_server.uri}/objects")
    probe(storage)
    assert storage.names() == []
    content = os.urandom(size)
    storage.put("a", content)
    assert storage.names() == ["a"]
    assert (s3_server.disk / "objects" / "a").stat().st_size == size
    assert storage.get("a") == content
    storage.remove("a")
    storage.remove("a")
    assert storage.names() == []
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        storage.get("a")


def test_a_run_that_is_stopped_goes_on_there_and_ends_with_the_same_digits(
    order: RunOrder, tmp_path: Path, s3_server: S3Server
) -> None:
    carried_out(order)
    remote = moved(order, tmp_path / "remote").changed(storage=f"{s3_server.uri}/run-1")
    with pytest.raises(Interrupted):
        carried_out(remote, AfterLooks(50))
    second = remote.changed(attempt=2)
    carried_out(second)
    assert losses_of(second) == losses_of(order)
    storage = storage_at(remote.storage)
    assert {"curve.jsonl", *(f"model-{tokens}.safetensors" for tokens in order.run.tokens)} <= set(storage.names())
    assert "probe" not in storage.names()
    curve = [json.loads(line) for line in storage.get("curve.jsonl").splitlines()]
    assert [point["step"] for point in curve] == list(range(1, 73))


def test_a_checkpoint_that_is_damaged_on_the_servers_disk_is_passed_over_and_the_oldest_are_removed_from_it(
    order: RunOrder, tmp_path: Path, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    carried_out(order)
    attempt = moved(order, tmp_path / "remote").changed(storage=f"{s3_server.uri}/damaged")
    for looks in (12, 10, 8):
        with pytest.raises(Interrupted):
            carried_out(attempt, AfterLooks(looks))
        attempt = attempt.changed(attempt=attempt.attempt + 1)
    before, newest = sorted((s3_server.disk / "damaged").glob("checkpoint-*"))  # of three
    flip_a_bit(newest)
    caplog.clear()
    carried_out(attempt)
    assert f"{newest.name} is damaged (" in caplog.text
    assert "again in" not in caplog.text, "it will not be another by waiting"
    assert f"going on from step {step_of(before.name)}" in caplog.text
    assert losses_of(attempt) == losses_of(order)


def test_of_a_server_that_keeps_no_checksums_the_damaged_checkpoint_is_known_by_its_own_digest(
    order: RunOrder, tmp_path: Path, s3_server: S3Server, caplog: pytest.LogCaptureFixture, become: Become
) -> None:
    become({"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"})
    attempt = order.changed(storage=f"{s3_server.uri}/unsummed")
    with pytest.raises(Interrupted):
        carried_out(attempt, AfterLooks(12))
    (only,) = (s3_server.disk / "unsummed").glob("checkpoint-*")
    flip_a_bit(only)
    carried_out(attempt.changed(attempt=2))
    assert f"{only.name} is damaged (its digest is wrong) and is not used" in caplog.text
    assert losses_of(attempt.changed(attempt=2)).keys() == set(order.run.tokens)


@pytest.mark.parametrize("name", ["curve.jsonl", "configuration.json"])
def test_a_damaged_file_beside_the_checkpoints_stops_no_run(
    name: str, order: RunOrder, tmp_path: Path, s3_server: S3Server
) -> None:
    carried_out(order)
    attempt = moved(order, tmp_path / "remote").changed(storage=f"{s3_server.uri}/beside-{name}")
    with pytest.raises(Interrupted):
        carried_out(attempt, AfterLooks(12))
    flip_a_bit(s3_server.disk / f"beside-{name}" / name)
    carried_out(attempt.changed(attempt=2))
    assert losses_of(attempt.changed(attempt=2)) == losses_of(order)


def flip_a_bit(path: Path) -> None:
    """Near its end, in place: what the server noted of the file stays."""
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([last ^ 1]))


class KillsTheServer(Interruption):
    """Never asks to stop. Looked at once a step, it kills a run's storage once a checkpoint is there, and starts it
    again when so many more steps were taken, so many seconds have passed, and a checkpoint has failed."""

    def __init__(self, server: S3Server, storage: Storage, said: Callable[[], str], steps: int, seconds: float) -> None:
        super().__init__()
        self._server, self._storage, self._said = server, storage, said
        self._steps, self._seconds = steps, seconds
        self._since = 0.0
        self.taken = 0
        self.away: float | None = None
        """For how many seconds the server was."""
        self.before: dict[str, bytes] = {}
        """The checkpoints that the server had when it was killed."""

    @property
    def requested(self) -> bool:
        if not self._since:
            time.sleep(0.1)  # the run would end before its first checkpoint is there
            names = [name for name in self._storage.names() if name.startswith("checkpoint-")]
            if names:
                self.before = {name: self._storage.get(name) for name in names}
                self._server.kill()
                self._since = time.monotonic()
        elif self.away is None:
            time.sleep(max(0.1, self._seconds / self._steps))
            self.taken += 1
            if self.taken >= self._steps and time.monotonic() - self._since >= self._seconds:
                wait_for(lambda: "the storage fails" in self._said())
                self._server.start()
                self.away = time.monotonic() - self._since
        return False


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("steps", "seconds"), [(10, 0.0), (200, 120.0)], ids=["ten steps", "two minutes"])
def test_a_run_trains_on_while_its_storage_is_killed_and_loses_nothing_that_was_there(
    steps: int, seconds: float, order: RunOrder, tmp_path: Path, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Two minutes by the clock: the process sleeps through most of them, so that other tests have the processor."""
    order = order_of(order.training, 7_000, (2 * steps,), tmp_path)
    carried_out(order)
    training = order.training.changed(checkpoint_seconds=0.5, checkpoints=Policy(keep=1000))
    remote = moved(order, tmp_path / "remote", training=training).changed(storage=f"{s3_server.uri}/away-{steps}")
    storage = storage_at(remote.storage)
    watch = KillsTheServer(s3_server, storage, lambda: caplog.text, steps, seconds)
    carried_out(remote, watch)
    assert watch.away is not None
    assert watch.away >= seconds
    assert watch.taken >= steps
    assert losses_of(remote) == losses_of(order)
    checkpoints = {name for name in storage.names() if name.startswith("checkpoint-")}
    assert checkpoints > watch.before.keys(), "those that were there, and what was written once it was back"
    assert {name: storage.get(name) for name in watch.before} == watch.before
    assert [json.loads(line) for line in storage.get("curve.jsonl").splitlines()] == curve_of(order)


def test_a_run_that_is_stopped_and_killed_again_and_again_its_server_too_has_the_undisturbed_runs_digits(
    tmp_path: Path, training: Training, s3_server: S3Server
) -> None:
    """A checkpoint every half second, beside training: the kills come at three places between one and the next."""
    order = order_of(training.changed(checkpoint_seconds=0.5), 7_000, (3000, 4000), tmp_path)
    carried_out(order)
    attempt = moved(order, tmp_path / "remote").changed(storage=f"{s3_server.uri}/again")
    storage = storage_at(attempt.storage)
    for number in range(3):
        with pytest.raises(Interrupted):
            carried_out(attempt, AfterLooks(60 + number))
        attempt = attempt.changed(attempt=attempt.attempt + 1)
        before = newest_step(storage)
        process = subprocess.Popen([sys.executable, "-m", "sweep_trainer", "train", str(written(attempt))])
        try:
            wait_for(lambda before=before: newest_step(storage) > before)
            time.sleep(0.2 * number)
            s3_server.kill()
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL, "the attempt was over before it could be killed"
        s3_server.start()
        attempt = attempt.changed(attempt=attempt.attempt + 1)
    carried_out(attempt)
    assert losses_of(attempt) == losses_of(order)
    assert [json.loads(line) for line in storage.get("curve.jsonl").splitlines()] == curve_of(order)


def test_an_attempt_that_begins_while_the_server_is_away_waits_for_it_and_goes_on(
    order: RunOrder, tmp_path: Path, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = order.changed(storage=f"{s3_server.uri}/late")
    with pytest.raises(Interrupted):
        carried_out(first, AfterLooks(50))
    second = first.changed(attempt=2)
    s3_server.kill()
    ended: list[BaseException | None] = []
    caplog.clear()
    running = threading.Thread(target=lambda: ended.append(how_it_ends(second)))
    running.start()
    try:
        wait_for(lambda: "the storage fails" in caplog.text or bool(ended))
    finally:
        s3_server.start()
        running.join()
    assert ended == [None]
    assert "going on from step" in caplog.text
    assert losses_of(second).keys() == set(order.run.tokens)


def how_it_ends(order: RunOrder) -> BaseException | None:
    try:
        carried_out(order)
    except BaseException as error:  # noqa: BLE001  # the thread that asked looks at it
        return error
    return None


def test_a_server_that_stays_away_ends_the_attempt_and_not_the_run(
    order: RunOrder, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, become: Become
) -> None:
    monkeypatch.setattr(storages, "START_PATIENCE_SECONDS", 1.0)
    become({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})  # where nobody listens
    assert train(str(written(order.changed(storage=f"{s3_server.uri}/nowhere")))) == ExitStatus.FAILED
    failure = failure_of(order)
    assert failure.reason is FailureReason.STORAGE_UNWRITABLE, "a final reason would leave a later attempt no chance"
    assert "s3://bucket/nowhere/ has failed for 1 s (EndpointConnectionError" in failure.message
    assert "check the address of its server" in failure.message


REFUSALS: dict[str, tuple[dict[str, str], str, str]] = {
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://bucket/no", "signature we calculated does not match"),
    "an unknown user": ({"AWS_ACCESS_KEY_ID": "nobody"}, "s3://bucket/no", "does not exist in our records"),
    "a bucket that is not there": ({}, "s3://no-such-bucket/no", "specified bucket does not exist"),
    "a name that no bucket has": ({}, "s3://No_Such/no", "(The specified bucket is not valid"),
}
"""What is wrong: variables, address, the server's own words."""


@pytest.mark.parametrize("wrong", REFUSALS)
def test_storage_that_refuses_is_told_in_one_sentence_before_the_first_step(
    wrong: str, order: RunOrder, s3_server: S3Server, become: Become
) -> None:
    variables, address, words = REFUSALS[wrong]
    become(variables)
    refused(order.changed(storage=address), words)
    assert not (s3_server.disk / "no").exists()


RIGHTS = {
    "read": ("s3:ListBucket", "s3:GetObject"),
    "read and write": ("s3:ListBucket", "s3:GetObject", "s3:PutObject"),
}


@pytest.mark.parametrize("rights", RIGHTS)
def test_a_user_who_may_not_write_or_not_remove_is_refused_before_the_first_step(
    rights: str, order: RunOrder, s3_server: S3Server, become: Become
) -> None:
    """Who cannot remove checkpoints would keep them all."""
    user = f"may-{rights.replace(' ', '-')}"
    s3_server.add_user(user, *RIGHTS[rights])
    become(s3_server.environment(user))
    refused(order.changed(storage=f"{s3_server.uri}/{user}"), "Permission denied: Access Denied")


def test_a_user_with_no_more_rights_than_the_documentation_names_carries_out_a_run(
    order: RunOrder, s3_server: S3Server, become: Become
) -> None:
    s3_server.add_user("trainer", *RIGHTS["read and write"], "s3:DeleteObject")
    become(s3_server.environment("trainer"))
    carried_out(order.changed(storage=f"{s3_server.uri}/of-the-trainer"))
    assert losses_of(order).keys() == set(order.run.tokens)


def refused(order: RunOrder, words: str) -> None:
    """The run ends as its configuration's fault, in a sentence with the storage's own words and a remedy."""
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert failure.message.startswith(f"{order.storage}/ cannot be used as storage (")
    assert words in failure.message
    assert failure.message.endswith("; check its name, credentials and permissions")
    assert "\n" not in failure.message


def step_of(name: str) -> int:
    """Of a checkpoint's file."""
    return int(name.split("-")[1].split(".")[0])


def newest_step(storage: Storage) -> int:
    return max(step_of(name) for name in storage.names() if name.startswith("checkpoint-"))


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
