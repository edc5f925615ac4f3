"""Ray around the trainer: the same losses, whatever is lost. A Ray is started once, and joined by each run."""

import contextlib
import fcntl
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
from tiny_run import carried_out, curve_of, failure_of, has_checkpoint, losses_of, moved, step_of, written

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Data, whole_batches
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.__main__ import train
from sweep_trainer.data import prepare
from sweep_trainer.interruption import Interruption

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("ray")]  # of one cluster, in turn
ray = pytest.importorskip("ray", reason="Ray is not installed")
ray_driver = pytest.importorskip("sweep_trainer.ray_driver")


ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # by which who joins a cluster shows that it may
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",  # after which it looks anew for nodes with room
    "OMP_NUM_THREADS": "1",
}


SLOW = 0.1
"""Of the recipe's learning rate, at which training is so steep that a difference in the last digit grows to 5e-3 nats
in some hundred steps."""
ROUNDING = 1e-3
"""Nats: what another order of adding up gradients may make of a whole run."""


class Head(NamedTuple):
    """A cluster's address and its first process, whose children all others are."""

    address: str
    pid: int


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextlib.contextmanager
def started(cpus: int = 5) -> Iterator[Head]:
    """A Ray cluster of another process's, which runs join by its address."""
    script = (
        "import ray, sys, time\n"
        "for _ in range(3):\n"
        f"    try:\n        context = ray.init('local', num_cpus={cpus}, include_dashboard=False)\n        break\n"
        "    except Exception:\n        ray.shutdown()\n"
        "print('address', context.address_info['address'], flush=True)\nsys.stdin.read()\n"
    )
    head = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    assert head.stdout is not None
    line = next((line for line in head.stdout if line.startswith("address")), "")
    if not line:
        pytest.skip("Ray did not start on this machine in three tries")
    yield Head(line.split()[1], head.pid)
    with contextlib.suppress(BrokenPipeError):
        head.communicate("")


@contextlib.contextmanager
def joined(head: Head) -> Iterator[Callable[[], None]]:
    """A further node of one CPU; what it yields is the loss of that machine."""
    ray_command = str(Path(sys.executable).with_name("ray"))
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # not where Rays of all look
    node = subprocess.Popen(
        [ray_command, "start", "--address", head.address, "--num-cpus=1", "--temp-dir", folder.name, "--block"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | ENVIRONMENT,
    )

    def lose() -> None:
        if node.poll() is None:
            process = psutil.Process(node.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        node.wait()

    try:
        assert node.stdout is not None
        said = []
        for line in node.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            pytest.fail("".join(said))
        yield lose
    finally:
        lose()
        folder.cleanup()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with started() as head:
        yield head


def driver(order: RunOrder, *changes: str) -> "subprocess.Popen[bytes]":
    """The trainer's process; `changes` are statements that come first."""
    script = "\n".join(
        ("import sys", "from sweep_trainer import __main__, ray_driver", *changes, "sys.exit(__main__.main())")
    )
    start = ["-c", script] if changes else ["-m", "sweep_trainer"]
    return subprocess.Popen(
        [sys.executable, *start, "train", str(written(order))],
        env=os.environ | ENVIRONMENT,
        stderr=Path(order.report).with_name("log").open("ab"),
        stdout=subprocess.DEVNULL,
    )


def its_processes(parent: int, *names: str) -> list[psutil.Process]:
    """Living descendants whose command holds one of the names."""
    try:
        children = psutil.Process(parent).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if any(name in command(child) for name in names)]


def wait_for(true: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def through_ray(order: RunOrder, cluster: Head, workers: int, **changes: object) -> RunOrder:
    training = order.training.changed(**changes) if changes else order.training
    return order.changed(ray=cluster.address, workers=workers, training=training)


def test_one_worker_gives_the_same_digits_as_a_process_of_its_own(
    order: RunOrder, tmp_path: Path, cluster: Head
) -> None:
    carried_out(order)
    one = through_ray(moved(order, tmp_path / "ray"), cluster, 1)
    assert driver(one).wait() == ExitStatus.DONE
    assert losses_of(one) == losses_of(order)


def test_two_workers_of_deepspeed_agree_with_one_process_and_go_on_after_one_is_killed(
    order: RunOrder, tmp_path: Path, cluster: Head
) -> None:
    """The killed worker costs the steps since the last checkpoint; Ray starts both again."""
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 300, 128 * 400)), learning_rate_factor=SLOW)
    alone = order.changed(run=long)
    carried_out(alone)
    two = through_ray(
        moved(alone, tmp_path / "ray"),
        cluster,
        2,
        engine="DeepSpeed",
        deepspeed=DeepSpeed(zero_stage=2),
        checkpoint_seconds=0.5,
    )
    started = driver(two)
    log = Path(two.report).with_name("log")
    wait_for(lambda: bool(list(Path(two.storage).glob("checkpoint-*.2-of-2.*"))) or started.poll() is not None, log)
    workers = [p for p in psutil.Process(cluster.pid).children(recursive=True) if "RayTrainWorker" in command(p)]
    if started.poll() is None:
        workers[-1].send_signal(signal.SIGKILL)
    assert started.wait() == ExitStatus.DONE, log.read_text()[-3000:]
    assert losses_of(two) == pytest.approx(losses_of(alone), abs=ROUNDING)
    assert [point["step"] for point in curve_of(two)] == [point["step"] for point in curve_of(alone)]


