"""Ray around the trainer: a driver that starts the workers, and what each worker does.

Owns the fit (Ray Train's TorchTrainer), and what driver and workers tell each other: that the run should stop, how it
ended. Ray starts the workers again when one is lost; they go on from our own checkpoint. Trains nothing: `train` does,
and knows no Ray.
"""

import json
import logging
import math
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read while ray is imported
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "180")  # after a minute it would end us without a word
os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers are so nice that any load starves them
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.engines.ranks import Ranks, patience
from sweep_trainer.failure import RunError, explain
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.ray_desk import Desk
from sweep_trainer.report import FINAL_SECONDS, LEAVING_SECONDS, Report, open_report

LOCAL = "local"
"""`RunOrder.ray` for a Ray of this process's own."""
RESTARTS = 5
"""How often workers are started again within one attempt; after that the attempt has failed."""
_ASK_SECONDS = 0.5
_START_SECONDS = 0.02
"""How often the signals are taken back while Ray starts: for so long its core may hold SIGTERM, and abort at one."""
_ANSWER_SECONDS = 5.0
_REACH_SECONDS = 60.0
"""How long a cluster's head may take to come up."""
_LOST_SECONDS = 45.0
"""How long the desk may be silent before the driver takes Ray for lost."""
_AWAY_SECONDS = 600.0
"""How long workers that were there may be gone, all of them, before the attempt ends: a node may take that to come."""
_WORD_SECONDS = 1.5
"""How long a driver that was asked to stop waits for each worker's next word: one may just have done its first step."""
_UNSAVED_SECONDS = 20.0
"""How long workers that had something to save may be silent, before a driver that was asked to stop leaves without
them: they may be lost, or hold Python up for seconds while they put gigabytes together."""

log = logging.getLogger(__name__)


class AskedByDriver(Interruption):
    """A worker's: asks the desk twice a second, beside training. A desk that is gone means that the driver is."""

    def __init__(self, desk: Any) -> None:
        super().__init__()
        self._asked_to_stop = threading.Event()
        self.nothing_to_save(True)
        threading.Thread(target=self._listen, args=(desk,), daemon=True).start()

    def _listen(self, desk: Any) -> None:
        """To the end of the process: a driver that was asked to stop waits as long as this is heard."""
        while True:
            time.sleep(_ASK_SECONDS)
            try:
                if ray.get(desk.stopping.remote(not self._nothing_to_save)):
                    self._asked_to_stop.set()
            except ray.exceptions.RayError:
                self._asked_to_stop.set()
                return

    @property
    def requested(self) -> bool:
        return self._asked_to_stop.is_set()


def fit(order: RunOrder, interruption: Interruption, report: Report) -> None:
    """Carry out an order with Ray's workers, here or on the cluster that `order.ray` names.

    Raises as `train.run` does. Asked to stop while no worker has anything to save, it ends the process at once.
    """
    side = _RaySide(order)
    side.start()
    while side.desk is None and not side.over.wait(_START_SECONDS):
        interruption.listen_again()
        if interruption.requested:
            _leave()
    interruption.listen_again()
    interruption.nothing_to_save(False)
    if side.desk is not None:
        _pass_on(interruption, side.desk, side.over, partial(_lost, order, report), _leave)
    side.unheeded.set()
    side.join()
    if isinstance(side.trouble, RunError) and side.end is None:
        raise side.trouble
    report.carry_over()  # the first worker reported the records; what follows must not drop them
    if side.end is None:
        raise side.trouble or RuntimeError("Ray's workers ended without a word")
    reason, message = side.end
    if reason == _INTERRUPTED:
        raise Interrupted
    if reason:
        raise RunError(FailureReason(reason), message)


