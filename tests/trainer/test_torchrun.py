"""Two processes that torchrun started, through whole runs: killed, frozen, out of memory, told to stop.

Each is started again by torchrun and goes on from the last checkpoint; the curve is that of processes nobody disturbed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from several_ranks import free_port
from tiny_run import AfterLooks, carried_out, curve_of, has_checkpoint, losses_of, moved, step_of, written

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import whole_batches
from sweep_analysis.record import ExitStatus
from sweep_analysis.rules import LearningRate
from sweep_analysis.rung import RunOrder
from sweep_trainer.interruption import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STALL_SECONDS = 10
"""The shortest that a recipe may ask for."""
STARVED = """
import sys
import torch
from sweep_trainer.__main__ import main
from sweep_trainer.model import Decoder

loss, limit = Decoder.loss, int(sys.argv.pop())

def starved(self, tokens):
    if torch.is_grad_enabled() and len(tokens) > limit and torch.distributed.get_rank() == 1:
        raise torch.OutOfMemoryError("simulated")
    return loss(self, tokens)

Decoder.loss = starved
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Group:
    """A torchrun and its ranks."""

    agent: "subprocess.Popen[bytes]"
    log: Path

    def ranks(self) -> list[psutil.Process]:
        """The living trainers, in the order of their ranks."""
        children = psutil.Process(self.agent.pid).children()
        named = [(int(c.environ()["RANK"]), c) for c in children if c.is_running() and "train" in c.cmdline()]
        return [process for _, process in sorted(named, key=lambda pair: pair[0])]

    def wait_for(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not true() and self.agent.poll() is None:
            assert time.monotonic() < deadline, self.said[-3000:]
            time.sleep(0.05)
        assert self.agent.poll() is None, self.said[-3000:]

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextlib.contextmanager
def group(order: RunOrder, *program: str, restarts: int = 3) -> Iterator[Group]:
    """Two ranks of an order; what is left of them at the end is killed."""
    log = Path(order.report).with_name("log")
    order_file = str(written(order))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}"),
        *("--master-addr=127.0.0.1", f"--master-port={free_port()}", "--monitor-interval=0.2"),
        *(program or ("-m", "sweep_trainer")),
        *("train", order_file),
    ]
    if program:
        command.append("2")
    with log.open("ab") as file:
        agent = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield Group(agent, log)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(agent.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        agent.kill()
        agent.wait()


@pytest.fixture
def two(order: RunOrder, tmp_path: Path) -> RunOrder:
    """Two processes, two token counts, some hundred steps, a checkpoint every half second.

    The learning rate is low, so that what engines and world sizes round differently does not grow over the steps.
    """
    long = order.run.changed(tokens=whole_batches(order.training, (128 * 300, 128 * 400)))
    training = order.training.changed(
        checkpoint_seconds=0.5, stall_seconds=STALL_SECONDS, learning_rate=LearningRate(peak=5e-4)
    )
    return moved(order, tmp_path / "two", run=long, training=training, workers=2)


def done(order: RunOrder) -> RunOrder:
    with group(order, restarts=0) as undisturbed:
        assert undisturbed.agent.wait() == 0, undisturbed.said[-3000:]
    return order


def test_ranks_that_are_killed_or_frozen_start_again_and_the_curve_is_the_undisturbed_one(
    two: RunOrder, tmp_path: Path
) -> None:
    """One is killed; then, after the restart, one is frozen, so that the other hangs in a collective."""
    alone = done(moved(two, tmp_path / "alone"))
    with group(two) as disturbed:
        disturbed.wait_for(lambda: has_checkpoint(two))
        disturbed.ranks()[1].kill()
        disturbed.wait_for(lambda: "going on from step" in disturbed.said)
        frozen = disturbed.ranks()[1]
        frozen.suspend()
        assert disturbed.agent.wait() == 0, disturbed.said[-3000:]
    said = disturbed.said
    assert "Timeout (0:00:10)!" in said  # the alarm's, followed by the stacks of all threads
    stacks = said[said.index("Timeout (0:00:10)!") :]
    assert "Thread 0x" in stacks
    assert "(most recent call first):" in stacks
    assert "in most" in stacks or "in all_reduce" in stacks  # where it hung
    assert said.count("going on from step") >= 4  # two ranks, two restarts
    assert not frozen.is_running()
    assert losses_of(two) == losses_of(alone)
    assert curve_of(two) == curve_of(alone)


def test_a_rank_whose_memory_runs_out_under_deepspeed_makes_all_begin_again_with_half_the_sequences(
    two: RunOrder, tmp_path: Path
) -> None:
    """Rank 1 holds two of its four sequences; rank 0 would hold them all."""
    training = two.training.changed(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=2))
    short = two.changed(training=training, run=two.run.changed(tokens=whole_batches(training, (128 * 20,))))
    alone = done(moved(short, tmp_path / "alone"))
    script = tmp_path / "starved.py"
    script.write_text(STARVED)
    with group(short, str(script)) as starved:
        assert starved.agent.wait() == 0, starved.said[-3000:]
    assert "the device's memory ran out at 4 sequences at a time; started again, the run takes 2" in starved.said
    assert "ZeRO 2, 2 sequences at a time" in starved.said
    assert losses_of(short) == pytest.approx(losses_of(alone), abs=1e-4)
    assert not (Path(short.report) / "failure-1.json").exists()


