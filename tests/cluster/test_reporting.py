"""Results on their way into a run's status: the real trainer and reporter, the real API server, and trouble."""

import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from run_on_cluster import TOKENS, Ground, installed

from sweep_analysis.recipe import Training, shape_of, whole_batches
from sweep_analysis.record import Progress, RecordSet
from sweep_analysis.rung import Run, RunOrder
from sweep_trainer.status_api import Refused, StatusApi, Unavailable

PROGRESS = Progress(attempt=1, step=1, steps=10, tokens=1, last_updated="2026-01-01T00:00:00Z")
SECONDS = 60.0
"""How long a test waits for what must come."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A plane of this module's own, since it is stopped and started here."""
    own = ControlPlane(tmp_path_factory.mktemp("reporting")).start()
    with installed(own):
        yield own
    own.stop()


@pytest.fixture
def ground(plane: ControlPlane, request: pytest.FixtureRequest) -> Ground:
    name = request.node.name.split("[")[0].replace("_", "-")[:40].strip("-")
    plane.kubectl("create", "namespace", name)
    return Ground(plane, name)


def status_of(ground: Ground, index: int = 0, **changes: Any) -> StatusApi:
    run = ground.runs[index].metadata
    host, port = ground.plane.url.removeprefix("https://").split(":")
    given = {"host": host, "port": int(port), "account": ground.pod(run.name), **changes}
    return StatusApi(ground.namespace, run.name, run.uid, **given)


