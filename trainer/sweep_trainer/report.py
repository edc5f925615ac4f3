"""What a run tells its operator: progress, records, a failure; as files that are whole or absent, or to the API server.

Owns the files under `order.report` and the records that earlier attempts left. On a cluster (`order.report` is `api`)
all goes into the run's status, and records lie beside the checkpoints as well, so that an attempt that finds one finds
the other. Measures nothing.
"""

import json
import logging
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from sweep_analysis.document import Document
from sweep_analysis.record import Failure, FailureReason, Progress, Record, RecordSet
from sweep_analysis.rung import RunOrder
from sweep_trainer.failure import RunError
from sweep_trainer.outbox import Outbox
from sweep_trainer.status_api import StatusApi, Unavailable, record_sets
from sweep_trainer.storage import Folder, Storage, storage_at
from sweep_trainer.termination import packed, write_termination_message

API = "api"
"""`RunOrder.report` of a run that reports to the API server."""
FINAL_SECONDS = 60.0
"""How long the end of a run waits for the API server; after that the termination message speaks."""
LEAVING_SECONDS = 15.0
"""The same for a run that was asked to stop, out of its grace period."""
EARLIER_SECONDS = 60.0
"""How long a later attempt waits to learn what earlier ones measured."""
_LONGEST_MESSAGE = 1024
_PROGRESS = "progress.json"

log = logging.getLogger(__name__)


class Report:
    """The report of one attempt."""

    def __init__(self, order: RunOrder, status: StatusApi | None = None) -> None:
        """To files, and with `status` to the API server."""
        self.order = order
        self.records: dict[int, Record] = {}
        self._status = status
        self._outbox = Outbox(status) if status else None
        self._failure: Failure | None = None
        self._waiting: set[str] = set()
        """Of the files: which could not be written, as long as that is so."""
        self._files: Storage | None = _beside_checkpoints(order) if status else Folder(Path(order.report))
        if not status:
            Path(order.report).mkdir(parents=True, exist_ok=True)
            (Path(order.report) / self._failure_name).unlink(missing_ok=True)  # a launcher starts an attempt again

    def progress(self, progress: Progress) -> None:
        """Say where the run stands; the last one wins. Records that wait for their folder are tried again."""
        if self._outbox:
            self._outbox.progress(progress)
        else:
            self._write(_PROGRESS, progress)
            if self._records_name in self._waiting:
                self._write_records()

    def record(self, record: Record) -> None:
        """Add a record and write the complete set, so that no later write drops an earlier record."""
        self.records[record.tokens] = record
        self._write_records()

    def carry_over(self) -> None:
        """Take up what earlier attempts measured; called once the run is ours alone and nobody adds to it."""
        self.records = self._earlier_records()
        if self.records or not self._outbox:
            self._write_records()

    def failure(self, reason: FailureReason, message: str) -> None:
        """Say why this attempt ended without its records."""
        if len(message) > _LONGEST_MESSAGE:
            message = message[: _LONGEST_MESSAGE - 1] + "…"
        self._failure = Failure(
            attempt=self.order.attempt, reason=reason, message=message, node=socket.gethostname(), at=now()
        )
        if self._outbox:
            self._outbox.records(self._set)
        else:
            self._write(self._failure_name, self._failure)

    def close(self, seconds: float) -> bool:
        """Wait at most so long for the API server to hear all that counts; returns whether the operator will.

        The termination message holds it meanwhile, for whoever kills a process that waits. In the end it holds what was
        not heard, or else the sentence of a failure.
        """
        if self._outbox is None:
            return self._written_within(seconds)
        left_behind = write_termination_message(packed(self._set))
        if not self._outbox.close(seconds):
            log.warning("the API server has not heard the records; they stay in the termination message")
            return left_behind
        write_termination_message(f"{self._failure.reason}: {self._failure.message}" if self._failure else "")
        return True

    def _written_within(self, seconds: float) -> bool:
        """Try again what waits to be written to files, at most so long; returns whether the records are."""
        deadline = time.monotonic() + seconds
        try:
            while self._waiting & {self._records_name, self._failure_name} and time.monotonic() < deadline:
                time.sleep(0.5)
                self._write_records()
                if self._failure:
                    self._write(self._failure_name, self._failure)
        except OSError as error:
            log.warning("the report could not be written: %s", error)
        return self._records_name not in self._waiting

    @property
    def _records_name(self) -> str:
        return f"records-{self.order.attempt}.json"

    @property
    def _failure_name(self) -> str:
        return f"failure-{self.order.attempt}.json"

    @property
    def _set(self) -> RecordSet:
        records = tuple(self.records[tokens] for tokens in sorted(self.records))
        return RecordSet(attempt=self.order.attempt, records=records, failure=self._failure)

    def _write_records(self) -> None:
        self._write(self._records_name, self._set)
        if self._outbox:
            self._outbox.records(self._set)

    def _earlier_records(self) -> dict[int, Record]:
        """Records of this very configuration that earlier attempts measured; they are not measured again."""
        found: dict[int, Record] = {}
        for record in (*self._in_files(), *self._in_status()):
            mine = record.run.uid == self.order.uid and record.run.config_digest == self.order.config_digest
            if mine and record.tokens in self.order.run.tokens:
                found.setdefault(record.tokens, record)
        return found

    def _in_files(self) -> list[Record]:
        found: list[Record] = []
        if self._files is None:
            return found
        try:
            names = self._files.names()
        except OSError as error:
            log.warning("what earlier attempts left in files is unknown: %s", error)
            return found
        for name in names:
            if not (name.startswith("records-") and name.endswith(".json")):
                continue
            try:
                found += RecordSet.model_validate_json(self._files.get(name)).records
            except (OSError, ValidationError) as error:
                log.warning("%s is not a record set and is left out: %s", self._files.address(name), error)
        return found

    def _in_status(self) -> list[Record]:
        """What the run's own status holds; nothing when the API server does not say so in time."""
        if self._status is None:
            return []
        patience = EARLIER_SECONDS if self.order.attempt > 1 else 0.0  # a first attempt has little to learn
        deadline, pause = time.monotonic() + patience, 0.5
        while True:
            try:
                return [record for each in record_sets(self._status.read()) for record in each.records]
            except Unavailable as error:
                if time.monotonic() + pause > deadline:
                    log.warning("what earlier attempts measured is unknown: %s", error)
                    return []
            time.sleep(pause)
            pause *= 2

    def _write(self, name: str, document: Document) -> None:
        """A file of the report. On a cluster it is a copy, which may fail."""
        if self._files is None:
            return
        try:
            self._files.put(name, json.dumps(document.to_json(), indent=1).encode())
        except OSError as error:
            if self._outbox is not None:
                log.warning("no copy of %s beside the checkpoints: %s", name, error)
                return
            if name != _PROGRESS and not self._files.passes(error):
                raise
            if name not in self._waiting:
                log.warning("%s is not told for now: %s", name, error)
            self._waiting.add(name)
        else:
            self._waiting.discard(name)


def _beside_checkpoints(order: RunOrder) -> Storage | None:
    """Where a run on a cluster keeps a copy of its records; None where it has no storage, which the run itself says."""
    try:
        return storage_at(f"{order.storage.rstrip('/')}/report")
    except RunError:
        return None


def open_report(order: RunOrder) -> Report:
    """Where the order says: a folder, or the API server. Raises OSError when that is not to be had."""
    return Report(order, StatusApi.of_pod(order.name, order.uid) if order.report == API else None)


def now() -> str:
    """The time as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
