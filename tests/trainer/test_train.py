"""A run: its records, and that neither interruption nor a shared trunk changes a single digit of them."""

import errno
import itertools
import json
import math
import multiprocessing.process
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from safetensors.numpy import load_file
from tiny_run import AfterLooks, carried_out, curve_of, failure_of, forbid, losses_of, moved, records_of, written

from sweep_analysis.recipe import Schedule, resolve, whole_batches
from sweep_analysis.record import ExitStatus, FailureReason, Progress
from sweep_analysis.rung import RunOrder
from sweep_trainer import curve, files
from sweep_trainer.__main__ import train
from sweep_trainer.failure import RunError
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.report import Report
from sweep_trainer.train import run

Start = Callable[[RunOrder], multiprocessing.process.BaseProcess]


def progress_of(order: RunOrder) -> Progress:
    return Progress.model_validate_json((Path(order.report) / "progress.json").read_bytes())


def test_a_run_gives_one_complete_record_at_each_token_count(order: RunOrder) -> None:
    assert train(str(written(order))) == ExitStatus.DONE
    records = records_of(order)
    assert tuple(records) == order.run.tokens
    hyper = resolve(order.training, order.run.parameters, order.run.tokens)
    for tokens, record in records.items():
        assert 0 < record.loss < math.log(256)
        assert record.flops.six_nd == 6 * order.run.parameters * tokens
        assert record.flops.detailed == hyper.flops_detailed(tokens)
        assert record.unique_tokens == tokens
        assert record.epochs < 1
        assert record.run.config_digest == order.config_digest
    few, many = (record.loss for record in records.values())
    assert many < few


def test_a_record_tells_what_the_common_trunk_saves_of_separate_runs(order: RunOrder, tmp_path: Path) -> None:
    run(order, Interruption(), Report(order), begun=time.monotonic())
    trunk, branches, apart = 42, 12 + 18, 40 + 60
    assert [r.steps_saved for r in records_of(order).values()] == [round(1 - (trunk + branches) / apart, 4)] * 2
    alone = moved(order, tmp_path / "alone", run=order.run.changed(tokens=order.run.tokens[:1]))
    run(alone, Interruption(), Report(alone), begun=time.monotonic())
    assert [r.steps_saved for r in records_of(alone).values()] == [None]


def test_progress_ends_done_with_every_step_counted(order: RunOrder) -> None:
    carried_out(order)
    progress = progress_of(order)
    assert (progress.phase, progress.step, progress.steps, progress.eta_seconds) == ("Done", 72, 72, 0.0)
    assert progress.training_seconds > 0


def test_the_curve_holds_every_executed_step_once(order: RunOrder) -> None:
    carried_out(order)
    curve = curve_of(order)
    assert [point["step"] for point in curve] == list(range(1, 73))
    assert [point["tokens"] for point in curve if "branch" not in point] == [128 * (s + 1) for s in range(42)]
    assert {point["branch"] for point in curve if "branch" in point} == set(order.run.tokens)


def test_final_weights_are_kept_by_name(order: RunOrder) -> None:
    carried_out(order)
    for tokens in order.run.tokens:
        weights = load_file(Path(order.storage) / f"model-{tokens}.safetensors")
        assert sum(w.size for w in weights.values()) == order.run.parameters


@pytest.mark.parametrize("kind", ["WarmupStableDecay", "Cosine"])
def test_each_branch_equals_a_run_of_its_own_bit_for_bit(
    order: RunOrder, tmp_path: Path, kind: Literal["WarmupStableDecay", "Cosine"]
) -> None:
    order = order.changed(training=order.training.changed(schedule=Schedule(kind=kind)))
    carried_out(order)
    together = losses_of(order)
    for place, tokens in enumerate(order.run.tokens):
        warmup = 0.05 * order.run.tokens[0] / tokens  # the smallest count's warm-up, as a share of this one
        training = order.training.changed(schedule=Schedule(kind=kind, warmup=warmup))
        alone = moved(order, tmp_path / str(place), run=order.run.changed(tokens=(tokens,)), training=training)
        carried_out(alone)
        assert losses_of(alone) == {tokens: together[tokens]}


def test_the_loss_depends_on_the_seed_and_on_nothing_else(order: RunOrder, tmp_path: Path) -> None:
    other = moved(order, tmp_path / "other", run=order.run.changed(seed=4))
    again = moved(order, tmp_path / "again")
    for one in (order, other, again):
        carried_out(one)
    assert losses_of(again) == losses_of(order)
    assert losses_of(other) != losses_of(order)


