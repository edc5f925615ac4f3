"""The desk between a Ray driver and its workers.

Owns what they tell each other. A module of its own, without torch and without Ray: the actor's process imports nothing
else and is there at once.
"""

import math
import time


class Desk:
    """What the driver and the workers tell each other; an actor, so that it outlives a worker."""

    def __init__(self) -> None:
        self._stop = False
        self._end: tuple[str, str] | None = None
        self._asked: float | None = None
        self._unsaved = -math.inf

    def stop(self) -> None:
        """The driver: checkpoint and leave."""
        self._stop = True

    def stopping(self, something_to_save: bool) -> bool:
        """A worker, twice a second while it is there."""
        self._asked = time.monotonic()
        if something_to_save:
            self._unsaved = self._asked
        return self._stop

    def heard(self) -> tuple[float, float, bool]:
        """The driver: for how many seconds no worker has asked, for how many none that had something to save, and
        whether the run has ended.

        Before the first has asked, zero, for it may be in a queue; and infinity.
        """
        now = time.monotonic()
        return 0.0 if self._asked is None else now - self._asked, now - self._unsaved, self._end is not None

    def ended(self, reason: str, message: str) -> None:
        """A worker: the run has ended for good, well (no reason) or not; starting again would end the same way."""
        self._end = self._end or (reason, message)

    def end(self) -> tuple[str, str] | None:
        return self._end
