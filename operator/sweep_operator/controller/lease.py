"""Election by a Lease: at most one process may write, on clocks that nobody can set.

Owns acquiring, renewing, losing and releasing. Time is this machine's clock since boot (suspension counts), never the
wall clock: what others wrote into the Lease is only compared with itself, and counts from when it was seen to change.

    waiting ── the Lease is free, released, or unchanged for its duration ──▶ leading
    leading ── renewed ──▶ leading
    leading ── not renewed within the deadline, or held by another ──▶ lost: the process must end at once

A leader may write until `renew_seconds` after the *sending* of its last good renewal; another may take the Lease
`duration_seconds` after it *saw* that renewal. The margin between the two is longer than any write may take.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import AlreadyExists, ApiError, ConflictError, NotFound
from sweep_operator.clusters.kubernetes.resources import LEASES

log = logging.getLogger(__name__)

LONGEST_TRY_SECONDS = 2.0
"""No request about the Lease may take longer."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """As Kubernetes' own components have them."""

    duration_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0

    @classmethod
    def lasting(cls, seconds: float) -> Self:
        """The same proportions for another duration (whole seconds, as the API has them)."""
        duration = float(max(1, round(seconds)))
        return cls(duration, duration * 2 / 3, duration * 2 / 15)

    @property
    def margin_seconds(self) -> float:
        """From the last moment at which a leader may begin a write until another may take the Lease."""
        return self.duration_seconds - self.renew_seconds


def since_boot() -> float:
    """Seconds on a clock that only grows, through suspension too where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Election:
    """One candidate. `on_lost` is called at most once, and only after this process was the leader."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        on_leading: Callable[[], None],
        on_lost: Callable[[str], None],
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self.identity = identity
        self.holder = ""
        """Who held the Lease when it was last seen."""
        self._api = api
        self._collection = LEASES.path(namespace)
        self._path = LEASES.path(namespace, name)
        self._name = name
        self._on_leading = on_leading
        self._on_lost = on_lost
        self._times = times or LeaseTimes()
        self._clock = clock
        self._until = -1.0
        """We may write before this moment; negative when not leading."""
        self._seen: dict[str, Any] = {}
        """The Lease as last read or written."""
        self._seen_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether this process may write at this moment; the gate of `Api.may_write`."""
        return self._clock() < self._until

    @property
    def alive(self) -> bool:
        """Whether its thread runs, or has yet to be started."""
        return self._thread.ident is None or self._thread.is_alive()

    def start(self) -> None:
        """Begin to ask for the Lease."""
        self._thread.start()

    def stop_renewing(self) -> None:
        """Ask for nothing more; what is held stays held until its deadline, for work that is being finished."""
        self._stopping.set()

    def resign(self) -> None:
        """Write nothing more from now on."""
        self._until = -1.0

    def release(self) -> None:
        """Give the Lease back if it is ours, so that the next one need not wait. Resign, and end all writing, first."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(LONGEST_TRY_SECONDS)
        self.resign()
        if self._thread.is_alive() or self.holder != self.identity:
            return
        try:
            self._write("", 1)
            log.info("Lease released")
        except (ApiError, OSError) as error:
            log.warning("Lease not released, it will expire: %s", error)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._tried():
                break
            self._stopping.wait(self._times.retry_seconds)
        else:
            return
        log.info("leading", extra={"identity": self.identity})
        self._on_leading()
        while not self._stopping.wait(self._times.retry_seconds):
            reason = "" if self._tried() else self._lost()
            if reason and not self._stopping.is_set():
                self.resign()
                self._on_lost(reason)
                return

    def _lost(self) -> str:
        """Why the Lease must be counted as lost, or nothing while there is still time."""
        if self.holder not in ("", self.identity):
            return f"the Lease is held by {self.holder}"
        if not self.leading:
            return f"the Lease could not be renewed for {self._times.renew_seconds:g} s"
        return ""

    def _tried(self) -> bool:
        """One try to get or keep the Lease; whether it is ours now."""
        try:
            return self._try()
        except (AlreadyExists, ConflictError, NotFound):
            self._seen = {}  # somebody was quicker: look again
            return False
        except (ApiError, OSError) as error:
            log.warning("Lease: %s", error)
            return False

    def _try(self) -> bool:
        if self._until < 0 or not self._seen:
            self._look()
            free = not self.holder or self._clock() - self._seen_at > self._duration()
            if self.holder != self.identity and not free:
                return False
        began = self._clock()
        if self._until >= 0 and began >= self._until:
            return False  # too late: another may have counted us out already
        self._write(self.identity, int(self._times.duration_seconds))
        self._until = began + self._times.renew_seconds
        return True

    def _duration(self) -> float:
        return float((self._seen.get("spec") or {}).get("leaseDurationSeconds") or self._times.duration_seconds)

    def _look(self) -> None:
        """Read the Lease; it counts as changed when its version differs from the one seen before.

        One that was deleted under another's hands is held still: its leader may write until it would have run out.
        """
        try:
            lease = self._api.get(self._path)
        except NotFound:
            if self.holder not in ("", self.identity):
                return
            lease = {}
        if _version(lease) != _version(self._seen) or not lease:
            self._seen_at = self._clock()
        self._seen = lease
        self.holder = str((lease.get("spec") or {}).get("holderIdentity") or "")

    def _write(self, holder: str, duration: int) -> None:
        """Write over exactly the version that was seen. Raises ConflictError, AlreadyExists, ApiError, OSError."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(self._seen.get("spec") or {})
        if spec.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(self._seen)
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": max(1, duration), "renewTime": now}
        if self._seen:
            self._seen = self._api.replace(self._path, {**self._seen, "spec": spec})
        else:
            document = {
                "apiVersion": LEASES.group_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name},
                "spec": spec,
            }
            self._seen = self._api.create(self._collection, document)
        self._seen_at = self._clock()
        self.holder = holder


def _version(lease: dict[str, Any]) -> str:
    return str((lease.get("metadata") or {}).get("resourceVersion") or "")