def test_a_worker_that_is_frozen_is_noticed_by_the_other_and_both_start_again(
    order: RunOrder, tmp_path: Path, cluster: Head
) -> None:
    """Of two, one stops where it is; the other hangs in a collective, says where, ends, and Ray starts both again."""
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 400,)))
    alone = through_ray(order.changed(run=long), cluster, 2)
    assert driver(alone).wait() == ExitStatus.DONE
    two = through_ray(moved(alone, tmp_path / "ray"), cluster, 2, checkpoint_seconds=0.5, stall_seconds=10)
    started = driver(two)
    log = Path(two.report).with_name("log")
    wait_for(lambda: has_checkpoint(two) or started.poll() is not None, log)
    assert started.poll() is None, "the run was over before a worker could be frozen"
    workers = [p for p in psutil.Process(cluster.pid).children(recursive=True) if "RayTrainWorker" in command(p)]
    frozen = max(workers, key=lambda process: process.create_time())
    frozen.suspend()
    try:
        assert started.wait(240) == ExitStatus.DONE, log.read_text()[-3000:]
    finally:
        if frozen.is_running():
            frozen.kill()
    said = log.read_text()
    assert "Timeout (0:00:10)!" in said
    assert "(most recent call first):" in said
    assert "going on from step" in said
    assert losses_of(two) == losses_of(alone)
    assert curve_of(two) == curve_of(alone)


def test_a_driver_told_to_stop_leaves_a_checkpoint_and_status_75_and_another_number_of_workers_goes_on(
    order: RunOrder, tmp_path: Path, cluster: Head
) -> None:
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 600,)), learning_rate_factor=SLOW)
    alone = order.changed(run=long)
    carried_out(alone)
    two = through_ray(moved(alone, tmp_path / "ray"), cluster, 2)
    started = driver(two)
    log = Path(two.report).with_name("log")
    wait_for(lambda: step_of(two) > 0 or started.poll() is not None, log)
    started.terminate()
    assert started.wait() == ExitStatus.INTERRUPTED, log.read_text()[-3000:]
    assert list(Path(two.storage).glob("checkpoint-*.2-of-2.safetensors"))
    one = two.changed(workers=1, attempt=2, ray=None)
    carried_out(one)
    assert losses_of(one) == pytest.approx(losses_of(alone), abs=ROUNDING)


def test_a_driver_told_to_stop_while_its_workers_wait_for_room_ends_at_once_with_status_75_and_leaves_nothing(
    order: RunOrder, cluster: Head
) -> None:
    """Of eight workers the cluster has room for five, so that none is placed."""
    waiting = through_ray(order, cluster, 8)
    log = Path(waiting.report).with_name("log")
    trying = driver(waiting)
    wait_for(lambda: bool(its_processes(cluster.pid, "TrainController")) or trying.poll() is not None, log)
    time.sleep(3)  # into the wait, past the start of it
    trying.terminate()
    assert trying.wait(60) == ExitStatus.INTERRUPTED, log.read_text()[-3000:]
    assert "asked to stop, and no worker has anything to save" in log.read_text()
    wait_for(lambda: not its_processes(cluster.pid, "TrainController", "RayTrainWorker", "Desk"), log)
    assert not list(Path(waiting.storage).glob("checkpoint-*"))
    assert not (Path(waiting.report) / "failure-1.json").exists()
    small = through_ray(moved(order, Path(order.report).parent / "small"), cluster, 4)
    assert driver(small).wait() == ExitStatus.DONE  # no room is kept for those that never came


def test_a_driver_told_to_stop_while_its_own_ray_starts_ends_at_once_with_status_75_and_leaves_no_process(
    order: RunOrder,
) -> None:
    starting = order.changed(ray="local", workers=2)
    log = Path(starting.report).with_name("log")
    trying = driver(starting)
    wait_for(lambda: bool(its_processes(trying.pid, "gcs_server")) or trying.poll() is not None, log)
    trying.terminate()
    rays = psutil.Process(trying.pid).children(recursive=True)
    assert trying.wait(60) == ExitStatus.INTERRUPTED, log.read_text()[-3000:]
    assert rays
    wait_for(lambda: not any(ray.is_running() and ray.status() != "zombie" for ray in rays), log)