def environment(ground: Ground, folder: Path, **variables: str) -> dict[str, str]:
    """What a pod's process finds."""
    host, port = ground.plane.url.removeprefix("https://").split(":")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SCALINGSWEEP", "KUBERNETES"))}
    return {
        **bare,
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "SCALINGSWEEP_ACCOUNT": str(folder),
        "SCALINGSWEEP_TERMINATION_LOG": str(folder / "termination-log"),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def until(ready: Callable[[], Any]) -> Any:
    """What `ready` gives as soon as it gives something."""
    deadline = time.monotonic() + SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


# --- one write ---------------------------------------------------------------------------------------------------


def test_progress_and_records_have_managers_of_their_own_and_never_drop_each_other(ground: Ground) -> None:
    status = status_of(ground)
    status.apply_records(RecordSet(attempt=1, records=()))
    status.apply_progress(PROGRESS)
    status.apply_progress(PROGRESS.changed(step=2))
    standing = status.read()
    assert (standing["progress"]["step"], standing["records"]) == (2, [{"attempt": 1, "records": []}])
    fields = ground.plane.get("scalingrun", status.run, "-n", ground.namespace, "--show-managed-fields")["metadata"]
    managers = {entry["manager"] for entry in fields["managedFields"] if entry["operation"] == "Apply"}
    assert managers == {"trainer-progress", "trainer-records-1"}


def test_a_run_that_was_made_anew_under_the_same_name_is_left_alone(ground: Ground) -> None:
    status = status_of(ground)
    status.uid = "00000000-0000-0000-0000-000000000000"
    for step in (1, 2):
        with pytest.raises(Refused, match="was deleted and made anew"):
            status.apply_progress(PROGRESS.changed(step=step))
    assert ground.run(status.run)["status"]["progress"]["step"] == 1


def test_a_token_that_was_rotated_is_read_anew(ground: Ground) -> None:
    status = status_of(ground)
    good = (status.account / "token").read_text()
    (status.account / "token").write_text("expired")
    with pytest.raises(Unavailable, match="401"):
        status.apply_progress(PROGRESS)
    (status.account / "token").write_text(good)
    status.apply_progress(PROGRESS)


def test_a_server_that_hangs_is_given_up_and_one_that_is_gone_too(ground: Ground) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = status_of(ground, host="127.0.0.1", port=silent.getsockname()[1], timeout=0.2)
        with pytest.raises(Unavailable, match="timed out"):
            hanging.apply_progress(PROGRESS)
        port = silent.getsockname()[1]
    with pytest.raises(Unavailable, match="refused"):
        status_of(ground, host="127.0.0.1", port=port).apply_progress(PROGRESS)


class Answers(http.server.BaseHTTPRequestHandler):
    """A server behind the API server's own certificate that answers from a list."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], bytes]]

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = self.script.pop(0)
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if not self.script or status == 200:
            self.close_connection = True  # without saying so: the client finds a closed connection next time

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answering(ground: Ground) -> Iterator[Callable[..., StatusApi]]:
    """A status whose server gives these answers, one after another."""
    certificates = ground.plane.folder / "certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(*script: tuple[int, dict[str, str], bytes]) -> StatusApi:
        Answers.script = list(script)
        return status_of(ground, host="127.0.0.1", port=server.server_address[1])

    yield serve
    server.shutdown()
    server.server_close()


def test_a_pause_that_the_server_asks_for_is_passed_on(answering: Callable[..., StatusApi]) -> None:
    status = answering((429, {"retry-after": "7"}, b"{}"), (503, {}, b"<html>down</html>"), (200, {}, b"not json"))
    with pytest.raises(Unavailable) as first:
        status.apply_progress(PROGRESS)
    assert first.value.retry_after == 7
    with pytest.raises(Unavailable, match="503: <html>down"):
        status.apply_progress(PROGRESS)
    with pytest.raises(Unavailable, match="not JSON"):
        status.apply_progress(PROGRESS)


def test_a_kept_connection_that_has_gone_costs_no_report(answering: Callable[..., StatusApi]) -> None:
    status = answering((200, {}, b"{}"), (200, {}, b"{}"))
    status.apply_progress(PROGRESS)
    status.apply_progress(PROGRESS)
    assert Answers.script == []


# --- our trainer -------------------------------------------------------------------------------------------------


@pytest.fixture
def order(ground: Ground, tmp_path: Path) -> Callable[..., RunOrder]:
    """An order for the ground's first run: a model of 7,000 parameters on a text of words."""
    text = tmp_path / "words.txt"
    text.write_text("the lord of a house and his sons went down to the sea in ships\n" * 2000)
    training = Training.model_validate(
        {
            "data": {"files": [str(text)], "validationTokens": 1024},
            "sequenceLength": 16,
            "batchTokens": 128,
            "checkpointSeconds": 3600,
        }
    )
    run = ground.runs[0].metadata

    def make(attempt: int = 1, steps: tuple[int, ...] = (40, 60)) -> RunOrder:
        tokens = whole_batches(training, tuple(128 * n for n in steps))
        return RunOrder(
            uid=run.uid,
            name=run.name,
            attempt=attempt,
            run=Run(parameters=shape_of(training, 7_000).parameters, tokens=tokens),
            training=training,
            config_digest="sha256:c",
            storage=str(tmp_path / "storage"),
            report="api",
            cache=str(tmp_path / "cache"),
        )

    return make


def trainer(ground: Ground, order: RunOrder) -> subprocess.Popen[str]:
    variables = environment(ground, ground.pod(order.name, order.attempt))
    variables["SCALINGSWEEP_ORDER"] = json.dumps(order.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "sweep_trainer", "train"], env=variables, stderr=subprocess.PIPE, text=True
    )


def test_a_trainers_progress_and_records_arrive_under_its_narrow_role(ground: Ground, order) -> None:
    process = trainer(ground, order())
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    status = ground.run(ground.runs[0].metadata.name)["status"]
    assert [record["tokens"] for record in status["records"][0]["records"]] == list(order().run.tokens)
    assert (status["progress"]["phase"], status["progress"]["step"]) == ("Done", 72)


def test_a_run_whose_api_server_is_away_until_after_its_end_loses_nothing(ground: Ground, order) -> None:
    given = order()
    ground.pod(given.name, given.attempt)  # while there is somebody to make one
    process = trainer(ground, given)
    ground.plane.stop_part("kube-apiserver")
    try:
        journal = Path(given.storage, "report", "records-1.json")
        until(lambda: journal.exists() and len(json.loads(journal.read_text())["records"]) == 2)
        assert process.poll() is None, "it waits for the API server"
    finally:
        ground.plane.start_apiserver()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "told again" in errors
    status = ground.run(given.name)["status"]
    assert [record["tokens"] for record in status["records"][0]["records"]] == list(given.run.tokens)


