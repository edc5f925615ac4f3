"""`python -m sweep_trainer.reporter`: beside an own trainer, from its one document to the run's status.

Owns the watch on the file named by SCALINGSWEEP_REPORT, the count of what was refused, and the last words at SIGTERM.
What the document may say is `sweep_analysis.reported`'s. The trainer's container shares a folder with this one and
nothing else: it holds no token, and what it puts there is read as a stranger's.
"""

import argparse
import json
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweep_analysis.record import ExitStatus, Record, RecordSet, Refused
from sweep_analysis.reported import LARGEST_BYTES, Due, Reported, ReportRefused, read_report, schema
from sweep_analysis.rung import Purpose
from sweep_trainer.outbox import Outbox
from sweep_trainer.status_api import StatusApi, Unavailable
from sweep_trainer.termination import packed, write_termination_message

LOOK_SECONDS = 1.0
SETTLE_SECONDS = 3.0
"""A document that cannot be read may be half-written; it is refused when it stays like that for so long."""
FINAL_SECONDS = 60.0
"""How long the end waits for the API server; Kubernetes may end it sooner, with the pod's grace period."""

log = logging.getLogger("reporter")

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Task:
    """What the environment says: whose reporter this is, and where the document will be."""

    run: str
    due: Due
    path: Path
    gpus: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Task":
        """Raises KeyError or ValueError, naming the variable or the value."""

        def variable(name: str, default: str | None = None) -> str:
            value = environment.get(f"SCALINGSWEEP_{name}", default)
            if value is None:
                raise KeyError(f"SCALINGSWEEP_{name}")
            return value

        due = Due(
            uid=variable("RUN_UID"),
            attempt=int(variable("ATTEMPT")),
            config_digest=variable("CONFIG_DIGEST"),
            purpose=Purpose(variable("PURPOSE", Purpose.LADDER)),
            parameters=int(variable("PARAMETERS")),
            tokens=tuple(int(tokens) for tokens in variable("TOKENS").split(",")),
            seed=int(variable("SEED")),
            context_length=int(variable("SEQUENCE_LENGTH", "0")) or None,
        )
        return cls(variable("RUN"), due, Path(variable("REPORT")), float(variable("GPUS", "1")))


@dataclass
class Reporter:
    """Looks at the document and hands on what it says."""

    task: Task
    outbox: Outbox
    records: RecordSet = field(init=False)
    """The newest that was taken, with the count of documents that were not."""
    _begun: float = field(default_factory=time.monotonic, init=False)
    _done: Signature | None = None
    _pending: tuple[Signature, float] | None = None
    """A document that was not taken, and since when it has stood there unchanged."""

    def __post_init__(self) -> None:
        self.records = RecordSet(attempt=self.task.due.attempt, records=())

    def look(self, *, last: bool = False) -> None:
        """Take the document if it is new. The `last` look refuses at once what cannot be taken."""
        content: bytes | OSError
        try:
            signature, content = _read(self.task.path)
        except FileNotFoundError:
            return
        except OSError as error:
            signature, content = (0, 0, error.errno or 0), error
        if signature == self._done:
            return
        try:
            if isinstance(content, OSError):
                raise ReportRefused(f"{self.task.path} cannot be read: {content.strerror}")
            gpu_seconds = self.task.gpus * (time.monotonic() - self._begun)
            reported = read_report(content, self.task.due, now=_now(), gpu_seconds=gpu_seconds)
        except ReportRefused as error:
            if not last and not self._has_settled(signature):
                return
            self._refuse(str(error))
        else:
            self._take(reported)
        self._done, self._pending = signature, None

    def _has_settled(self, signature: Signature) -> bool:
        now = time.monotonic()
        if self._pending is None or self._pending[0] != signature:
            self._pending = (signature, now)
        return now - self._pending[1] >= SETTLE_SECONDS

    def _take(self, reported: Reported) -> None:
        before = {record.tokens: record for record in self.records.records}
        records = tuple(_unless_known(record, before.get(record.tokens)) for record in reported.records.records)
        failure, known = reported.records.failure, self.records.failure
        if failure and known and (failure.reason, failure.message) == (known.reason, known.message):
            failure = known
        taken = self.records.changed(records=records, failure=failure)
        if taken != self.records:
            self.records = taken
            self.outbox.records(taken)
            log.info("%d records%s", len(records), f"; {failure.reason}: {failure.message}" if failure else "")
        if reported.progress is not None:
            self.outbox.progress(reported.progress)

    def _refuse(self, reason: str) -> None:
        documents = 1 + (self.records.refused.documents if self.records.refused else 0)
        self.records = self.records.changed(refused=Refused(documents=documents, reason=reason[:1024]))
        self.outbox.records(self.records)
        log.warning("refused (%d so far): %s", documents, reason)


def _unless_known(record: Record, known: Record | None) -> Record:
    """The record as it was when it was first seen, if only what is filled in here has changed since."""
    if known is not None and record.changed(finished_at=known.finished_at, gpu_seconds=known.gpu_seconds) == known:
        return known
    return record


def _read(path: Path) -> tuple[Signature, bytes]:
    """The file's identity and at most one byte more than is taken. A link or a pipe is no document: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file")
        return (found.st_ino, found.st_mtime_ns, found.st_size), file.read(LARGEST_BYTES + 1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until SIGTERM, then tell the rest."""
    parser = argparse.ArgumentParser(prog="sweep_trainer.reporter", description="Report for an own trainer.")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the document, and end")
    if parser.parse_args(arguments).schema:
        sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
        return ExitStatus.DONE
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s reporter: %(message)s")
    try:
        task = Task.of(os.environ)
        status = StatusApi.of_pod(task.run, task.due.uid)
    except KeyError as error:
        log.error("%s is not set; the operator sets it for a run's pod", error.args[0])
        return ExitStatus.BAD_CONFIGURATION
    except (ValueError, Unavailable) as error:
        log.error("%s", error)
        return ExitStatus.BAD_CONFIGURATION
    ending: list[int] = []  # no Event: a handler that sets one may wait for ever on a lock that its own thread holds
    signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
    reporter = Reporter(task, Outbox(status))
    while not ending:
        reporter.look()
        time.sleep(LOOK_SECONDS)
    reporter.look(last=True)
    write_termination_message(packed(reporter.records))  # for whoever ends this while it waits
    if reporter.outbox.close(FINAL_SECONDS):
        write_termination_message("")
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main())