def test_a_driver_told_to_stop_between_placement_and_the_first_step_ends_at_once_with_status_75(
    order: RunOrder, tmp_path: Path, cluster: Head
) -> None:
    """Another process prepares the data that the workers wait for, so to speak: it holds the lock."""
    source = tmp_path / "words.jsonl"
    source.write_text("".join(f'{{"text": "{"ab" * 40}{i}"}}\n' for i in range(2000)))
    training = order.training.changed(
        data=Data.model_validate(
            {"sources": [{"name": "words", "files": [str(source)]}], "validationTokens": 1024, "validationShare": 0.3}
        )
    )
    placed = through_ray(order.changed(training=training), cluster, 2)
    prepare(training, tmp_path, tmp_path / "elsewhere")
    (lock,) = (tmp_path / "elsewhere").rglob("*.lock")
    held = Path(placed.cache) / lock.relative_to(tmp_path / "elsewhere")
    held.parent.mkdir(parents=True)
    log = Path(placed.report).with_name("log")
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        trying = driver(placed)
        wait_for(lambda: (Path(placed.report) / "progress.json").exists() or trying.poll() is not None, log)
        time.sleep(1)
        trying.terminate()
        assert trying.wait(60) == ExitStatus.INTERRUPTED, log.read_text()[-3000:]
        wait_for(lambda: not its_processes(cluster.pid, "TrainController", "RayTrainWorker", "Desk"), log)
    assert step_of(placed) == 0
    second = placed.changed(attempt=2)
    assert driver(second).wait() == ExitStatus.DONE, log.read_text()[-3000:]


def test_what_a_worker_finds_wrong_is_said_by_the_driver_in_one_sentence(order: RunOrder, cluster: Head) -> None:
    three = through_ray(order, cluster, 3)
    assert driver(three).wait() == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(three)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert (
        "8 sequences does not divide among 3 processes; set training.batchTokens to a multiple of 48" in failure.message
    )


def test_an_address_at_which_no_ray_answers_is_refused_in_one_sentence(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_driver, "_REACH_SECONDS", 0.0)
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert train(str(written(order.changed(ray=address)))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert f"Ray at {address} cannot be joined: nobody answers there (" in failure.message
    assert len(failure.message.splitlines()) == 1


def test_a_ray_head_that_is_lost_ends_the_attempt_in_one_sentence_and_the_next_goes_on(
    order: RunOrder, caplog: pytest.LogCaptureFixture
) -> None:
    """Its machine goes, so to speak: the store of the cluster's state, the node's daemon and the workers are killed."""
    caplog.set_level("INFO")
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 3000,)))
    with started() as head:
        lost = through_ray(order.changed(run=long), head, 2, checkpoint_seconds=0.5)
        log = Path(lost.report).with_name("log")
        trying = driver(lost)
        wait_for(lambda: has_checkpoint(lost) or trying.poll() is not None, log)
        children = psutil.Process(head.pid).children(recursive=True)
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert trying.wait(300) == ExitStatus.CRASHED, log.read_text()[-3000:]
    failure = failure_of(lost)
    assert failure.reason is FailureReason.CRASHED
    assert failure.message == (
        f"Ray at {head.address} was lost, its head or a node of it; the next attempt goes on from the last checkpoint"
    )
    second = lost.changed(attempt=2, workers=1, ray=None)
    carried_out(second)
    assert "going on from step" in caplog.text
    assert [point["step"] for point in curve_of(second)] == list(range(1, 3001))


def test_a_node_that_is_lost_is_replaced_by_the_next_that_comes_and_both_workers_start_again(
    order: RunOrder, tmp_path: Path
) -> None:
    """The head has room for one of the two workers, so that the other is on the node whose processes are killed."""
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 400,)))
    with started(cpus=1) as head:
        with joined(head) as lose:
            alone = through_ray(order.changed(run=long), head, 2)
            assert driver(alone).wait() == ExitStatus.DONE
            two = through_ray(moved(alone, tmp_path / "ray"), head, 2, checkpoint_seconds=0.5)
            log = Path(two.report).with_name("log")
            trying = driver(two)
            wait_for(lambda: has_checkpoint(two) or trying.poll() is not None, log)
            assert trying.poll() is None, "the run was over before a node could be lost"
            lose()
        with joined(head):
            assert trying.wait(300) == ExitStatus.DONE, log.read_text()[-3000:]
    assert "going on from step" in log.read_text()
    assert losses_of(two) == losses_of(alone)
    assert curve_of(two) == curve_of(alone)


