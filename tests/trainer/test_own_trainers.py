"""The examples of own trainers, as their pods would run them: environment in, one document out that is taken whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep_analysis.record import ExitStatus, RecordSet
from sweep_analysis.reported import Due, Reported, read_report, schema
from sweep_analysis.rung import Purpose

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "own-trainers"


class Pod:
    """The variables of one run and where its document will be."""

    def __init__(self, folder: Path, parameters: int, *tokens: int) -> None:
        self.due = Due("uid-1", 1, "sha256:c", Purpose.LADDER, parameters, tokens, 3)
        self.report = folder / "report.json"
        self.environment = {
            "SCALINGSWEEP_RUN": "web-20k-0123abcd",
            "SCALINGSWEEP_RUN_UID": "uid-1",
            "SCALINGSWEEP_NAMESPACE": "research",
            "SCALINGSWEEP_ATTEMPT": "1",
            "SCALINGSWEEP_CONFIG_DIGEST": "sha256:c",
            "SCALINGSWEEP_PARAMETERS": str(parameters),
            "SCALINGSWEEP_TOKENS": ",".join(map(str, tokens)),
            "SCALINGSWEEP_SEED": "3",
            "SCALINGSWEEP_LEARNING_RATE_FACTOR": "1",
            "SCALINGSWEEP_STORAGE": str(folder / "storage"),
            "SCALINGSWEEP_REPORT": str(self.report),
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def run(self, *command: str) -> Reported:
        process = self.start(*command)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return self.reported()

    def reported(self) -> Reported:
        return read_report(self.report.read_bytes(), self.due, now="2026-01-01T00:00:00Z")


def tokens_of(records: RecordSet) -> list[int]:
    return [record.tokens for record in records.records]


def test_a_trainer_in_shell(tmp_path: Path) -> None:
    reported = Pod(tmp_path, 20_000, 200_000, 400_000).run("sh", str(EXAMPLES / "trainer.sh"))
    assert tokens_of(reported.records) == [200_000, 400_000]
    first, second = (record.loss for record in reported.records.records)
    assert second < first


def test_a_trainer_in_plain_python(tmp_path: Path) -> None:
    reported = Pod(tmp_path, 400, 2_000, 8_000).run(sys.executable, str(EXAMPLES / "trainer.py"))
    assert tokens_of(reported.records) == [2_000, 8_000]
    first, second = (record.loss for record in reported.records.records)
    assert second < first
    assert reported.progress is not None
    assert reported.progress.step == reported.progress.steps


def test_a_trainer_that_was_asked_to_stop_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    command = (sys.executable, str(EXAMPLES / "trainer.py"))
    undisturbed = Pod(tmp_path / "undisturbed", 400, 2_000, 3_000_000)
    disturbed = Pod(tmp_path / "disturbed", 400, 2_000, 3_000_000)
    for pod in (undisturbed, disturbed):
        pod.report.parent.mkdir()
    expected = undisturbed.run(*command)
    first = disturbed.start(*command)
    deadline = time.monotonic() + 60
    while not disturbed.report.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == ExitStatus.INTERRUPTED, errors
    assert disturbed.run(*command).records == expected.records


@pytest.mark.slow
def test_a_trainer_under_torchrun_reports_once_for_all_its_ranks(tmp_path: Path) -> None:
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    reported = Pod(tmp_path, 10_000, 6_400, 25_600).run(*launch, str(EXAMPLES / "distributed.py"))
    assert tokens_of(reported.records) == [6_400, 25_600]
    first, second = (record.loss for record in reported.records.records)
    assert second < first


@pytest.mark.slow
def test_a_trainer_around_hugging_faces_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="an example for those who use it")
    pytest.importorskip("accelerate", reason="Hugging Face's Trainer needs it")
    reported = Pod(tmp_path, 10_000, 5_120, 25_600).run(sys.executable, str(EXAMPLES / "huggingface.py"))
    assert tokens_of(reported.records) == [5_120, 25_600]
    first, second = (record.loss for record in reported.records.records)
    assert second < first
    assert reported.progress is not None
    assert reported.progress.loss is not None


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((ROOT / "docs" / "own-trainers.schema.json").read_text())
    assert published == schema(), "python -m sweep_trainer.reporter --schema > docs/own-trainers.schema.json"