def test_sigterm_to_torchrun_leaves_a_checkpoint_and_the_order_goes_on_in_one_process(
    two: RunOrder, tmp_path: Path
) -> None:
    with group(two) as stopped:
        stopped.wait_for(lambda: step_of(two) > 0)
        stopped.agent.send_signal(signal.SIGTERM)
        assert stopped.agent.wait() != ExitStatus.DONE
    assert has_checkpoint(two)
    assert not (Path(two.report) / "failure-1.json").exists()
    one = two.changed(workers=1, attempt=2)
    carried_out(one)
    alone = moved(one, tmp_path / "alone")
    carried_out(alone)
    assert losses_of(one) == pytest.approx(losses_of(alone), abs=1e-3)


def test_what_one_process_began_two_go_on_with(two: RunOrder, tmp_path: Path) -> None:
    one = two.changed(workers=1)
    with pytest.raises(Interrupted):
        carried_out(one, AfterLooks(100))
    second = two.changed(attempt=2)
    with group(second, restarts=0) as gone_on:
        assert gone_on.agent.wait() == 0, gone_on.said[-3000:]
        assert gone_on.said.count("going on from step") == 2
    alone = done(moved(two, tmp_path / "alone"))
    assert losses_of(second) == pytest.approx(losses_of(alone), abs=1e-3)
    assert [point["step"] for point in curve_of(second)] == [point["step"] for point in curve_of(alone)]


def test_a_run_goes_on_under_another_zero_stage_and_number_of_processes_and_then_without_deepspeed(
    two: RunOrder, tmp_path: Path
) -> None:
    """Two processes at stage 3 are told to stop; one at stage 1 goes on and is told to stop; two of PyTorch end it."""
    alone = done(moved(two, tmp_path / "alone"))

    def under(stage: int, attempt: int, workers: int) -> RunOrder:
        training = two.training.changed(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=stage))
        return two.changed(training=training, attempt=attempt, workers=workers)

    with group(under(3, 1, 2)) as first:
        first.wait_for(lambda: step_of(two) > 0)
        first.agent.send_signal(signal.SIGTERM)
        first.agent.wait()
    assert "ZeRO 3" in first.said
    assert has_checkpoint(two)
    second = written(under(1, 2, 1))
    script = (
        "import sys\nfrom tiny_run import AfterLooks, carried_out\nfrom sweep_analysis.rung import RunOrder\n"
        "import logging; logging.basicConfig(level='INFO')\nfrom sweep_trainer.interruption import Interrupted\n"
        "from sweep_trainer.engines.ranks import ALONE, join\njoin(ALONE)\n"
        "order = RunOrder.model_validate_json(open(sys.argv[1], 'rb').read())\n"
        "try:\n    carried_out(order, AfterLooks(100))\nexcept Interrupted:\n    sys.exit(75)\n"
    )
    tests = str(Path(__file__).parents[1])
    stopped = subprocess.run(
        [sys.executable, "-c", script, str(second)],
        env=os.environ | {"PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == ExitStatus.INTERRUPTED, stopped.stderr[-3000:]
    assert "going on from step" in stopped.stderr
    assert "ZeRO 1" in stopped.stderr
    third = two.changed(attempt=3)
    with group(third, restarts=0) as last:
        assert last.agent.wait() == 0, last.said[-3000:]
    assert last.said.count("going on from step") >= 2
    assert losses_of(third) == pytest.approx(losses_of(alone), abs=1e-3)
    assert [point["step"] for point in curve_of(third)] == [point["step"] for point in curve_of(alone)]
