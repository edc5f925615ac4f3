"""Progress elsewhere: it arrives there, and trouble there is never the run's."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_run import carried_out, losses_of, moved

from sweep_analysis.execution import ReportTo
from sweep_analysis.record import Progress
from sweep_analysis.rung import RunOrder
from sweep_trainer import outlets
from sweep_trainer.failure import RunError
from sweep_trainer.outlets import Beside, Outlets, Point


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def progress(step: int) -> Progress:
    return Progress(attempt=1, step=step, steps=9, tokens=step, loss=3.0, last_updated="now")


class Mlflow(http.server.BaseHTTPRequestHandler):
    """Answers as MLflow's REST interface does, or is away."""

    received: list[tuple[str, dict[str, object]]]
    away: threading.Event

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.removeprefix("/api/2.0/mlflow/")
        if self.away.is_set():
            self.send_error(503)
            return
        type(self).received.append((path, body))
        answers = {"experiments/create": {"experiment_id": "7"}, "runs/create": {"run": {"info": {"run_id": "r"}}}}
        content = json.dumps(answers.get(path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def mlflow() -> Iterator[tuple[str, type[Mlflow]]]:
    handler = type("Handler", (Mlflow,), {"received": [], "away": threading.Event()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


def test_mlflow_is_told_a_run_its_points_and_its_end(order: RunOrder, mlflow: tuple[str, type[Mlflow]]) -> None:
    address, handler = mlflow
    told = Outlets(ReportTo(mlflow=address), order)
    told.progress(progress(3))
    wait_for(lambda: any("metrics" in body for _, body in handler.received))
    told.close()
    metrics = [metric for _, body in handler.received for metric in body.get("metrics", ())]  # type: ignore[attr-defined]
    assert {"key": "loss", "value": 3.0, "step": 3} in [{k: m[k] for k in ("key", "value", "step")} for m in metrics]
    assert handler.received[-1][0] == "runs/update"


def test_points_wait_while_the_other_side_is_away(
    order: RunOrder, mlflow: tuple[str, type[Mlflow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_LONGEST_PAUSE", 0.1)
    address, handler = mlflow
    handler.away.set()
    told = Outlets(ReportTo(mlflow=address), order)
    begun = time.monotonic()
    for step in range(50):
        told.progress(progress(step))
    assert time.monotonic() - begun < 5  # nobody was waited for
    handler.away.clear()
    wait_for(lambda: len({m["step"] for _, b in handler.received for m in b.get("metrics", ())}) == 50)  # type: ignore[attr-defined]
    told.close()


def test_a_package_that_is_missing_is_named_before_the_first_step(
    order: RunOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="Weights & Biases needs wandb"):
        Outlets(ReportTo(wandb="sweeps"), order)


def test_an_outlet_that_only_raises_changes_nothing_of_the_run(
    order: RunOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out(order)

    class Broken:
        def __init__(self, *arguments: object) -> None:
            raise ConnectionError("away for an hour")

    monkeypatch.setattr(outlets, "MLflow", Broken)
    training = order.training.changed(report_to=ReportTo(mlflow="http://127.0.0.1:9"))
    told = moved(order, tmp_path / "told", training=training)
    carried_out(told)
    assert losses_of(told) == losses_of(order)


def test_when_it_is_away_for_too_long_the_oldest_points_are_dropped() -> None:
    def away() -> outlets.Outlet:
        raise ConnectionError("away")

    beside = Beside("nobody", away)
    for step in range(outlets._KEPT_POINTS + 5):
        beside.add((step, {"loss": 1.0}))
    points: list[Point] = list(beside._points)
    assert len(points) <= outlets._KEPT_POINTS
    assert points[-1][0] == outlets._KEPT_POINTS + 4
    beside.close(0.0)
