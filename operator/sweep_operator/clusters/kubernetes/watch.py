"""List, then watch: keep one store equal to what the API server holds, whatever happens to the connection.

Owns the thread of one resource in one namespace (or in all): paged list, watch with bookmarks, server and client
timeouts, back-off with jitter, a new list when the server has forgotten (410, by HTTP or inside the stream). What it
learns goes to the store; how old its knowledge may be is there for readiness and metrics.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import urllib3
from pydantic_core import from_json

from sweep_operator.clusters.kubernetes.cache import Store
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError, Gone, TransportError, error_of_event
from sweep_operator.clusters.kubernetes.resources import Resource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """The API server sends a bookmark about once a minute, so a longer silence is a broken connection."""

    server_seconds: tuple[float, float] = (240.0, 300.0)
    """The server is asked to end the watch within this range, so that watches do not end together."""
    silence_seconds: float = 90.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 5.0
    """Between tries; there is one operator, and a cluster that comes back should not wait for it."""


class Watch:
    """One resource, watched on a thread of its own from `start` to `stop`."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        store: Store[Any],
        namespace: str | None = None,
        selector: str = "",
        times: WatchTimes | None = None,
        on_recovery: Callable[[], None] = lambda: None,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.restarts = 0
        """Watches begun after the first, for whatever reason."""
        self.lists = 0
        self.trouble = ""
        """What the last try met, empty while all is well."""
        self._api = api
        self._store = store
        self._path = resource.path(namespace)
        self._selector = selector
        self._times = times or WatchTimes()
        self._on_recovery = on_recovery
        self._version = ""
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._heard = time.monotonic()
        self._guard = threading.Lock()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{resource.plural}", daemon=True)

    @property
    def synced(self) -> bool:
        """Whether a whole list was read, once."""
        return self._synced.is_set()

    @property
    def alive(self) -> bool:
        """Whether its thread runs, or has yet to be started."""
        return self._thread.ident is None or self._thread.is_alive()

    @property
    def stale_seconds(self) -> float:
        """Time since the server last said anything; while a watch is healthy at most a bookmark's period."""
        return time.monotonic() - self._heard

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Tell the thread to end, whatever it is waiting for."""
        self._stopping.set()
        with self._guard:
            if self._response is not None:
                _shut(self._response)

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread; returns when it has ended, or after so long."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def wait_synced(self, seconds: float) -> bool:
        """Wait for the first whole list."""
        return self._synced.wait(seconds)

    def _run(self) -> None:
        pause = self._times.first_pause_seconds
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._watch()
                self.trouble = ""
            except Gone as error:
                self._version = ""
                self._note(f"the server has forgotten where we were ({error.message}); listing anew")
            except (ApiError, OSError, urllib3.exceptions.HTTPError, ValueError) as error:
                self._note(str(error))
            except Exception as error:
                self._version = ""  # what was half read cannot be trusted
                self._note(repr(error))
                log.exception("watch of %s failed unexpectedly", self.resource.plural)
            healthy = not self.trouble or time.monotonic() - began > self._times.longest_pause_seconds
            pause = self._times.first_pause_seconds if healthy else min(2 * pause, self._times.longest_pause_seconds)
            self._stopping.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
            self.restarts += 1

    def _note(self, trouble: str) -> None:
        if not self._stopping.is_set():
            self.trouble = trouble
            log.warning("watch of %s: %s", self.resource.plural, trouble)

    def _list(self) -> None:
        self.lists += 1
        seen: set[str] = set()
        version = ""
        for page in self._api.pages(self._path, self._selector):
            self._heard = time.monotonic()
            version = page["metadata"]["resourceVersion"]
            for item in page.get("items") or ():
                seen.add(item["metadata"]["uid"])
                self._store.put(item)
            if self._stopping.is_set():
                return
        self._store.keep_only(seen, int(version), self.namespace)
        self._version = version
        self._synced.set()

    def _watch(self) -> None:
        times = self._times
        query: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": int(random.uniform(*times.server_seconds)),  # noqa: S311 - jitter, no secret
        }
        if self._selector:
            query["labelSelector"] = self._selector
        with self._api.stream(self._path, times.silence_seconds, **query) as response:
            with self._guard:
                self._response = response
            try:
                for line in self._lines(response):
                    self._learn(from_json(line))
            finally:
                with self._guard:
                    self._response = None

    def _lines(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        self._heard = time.monotonic()
        if self.trouble:
            self.trouble = ""
            self._on_recovery()
        rest = b""
        for chunk in response.stream(65536):
            if self._stopping.is_set():
                return
            self._heard = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line)
        if rest and not self._stopping.is_set():
            raise TransportError("the watch was cut off within an event")

    def _learn(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise error_of_event(item)
        if kind == "DELETED":
            self._store.remove(item)
        elif kind in ("ADDED", "MODIFIED"):
            self._store.put(item)
        self._version = item["metadata"]["resourceVersion"]


def _shut(response: urllib3.BaseHTTPResponse) -> None:
    try:
        response.shutdown()
    except (OSError, ValueError, RuntimeError):  # it ended by itself in the meantime
        return