def test_when_no_node_comes_for_one_that_is_lost_the_attempt_ends_in_one_sentence_and_the_next_goes_on(
    order: RunOrder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 400,)))
    with started(cpus=1) as head:
        with joined(head) as lose:
            lost = through_ray(order.changed(run=long), head, 2, checkpoint_seconds=0.5)
            log = Path(lost.report).with_name("log")
            trying = driver(lost, "ray_driver._AWAY_SECONDS = 20.0")
            wait_for(lambda: has_checkpoint(lost) or trying.poll() is not None, log)
            assert trying.poll() is None, "the run was over before a node could be lost"
            lose()
        assert trying.wait(300) == ExitStatus.CRASHED, log.read_text()[-3000:]
        failure = failure_of(lost)
        assert failure.reason is FailureReason.CRASHED
        assert f"Ray at {head.address} lost workers and could not place 2 again in 2" in failure.message
    second = lost.changed(attempt=2, workers=1, ray=None)
    carried_out(second)
    assert "going on from step" in caplog.text
    assert [point["step"] for point in curve_of(second)] == list(range(1, 401))


def answering(monkeypatch: pytest.MonkeyPatch, heard: Callable[[], object]) -> Any:
    """A desk whose actor is here: it answers by the function, and where that gives None in no time."""
    monkeypatch.setattr(ray_driver, "_ASK_SECONDS", 0.0)
    monkeypatch.setattr(ray_driver, "_WORD_SECONDS", 0.0)

    def get(answer: object, timeout: float) -> object:
        if answer is None:
            raise ray.exceptions.GetTimeoutError
        return answer

    monkeypatch.setattr(ray_driver.ray, "get", get)
    return SimpleNamespace(heard=SimpleNamespace(remote=heard), stop=SimpleNamespace(remote=lambda: True))


class Asked(Interruption):
    """Without a look at the clock."""

    def __init__(self, requested: bool) -> None:
        super().__init__()
        self.so = requested

    @property
    def requested(self) -> bool:
        return self.so


def never(away: float = 0.0) -> None:
    pytest.fail("the desk does not count as lost, nor as idle")


@pytest.mark.parametrize(
    ("address", "gpus", "asked"),
    [
        ("head:6379", 0, False),
        ("head:6379", 1, True),  # they wait until the cluster has enough
        ("head:6379", 2, True),
        ("local", 0, False),
        ("local", 1, False),  # this machine gets no second one
        ("local", 2, True),
        (None, 2, True),
    ],
)
def test_workers_ask_for_gpus_where_there_are_any_or_will_be(
    address: str | None, gpus: float, asked: bool, order: RunOrder, caplog: pytest.LogCaptureFixture
) -> None:
    assert ray_driver._on_gpus(order.changed(workers=2, ray=address), gpus) is asked
    assert ("2 workers share a machine of 1 GPUs" in caplog.text) == (address == "local" and gpus == 1)


def test_a_desk_counts_as_lost_once_it_has_spoken_and_is_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers by a list, on a clock that goes ten seconds each time; before its first word nothing is lost."""
    answers = [None] * 9 + [(0.0, 0.0, False)] * 2 + [None] * 9
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(ray_driver.time, "monotonic", lambda: next(clock))
    desk, over = answering(monkeypatch, lambda: answers.pop(0)), threading.Event()
    ray_driver._pass_on(Asked(False), desk, over, lambda away: over.set(), never)
    assert over.is_set()
    assert len(answers) == 4  # of nine silences after its last word the fifth is fifty seconds after it


@pytest.mark.parametrize(
    ("heard", "leaves"),
    [
        ((0.0, math.inf, False), True),  # no worker yet
        ((0.2, math.inf, False), True),  # workers before their first step
        (None, True),  # no desk yet
        ((0.2, 0.2, False), False),  # a worker that checkpoints
        ((15.0, 15.0, False), False),  # it may put gigabytes together
        ((30.0, 30.0, False), True),  # workers that were lost
        ((30.0, 30.0, True), False),  # workers that have said how it ended
    ],
)
def test_a_driver_that_is_asked_to_stop_leaves_where_nobody_has_anything_to_save(
    heard: tuple[float, float, bool] | None, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, left = threading.Event(), []

    def looked() -> object:
        looks.append(1)
        if len(looks) == 5:
            over.set()
        return heard

    def leave() -> None:
        left.append(True)
        over.set()

    looks: list[int] = []
    ray_driver._pass_on(Asked(True), answering(monkeypatch, looked), over, never, leave)
    assert bool(left) == leaves