@pytest.mark.slow
def test_a_run_stopped_at_any_look_ends_with_the_same_digits(order: RunOrder, tmp_path: Path) -> None:
    """Every look of a run at the interruption is tried once: in the trunk, in both branches, in both evaluations."""
    order = order.changed(run=order.run.changed(tokens=(12 * 128, 20 * 128)))
    carried_out(order)
    looks = 0
    for looks in itertools.count():
        one = moved(order, tmp_path / f"stopped-{looks}")
        try:
            carried_out(one, AfterLooks(looks))
            break
        except Interrupted:
            second = one.changed(attempt=2)
            carried_out(second)
        assert losses_of(second) == losses_of(order), f"stopped at look {looks}"
        assert curve_of(second) == curve_of(order), f"stopped at look {looks}"
    assert looks >= 24 + 2


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_digits(order: RunOrder, tmp_path: Path, start: Start) -> None:
    """SIGKILL at moments that nobody chose, with a checkpoint every half second, until the run gets through."""
    training = order.training.changed(checkpoint_seconds=0.5)
    tokens = whole_batches(training, (128 * 400, 128 * 700))
    order = order.changed(training=training, run=order.run.changed(tokens=tokens))
    undisturbed = moved(order, tmp_path / "undisturbed")
    carried_out(undisturbed)
    moments = random.Random(7)
    for attempt in range(1, 40):
        one = order.changed(attempt=attempt)
        process = start(one)
        process.join(moments.uniform(0.5, 1.5) if attempt < 6 else 120)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
    assert process.exitcode == ExitStatus.DONE
    assert attempt > 1
    assert losses_of(one) == losses_of(undisturbed)
    assert curve_of(one) == curve_of(undisturbed)


def test_sigterm_leaves_a_checkpoint_and_exit_status_75(order: RunOrder, tmp_path: Path, start: Start) -> None:
    order = order.changed(run=order.run.changed(tokens=whole_batches(order.training, (128 * 20_000,))))
    process = start(order)
    wait_for(lambda: (Path(order.report) / "progress.json").exists() and progress_of(order).step > 0)
    os.kill(process.pid or 0, signal.SIGINT)  # is ignored: the driver forwards what is meant for us
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == ExitStatus.INTERRUPTED
    assert list(Path(order.storage).glob("checkpoint-*.safetensors"))


def test_sigterm_while_there_is_nothing_to_save_ends_the_process_at_once_with_status_75() -> None:
    script = (
        "import os, signal\nfrom sweep_trainer.interruption import Interruption\n"
        "with Interruption() as i:\n    i.nothing_to_save(True)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == ExitStatus.INTERRUPTED


def test_a_trainer_whose_driver_is_killed_leaves_a_checkpoint_and_goes(order: RunOrder) -> None:
    order = order.changed(run=order.run.changed(tokens=whole_batches(order.training, (128 * 20_000,))))
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'sweep_trainer', 'train', {str(written(order))!r}])\n"
        "time.sleep(600)"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (Path(order.report) / "progress.json").exists() and progress_of(order).step > 0)
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: bool(list(Path(order.storage).glob("checkpoint-*.safetensors"))))
    with curve.locked(Path(order.storage), 2, Interruption()):
        pass  # it let go of the lock, so it is gone


def test_records_of_an_earlier_attempt_are_carried_over_and_not_measured_again(order: RunOrder) -> None:
    carried_out(order)
    first = records_of(order)
    for file in Path(order.storage).glob("*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    second = order.changed(attempt=2)
    assert train(str(written(second))) == ExitStatus.DONE
    assert records_of(second) == first
    assert not list(Path(order.storage).glob("model-*"))


def test_a_trainer_that_waited_for_another_takes_up_what_that_one_measured(order: RunOrder) -> None:
    second = order.changed(attempt=2)
    waiting = Report(second)
    carried_out(order)
    run(second, Interruption(), waiting, begun=time.monotonic())
    assert records_of(second) == records_of(order)


def test_a_lost_record_is_measured_again_although_checkpoints_are_past_it(order: RunOrder, tmp_path: Path) -> None:
    carried_out(order)
    again = moved(order, tmp_path / "again")
    with pytest.raises(Interrupted):
        carried_out(again, AfterLooks(70))
    for file in Path(again.report).glob("records-*"):
        file.unlink()
    second = again.changed(attempt=2)
    carried_out(second)
    assert losses_of(second) == losses_of(order)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    order: RunOrder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    carried_out(order)
    one = moved(order, tmp_path / "one")
    for attempt, looks in ((1, 10), (2, 10)):
        with pytest.raises(Interrupted):
            carried_out(one.changed(attempt=attempt), AfterLooks(looks))
    older, newer = sorted(Path(one.storage).glob("checkpoint-*.safetensors"))
    content = bytearray(newer.read_bytes())
    content[-100] ^= 1
    newer.write_bytes(content)
    caplog.set_level("INFO")
    third = one.changed(attempt=3)
    carried_out(third)
    assert losses_of(third) == losses_of(order)
    assert curve_of(third) == curve_of(order)
    assert f"{newer} is damaged (its digest is wrong)" in caplog.text
    assert f"going on from step {int(older.stem.split('-')[1])}" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "of another configuration"])
