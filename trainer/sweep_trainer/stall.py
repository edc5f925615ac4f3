"""A step that never ends: a collective that waits for a process which is gone or went another way.

Owns the alarm. When nothing has been heard for too long, the stacks of all threads are written to the log and the
process ends, whatever it hangs in; whoever started it starts it again from its checkpoint.
"""

import faulthandler
from types import TracebackType
from typing import Self

_STDERR = 2
"""The file itself: what replaces `sys.stderr` may have none."""


class StallAlarm:
    """Use as a context around training; the first `alive` sets the alarm, each further one sets it anew. Of one process
    nothing can hang like this, so the loop keeps one only where there are several, or where the recipe asks for it."""

    def __init__(self, seconds: float | None) -> None:
        """None: no alarm."""
        self._seconds = seconds

    def alive(self) -> None:
        """A step was done."""
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=_STDERR)

    def rest(self) -> None:
        """No step is due: a checkpoint is read, which takes as long as its storage does."""
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()
