"""Structured logs: one entry a line, as JSON or as text, with the sweep, rung, run and attempt it is about.

Owns the form of an entry and what a thread is working on. Chooses no words.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

SUBJECT: tuple[str, ...] = ("namespace", "sweep", "rung", "run", "attempt")
_subject: ContextVar[dict[str, str | int] | None] = ContextVar("subject", default=None)


@contextmanager
def about(**subject: str | int) -> Iterator[None]:
    """Entries logged within name these; empty values are left out."""
    token = _subject.set({**(_subject.get() or {}), **{k: v for k, v in subject.items() if v}})
    try:
        yield
    finally:
        _subject.reset(token)


def subject_of(record: logging.LogRecord) -> dict[str, str | int]:
    """What an entry is about: the thread's subject, overridden by the entry's own `extra`."""
    own = {name: value for name in (*SUBJECT, "identity") if (value := record.__dict__.get(name)) is not None}
    return {**(_subject.get() or {}), **own}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, the subject's fields, and a traceback where there is one."""
        entry: dict[str, str | int] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("sweep_operator."),
            "message": record.getMessage(),
            **subject_of(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """For people: the subject in brackets before the message."""

    def format(self, record: logging.LogRecord) -> str:
        """A line; a traceback follows on lines of its own."""
        subject = " ".join(f"{name}={value}" for name, value in subject_of(record).items())
        about_ = f" [{subject}]" if subject else ""
        line = f"{_time(record)} {record.levelname.lower():7}{about_} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(form: Literal["json", "text"], level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every entry of the project to a stream (standard error); other packages speak from warnings on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("sweep_operator").setLevel(level)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it warns of comes to us as an exception


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
