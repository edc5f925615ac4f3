"""Being asked to stop: by SIGTERM, or by the death of the driver that started the run.

Owns the signal handlers and the watch on the driver. Decides nothing: the training loop asks `requested` between steps
and leaves with a checkpoint.
"""

import multiprocessing
import os
import signal
import time
from types import FrameType, TracebackType
from typing import Self

from sweep_analysis.record import ExitStatus

_WATCH_SECONDS = 0.5
"""How often the driver is looked at; a stop by SIGTERM does not wait for this."""


class Interrupted(Exception):  # noqa: N818  # not an error: it was asked for
    """Raised where the run leaves off, after its checkpoint was written."""


class Interruption:
    """Use as a context around a run. SIGINT is ignored within: the driver gets it too and says SIGTERM to us."""

    def __init__(self) -> None:
        self._asked = False
        self._nothing_to_save = False
        self._looked = time.monotonic()
        self._driver = multiprocessing.parent_process()
        self._parent = os.getppid()
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether the run should checkpoint and leave."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= _WATCH_SECONDS:
            self._looked = now
            self._asked = self._orphaned()
        return self._asked

    def nothing_to_save(self, so: bool) -> None:
        """While `so`, SIGTERM ends the process at once: start-up may spend seconds in imports that hear nothing."""
        self._nothing_to_save = so

    def listen_again(self) -> None:
        """Take the signals back from a library that has set handlers of its own since (Ray's core ends the process)."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _orphaned(self) -> bool:
        if self._driver is not None:
            return not self._driver.is_alive()
        return os.getppid() != self._parent

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._nothing_to_save:
            os._exit(ExitStatus.INTERRUPTED)

    def __enter__(self) -> Self:
        self._before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_sigterm),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
