"""The metrics page of a local ladder, served on this machine.

Owns the port and the histogram of passes. The operator serves its page itself (`controller.health`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from sweep_operator.metrics.exposition import asked_for
from sweep_operator.metrics.page import SweepPage


@dataclass(frozen=True, slots=True)
class Latency:
    """How long passes took: counts within each bound (not cumulative, the last beyond all bounds), and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class PortTakenError(Exception):
    """Another program listens on the port already."""


def serve(
    page: SweepPage, port: int, latency: Callable[[], Latency] | None = None, address: str = "127.0.0.1"
) -> Callable[[], None]:
    """Serve the series on a port; returns what stops it. Raises PortTakenError."""
    registry = CollectorRegistry(auto_describe=False)
    if latency:
        registry.register(_Passes(latency))

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        if environment["PATH_INFO"] != "/metrics":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the series are at /metrics\n"]
        exposition = asked_for(environment.get("HTTP_ACCEPT", ""))
        start("200 OK", [("Content-Type", exposition.value)])
        return [exposition.page(page.text(exposition), registry)]

    try:
        server = make_server(address, port, answer, handler_class=_Quiet)
    except OverflowError:
        raise PortTakenError(f"{port} is no port; choose one from 1 to 65535") from None
    except OSError as error:
        raise PortTakenError(f"metrics cannot be served on {address}:{port}: {error.strerror}") from None
    thread = Thread(target=server.serve_forever, name=f"metrics-{port}", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return stop


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line on the ladder's terminal."""


@dataclass(frozen=True)
class _Passes(Collector):
    latency: Callable[[], Latency]

    def collect(self) -> list[HistogramMetricFamily]:
        latency = self.latency()
        family = HistogramMetricFamily(
            "scalingsweep_pass_duration_seconds", "Time that one pass over a sweep took.", unit="seconds"
        )
        buckets, running = [], 0
        for bound, count in zip((*latency.bounds, float("inf")), latency.counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(running)))
        family.add_metric((), buckets, latency.total)
        return [family]
