"""Trainers for simulated nodes: what a run's pod would write while it runs, and how it ends.

No process trains: kwok says that a pod runs, this applies progress and records as the trainer in it would (the same
field managers, by server-side apply) and then says by annotation how the pod ends (`control_plane.simulated`).
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from simulated_cluster import healthy, record_of

from sweep_analysis.record import Progress, RecordSet
from sweep_analysis.rung import Run
from sweep_operator.api import ScalingRun
from sweep_operator.clusters.kubernetes.cache import Change, Store
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError, NotFound
from sweep_operator.clusters.kubernetes.resources import PODS, RUN_LABEL, RUNS
from sweep_operator.clusters.kubernetes.views import Identity, PodView, pod_view
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.conditions import timestamp


@dataclass(frozen=True)
class Play:
    """What the trainer in one pod does."""

    outcome: Literal["Succeeded", "Failed", "Runs"] = "Succeeded"
    """`Runs`: it runs until somebody ends it."""
    exit_code: int = 1
    reason: str = "Error"
    message: str = ""
    records: bool = True
    """Whether a successful one hands in what is due."""
    seconds: float = 0.0
    """How long it trains."""
    ends: bool = True
    """Whether its pod ends when it has handed everything in; else it lingers until `release`."""
    share: float = 0.5
    """How far one that only runs, or fails, has come."""


@dataclass
class StandinTrainers:
    """Plays the trainers of one namespace from `start` to `stop`. `play` may be replaced at any time."""

    api: Api
    namespace: str
    play: Callable[[ScalingRun, int], Play] = lambda run, attempt: Play()
    loss: Callable[[Run, int], float] = healthy
    begun: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """UIDs of the pods that ran, by run and attempt: never more than one each."""
    told: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=lambda: defaultdict(dict))
    """Token counts of the records that the API server has taken, by run and attempt."""
    _holding: list[Identity] = field(default_factory=list)
    _due: list[tuple[float, Identity]] = field(default_factory=list)
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False

    def start(self) -> "StandinTrainers":
        """Begin to listen for pods."""
        store: Store[PodView] = Store(pod_view)
        store.listen(self._seen)
        self._watch = Watch(self.api, PODS, store, self.namespace, RUN_LABEL)
        self._watch.start()
        self._thread = threading.Thread(target=self._work, name="trainers", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; pods stay as they are."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._watch.stop()
        self._thread.join(10)

    def release(self) -> None:
        """Let those that only run go on with what `play` says of them now."""
        with self._wake:
            holding, self._holding = self._holding, []
        for pod in holding:
            self._later(0.0, pod)

    def _seen(self, change: Change[PodView]) -> None:
        pod = change.new
        if pod is None or pod.phase != "Running" or pod.identity.deleted_at:
            return
        pods = self.begun[pod.identity.run, pod.identity.attempt]
        if pod.identity.uid not in pods:
            pods.add(pod.identity.uid)
            self._later(0.0, pod.identity)

    def _later(self, seconds: float, pod: Identity) -> None:
        with self._wake:
            self._due.append((time.monotonic() + seconds, pod))
            self._due.sort(key=lambda entry: entry[0])
            self._wake.notify()

    def _work(self) -> None:
        started: set[str] = set()
        while True:
            with self._wake:
                while not self._stopping and (not self._due or self._due[0][0] > time.monotonic()):
                    self._wake.wait(max(0.0, self._due[0][0] - time.monotonic()) if self._due else None)
                if self._stopping:
                    return
                _, pod = self._due.pop(0)
            try:
                run = ScalingRun.model_validate(self.api.get(RUNS.path(pod.namespace, pod.run)))
                play = self.play(run, pod.attempt)
                if pod.uid not in started and (play.seconds or play.outcome == "Runs"):
                    self._report(run, pod, play, done=False)
                    started.add(pod.uid)
                    self._hold(pod, run) if play.outcome == "Runs" else self._later(play.seconds, pod)
                else:
                    self._end(run, pod, play)
            except NotFound:
                continue  # the run or the pod went in the meantime
            except (ApiError, OSError):
                self._later(0.2, pod)

    def _hold(self, pod: Identity, run: ScalingRun) -> None:
        """Keep it until `release`, unless what is said of it has changed in the meantime."""
        with self._wake:
            play = self.play(run, pod.attempt)
            if play.outcome == "Runs" or not play.ends:
                self._holding.append(pod)
                return
        self._later(0.0, pod)

    def _end(self, run: ScalingRun, pod: Identity, play: Play) -> None:
        self._report(run, pod, play, done=play.outcome == "Succeeded")
        if not play.ends:
            self._hold(pod, run)
            return
        said = {"outcome": play.outcome, "exit-code": str(play.exit_code), "reason": play.reason}
        annotations = {f"simulated/{name}": value for name, value in (said | {"message": play.message}).items()}
        self.api.patch(PODS.path(pod.namespace, pod.name), {"metadata": {"annotations": annotations}})

    def _report(self, run: ScalingRun, pod: Identity, play: Play, *, done: bool) -> None:
        now = datetime.now(UTC)
        if done and play.records:
            records = tuple(
                record_of(run, pod.attempt, tokens, self.loss(run.spec.run, tokens), now)
                for tokens in run.spec.run.tokens
            )
            reported = RecordSet(attempt=pod.attempt, records=records).to_json()
            self._apply(run, f"trainer-records-{pod.attempt}", {"records": [reported]})
            self.told[run.metadata.name][pod.attempt] = run.spec.run.tokens
        step = 100 if done else int(100 * play.share)
        progress = Progress(
            attempt=pod.attempt, step=step, steps=100, tokens=step * 100, eta_seconds=0.0, last_updated=timestamp(now)
        )
        self._apply(run, "trainer-progress", {"progress": progress.to_json()})

    def _apply(self, run: ScalingRun, manager: str, status: dict[str, Any]) -> None:
        document = {
            "apiVersion": run.api_version,
            "kind": run.kind,
            "metadata": {"name": run.metadata.name, "namespace": run.metadata.namespace, "uid": run.metadata.uid},
            "status": status,
        }
        path = RUNS.path(run.metadata.namespace, run.metadata.name, "status")
        self.api.patch(path, document, kind="apply", field_manager=manager, force=True)
