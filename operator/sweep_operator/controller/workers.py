"""Workers: take a key, run one pass, and decide from what came of it when the key comes again.

Owns the meaning of every way in which a pass may end. One key's trouble never stops another's.

    it changed something    at once (fifty times)         Conflict             again, ever more slowly
    it asks to wait         then                          ApiError, OSError    the same; logged when it lasts
    neither                 when something changes        UnreadableError      the same; told as an event
    NotLeading              never: the process is ending  anything else        the same; logged with its traceback

What keeps a child from being created or started for now is no such end: the reconcilers write it down and ask to wait.
"""

import logging
import threading
import time
from collections.abc import Callable

from sweep_operator.clusters.kubernetes.cache import UnreadableError
from sweep_operator.clusters.kubernetes.errors import ApiError, ConflictError, NotLeading
from sweep_operator.clusters.port import Conflict
from sweep_operator.controller.measures import Measures
from sweep_operator.controller.queue import Key, WorkQueue
from sweep_operator.reconcile import Progressed

log = logging.getLogger(__name__)

LONGEST_STREAK = 50
"""Passes in a row that each changed something; a run's whole life has six."""
LASTING_SECONDS = 1.0
"""Trouble is logged once a key's pause has grown to this: what one retry heals is nobody's concern."""


class Workers:
    """Some threads over one queue."""

    def __init__(
        self, queue: WorkQueue[Key], one_pass: Callable[[Key], Progressed], measures: Measures, count: int
    ) -> None:
        self._queue = queue
        self._pass = one_pass
        self._measures = measures
        self._began: dict[str, tuple[float, Key]] = {}
        self._streaks: dict[Key, int] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> bool:
        """Wait until all have ended, which they do once the queue is closed; whether they did in time."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def longest_pass(self) -> tuple[float, Key | None]:
        """For how many seconds the oldest unfinished pass has been going on, and over what."""
        now = time.monotonic()
        running = [(now - began, key) for began, key in list(self._began.values())]
        return max(running, default=(0.0, None), key=lambda one: one[0])

    @property
    def alive(self) -> bool:
        """Whether every worker that was started still is."""
        return all(thread.is_alive() for thread in self._threads if thread.ident is not None)

    def _work(self) -> None:
        name = threading.current_thread().name
        while (key := self._queue.get()) is not None:
            began = time.monotonic()
            self._began[name] = (began, key)
            try:
                outcome = self._attempt(key)
            finally:
                del self._began[name]
                self._queue.done(key)
            self._measures.passed(key, outcome, time.monotonic() - began)

    def _attempt(self, key: Key) -> str:
        """One pass and what follows from it; returns how it ended, for the metrics."""
        try:
            progressed = self._pass(key)
        except NotLeading:
            return "NotLeading"
        except (Conflict, ConflictError):
            self._queue.retry(key)
            return "Conflict"
        except UnreadableError as unreadable:
            return self._again(key, "Unreadable", str(unreadable))
        except ApiError as error:
            return self._again(key, f"Api{error.status}", str(error))
        except OSError as error:
            return self._again(key, "Unreachable", str(error))
        except Exception:
            pause = self._queue.retry(key)
            log.exception("a pass over %s failed unexpectedly; again in %.3g s", key, pause)
            return "Error"
        if progressed.changed:
            return self._changed(key)
        self._queue.forget(key)
        self._streaks.pop(key, None)
        if progressed.requeue_seconds is not None:
            self._queue.add_after(key, progressed.requeue_seconds)
        return "Settled"

    def _changed(self, key: Key) -> str:
        """Look again at once; but a key that never comes to rest is a bug of ours, and must not become a storm."""
        self._streaks[key] = streak = self._streaks.get(key, 0) + 1
        if streak > LONGEST_STREAK:
            return self._again(key, "Restless", f"changed {streak} times without coming to rest")
        self._queue.forget(key)
        self._queue.add(key)
        return "Changed"

    def _again(self, key: Key, outcome: str, why: str) -> str:
        pause = self._queue.retry(key)
        level = logging.WARNING if pause >= LASTING_SECONDS else logging.DEBUG
        log.log(level, "%s: %s; again in %.3g s", key, why, pause, extra=_subject(key))
        return outcome


def _subject(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace, "sweep" if key.kind == "ScalingSweep" else "run": key.name}
