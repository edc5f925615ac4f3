"""Weights & Biases, MLflow and TensorBoard themselves read back what a run told them, and may be away."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from several_ranks import free_port
from tiny_run import losses_of, moved, written

from sweep_analysis.execution import ReportTo
from sweep_analysis.record import ExitStatus, Progress
from sweep_analysis.rung import RunOrder
from sweep_trainer import outlets
from sweep_trainer.outlets import Outlets

STEPS = range(1, 41)
SERVER = "from mlflow.server import app; app.run('127.0.0.1', {port}, threaded=True)"
"""MLflow's own server, its database created where it is missing; nothing of ours answers."""
GONE = "http://127.0.0.1:9"
"""Nobody listens at the discard port."""


def progress(step: int) -> Progress:
    return Progress(attempt=1, step=step, steps=60, tokens=128 * step, loss=4.0 - step / 100, last_updated="now")


def wait_for(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    store = {"_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/runs.db", "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder)}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER.format(port=port)]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, env=os.environ | store | quiet, stdout=log, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_an_mlflow_server_that_comes_up_late_and_restarts_has_every_point_of_the_run(
    order: RunOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow.server", reason="mlflow-skinny with flask-cors and sqlalchemy is not installed")
    monkeypatch.setattr(outlets, "_LONGEST_PAUSE", 0.5)
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def losses() -> dict[int, float]:
        """Of all runs of the experiment: a restart makes a run of its own."""
        try:
            named = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={order.name}"
            with urllib.request.urlopen(named, timeout=10) as answer:
                experiment = json.load(answer)["experiment"]["experiment_id"]
            body = json.dumps({"experiment_ids": [experiment]}).encode()
            asked = urllib.request.Request(
                f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                runs = [run["info"]["run_id"] for run in json.load(answer).get("runs", ())]
            found: dict[int, float] = {}
            for run in runs:
                history = f"{address}/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss"
                with urllib.request.urlopen(history, timeout=10) as answer:
                    found |= {int(m["step"]): m["value"] for m in json.load(answer).get("metrics", ())}
        except OSError:
            return {}
        return found

    told = Outlets(ReportTo(mlflow=address), order)
    half = len(STEPS) // 2
    for step in STEPS[:half]:
        told.progress(progress(step))
    with serving(tmp_path, port):
        wait_for(lambda: len(losses()) == half)
    for step in STEPS[half:]:
        told.progress(progress(step))
    with serving(tmp_path, port):
        wait_for(lambda: len(losses()) == len(STEPS))
        assert losses() == {step: pytest.approx(4.0 - step / 100) for step in STEPS}
        told.close(30)


def offline_history(folder: Path) -> dict[int, float]:
    """The losses in the transaction log that `wandb sync` would upload: LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content, at, whole, found = file.read_bytes(), 7, b"", {}
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + length > len(content):
            break  # the rest is being written, by a process of theirs
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record, whole = Record.FromString(whole), b""
            values = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            if values:
                found[values["_step"]] = values["loss"]
    return found


def test_weights_and_biases_has_every_point_in_the_file_that_it_uploads(
    order: RunOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    told = Outlets(ReportTo(wandb="sweeps"), order)
    for step in STEPS:
        told.progress(progress(step))
    told.close(60)
    wait_for(lambda: len(offline_history(tmp_path)) == len(STEPS))
    assert offline_history(tmp_path) == {step: pytest.approx(4.0 - step / 100) for step in STEPS}


def test_tensorboard_reads_every_point_from_its_event_file(order: RunOrder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    from tensorboardX.proto.event_pb2 import Event

    told = Outlets(ReportTo(tensorboard=str(tmp_path)), order)
    for step in STEPS:
        told.progress(progress(step))
    told.close(30)
    (file,) = (tmp_path / order.name).iterdir()
    content, at, found = file.read_bytes(), 0, {}
    while at < len(content):  # length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", content[at : at + 8])
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            if value.tag == "loss":
                found[event.step] = value.simple_value
    assert found == {step: pytest.approx(4.0 - step / 100) for step in STEPS}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["wandb", "mlflow", "tensorboard"])
def test_a_run_ends_as_ever_while_the_library_reaches_nobody(where: str, order: RunOrder, tmp_path: Path) -> None:
    """The whole process, its exit included: a library's own threads and exit handlers must not hold it."""
    if where != "mlflow":  # which is spoken to over HTTP, without its library
        pytest.importorskip({"tensorboard": "tensorboardX"}.get(where, where), reason="the tracker is not installed")
    (tmp_path / "a file").write_text("")
    target = {"wandb": "sweeps", "mlflow": GONE, "tensorboard": str(tmp_path / "a file" / "below")}[where]
    training = order.training.changed(report_to=ReportTo.model_validate({where: target}))
    environment = {"WANDB_BASE_URL": GONE, "WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(tmp_path)}
    ends = {}
    for one in (order, moved(order, tmp_path / where, training=training)):
        command = [sys.executable, "-m", "sweep_trainer", "train", str(written(one))]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == ExitStatus.DONE, done.stderr[-2000:]
        ends[one.storage] = done.stderr
    assert losses_of(order) == losses_of(one)
    assert "does not take progress" in ends[one.storage] or "has not taken" in ends[one.storage]
