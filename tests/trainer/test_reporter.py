"""The reporter beside an own trainer, as a process with a file to watch; the API server is a stand-in in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep_analysis.record import Progress, RecordSet
from sweep_trainer import reporter
from sweep_trainer.reporter import Reporter, Task

ENVIRONMENT = {
    "SCALINGSWEEP_RUN": "web-30m-0123abcd",
    "SCALINGSWEEP_RUN_UID": "uid-1",
    "SCALINGSWEEP_ATTEMPT": "2",
    "SCALINGSWEEP_CONFIG_DIGEST": "sha256:c",
    "SCALINGSWEEP_PARAMETERS": "30000000",
    "SCALINGSWEEP_TOKENS": "300000000,600000000",
    "SCALINGSWEEP_SEED": "0",
}


class Outbox:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.sets: list[RecordSet] = []
        self.steps: list[Progress] = []

    def records(self, records: RecordSet) -> None:
        self.sets.append(records)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


@pytest.fixture
def told() -> Outbox:
    return Outbox()


@pytest.fixture
def beside(document: Path, told: Outbox, monkeypatch: pytest.MonkeyPatch) -> Reporter:
    """A reporter for which a document has settled as soon as it was seen twice."""
    monkeypatch.setattr(reporter, "SETTLE_SECONDS", 0.0)
    return Reporter(Task.of({**ENVIRONMENT, "SCALINGSWEEP_REPORT": str(document)}), told)  # type: ignore[arg-type]  # a stand-in


def write(path: Path, content: Any) -> None:
    """As the contract asks: beside its place, then renamed."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    beside.replace(path)


RECORD = {"tokens": 300_000_000, "loss": 3.2}


def test_nothing_is_told_before_there_is_a_document(beside: Reporter, told: Outbox) -> None:
    beside.look()
    beside.look(last=True)
    assert (told.sets, told.steps) == ([], [])


def test_a_record_is_told_once_however_often_it_is_written(beside: Reporter, told: Outbox, document: Path) -> None:
    for step in range(3):
        write(document, {"records": [RECORD], "progress": {"step": step, "steps": 9}})
        beside.look()
        beside.look()
    [only] = told.sets
    assert [(record.tokens, record.loss, record.run.attempt) for record in only.records] == [(300_000_000, 3.2, 2)]
    assert [progress.step for progress in told.steps] == [0, 1, 2]


def test_a_second_record_joins_the_first_unchanged(beside: Reporter, told: Outbox, document: Path) -> None:
    write(document, {"records": [RECORD]})
    beside.look()
    write(document, {"records": [RECORD, {"tokens": 600_000_000, "loss": 3.1}]})
    beside.look()
    assert told.sets[1].records[0] == told.sets[0].records[0]
    assert len(told.sets[1].records) == 2


def test_a_document_that_is_still_being_written_is_not_refused(
    beside: Reporter, told: Outbox, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "SETTLE_SECONDS", 3600.0)
    document.write_bytes(b'{"records": [{"tokens": 3000')
    beside.look()
    beside.look()
    document.write_bytes(json.dumps({"records": [RECORD]}).encode())
    beside.look()
    [only] = told.sets
    assert only.refused is None


def test_what_stays_truncated_at_the_end_is_refused_counted_and_told(
    beside: Reporter, told: Outbox, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "SETTLE_SECONDS", 3600.0)
    document.write_bytes(b'{"records": [{"tokens": 3000')
    beside.look(last=True)
    refused = told.sets[-1].refused
    assert refused is not None
    assert refused.documents == 1
    assert "not JSON" in refused.reason


def test_a_refused_document_takes_nothing_away_from_what_was_taken(
    beside: Reporter, told: Outbox, document: Path
) -> None:
    write(document, {"records": [RECORD]})
    beside.look()
    for wrong in (b"[" * 60_000, {"attempt": 1, "records": []}, b"x" * 70_000):
        write(document, wrong)
        beside.look()
        beside.look()
        beside.look()
    assert told.sets[-1].records == told.sets[0].records
    refused = told.sets[-1].refused
    assert refused is not None
    assert (refused.documents, "65,536" in refused.reason) == (3, True)
    assert len(told.sets) == 4


def test_a_failure_is_told_with_its_reason(beside: Reporter, told: Outbox, document: Path) -> None:
    write(document, {"failure": {"reason": "OutOfMemory", "message": "a batch of 64 does not fit"}})
    beside.look()
    beside.look()
    [only] = told.sets
    assert only.failure is not None
    assert (only.failure.reason, only.failure.attempt) == ("OutOfMemory", 2)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_read(kind: str, beside: Reporter, told: Outbox, document: Path, tmp_path: Path) -> None:
    if kind == "link":
        secret = tmp_path / "token"
        secret.write_text(json.dumps({"records": [RECORD]}))
        document.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(document)
    else:
        document.mkdir()
    beside.look()
    beside.look()
    refused = told.sets[-1].refused
    assert refused is not None
    assert "cannot be read" in refused.reason
    assert told.sets[-1].records == ()


def test_device_time_is_counted_in_gpus(document: Path) -> None:
    task = Task.of({**ENVIRONMENT, "SCALINGSWEEP_REPORT": str(document), "SCALINGSWEEP_GPUS": "8"})
    assert task.due.context_length is None
    own = {"SCALINGSWEEP_REPORT": str(document), "SCALINGSWEEP_SEQUENCE_LENGTH": "512"}
    assert Task.of({**ENVIRONMENT, **own}).due.context_length == 512
    assert task.gpus == 8


def ended(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SCALINGSWEEP", "KUBERNETES"))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**bare, **environment}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "SCALINGSWEEP_RUN_UID is not set"),
        ({**ENVIRONMENT, "SCALINGSWEEP_REPORT": "/r", "SCALINGSWEEP_TOKENS": "3e8"}, "'3e8'"),
        ({**ENVIRONMENT, "SCALINGSWEEP_REPORT": "/r"}, "this is no pod"),
    ],
)
def test_an_environment_that_says_too_little_ends_it_with_a_sentence(
    environment: dict[str, str], sentence: str
) -> None:
    done = ended(environment, "-m", "sweep_trainer.reporter")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_it_imports_neither_torch_nor_numpy_nor_a_kubernetes_client() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'kubernetes', 'urllib3', 'requests'} & set(sys.modules)"
    done = ended({}, "-c", f"import sys, sweep_trainer.reporter; sys.exit(str({heavy} or '') or 0)")
    assert (done.returncode, done.stderr) == (0, "")
