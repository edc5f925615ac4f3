"""A run that reports to the API server: nothing it does or fails to do reaches the training, and no record is lost."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import losses_of, moved, written

from sweep_analysis.record import ExitStatus, FailureReason, Progress, RecordSet
from sweep_analysis.reported import Due, read_termination_message
from sweep_analysis.rung import RunOrder
from sweep_trainer import report as report_module
from sweep_trainer.__main__ import ORDER, train
from sweep_trainer.outbox import Outbox
from sweep_trainer.report import Report
from sweep_trainer.status_api import Refused, StatusApi, Unavailable


class Status:
    """A run's status as its trainer sees it; `answer` may raise instead of taking a document."""

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.answer = answer
        self.told: list[Progress | RecordSet] = []
        self.standing: dict[str, Any] = {}
        self.heard = threading.Semaphore(0)

    def read(self) -> dict[str, Any]:
        self.answer()
        return self.standing

    def apply_progress(self, progress: Progress) -> None:
        self._take(progress)

    def apply_records(self, records: RecordSet) -> None:
        self._take(records)

    def close(self) -> None:
        pass

    def _take(self, document: Progress | RecordSet) -> None:
        self.heard.release()
        self.answer()
        self.told.append(document)

    @property
    def records(self) -> list[RecordSet]:
        return [document for document in self.told if isinstance(document, RecordSet)]


class Trouble:
    """An API server that fails for so many requests."""

    def __init__(self, requests: float) -> None:
        self.left = requests

    def __call__(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("503: not now", retry_after=0.0)


def progress(step: int) -> Progress:
    return Progress(attempt=1, step=step, steps=10, tokens=step, last_updated="2026-01-01T00:00:00Z")


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the termination message would be."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("SCALINGSWEEP_TERMINATION_LOG", str(path))
    return path


@pytest.fixture
def in_pod(order: RunOrder, monkeypatch: pytest.MonkeyPatch) -> Callable[[Status], RunOrder]:
    """Give the trainer its order and its status as a pod would."""

    def give(status: Status, **changes: Any) -> RunOrder:
        given = order.changed(report="api", **changes)
        monkeypatch.setenv(ORDER, json.dumps(given.to_json()))
        monkeypatch.setattr(StatusApi, "of_pod", classmethod(lambda cls, run, uid: status))
        return given

    return give


def due(order: RunOrder) -> Due:
    run = order.run
    return Due(order.uid, order.attempt, order.config_digest, run.purpose, run.parameters, run.tokens, run.seed)


def test_an_order_from_the_environment_ends_with_its_records_in_the_status(in_pod, message: Path) -> None:
    status = Status()
    order = in_pod(status)
    assert train() == ExitStatus.DONE
    assert [record.tokens for record in status.records[-1].records] == list(order.run.tokens)
    assert [d.phase for d in status.told if isinstance(d, Progress)][-1] == "Done"
    assert message.read_text() == ""


def test_losses_are_those_of_the_same_run_on_one_machine(in_pod, order: RunOrder, tmp_path: Path) -> None:
    status = Status()
    in_pod(status)
    assert train() == ExitStatus.DONE
    local = moved(order, tmp_path / "local")
    assert train(str(written(local))) == ExitStatus.DONE
    assert {record.tokens: record.loss for record in status.records[-1].records} == losses_of(local)


def test_without_an_order_the_sentence_says_where_one_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ORDER, raising=False)
    assert train() == ExitStatus.BAD_CONFIGURATION
    assert ORDER in capsys.readouterr().err


def test_outside_of_a_pod_there_is_nobody_to_report_to(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv(ORDER, json.dumps(order.changed(report="api").to_json()))
    assert train() == ExitStatus.FAILED
    assert "this is no pod" in capsys.readouterr().err


def test_an_api_server_that_never_answers_leaves_the_records_in_the_termination_message(
    in_pod, message: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep_trainer.__main__.FINAL_SECONDS", 0.2)
    order = in_pod(Status(Trouble(float("inf"))))
    assert train() == ExitStatus.DONE
    reported = read_termination_message(message.read_text(), due(order), now="2026-01-01T00:00:00Z")
    assert reported is not None
    assert [record.tokens for record in reported.records.records] == list(order.run.tokens)


def test_where_there_is_no_termination_message_either_the_next_attempt_finds_the_records(
    in_pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep_trainer.__main__.FINAL_SECONDS", 0.2)
    monkeypatch.setattr(report_module, "EARLIER_SECONDS", 0.0)
    monkeypatch.setenv("SCALINGSWEEP_TERMINATION_LOG", str(tmp_path / "no" / "such" / "place"))
    in_pod(Status(Trouble(float("inf"))))
    assert train() == ExitStatus.INTERRUPTED
    second = Status()
    order = in_pod(second, attempt=2)
    assert train() == ExitStatus.DONE
    assert [r.run.attempt for r in second.records[-1].records] == [1] * len(order.run.tokens)


def test_a_retried_attempt_does_not_measure_again_what_its_status_holds(in_pod, tmp_path: Path) -> None:
    first, second = Status(), Status()
    in_pod(first)
    assert train() == ExitStatus.DONE
    second.standing = {"records": [first.records[-1].to_json(), {"attempt": "damaged"}]}
    in_pod(second, attempt=2, storage=str(tmp_path / "empty"))
    assert train() == ExitStatus.DONE
    assert second.records == [first.records[-1].changed(attempt=2)]


def test_a_failure_reaches_the_status_and_its_sentence_the_termination_message(in_pod, message: Path) -> None:
    status = Status()
    order = in_pod(status)
    wrong = order.run.changed(parameters=order.run.parameters + 1)
    in_pod(status, run=wrong)
    assert train() == ExitStatus.BAD_CONFIGURATION
    failure = status.records[-1].failure
    assert failure is not None
    assert failure.reason is FailureReason.BAD_CONFIGURATION
    assert message.read_text() == f"BadConfiguration: {failure.message}"


# --- the outbox --------------------------------------------------------------------------------------------------


def test_records_are_told_at_once_and_progress_waits_its_turn() -> None:
    status = Status()
    outbox = Outbox(status, progress_seconds=3600)
    outbox.progress(progress(1))
    assert status.heard.acquire(timeout=30)
    outbox.progress(progress(2))
    outbox.progress(progress(3))
    outbox.records(RecordSet(attempt=1, records=()))
    assert status.heard.acquire(timeout=30)
    assert not status.heard.acquire(blocking=False)
    assert outbox.close(30)
    assert status.told == [progress(1), RecordSet(attempt=1, records=()), progress(3)]


def test_after_trouble_only_the_newest_is_told() -> None:
    trouble = Trouble(1)
    status = Status(trouble)
    outbox = Outbox(status, progress_seconds=0)
    outbox.records(RecordSet(attempt=1, records=()))
    assert status.heard.acquire(timeout=30)
    newest = RecordSet(attempt=1, records=(), refused={"documents": 1, "reason": "why"})
    outbox.records(newest)
    assert outbox.close(30)
    assert status.told == [newest]


def test_what_the_api_server_refuses_for_good_is_not_sent_again() -> None:
    def refuse() -> None:
        raise Refused("422: no")

    status = Status(refuse)
    outbox = Outbox(status)
    outbox.records(RecordSet(attempt=1, records=()))
    assert outbox.close(30) is False
    assert status.heard.acquire(timeout=30)
    assert not status.heard.acquire(blocking=False)


def test_nothing_told_means_no_thread(order: RunOrder) -> None:
    before = threading.active_count()
    report = Report(order.changed(report="api"), Status())
    assert threading.active_count() == before
    assert report.close(30)
