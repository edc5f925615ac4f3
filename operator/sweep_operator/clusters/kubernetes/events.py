"""Kubernetes Events: told off the worker's path, counted when they repeat, bounded for each sweep, never raising.

Owns the form of an Event and the sender's thread. What is worth telling is decided elsewhere; an event that is lost
with a crash, a full line or a refusing server is not told again, since every fact also stands in a status.
"""

import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError, NotFound, NotLeading
from sweep_operator.clusters.kubernetes.resources import EVENTS, RUNS, SWEEPS
from sweep_operator.clusters.port import Event

log = logging.getLogger(__name__)

REPORTER = "scalingsweep.dev/operator"
BURST, REFILL_SECONDS = 30, 20.0
"""So many events of one sweep at once, and one more for each so many seconds."""
KEPT_BACK = 20
"""Of these, so many are for warnings and for what concerns a rung or the sweep: a rung of a hundred runs that end well
must not leave its verdict untold."""
SERIES_SECONDS = 360.0
"""The same event within this time of its last is counted, not told again (as Kubernetes' own series end)."""
COUNTED_EVERY_SECONDS = 30.0
"""A growing series is written at most so often."""
WAITING, REMEMBERED = 2000, 2048
LONGEST_NOTE = 1024
"""Bytes, by the API server's rule."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The sweep an event is about."""

    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Told:
    """An event that was written."""

    path: str
    count: int = 1
    last: float = 0.0
    written: float = 0.0


@dataclass(slots=True)
class _Allowance:
    """What a sweep may still tell at this moment."""

    left: float = BURST
    at: float = field(default_factory=time.monotonic)


class EventSender:
    """Tells events one after another on its own thread; `emit` only puts them in line."""

    def __init__(self, api: Api, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped = 0
        """Events that were not told: the line was full, the sweep spoke too often, or the server refused."""
        self._api = api
        self._instance = instance[:128]
        self._clock = clock
        self._line: deque[tuple[Subject, Event, str]] = deque()
        self._changed = threading.Condition()
        self._told: OrderedDict[tuple[str, str, str], _Told] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Tell what is in line, for at most so long, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def emit(self, sweep: ScalingSweep, event: Event) -> None:
        """Put an event about a sweep (or one of its runs) in line."""
        self.tell(Subject(sweep.metadata.namespace, sweep.metadata.name, sweep.metadata.uid), event)

    def tell(self, subject: Subject, event: Event) -> None:
        """The same, where the sweep itself cannot be read."""
        with self._changed:
            if len(self._line) >= WAITING or self._stopping:
                self.dropped += 1
                return
            self._line.append((subject, event, _micro_time()))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._line:
                    if self._stopping:
                        return
                    self._changed.wait()
                subject, event, at = self._line.popleft()
            try:
                self._tell(subject, event, at)
            except NotLeading:
                return
            except (ApiError, OSError) as error:
                self.dropped += 1
                log.debug("event %s of %s/%s not told: %s", event.reason, subject.namespace, subject.name, error)
            except Exception:
                self.dropped += 1
                log.exception("event %s could not be told", event.reason)

    def _tell(self, subject: Subject, event: Event, at: str) -> None:
        now = self._clock()
        key = (subject.uid, event.reason, event.message)
        known = self._told.get(key)
        if known is not None and now - known.last < SERIES_SECONDS:
            known.count += 1
            known.last = now
            if now - known.written >= COUNTED_EVERY_SECONDS:
                known.written = now
                try:
                    self._api.patch(known.path, {"series": {"count": known.count, "lastObservedTime": at}})
                except NotFound:  # events live an hour
                    del self._told[key]
            return
        routine = bool(event.run) and not event.warning
        if not self._allowed(subject.uid, now, keep=KEPT_BACK if routine else 0):
            self.dropped += 1
            return
        document = event_document(subject, event, at, self._instance)
        path = EVENTS.path(subject.namespace, document["metadata"]["name"])
        self._told[key] = _Told(path, last=now, written=now)
        self._told.move_to_end(key)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._api.create(EVENTS.path(subject.namespace), document)

    def _allowed(self, uid: str, now: float, keep: int) -> bool:
        """Whether the sweep has an event left beside those to keep, and if so one less afterwards."""
        allowance = self._allowances.setdefault(uid, _Allowance(at=now))
        self._allowances.move_to_end(uid)
        while len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)
        allowance.left = min(float(BURST), allowance.left + (now - allowance.at) / REFILL_SECONDS)
        allowance.at = now
        if allowance.left < 1 + keep:
            return False
        allowance.left -= 1
        return True


def event_document(subject: Subject, event: Event, at: str, instance: str) -> dict[str, Any]:
    """An events.k8s.io/v1 Event; a run is named beside the sweep, so that `kubectl describe` of the sweep shows it."""
    document: dict[str, Any] = {
        "apiVersion": EVENTS.group_version,
        "kind": EVENTS.kind,
        "metadata": {
            "name": f"{subject.name[:230]}.{uuid.uuid4().hex[:16]}",
            "namespace": subject.namespace,
        },
        "eventTime": at,
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "action": "Reconcile",
        "note": event.message.encode()[:LONGEST_NOTE].decode(errors="ignore"),
        "reportingController": REPORTER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": SWEEPS.group_version,
            "kind": SWEEPS.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
    }
    if event.run:
        document["related"] = {
            "apiVersion": RUNS.group_version,
            "kind": RUNS.kind,
            "namespace": subject.namespace,
            "name": event.run,
        }
    return document


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
