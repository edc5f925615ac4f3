"""What waits to be told to the API server, and the thread that tells it.

Owns when: records at once, progress at most every few seconds, both again after a failure with growing, jittered
pauses. Training never waits for it; only the newest of each kind waits here, so an hour without an API server costs
nothing but news.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial

from sweep_analysis.record import Progress, RecordSet
from sweep_trainer.status_api import Refused, StatusApi, Unavailable

PROGRESS_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
LAST_PAUSE_SECONDS = 2.0
"""Longest pause between two tries while somebody waits for the end."""

_PROGRESS = "progress"

log = logging.getLogger(__name__)


class Outbox:
    """The newest progress and the newest record set of one attempt. The thread starts with the first of them."""

    def __init__(self, status: StatusApi, progress_seconds: float = PROGRESS_SECONDS) -> None:
        self._status = status
        self._progress_seconds = progress_seconds
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._progress: Progress | None = None
        self._records: RecordSet | None = None
        self._progress_due = 0.0
        self._failures = 0
        self._closing = False
        self._refused = False
        """Whether the API server refused a record set for good; such a one is not sent again."""

    def progress(self, progress: Progress) -> None:
        """Tell this when it is due, unless something newer has come by then."""
        with self._changed:
            self._progress = progress
            self._wake()

    def records(self, records: RecordSet) -> None:
        """Tell this complete set at once."""
        with self._changed:
            self._records = records
            self._wake()

    def close(self, seconds: float) -> bool:
        """Wait at most so long until everything is told; returns whether all records were."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            return self._records is None and not self._refused

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    if self._closing and self._progress is None:
                        self._status.close()
                        return
                    self._changed.wait(self._patience())
                records, progress = self._records, self._progress
            if records is not None:
                told = self._tell(partial(self._status.apply_records, records), f"{len(records.records)} records")
            elif progress is not None:
                told = self._tell(partial(self._status.apply_progress, progress), _PROGRESS)
            with self._changed:
                if told and records is not None and self._records is records:
                    self._records = None
                elif told and records is None:
                    self._progress_due = time.monotonic() + self._progress_seconds
                    if self._progress is progress:
                        self._progress = None

    def _due(self) -> bool:
        if self._records is not None:
            return True
        return self._progress is not None and (self._closing or time.monotonic() >= self._progress_due)

    def _patience(self) -> float | None:
        """How long to wait for news: until progress that waits is due, or for ever."""
        return None if self._progress is None else max(0.0, self._progress_due - time.monotonic())

    def _tell(self, send: Callable[[], None], what: str) -> bool:
        """Whether the document needs no further try; pauses after a failure, unless something calls for haste."""
        try:
            send()
        except Refused as error:
            self._refused = self._refused or what != _PROGRESS
            log.error("the API server refuses %s: %s", what, error)
            return True
        except Unavailable as error:
            self._failures += 1
            pause = min(LONGEST_PAUSE_SECONDS, 0.25 * 2 ** min(self._failures, 10))
            pause = max(error.retry_after, pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
            if self._failures in (1, 10) or self._failures % 100 == 0:
                log.warning("%s not told yet (try %d): %s", what, self._failures, error)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause)
                if self._closing:
                    self._changed.wait(min(pause, LAST_PAUSE_SECONDS))
            return False
        if self._failures:
            log.info("told again, after %d failures", self._failures)
        self._failures = 0
        return True
