"""The adapter itself: documents from the store, workloads as processes of the nursery.

Owns the slots (how many runs at once), the queue before them, and what is written down of every attempt. Decides
nothing about a ladder.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweep_analysis.rung import RunOrder
from sweep_operator.api import Imports, RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.clusters import ABSENT, PAUSED, Cause, Ending, Event, Workload, WorkloadState
from sweep_operator.clusters.local import memory
from sweep_operator.clusters.local.attempts import Asked, AttemptFile, how_it_ended
from sweep_operator.clusters.local.earlier import imported
from sweep_operator.clusters.local.files import signature, this_host, write_atomically
from sweep_operator.clusters.local.processes import Ended, Nursery
from sweep_operator.clusters.local.store import Store
from sweep_operator.conditions import timestamp

GRACE_SECONDS = 5.0
"""From the request to checkpoint until the process is killed."""
POLL_SECONDS = 0.2
"""How often files are looked at while nothing else wakes us."""
PROGRESS_SECONDS = 1.0
"""How often mere progress wakes the reconcilers."""


@dataclass
class _Job:
    """An attempt between `start` and its end."""

    sweep: ScalingSweep
    run: ScalingRun
    attempt: int
    bytes: int
    file: AttemptFile | None = None
    asked: Asked | None = None
    cause: Cause = PAUSED
    asked_at: float = 0.0
    killed: bool = False
    memory_kills: int = 0

    @property
    def id(self) -> str:
        return f"{self.run.metadata.name}/{self.attempt}"


@dataclass
class LocalCluster:
    """Implements `Cluster` over a folder and this machine's processes; one driver at a time (see `cli.run`)."""

    store: Store
    root: Path
    """Folder at which relative data paths start."""
    cache: Path
    """Folder for prepared data, shared by all ladders of this user."""
    show: Callable[[Event], None] = lambda event: None
    nursery: Nursery | None = None
    """One that was started ahead, while other things were checked; otherwise it is started with the first run."""
    _queue: list[_Job] = field(default_factory=list)
    _running: dict[str, _Job] = field(default_factory=dict)
    _memory: int = field(default_factory=memory.free_bytes)
    _said_memory: set[str] = field(default_factory=set)
    _seen: dict[Path, object] = field(default_factory=dict)
    _last_news: float = 0.0
    _wakers: list[int] = field(default_factory=list)

    # --- documents -------------------------------------------------------------------------------------------------

    def sweep(self, key: str) -> ScalingSweep | None:
        sweep = self.store.sweep()
        return sweep if sweep and f"{sweep.metadata.namespace}/{sweep.metadata.name}" == key else None

    def runs(self, sweep: ScalingSweep) -> Sequence[ScalingRun]:
        return [run for run in self.store.runs() if run.spec.sweep_uid == sweep.metadata.uid]

    def imported(self, sweep: ScalingSweep) -> Imports:
        return imported(sweep, self.root)

    def create_run(self, run: ScalingRun) -> None:
        self.store.create_run(run)

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        self.store.write_sweep_status(sweep, status)

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        self.store.write_run_status(run, status)

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        self.show(event)

    # --- workloads -------------------------------------------------------------------------------------------------

    def workload(self, run: ScalingRun, attempt: int) -> Workload:
        name = f"{run.metadata.name}/{attempt}"
        if any(job.id == name for job in self._queue):
            return Workload(WorkloadState.PENDING)
        file = self.store.attempt(run.metadata.name, attempt)
        return ABSENT if file is None else file.workload(datetime.now(UTC))

    def start(self, sweep: ScalingSweep, run: ScalingRun, attempt: int) -> None:
        if self.workload(run, attempt).state is not WorkloadState.ABSENT:
            return
        recipe = run.spec.run.resolved(sweep.spec.training)
        self._queue.append(_Job(sweep, run, attempt, memory.run_bytes(recipe)))
        self._queue.sort(key=lambda job: -job.run.spec.run.flops)  # the longest first, so that the last one ends early
        self._fill_slots()

    def stop(self, run: ScalingRun, attempt: int, cause: Cause = PAUSED) -> None:
        name = f"{run.metadata.name}/{attempt}"
        self._queue = [job for job in self._queue if job.id != name]
        job = self._running.get(name)
        if job:
            self._ask(job, Asked.STOP, cause)

    @property
    def busy(self) -> bool:
        """Whether any trainer runs."""
        return bool(self._running)

    def wait(self, timeout: float | None) -> bool:
        """Wait until something happened that a pass should look at; returns whether it did.

        Comes back at once when a trainer ends or a signal arrives, within `POLL_SECONDS` of a record, a failure or a
        change of the sweep, within `PROGRESS_SECONDS` of mere progress, and at the latest after `timeout` seconds.
        """
        deadline = time.monotonic() + (86_400.0 if timeout is None else timeout)
        while True:
            if self._settle():
                return True
            changed, progressed = self._look()
            now = time.monotonic()
            if changed or (progressed and now - self._last_news >= PROGRESS_SECONDS):
                self._last_news = now
                return True
            if now >= deadline:
                return False
            if self._sleep(min(POLL_SECONDS, deadline - now)):
                return True

    def wake_on(self, descriptor: int) -> None:
        """Let `wait` return when the descriptor becomes readable (the pipe that signals write to)."""
        self._wakers.append(descriptor)

    def close(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Checkpoint and stop every trainer, write down how each ended, and let the nursery go.

        Takes at most `GRACE_SECONDS`; kills as soon as `hurry` says so.
        """
        self._queue.clear()
        for job in self._running.values():
            self._ask(job, Asked.LEAVING)
        while self._running:
            with contextlib.suppress(OSError):  # a disk that takes nothing more must not keep trainers running
                self._settle()
            for name, job in self._running.items():
                if hurry() and not job.killed:
                    job.killed = True
                    self._signal(name, signal.SIGKILL)
            if self._running:
                self._sleep(0.05)
        if self.nursery:
            self.nursery.close()
            self.nursery = None

    # --- within ----------------------------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        """Start what waits, as far as slots and memory reach."""
        while self._queue:
            job = self._queue[0]
            wanted = job.sweep.spec.limits.parallelism or memory.cores()
            planned = sum(other.bytes for other in self._running.values())
            if len(self._running) >= wanted:
                return
            if self._running and planned + job.bytes > memory.SAFETY * self._memory:
                self._say_memory(job, wanted)
                return
            if self.nursery is None:
                self.nursery = Nursery()
            if not self.nursery.ready:
                return
            self._queue.pop(0)
            self._launch(job)

    def _launch(self, job: _Job) -> None:
        assert self.nursery is not None, "only called when the nursery is ready"
        name = job.run.metadata.name
        folder = self.store.folder(name)
        order = RunOrder(
            uid=job.run.metadata.uid,
            name=name,
            attempt=job.attempt,
            run=job.run.spec.run,
            training=job.run.spec.run.recipe(job.sweep.spec.training).rooted(self.root),
            config_digest=job.run.spec.config_digest,
            storage=str(folder / "storage"),
            report=str(folder / "report"),
            cache=str(self.cache),
        )
        write_atomically(folder / "order.json", order.to_json())
        job.memory_kills = memory.processes_ended_for_memory()
        started = datetime.now(UTC)
        identity = self.nursery.start(job.id, folder / "order.json", folder / "log")
        if identity is None and self.nursery.gone:
            self._queue.insert(0, job)  # a new nursery takes it
            return
        job.file = AttemptFile(
            attempt=job.attempt,
            host=this_host(),
            pid=identity.pid if identity else 0,
            process_start=identity.started if identity else 0.0,
            started_at=timestamp(started),
        )
        self._running[job.id] = job
        self.store.write_attempt(name, job.file)

    def _settle(self) -> bool:
        """Note what ended, kill what outstayed its grace, fill the slots; returns whether anything ended or started."""
        if self.nursery is None:
            return False
        ended = self.nursery.news()
        for one in ended:
            job = self._running.pop(one.id, None)
            if job:
                self._note_end(job, one)
        for name, job in self._running.items():
            if job.asked and not job.killed and time.monotonic() - job.asked_at > GRACE_SECONDS:
                job.killed = True
                self._signal(name, signal.SIGKILL)
        if self.nursery.gone and not self._running:
            self.nursery = None
        waiting = len(self._queue)
        self._fill_slots()
        return bool(ended) or len(self._queue) < waiting

    def _note_end(self, job: _Job, ended: Ended) -> None:
        assert job.file is not None, "a running job has its file"
        name = job.run.metadata.name
        ending, reason, message = how_it_ended(
            ended,
            asked=job.asked,
            cause=job.cause,
            failure=self.store.failure(name, job.attempt),
            log=self.store.folder(name) / "log",
            memory_ran_out=memory.processes_ended_for_memory() > job.memory_kills,
        )
        if ending is not Ending.COMPLETED and self.store.complete(job.run):
            ending, reason, message = Ending.COMPLETED, None, ""  # everything was reported before it was ended
        self.store.write_attempt(
            name,
            job.file.changed(
                ended_at=timestamp(datetime.now(UTC)),
                exit_status=ended.status,
                ending=ending,
                reason=reason,
                message=message,
                gpu_seconds=round(ended.seconds, 3),
                peak_bytes=ended.peak_bytes,
            ),
        )

    def _ask(self, job: _Job, why: Asked, cause: Cause = PAUSED) -> None:
        """Tell a trainer to checkpoint and end; once, however often it is wanted."""
        if job.asked is None:
            job.asked, job.cause, job.asked_at = why, cause, time.monotonic()
            self._signal(job.id, signal.SIGTERM)

    def _signal(self, name: str, number: int) -> None:
        if self.nursery:
            self.nursery.signal(name, number)

    def _look(self) -> tuple[bool, bool]:
        """Whether records, failures or the sweep changed on disk since the last look; whether progress did."""
        changed = self._differs(self.store.sweep_file)
        progressed = False
        for job in self._running.values():
            report = self.store.folder(job.run.metadata.name) / "report"
            progressed |= self._differs(report / "progress.json")
            changed |= self._differs(report / f"records-{job.attempt}.json")
        return changed, progressed

    def _differs(self, path: Path) -> bool:
        now = signature(path)
        before = self._seen.setdefault(path, now)
        self._seen[path] = now
        return now != before

    def _sleep(self, seconds: float) -> bool:
        """Sleep until the nursery has news, a waker is readable (True) or the time is over."""
        if self.nursery and self.nursery.has_news:
            return False
        descriptors = [self.nursery.fileno()] if self.nursery and not self.nursery.gone else []
        readable, _, _ = select.select([*descriptors, *self._wakers], [], [], max(0.0, seconds))
        woken = [d for d in readable if d in self._wakers]
        for descriptor in woken:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 4096)
        return bool(woken)

    def _say_memory(self, job: _Job, wanted: int) -> None:
        rung = job.run.spec.rung
        if rung not in self._said_memory:
            self._said_memory.add(rung)
            self.show(
                Event(
                    reason="FewerAtOnce",
                    rung=rung,
                    message=f"{len(self._running)} at a time instead of {wanted}: a run needs about"
                    f" {job.bytes / 2**30:.1f} GiB and {self._memory / 2**30:.1f} GiB were free",
                )
            )