class _RaySide(threading.Thread):
    """All that is asked of Ray, in one thread from its start to its end.

    Called from the main thread, Ray's Python takes SIGTERM over from its start on, and SIGINT for as long as it trains;
    its core takes SIGTERM at some moment of the start, wherever it is called from, which the main thread undoes. A Ray
    of our own lives no longer than the thread that started it.
    """

    def __init__(self, order: RunOrder) -> None:
        super().__init__(name="ray", daemon=True)
        self._order = order
        self.desk: Any = None
        self.over = threading.Event()
        """The run has ended: `end` and `trouble` say how."""
        self.unheeded = threading.Event()
        """Nobody asks the desk any more: Ray may be shut down."""
        self.end: tuple[str, str] | None = None
        self.trouble: Exception | None = None

    def run(self) -> None:
        try:
            self._fit()
        except Exception as error:  # noqa: BLE001  # raised again by the thread that waits for this one
            self.trouble = error
        finally:
            self.over.set()
        self.unheeded.wait()
        if self.desk is not None and not isinstance(self.trouble, RunError):
            ray.shutdown()

    def _fit(self) -> None:
        _connect(self._order)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # lost with us alone
        remote: Any = ray.remote(num_cpus=0)(Desk)
        self.desk = remote.options(scheduling_strategy=here).remote()
        try:
            with tempfile.TemporaryDirectory(prefix="scalingsweep-ray-") as folder:
                _trainer(self._order, self.desk, folder).fit()
        except Exception as error:  # noqa: BLE001  # Ray wraps what a worker raised; the desk knows better how it ended
            self.trouble = error
        try:
            self.end = ray.get(self.desk.end.remote(), timeout=_LOST_SECONDS)
        except ray.exceptions.RayError:
            log.error("Ray's workers ended with: %s", self.trouble)
            raise RunError(FailureReason.CRASHED, _said_of_lost(self._order)) from None


_INTERRUPTED = "Interrupted"


