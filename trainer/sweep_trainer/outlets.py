"""Progress for those who like to watch it elsewhere: TensorBoard, MLflow, Weights & Biases.

Owns the threads that write there, one for each, and what they do in trouble: nothing is waited for, nothing is raised
into the run, the newest points are kept and handed over when the other side is back. What the operator needs goes
through `report` and never through here.
"""

import importlib.util
import json
import logging
import os
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from sweep_analysis.execution import ReportTo
from sweep_analysis.record import FailureReason, Progress
from sweep_analysis.rung import RunOrder
from sweep_trainer.failure import RunError

Point = tuple[int, dict[str, float]]

_KEPT_POINTS = 10_000
"""An hour's at one a second, and more; older ones are dropped when the other side is away for longer."""
_BATCH = 500
_LONGEST_PAUSE = 60.0
_TIMEOUT_SECONDS = 10.0
_SHOWN = ("loss", "gradientNorm", "learningRate", "tokensPerSecond", "mfu", "memoryBytes", "dataWait", "tokens")

log = logging.getLogger(__name__)


class Outlet(Protocol):
    """One place to write to; made, used and given up on a thread of its own. May raise anything."""

    def write(self, points: list[Point]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder of the run's own."""

    def __init__(self, folder: str, order: RunOrder) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(os.path.join(folder, order.name))  # noqa: PTH118  # may be an address: s3://…

    def write(self, points: list[Point]) -> None:
        for step, values in points:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """MLflow's REST interface, version 2.0; a token comes from MLFLOW_TRACKING_TOKEN."""

    def __init__(self, address: str, order: RunOrder) -> None:
        self._address = address.rstrip("/")
        name = order.name
        try:
            experiment = self._ask("experiments/create", {"name": name})["experiment_id"]
        except OSError:  # it is there already
            experiment = self._ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]["experiment_id"]
        begun = {"experiment_id": experiment, "run_name": f"attempt {order.attempt}", "start_time": _milliseconds()}
        self._run = self._ask("runs/create", begun)["run"]["info"]["run_id"]
        settings = {"uid": order.uid, "parameters": order.run.parameters, "seed": order.run.seed}
        listed = [{"key": key, "value": str(value)} for key, value in settings.items()]
        self._ask("runs/log-batch", {"run_id": self._run, "params": listed})

    def write(self, points: list[Point]) -> None:
        metrics = [
            {"key": name, "value": value, "step": step, "timestamp": _milliseconds()}
            for step, values in points
            for name, value in values.items()
        ]
        for at in range(0, len(metrics), 1000):  # what one request may hold
            self._ask("runs/log-batch", {"run_id": self._run, "metrics": metrics[at : at + 1000]})

    def close(self) -> None:
        self._ask("runs/update", {"run_id": self._run, "status": "FINISHED", "end_time": _milliseconds()})

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the recipe takes http and https alone
            f"{self._address}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # as above
            answered: dict[str, Any] = json.load(answer)
        return answered


class WandB:
    """Weights & Biases, through its own package; attempts of a run go on in one run there."""

    def __init__(self, project: str, order: RunOrder) -> None:
        import wandb

        config = {"parameters": order.run.parameters, "tokens": list(order.run.tokens), "seed": order.run.seed}
        settings = wandb.Settings(console="off", disable_git=True, disable_code=True)  # numbers alone leave the run
        self._run: Any = wandb.init(
            project=project, id=order.uid, name=order.name, resume="allow", config=config, settings=settings
        )

    def write(self, points: list[Point]) -> None:
        for step, values in points:
            self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Beside:
    """One outlet on its thread."""

    def __init__(self, name: str, make: Callable[[], Outlet]) -> None:
        self._name, self._make = name, make
        self._points: deque[Point] = deque(maxlen=_KEPT_POINTS)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def add(self, point: Point) -> None:
        """Returns at once."""
        self._points.append(point)
        self._news.set()

    def close(self, seconds: float) -> None:
        """Wait at most so long for what is left."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("%s has not taken the last %d points", self._name, len(self._points))

    def _serve(self) -> None:
        outlet: Outlet | None = None
        taken: list[Point] = []
        pause = 1.0
        while not (self._closing.is_set() and not self._points and not taken):
            self._news.wait()
            self._news.clear()
            try:
                outlet = outlet or self._make()
                while taken or self._points:
                    taken += [self._points.popleft() for _ in range(min(_BATCH - len(taken), len(self._points)))]
                    outlet.write(taken)
                    taken = []
                pause = 1.0
            except Exception as error:  # noqa: BLE001  # whatever it is, the run must not notice
                log.warning("%s does not take progress (%s); again in %.0f s", self._name, error, pause)
                outlet = None
                if self._closing.wait(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._news.set()
        if outlet is not None:
            try:
                outlet.close()
            except Exception as error:  # noqa: BLE001  # as above
                log.warning("%s was not closed: %s", self._name, error)


class Outlets:
    """All that a recipe asks for."""

    def __init__(self, asked: ReportTo | None, order: RunOrder) -> None:
        """Raises RunError, before the first step, when a package that one needs is not installed."""
        self._all: list[Beside] = []
        if asked is None:
            return
        kinds: tuple[tuple[str | None, str, str | None, Callable[[str, RunOrder], Outlet]], ...] = (
            (asked.tensorboard, "TensorBoard", "tensorboardX", TensorBoard),
            (asked.mlflow, "MLflow", None, MLflow),
            (asked.wandb, "Weights & Biases", "wandb", WandB),
        )
        for target, name, package, _ in kinds:
            if target and package and importlib.util.find_spec(package) is None:
                raise RunError(
                    FailureReason.BAD_CONFIGURATION, f"training.reportTo: {name} needs {package}; pip install {package}"
                )
        for target, name, _, kind in kinds:
            if target:
                self._all.append(Beside(name, lambda kind=kind, target=target: kind(target, order)))  # type: ignore[misc]  # the defaults bind the loop's names

    def progress(self, progress: Progress) -> None:
        """Hand on; returns at once."""
        if not self._all:
            return
        document = progress.to_json()
        point = progress.step, {name: float(document[name]) for name in _SHOWN if name in document}
        for outlet in self._all:
            outlet.add(point)

    def close(self, seconds: float = 5.0) -> None:
        """Wait at most so long for what is left."""
        for outlet in self._all:
            outlet.close(seconds)


def _milliseconds() -> int:
    return int(time.time() * 1000)
