"""What a run survives: spikes of the loss, processes that hang or are lost, a driver that is told to stop."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_run import carried_out, curve_of, losses_of, moved

from sweep_analysis.execution import Spikes
from sweep_analysis.recipe import shape_of
from sweep_analysis.record import FailureReason, Progress
from sweep_analysis.rung import RunOrder
from sweep_analysis.shape import Experts
from sweep_trainer.checkpoint import Checkpoint, Checkpoints
from sweep_trainer.data.batches import Prepared, Read
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.failure import RunError
from sweep_trainer.meter import Meter
from sweep_trainer.spike import SpikeWatch, batch_of
from sweep_trainer.stall import StallAlarm


def test_a_loss_far_above_the_last_ones_is_a_spike_and_no_number_always_is() -> None:
    watch = SpikeWatch(Spikes(factor=1.5))
    assert watch.objection(float("nan")) == "the loss is nan"
    assert all(watch.objection(3.0) is None for _ in range(20))
    assert watch.objection(4.4) is None
    assert "times the mean of the last 21 steps" in (watch.objection(5.0) or "")
    assert watch.objection(3.0) is None


def test_a_young_run_may_rise() -> None:
    watch = SpikeWatch(Spikes(factor=1.1))
    assert [watch.objection(loss) for loss in (3.0, 4.0, 5.0)] == [None, None, None]


def test_batches_that_are_left_out_move_every_later_step_on() -> None:
    assert [batch_of(step, ()) for step in (0, 5)] == [0, 5]
    assert [batch_of(step, ((4, 3), (6, 1))) for step in (3, 4, 5, 6, 7)] == [3, 7, 8, 10, 11]


def poisoned(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Make the tenth batch of the run, as often as it comes, and others up to `times`, give no number."""
    step = PlainTorch.step
    measured = PlainTorch.measured
    seen: list[int] = []
    bad: list[bool] = []

    def stepping(self: PlainTorch, batch: object, rate: float) -> None:
        key = hash(batch.tobytes())  # type: ignore[attr-defined]
        if len(seen) < times and len(bad) >= 10 and key not in seen:
            seen.append(key)
        bad.append(key in seen)
        step(self, batch, rate)  # type: ignore[arg-type]

    def measuring(self: PlainTorch) -> list[tuple[float, float]]:
        pairs = measured(self)
        last = bad[-len(pairs) :] if pairs else []
        return [(float("nan") if broken else loss, norm) for broken, (loss, norm) in zip(last, pairs, strict=True)]

    monkeypatch.setattr(PlainTorch, "step", stepping)
    monkeypatch.setattr(PlainTorch, "measured", measuring)
    monkeypatch.setattr("sweep_trainer.loop._TICK_SECONDS", 0.0)
    return seen