def test_a_second_attempt_takes_up_what_the_first_one_reported(ground: Ground, order, tmp_path: Path) -> None:
    first = trainer(ground, order())
    assert first.wait(SECONDS) == 0
    second_order = order(attempt=2).changed(storage=str(tmp_path / "another"))
    ground.set_status(second_order.name, {"attempt": 2})
    second = trainer(ground, second_order)
    _, errors = second.communicate(timeout=SECONDS)
    assert second.returncode == 0
    assert "all records were measured by earlier attempts" in errors
    sets = ground.run(second_order.name)["status"]["records"]
    assert [each["attempt"] for each in sets] == [1, 2]
    assert sets[0]["records"] == sets[1]["records"]


# --- own trainers ------------------------------------------------------------------------------------------------


@pytest.fixture
def reporter(ground: Ground, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The reporter of the first run's first attempt; its document is `report.json`."""
    run = ground.runs[0]
    variables = environment(
        ground,
        ground.pod(run.metadata.name),
        SCALINGSWEEP_RUN=run.metadata.name,
        SCALINGSWEEP_RUN_UID=run.metadata.uid,
        SCALINGSWEEP_ATTEMPT="1",
        SCALINGSWEEP_CONFIG_DIGEST=run.spec.config_digest,
        SCALINGSWEEP_PARAMETERS=str(run.spec.run.parameters),
        SCALINGSWEEP_TOKENS=",".join(map(str, TOKENS)),
        SCALINGSWEEP_SEED="0",
        SCALINGSWEEP_REPORT=str(tmp_path / "report.json"),
    )
    command = [sys.executable, "-m", "sweep_trainer.reporter"]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def put(tmp_path: Path, document: Any) -> None:
    (tmp_path / "report.new").write_text(document if isinstance(document, str) else json.dumps(document))
    (tmp_path / "report.new").replace(tmp_path / "report.json")


def records_of(ground: Ground) -> list[dict[str, Any]]:
    return ground.run(ground.runs[0].metadata.name)["status"].get("records", [])


def test_an_own_trainers_document_arrives_and_its_last_words_do_too(ground: Ground, reporter, tmp_path: Path) -> None:
    put(tmp_path, {"records": [{"tokens": TOKENS[0], "loss": 3.5}], "progress": {"step": 1, "steps": 2}})
    [first] = until(lambda: records_of(ground))
    assert [record["loss"] for record in first["records"]] == [3.5]
    put(tmp_path, {"records": [{"tokens": t, "loss": 3.5} for t in TOKENS], "progress": {"step": 2, "steps": 2}})
    reporter.send_signal(signal.SIGTERM)
    assert reporter.wait(SECONDS) == 0
    [last] = records_of(ground)
    assert [record["tokens"] for record in last["records"]] == list(TOKENS)
    assert ground.run(ground.runs[0].metadata.name)["status"]["progress"]["step"] == 2


def test_what_is_refused_is_counted_and_shown_in_the_status_and_in_the_log(
    ground: Ground, reporter, tmp_path: Path
) -> None:
    put(tmp_path, {"records": [{"tokens": TOKENS[0], "loss": 3.5}]})
    until(lambda: records_of(ground))
    put(tmp_path, {"records": [{"tokens": TOKENS[0] + 1, "loss": 3.5}]})
    refused = until(lambda: records_of(ground)[0].get("refused"))
    assert refused == {
        "documents": 1,
        "reason": f"records[0].tokens is {TOKENS[0] + 1}; records are due at {TOKENS[0]}, {TOKENS[1]}",
    }
    assert [record["tokens"] for record in records_of(ground)[0]["records"]] == [TOKENS[0]]
    reporter.terminate()
    assert "refused (1 so far): records[0].tokens is" in reporter.communicate(timeout=SECONDS)[1]
