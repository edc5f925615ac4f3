"""One line an event: time (RFC 3339), reason, rung, sentence; for pipes, files and logs."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters import Event


class PlainView:
    """Writes events as they come; the state in between is not shown."""

    seconds = 5.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> None:
        """Nothing: a line is written only when something has happened."""

    def event(self, event: Event) -> None:
        """One line."""
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone must not stop the ladder
            print(line_of(event, datetime.now(UTC)), file=self._stream, flush=True)

    def notice(self, sentence: str) -> None:
        """One line, as a warning event."""
        self.event(Event("FileSetAside", sentence, warning=True))

    def close(self) -> None:
        """Nothing is held."""


def line_of(event: Event, now: datetime) -> str:
    """`2026-01-02T03:04:05Z Promoted 30m sentence`; a dash where there is no rung."""
    message = " ".join(event.message.split())
    return f"{now:%Y-%m-%dT%H:%M:%SZ} {event.reason} {event.rung or '-'} {message}".rstrip()