def test_after_a_nan_the_run_goes_back_leaves_the_batches_out_counts_it_and_ends_well(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = order.training.changed(spikes=Spikes(), checkpoint_seconds=0.5)
    order = order.changed(training=training)
    poisoned(monkeypatch, times=1)
    told: list[Sequence[tuple[int, int]]] = []
    read = Prepared.read

    def reading(self: Prepared, seed: int, batches: Sequence[tuple[int, int]], sequences: int) -> tuple[Read, ...]:
        told.append(batches)
        return read(self, seed, batches, sequences)

    monkeypatch.setattr(Prepared, "read", reading)
    carried_out(order)
    for batches, tokens in zip(told, order.run.tokens, strict=True):  # the record knows of the gap
        steps = tokens // 128
        assert sum(end - begin for begin, end in batches) == steps
        assert batches[-1][1] > steps, "as many batches further on as were left out"
    assert [point["step"] for point in curve_of(order)] == list(range(1, 73))
    progress = Progress.model_validate_json((Path(order.report) / "progress.json").read_bytes())
    assert progress.rewinds == 1
    assert "the loss is nan" in caplog.text


def test_more_spikes_than_the_recipe_allows_are_divergence(order: RunOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    order = order.changed(training=order.training.changed(spikes=Spikes(at_most=2)))
    poisoned(monkeypatch, times=3)
    with pytest.raises(RunError, match="after 2 rewinds") as caught:
        carried_out(order)
    assert caught.value.reason is FailureReason.DIVERGED


def test_watching_for_spikes_changes_no_digit_of_a_run_without_them(order: RunOrder, tmp_path: Path) -> None:
    watched = moved(order, tmp_path / "watched", training=order.training.changed(spikes=Spikes(factor=100)))
    for one in (order, watched):
        carried_out(one)
    assert losses_of(watched) == losses_of(order)
    assert curve_of(watched) == curve_of(order)


def test_a_process_that_hangs_writes_its_stacks_and_ends() -> None:
    script = (
        "import time\nfrom sweep_trainer.stall import StallAlarm\n"
        "def waiting_for_a_rank_that_is_gone():\n    time.sleep(60)\n"
        "with StallAlarm(0.5) as alarm:\n    alarm.alive()\n    waiting_for_a_rank_that_is_gone()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "waiting_for_a_rank_that_is_gone" in done.stderr


def test_the_alarm_is_off_once_training_is_over() -> None:
    script = (
        "import time\nfrom sweep_trainer.stall import StallAlarm\n"
        "with StallAlarm(0.5) as alarm:\n    alarm.alive()\ntime.sleep(1)\n"
        "with StallAlarm(None):\n    time.sleep(0.1)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_the_alarm_rests_while_a_checkpoint_is_read_at_the_start_and_after_a_spike(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read may be larger than the storage hands over in the seconds of a step."""
    ringing = {"so": False}
    reads = []
    read, alive, rest = Checkpoints.read, StallAlarm.alive, StallAlarm.rest

    def reading(checkpoints: Checkpoints) -> Iterator[Checkpoint]:
        reads.append(ringing["so"])
        yield from read(checkpoints)

    def waking(alarm: StallAlarm) -> None:
        ringing["so"] = True
        alive(alarm)

    def resting(alarm: StallAlarm) -> None:
        ringing["so"] = False
        rest(alarm)

    monkeypatch.setattr(Checkpoints, "read", reading)
    monkeypatch.setattr(StallAlarm, "alive", waking)
    monkeypatch.setattr(StallAlarm, "rest", resting)
    poisoned(monkeypatch, times=1)
    carried_out(order.changed(training=order.training.changed(spikes=Spikes(), stall_seconds=600)))
    assert reads == [False, False]
    assert not ringing["so"]


def test_progress_says_what_a_run_takes(order: RunOrder) -> None:
    carried_out(order)
    progress = json.loads((Path(order.report) / "progress.json").read_text())
    assert progress["memoryBytes"] > 1e7
    assert 0 <= progress["dataWait"] <= 1
    assert progress["gradientNorm"] > 0
    assert progress["learningRate"] > 0
    assert "mfu" not in progress  # no peak is known of a CPU
    assert "rewinds" not in progress


def test_utilisation_counts_of_a_mixture_what_a_token_meets(order: RunOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep_trainer.meter.peak_flops", lambda: 1e12)
    model = order.training.model.changed(experts=Experts(count=4))
    training = order.training.changed(model=model)
    shape = shape_of(training, order.run.parameters)
    carried_out(order.changed(training=training, run=order.run.changed(parameters=shape.parameters)))
    progress = Progress.model_validate_json((Path(order.report) / "progress.json").read_bytes())
    assert shape.active_parameters < shape.parameters
    assert progress.mfu == pytest.approx(6 * shape.active_parameters * progress.tokens_per_second / 1e12)


def test_the_time_that_a_device_still_computes_when_a_step_returns_counts_as_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step is handed over in one second, its loss is known four seconds later; the batch took one to come."""
    clock = iter([0.0, 1.0, 1.0, 2.0, 2.0, 6.0])
    monkeypatch.setattr("sweep_trainer.meter.time.perf_counter", lambda: next(clock))
    meter = Meter(600, 1, 1)
    with meter.waiting():
        pass
    with meter.stepping():
        pass
    with meter.settling():
        pass
    assert meter.seconds == 6.0
    assert meter.tokens_per_second == 100
    assert meter.data_wait == pytest.approx(1 / 6)


def test_a_run_counts_the_reading_of_its_losses_as_training(order: RunOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []
    measured = PlainTorch.measured

    @contextmanager
    def settling(self: Meter) -> Iterator[None]:
        settled.append(0)
        yield
        settled[-1] = 1

    def measuring(self: PlainTorch) -> list[tuple[float, float]]:
        assert settled[-1] == 0, "a loss is read outside of the meter"
        return measured(self)

    monkeypatch.setattr(Meter, "settling", settling)
    monkeypatch.setattr(PlainTorch, "measured", measuring)
    carried_out(order)
    assert settled
    assert all(settled)
