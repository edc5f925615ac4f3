"""A work queue of keys: each is held once, worked on by one worker at a time, and retried ever more slowly.

Owns order, delays and back-off, and which of the waiting workers is woken: one for a key, and a single one that keeps
the time for all, or every idle worker would look up at every delay that runs out. Does not know what a key means.
"""

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.005, 1000.0


class Key(NamedTuple):
    """One object to look at."""

    kind: str
    """ScalingSweep or ScalingRun."""
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


K = TypeVar("K", bound=tuple[str, ...])


class WorkQueue(Generic[K]):
    """First in, first out. A key that is added while it is worked on comes again afterwards, once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._keys = threading.Condition(self._lock)
        """Here idle workers wait for a key."""
        self._time = threading.Condition(self._lock)
        """Here one of them waits for a key or for the next delay to run out."""
        self._idle = 0
        """Workers at `_keys` that nobody has woken yet."""
        self._timed = False
        """Whether there is one at `_time`."""
        self._ready: deque[K] = deque()
        self._since: dict[K, float] = {}
        """When a waiting key was added; a key is in `_ready` or is worked on, never both."""
        self._working: set[K] = set()
        self._due: dict[K, float] = {}
        self._later: list[tuple[float, K]] = []
        """A heap; entries that `_due` no longer confirms are skipped."""
        self._failures: dict[K, int] = {}
        self._closed = False

    def __len__(self) -> int:
        """Keys that could be worked on now."""
        return len(self._since)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for a worker and no worker is at work."""
        with self._lock:
            return not self._since and not self._working

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    @property
    def oldest_seconds(self) -> float:
        """For how long the first key has been waiting."""
        with self._lock:
            return self._clock() - self._since[self._ready[0]] if self._ready else 0.0

    def add(self, key: K) -> None:
        """Work on it soon."""
        with self._lock:
            if self._add(key):
                self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on it in so many seconds; of several times the earliest counts, and none once it is worked on."""
        with self._lock:
            due = self._clock() + seconds
            if self._closed or due >= self._due.get(key, float("inf")):
                return
            self._due[key] = due
            heapq.heappush(self._later, (due, key))
            if self._later[0] == (due, key):  # sooner than whoever keeps the time expects
                if self._timed:
                    self._time.notify()
                else:
                    self._wake()

    def retry(self, key: K) -> float:
        """Work on it again after a pause that doubles with each retry; returns the pause in seconds."""
        with self._lock:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
        pause = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 30))
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret
        self.add_after(key, pause)
        return pause

    def hurry(self) -> None:
        """What kept keys from succeeding may be over: those that wait for a retry are worked on at once."""
        with self._lock:
            for key in [key for key in self._failures if key in self._due]:
                del self._due[key]
                if self._add(key):
                    self._wake()

    def forget(self, key: K) -> None:
        """It went well: the next retry begins with the shortest pause."""
        with self._lock:
            self._failures.pop(key, None)

    def get(self) -> K | None:
        """The next key, waiting for one; None once the queue is closed. Every key that is got must be `done`.

        What a key was to be looked at for later is forgotten with it: the pass that begins looks at everything that is
        known by now, and asks anew for what it still wants to look at later.
        """
        with self._lock:
            while True:
                wait = self._promote()
                if self._closed:
                    return None
                if self._ready:
                    return self._take()
                if self._timed:
                    self._idle += 1
                    self._keys.wait()
                else:
                    self._timed = True
                    self._time.wait(wait)
                    self._timed = False

    def done(self, key: K) -> None:
        """The worker has finished with it, and asks for the next one: so nobody is woken where it came again."""
        with self._lock:
            self._working.discard(key)
            if key in self._since:
                self._ready.append(key)

    def close(self) -> None:
        """Give out nothing more; whoever waits is told."""
        with self._lock:
            self._closed = True
            self._keys.notify_all()
            self._time.notify_all()

    def _take(self) -> K:
        key = self._ready.popleft()
        del self._since[key]
        self._due.pop(key, None)
        self._working.add(key)
        if self._ready or (self._later and not self._timed):  # another one has something to do, or must keep the time
            self._wake()
        return key

    def _wake(self) -> None:
        """Wake one worker, if one is idle: rather not the one that keeps the time, since another would have to."""
        if self._idle:
            self._idle -= 1
            self._keys.notify()
        elif self._timed:
            self._time.notify()

    def _add(self, key: K) -> bool:
        """Whether it is one more that could be worked on now."""
        if self._closed or key in self._since:
            return False
        self._since[key] = self._clock()
        if key in self._working:
            return False
        self._ready.append(key)
        return True

    def _promote(self) -> float | None:
        """Move what is due; returns the seconds until the next is, or None."""
        now = self._clock()
        while self._later:
            due, key = self._later[0]
            if self._due.get(key) != due:
                heapq.heappop(self._later)
            elif due <= now:
                heapq.heappop(self._later)
                del self._due[key]
                self._add(key)
            else:
                return due - now
        return None
