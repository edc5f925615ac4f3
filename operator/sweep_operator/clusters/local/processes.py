"""The driver's end of the nursery: warm trainers started, signalled and waited for.

Owns the conversation with `nursery.py` and the identity of a process (its number and its start time, so that nobody
else's process is ever taken for ours). Decides nothing about runs.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from sweep_operator.clusters.local import nursery as script

EXIT_SECONDS = 7.0
"""How long the nursery may take to leave: its trainers' grace and a little more."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One trainer process has ended."""

    id: str
    status: int | None
    """Exit status; the negative number of the signal that ended it; None when nobody could see it end."""
    seconds: float
    peak_bytes: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, told apart from a later one with the same number."""

    pid: int
    started: float
    """Start time as the kernel tells it, seconds since the epoch."""

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (one that waits to be reaped does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.05
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def signal(self, number: int) -> None:
        """Signal this very process, if it still runs and is ours to signal."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def identify(pid: int) -> Identity:
    """The identity of a process that was just started; one that has ended already is nobody."""
    try:
        return Identity(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return Identity(pid, 0.0)


class NurseryError(Exception):
    """No trainer can be started here; the text says why in one sentence."""


class Nursery:
    """Starts trainers that need not import anything first."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own script
                [sys.executable, "-P", script.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # A pool of numpy threads in the nursery would make forking unsafe; the trainer sets torch's own.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._connection = ours
        self._received = b""
        self._ended: list[Ended] = []
        self._started: dict[str, Identity] = {}
        self._running: dict[str, tuple[Identity, float]] = {}
        self.ready = False
        self.gone = False
        self.closed = False

    def fileno(self) -> int:
        """Readable whenever there is news."""
        return self._connection.fileno()

    def start(self, name: str, order: Path, log: Path) -> Identity | None:
        """Fork a trainer; None when the nursery is gone. Only to be called once it is ready."""
        self._say(do="start", id=name, order=str(order), log=str(log))
        while name not in self._started and not self.gone:
            self._hear(timeout=5.0)
            if any(e.id == name for e in self._ended):  # the fork itself failed
                return None
        identity = self._started.get(name)
        if identity is not None and not any(e.id == name for e in self._ended):
            self._running[name] = (identity, time.monotonic())
        return identity

    def signal(self, name: str, number: int) -> None:
        """Signal a trainer; one that has ended is left alone."""
        if not self.gone:
            self._say(do="signal", id=name, signal=number)
        elif name in self._running:
            self._running[name][0].signal(number)

    @property
    def has_news(self) -> bool:
        """Whether `news` would return something that was heard already."""
        return bool(self._ended)

    def news(self) -> list[Ended]:
        """What ended since the last call; never waits. Raises NurseryError when the trainer cannot be imported."""
        if self.gone:
            self._look_for_orphans()
        else:
            self._hear(timeout=0.0)
        ended, self._ended = self._ended, []
        for one in ended:
            self._running.pop(one.id, None)
            self._started.pop(one.id, None)
        return ended

    def close(self) -> None:
        """Leave; trainers that still run are asked to checkpoint by the nursery itself. Closing twice does nothing."""
        if self.closed:
            return
        self.closed = self.gone = True
        self._connection.close()
        if not self._running:  # it may be in the middle of an import that hears nothing
            self._process.kill()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, **message: object) -> None:
        with suppress(OSError):  # a nursery that is gone is noticed where we listen
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _hear(self, timeout: float) -> None:
        readable, _, _ = select.select([self._connection], [], [], timeout)
        if not readable:
            return
        try:
            data = self._connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.gone = True
            status = self._process.wait()
            if not self.ready:
                raise NurseryError(f"the trainer could not be loaded: its process ended with status {status}")
            self.ready = False
            for identity, _ in self._running.values():  # their parent was killed; they are leaving by themselves
                identity.signal(signal.SIGTERM)
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, message: dict[str, object]) -> None:
        if "ready" in message:
            self.ready = True
        elif "broken" in message:
            raise NurseryError(str(message["broken"]))
        elif "started" in message:
            self._started[str(message["started"])] = identify(int(str(message["pid"])))
        else:
            self._ended.append(
                Ended(
                    id=str(message["ended"]),
                    status=int(str(message["status"])),
                    seconds=float(str(message["seconds"])),
                    peak_bytes=int(str(message["peakBytes"])),
                    message=str(message.get("message", "")),
                )
            )

    def _look_for_orphans(self) -> None:
        """Without the nursery nobody reaps its trainers: all that can be seen is that they are gone."""
        for name, (identity, since) in self._running.items():
            if not identity.alive:
                self._ended.append(
                    Ended(name, None, time.monotonic() - since, 0, "the process that had started it was killed")
                )
