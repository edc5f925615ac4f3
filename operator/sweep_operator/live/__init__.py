"""What people see of a ladder while it is climbed: a live picture on a terminal, one line an event in a pipe.

Owns the choice between the two. What is shown comes from the status alone.
"""

import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters import Event


class View(Protocol):
    """Somebody looking at the ladder."""

    seconds: float
    """How often `show` is wanted."""

    def show(self, sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> None:
        """The ladder as it stands."""

    def event(self, event: Event) -> None:
        """Something happened. Never raises."""

    def notice(self, sentence: str) -> None:
        """A file of a run had to be set aside. Never raises."""

    def close(self) -> None:
        """Leave the screen as it is."""


def open_view(stream: TextIO | None = None) -> View:
    """A live picture when the stream is a terminal that can draw one, plain lines otherwise."""
    stream = stream or sys.stdout
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from sweep_operator.live.terminal import TerminalView

        return TerminalView(stream)
    from sweep_operator.live.plain import PlainView

    return PlainView(stream)