def _connect(order: RunOrder) -> None:
    """Raises RunError when the cluster cannot be joined; a Ray of our own is tried thrice, for on a busy machine its
    daemon misses a deadline of half a minute that cannot be moved."""
    if order.ray in (None, LOCAL):
        for last in (False, False, True):
            try:
                ray.init("local", num_cpus=order.workers + 1, include_dashboard=False, logging_level=logging.WARNING)
                return
            except Exception as error:
                ray.shutdown()
                if last:
                    raise
                log.warning("Ray did not start (%s); again", str(error).splitlines()[0])
    _reach(str(order.ray))
    try:
        ray.init(order.ray, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise RunError(
            FailureReason.BAD_CONFIGURATION, f"Ray at {order.ray or LOCAL} cannot be joined: {why}"
        ) from error


def _reach(address: str) -> None:
    """Raises RunError when nobody listens at a host and port: Ray itself would try for ten minutes without a word."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in address:
        return  # `auto`, or an address with a scheme: Ray's own to find
    hosts = [host.strip("[]")]
    if host in ("127.0.0.1", "localhost"):  # for which Ray takes this machine's own address
        hosts.append(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    deadline = time.monotonic() + _REACH_SECONDS
    while True:
        for one in hosts:
            try:
                socket.create_connection((one, int(port)), timeout=_ANSWER_SECONDS).close()
            except (OSError, OverflowError) as error:
                why = error
            else:
                return
        if time.monotonic() > deadline:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"Ray at {address} cannot be joined: nobody answers there ({why}); start its head, or name its address",
            )
        time.sleep(_ASK_SECONDS)


def _trainer(order: RunOrder, desk: Any, folder: str) -> TorchTrainer:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    gpus = _on_gpus(order, resources.get("GPU", 0))
    return TorchTrainer(
        work,
        train_loop_config={"order": json.dumps(order.to_json()), "desk": desk},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=int(patience(order.training.stall_seconds))
        ),
        scaling_config=ScalingConfig(num_workers=order.workers, use_gpu=gpus),
        run_config=RunConfig(
            name=f"{order.name}-{order.attempt}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=RESTARTS),
        ),
    )


def _on_gpus(order: RunOrder, there: float) -> bool:
    """Whether each worker asks for a GPU. On a cluster that has any they wait until there are enough; this machine will
    not have more."""
    if there >= order.workers or (there and order.ray not in (None, LOCAL)):
        return True
    if there:
        log.warning("%d workers share a machine of %g GPUs: all compute on its CPU", order.workers, there)
    return False


def _pass_on(
    interruption: Interruption,
    desk: Any,
    over: threading.Event,
    lost: Callable[[float], None],
    leave: Callable[[], None],
) -> None:
    """Tell the workers once the driver is asked to stop; and notice when nobody is there to be told any more.

    `lost` is called with the seconds that the workers have been gone, zero where the desk is; `leave` when the driver
    was asked to stop and nobody has anything to save: no worker was placed yet, or none has done a step.
    """
    heard, told = math.inf, None  # before its first word the desk is on its way, which may take minutes
    while not over.wait(_ASK_SECONDS):
        asked = interruption.requested
        try:
            if asked and told is None:
                ray.get(desk.stop.remote(), timeout=_ANSWER_SECONDS)
                told = time.monotonic()
            silence, unsaved, ended = ray.get(desk.heard.remote(), timeout=_ANSWER_SECONDS)
            heard = time.monotonic()
            answered = told is not None and heard - told > _WORD_SECONDS
            if answered and not ended and unsaved > _UNSAVED_SECONDS and not over.is_set():
                leave()
            if silence > _AWAY_SECONDS and told is None and not over.is_set():  # Ray Train would wait for ever
                lost(silence)
        except ray.exceptions.RayError:  # a time-out is one too
            if asked and heard == math.inf and not over.is_set():
                leave()
            if time.monotonic() - heard > _LOST_SECONDS and not over.is_set():
                lost(0.0)


def _leave() -> None:
    """Ray's threads are in the middle of something that nobody waits for: what they started ends with this process."""
    log.info("asked to stop, and no worker has anything to save")
    os._exit(ExitStatus.INTERRUPTED)


def _lost(order: RunOrder, report: Report, away: float) -> None:
    """The head or the driver's own node is gone, or all workers are and none came back: `fit` would wait on."""
    reason, message = FailureReason.CRASHED, _said_of_away(order, away) if away else _said_of_lost(order)
    log.error("%s: %s", reason, message)
    try:
        report.carry_over()
        report.failure(reason, message)
        report.close(LEAVING_SECONDS)
    finally:
        os._exit(ExitStatus.CRASHED)


def _said_of_lost(order: RunOrder) -> str:
    return (
        f"Ray at {order.ray or LOCAL} was lost, its head or a node of it;"
        " the next attempt goes on from the last checkpoint"
    )


def _said_of_away(order: RunOrder, seconds: float) -> str:
    return (
        f"Ray at {order.ray or LOCAL} lost workers and could not place {order.workers} again in {seconds:.0f} seconds;"
        " bring a node with room, and the next attempt goes on from the last checkpoint"
    )


def work(config: dict[str, Any]) -> None:
    """One worker's whole part. What is understood ends the run; anything else is raised, so that Ray starts again."""
    from sweep_trainer.train import in_group

    begun = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    context, desk = get_context(), config["desk"]
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), context.get_local_rank())
    order = RunOrder.model_validate_json(config["order"])
    if ray.get(desk.end.remote()) is not None:
        return
    report = open_report(order) if ranks.first else None
    interruption = AskedByDriver(desk)
    end = ("", "")
    try:
        in_group(order, interruption, report, ranks, begun=begun)
    except Interrupted:
        end = (_INTERRUPTED, "")
    except Exception as error:
        reason, message = explain(error)
        if reason is FailureReason.CRASHED:
            raise
        end = (reason, message)
    if report is not None:
        report.close(LEAVING_SECONDS if interruption.requested else FINAL_SECONDS)
    if ranks.first or end[0]:
        ray.get(desk.ended.remote(*end))
