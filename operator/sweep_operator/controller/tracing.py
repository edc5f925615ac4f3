"""Spans on their way to an OpenTelemetry collector, off the workers' path.

Owns when spans are sent (every few seconds, those that ended since this process began to lead), how often it is tried,
and what is given up when the collector is away. Knows OTLP over HTTP with JSON, which every collector takes.
"""

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from sweep_operator.metrics import Known
from sweep_operator.traces import Span, request_of, spans_of

log = logging.getLogger(__name__)

SECONDS = 10.0
MARGIN = timedelta(seconds=60)
"""What ended shortly before this process led may not have been told; a span told twice is the same span."""
KEPT = 10_000
"""Spans that wait for a collector which does not answer; the oldest are given up."""
BATCH = 500


def endpoint(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where traces go, by OpenTelemetry's own variables; None where nobody asks for them."""
    if url := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return url
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return base.rstrip("/") + "/v1/traces" if base else None


def headers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Such as a collector's key: `name=value,…`."""
    pairs = (pair.partition("=") for pair in environment.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if pair)
    return {name.strip(): value.strip() for name, _, value in pairs}


class TraceSender:
    """Looks at the sweeps that changed and sends the spans that ended."""

    def __init__(self, url: str, sweeps: Callable[[], Iterable[Known]], more: Mapping[str, str] | None = None) -> None:
        self._url, self._sweeps = url, sweeps
        self._headers = {"content-type": "application/json", **(more or {})}
        self._seen: dict[object, object] = {}
        self._told: dict[object, set[str]] = {}
        """Identities of the spans that were gathered, by sweep."""
        self._waiting: list[Span] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """This process leads from now on."""
        self._since = datetime.now(UTC) - MARGIN
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """One last look, if it can be had in time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def look(self) -> None:
        """Gather what has ended and send it."""
        known = {entry.key: entry for entry in self._sweeps()}
        self._seen = {key: version for key, version in self._seen.items() if key in known}
        self._told = {key: told for key, told in self._told.items() if key in known}
        for key, entry in known.items():
            if self._seen.get(key) == entry.version:
                continue
            self._seen[key] = entry.version
            observed = entry.read()
            told = self._told.setdefault(key, set())
            for span in spans_of(observed.sweep, observed.runs) if observed else ():
                if span.ended >= self._since and span.identity not in told:
                    told.add(span.identity)
                    self._waiting.append(span)
        self._send()

    def _work(self) -> None:
        last = False
        while not last:
            last = self._stopping.wait(SECONDS)
            try:
                self.look()
            except Exception:
                log.exception("traces could not be made")

    def _send(self) -> None:
        while self._waiting:
            batch = self._waiting[:BATCH]
            body = json.dumps(request_of(batch)).encode()
            request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310 - the platform's own address
            try:
                urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - the same
            except urllib.error.HTTPError as error:
                if error.code not in (429, 502, 503, 504):
                    log.warning("the trace collector refuses %d spans: %s", len(batch), error)
                    self.dropped += len(batch)
                    self._waiting = self._waiting[BATCH:]
                    continue
                return self._keep(str(error))
            except OSError as error:
                return self._keep(str(error))
            self._waiting = self._waiting[BATCH:]
        return None

    def _keep(self, why: str) -> None:
        log.warning("the trace collector does not answer: %s; %d spans wait", why, len(self._waiting))
        excess = len(self._waiting) - KEPT
        if excess > 0:
            self.dropped += excess
            self._waiting = self._waiting[excess:]
