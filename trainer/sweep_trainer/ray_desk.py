"""The desk between a Ray driver and its workers.

Owns what they tell each other. A module of its own, without torch and without Ray: the actor's process imports nothing
else and is there at once.
"""

import time


class Desk:
    """What the driver and the workers tell each other; an actor, so that it outlives a worker."""

    def __init__(self) -> None:
        self._stop = False
        self._end: tuple[str, str] | None = None
        self._asked: float | None = None

    def stop(self) -> None:
        """The driver: checkpoint and leave."""
        self._stop = True

    def stopping(self) -> bool:
        """A worker, twice a second while it is there."""
        self._asked = time.monotonic()
        return self._stop

    def silence(self) -> float:
        """The driver: for how many seconds no worker has asked; zero before the first did, who may be in a queue."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    def ended(self, reason: str, message: str) -> None:
        """A worker: the run has ended for good, well (no reason) or not; starting again would end the same way."""
        self._end = self._end or (reason, message)

    def end(self) -> tuple[str, str] | None:
        return self._end
