"""A thousand strangers' objects a second in the watches of an operator: pods, Jobs and runs that come and go.

They are put into the watch streams at the proxy before the operator, between the API server's own events, because an
API server, its etcd and everything else on two cores cannot write a thousand a second themselves. Every event is of an
object that the operator's watches select (labelled as a run's) and that belongs to nobody it knows: it is decoded,
projected, stored, routed and looked at like any other, and must come to nothing.
"""

import itertools
import json
import threading
import time
from collections import deque
from typing import Any

from faulty_proxy import FaultyProxy, WatchStream

from sweep_operator.clusters.kubernetes.resources import ATTEMPT_LABEL, JOBS, PODS, RUN_LABEL, RUNS, SWEEP_LABEL

TICK_SECONDS = 0.01
LIFE = 200
"""So many of a kind live at once; then the eldest goes before another comes."""
NAMES = 1000
"""Different names of runs, so that the work queue cannot fold the events into a few keys."""


class ForeignEvents:
    """From `start` to `stop`, as evenly as the machine allows; `told` and `seconds` say how many it came to be."""

    def __init__(self, proxy: FaultyProxy, namespace: str, per_second: int) -> None:
        self.told = 0
        self.seconds = 0.0
        self._proxy, self._namespace, self._per_second = proxy, namespace, per_second
        self._number = itertools.count()
        self._living: dict[str, deque[dict[str, Any]]] = {r.plural: deque() for r in (PODS, JOBS, RUNS)}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> "ForeignEvents":
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; strangers that still live go at the operator's next list."""
        self._stopping.set()
        self._thread.join(10)

    @property
    def per_second(self) -> float:
        """As many as went into the streams."""
        return self.told / max(self.seconds, TICK_SECONDS)

    def _work(self) -> None:
        began = time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            self.seconds = time.monotonic() - began
            due = int(self._per_second * self.seconds) - self.told
            streams = [s for s in self._proxy.streams() if s.resource in self._living]
            for place, stream in enumerate(streams):
                share = due // len(streams) + (place < due % len(streams))
                events = [self._event(stream) for _ in range(share)]
                if stream.put_in(b"".join(events)):
                    self.told += share

    def _event(self, stream: WatchStream) -> bytes:
        """The next stranger comes, or one that came goes; at the version that the API server named last."""
        living = self._living[stream.resource]
        goes = len(living) >= LIFE
        stranger = living.popleft() if goes else self._stranger(stream.resource)
        if not goes:
            living.append(stranger)
        stranger["metadata"]["resourceVersion"] = stream.version
        event = {"type": "DELETED" if goes else "ADDED", "object": stranger}
        return json.dumps(event).encode() + b"\n"

    def _stranger(self, plural: str) -> dict[str, Any]:
        number = next(self._number)
        run = f"stranger-{number % NAMES}"
        resource = next(r for r in (PODS, JOBS, RUNS) if r.plural == plural)
        owner = {"apiVersion": "v1", "kind": "Other", "name": "somebody", "uid": "nobody-known", "controller": True}
        metadata = {
            "name": f"{run}-{number}",
            "namespace": self._namespace,
            "uid": f"stranger-{number}",
            "labels": {RUN_LABEL: run, ATTEMPT_LABEL: "1", SWEEP_LABEL: f"strangers-{number % 10}"},
            "ownerReferences": [owner],
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        status: dict[str, Any] = {"phase": "Running"} if resource is PODS else {}
        document = {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": metadata}
        return {**document, "spec": {}, "status": status}