def test_without_a_usable_checkpoint_the_run_starts_over_and_says_so(
    order: RunOrder, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    carried_out(order)
    one = moved(order, tmp_path / "one")
    with pytest.raises(Interrupted):
        carried_out(one, AfterLooks(20))
    if damage == "truncated":
        for file in Path(one.storage).glob("checkpoint-*"):
            file.write_bytes(file.read_bytes()[:500])
    else:
        one = one.changed(config_digest="sha256:another")
    second = one.changed(attempt=2)
    carried_out(second)
    assert losses_of(second) == losses_of(order)
    assert "CheckpointUnreadable" in caplog.text


def test_a_folder_with_a_run_of_another_configuration_is_refused_with_the_fields_that_differ(order: RunOrder) -> None:
    with pytest.raises(Interrupted):
        carried_out(order, AfterLooks(20))
    how = order.training.changed(micro_batch=4, checkpoint_seconds=60.0)
    with pytest.raises(Interrupted):
        carried_out(order.changed(attempt=2, training=how), AfterLooks(10))
    what = how.changed(optimizer=how.optimizer.changed(weight_decay=0.2))
    other = order.changed(attempt=3, training=what, run=order.run.changed(seed=4), config_digest="sha256:another")
    with pytest.raises(RunError, match=r"configuration \(run.seed: 3, now 4; resolved.optimizer") as said:
        carried_out(other)
    assert said.value.reason is FailureReason.BAD_CONFIGURATION
    carried_out(order.changed(attempt=4, training=how))


def test_a_run_that_another_version_of_the_trainer_began_starts_over_and_says_so(
    order: RunOrder, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted):
        carried_out(order, AfterLooks(20))
    path = Path(order.storage) / "configuration.json"
    before = json.loads(path.read_text())
    before["versions"]["trainer"] = "0.0.1"
    path.write_text(json.dumps(before))
    carried_out(order.changed(attempt=2))
    assert 'trainer: "0.0.1", now' in caplog.text


def test_a_learning_rate_far_too_high_is_divergence_in_one_sentence(order: RunOrder) -> None:
    order = order.changed(run=order.run.changed(learning_rate_factor=3000.0))
    assert train(str(written(order))) == ExitStatus.FAILED
    failure = failure_of(order)
    assert failure.reason is FailureReason.DIVERGED
    assert "peak learning rate" in failure.message


def test_a_parameter_count_that_the_recipe_does_not_build_is_refused_with_the_right_one(order: RunOrder) -> None:
    right = order.run.parameters
    order = order.changed(run=order.run.changed(parameters=right + 1))
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert f"{right:,}" in failure.message


def test_data_that_are_gone_are_named(order: RunOrder, tmp_path: Path) -> None:
    data = order.training.data.changed(files=(str(tmp_path / "gone.txt"),))
    order = order.changed(training=order.training.changed(data=data))
    assert train(str(written(order))) == ExitStatus.FAILED
    assert failure_of(order).reason is FailureReason.DATA_UNAVAILABLE
    assert "gone.txt" in failure_of(order).message


def test_data_that_may_not_be_read_are_bad_input_in_one_sentence(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, Path(order.training.data.files[0]).name)  # by its rights it could not be: root reads all
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    remedy = "give the trainer's user the right to"
    assert failure.message == f"{order.training.data.files[0]} may not be read (Permission denied); {remedy}"


@pytest.mark.parametrize(
    ("content", "sequence_length", "sentence"),
    [
        (b"", 16, "words.txt is empty"),
        (b"gr\xfc\xdfe", 16, "words.txt is not UTF-8 (at byte 2)"),
        (b"a text", 16, "words.txt has 7 tokens, too few for 1,024 of validation and one training sequence"),
        (b"a text", 2048, "data.validationTokens (1,024) is less than one sequence of 2,048 tokens"),
    ],
)
def test_text_that_no_later_attempt_could_train_on_ends_the_run_before_its_first_step_with_status_2(
    content: bytes, sequence_length: int, sentence: str, order: RunOrder, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    data = order.training.data.changed(files=(str(tmp_path / "words.txt"),))
    training = order.training.changed(data=data, sequence_length=sequence_length, batch_tokens=2048)
    run = order.run.changed(tokens=whole_batches(training, (2048 * 10,)))
    order = order.changed(training=training, run=run)
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert sentence in failure.message
    assert "\n" not in failure.message
    assert not (Path(order.storage) / "configuration.json").exists()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, FailureReason.STORAGE_FULL),
        (errno.EROFS, FailureReason.STORAGE_UNWRITABLE),
        (errno.EACCES, FailureReason.STORAGE_UNWRITABLE),
    ],
)
def test_storage_that_takes_no_checkpoint_is_told_apart(
    order: RunOrder, number: int, reason: FailureReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_atomically

    def refusing(path: Path, content: bytes) -> None:
        if path.name.startswith("checkpoint"):
            raise OSError(number, os.strerror(number), str(path))
        write(path, content)

    monkeypatch.setattr("sweep_trainer.storage.write_atomically", refusing)
    assert train(str(written(order))) == ExitStatus.FAILED
    failure = failure_of(order)
    assert failure.reason is reason
    assert "checkpoint" in failure.message


@pytest.mark.parametrize("forbidden", ["lock", "probe"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_refused_before_the_first_step(
    order: RunOrder, number: int, forbidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, since nothing is forbidden to root."""
    opened = Path.open

    def refusing(self: Path, *arguments: Any, **more: Any) -> Any:
        if self.parent == Path(order.storage) and forbidden in self.name:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refusing)
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    failure = failure_of(order)
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert "cannot be used as storage" in failure.message
    assert os.strerror(number) in failure.message
    assert not (Path(order.storage) / "curve.jsonl").exists()


@pytest.mark.parametrize(
    ("taken", "sentence"),
    [("storage", "cannot be used as storage"), ("cache", "cannot be used as the cache of prepared")],
)
def test_a_folder_that_is_a_file_is_refused_before_the_first_step(
    taken: str, sentence: str, order: RunOrder, tmp_path: Path
) -> None:
    for name, why in (("file", "File exists"), ("file/below", "Not a directory")):
        (tmp_path / "file").write_text("not a folder")
        order = order.changed(**{taken: str(tmp_path / name)})
        assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
        failure = failure_of(order)
        assert failure.reason is FailureReason.BAD_CONFIGURATION
        assert sentence in failure.message
        assert why in failure.message


def test_a_report_that_cannot_be_written_for_a_while_changes_nothing_of_the_run(
    order: RunOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out(order)
    unheard = moved(order, tmp_path / "unheard")
    write, away = files.write_atomically, [True]

    def failing(path: Path, content: bytes) -> None:
        if away[0] and path.parent == Path(unheard.report):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        write(path, content)

    monkeypatch.setattr("sweep_trainer.storage.write_atomically", failing)
    report = Report(unheard)
    run(unheard, Interruption(), report, begun=time.monotonic())
    assert not list(Path(unheard.report).iterdir())
    assert not report.close(0.0)
    away[0] = False
    assert report.close(5.0)
    assert losses_of(unheard) == losses_of(order)
    assert curve_of(unheard) == curve_of(order)


def test_memory_that_runs_out_is_told_apart(order: RunOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(self: object, batch: object, rate: float) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    monkeypatch.setattr("sweep_trainer.engines.plain.PlainTorch.step", starved)
    assert train(str(written(order))) == ExitStatus.FAILED
    assert failure_of(order).reason is FailureReason.OUT_OF_MEMORY


def test_an_error_of_our_own_ends_in_one_sentence_and_a_traceback_in_the_log(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(self: object, batch: object, rate: float) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("sweep_trainer.engines.plain.PlainTorch.step", broken)
    assert train(str(written(order))) == ExitStatus.CRASHED
    assert failure_of(order).message == "ZeroDivisionError: a mistake; the traceback is in the run's log"
    assert "Traceback" in capfd.readouterr().err


def test_an_order_that_cannot_be_read_is_status_2_and_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "order.json"
    file.write_text(json.dumps({"uid": "x"}))
    assert train(str(file)) == ExitStatus.BAD_CONFIGURATION
    assert train(str(tmp_path / "none.json")) == ExitStatus.BAD_CONFIGURATION
    first, second = capfd.readouterr().err.splitlines()
    assert "order.json: name: Field required" in first
    assert "none.json: No such file or directory" in second


def test_a_second_trainer_of_the_same_run_is_told_who_holds_it(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "_PATIENCE_SECONDS", 0.2)
    with curve.locked(Path(order.storage), 1, Interruption()):
        second = order.changed(attempt=2)
        assert train(str(written(second))) == ExitStatus.FAILED
    failure = failure_of(second)
    assert f"process {os.getpid()} on" in failure.message
    assert "attempt 1" in failure.message


def test_importing_the_trainer_imports_no_torch() -> None:
    modules = ["sweep_trainer", "sweep_trainer.__main__", "sweep_trainer.data", "sweep_trainer.report"]
    script = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
