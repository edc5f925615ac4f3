"""How far tokenising has come: a bar on a terminal, a line now and then in a log.

Owns the telling. Measures nothing but time.
"""

import logging
import sys
import time
from types import TracebackType
from typing import Self

_BAR = 30
_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 15.0

log = logging.getLogger(__name__)


class Bar:
    """Use as a context around the work; `at` may be called as often as one likes."""

    def __init__(self, what: str, files: int) -> None:
        self._what, self._files = what, files
        self._terminal = sys.stderr.isatty()
        self._begun = self._told = time.monotonic()

    def at(self, files: float, tokens: int) -> None:
        """`files`: how many were read, in parts of one."""
        now = time.monotonic()
        if now - self._told < (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            return
        self._told = now
        self._tell(files, tokens)

    def _tell(self, files: float, tokens: int) -> None:
        share, seconds = files / max(1, self._files), time.monotonic() - self._begun
        left = seconds * (1 - share) / share if share else 0.0
        words = f"{share:4.0%}, {tokens / 1e6:,.1f} M tokens, {left:,.0f} s left"
        if self._terminal:
            full = round(share * _BAR)
            sys.stderr.write(f"\r{self._what} [{'#' * full}{'.' * (_BAR - full)}] {words}\x1b[K")
            sys.stderr.flush()
        else:
            log.info("%s: %s", self._what, words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._told > self._begun:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
