"""What a run tells its operator: progress, records, a failure; each a file that is whole or absent.

Owns the files under `order.report` and the records that earlier attempts left there. Measures nothing.
"""

import json
import logging
import socket
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from sweep_analysis.document import Document
from sweep_analysis.record import Failure, FailureReason, Progress, Record, RecordSet
from sweep_analysis.rung import RunOrder
from sweep_trainer.files import write_atomically

_LONGEST_MESSAGE = 1024

log = logging.getLogger(__name__)


class Report:
    """The report folder of one attempt."""

    def __init__(self, order: RunOrder) -> None:
        self.order = order
        self.folder = Path(order.report)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records: dict[int, Record] = {}

    def progress(self, progress: Progress) -> None:
        """Say where the run stands; the last one wins."""
        self._write("progress.json", progress)

    def record(self, record: Record) -> None:
        """Add a record and write the complete set, so that no later write drops an earlier record."""
        self.records[record.tokens] = record
        self._write_records()

    def carry_over(self) -> None:
        """Take up what earlier attempts measured; called once the run is ours alone and nobody adds to it."""
        self.records = self._earlier_records()
        self._write_records()

    def _write_records(self) -> None:
        records = tuple(self.records[tokens] for tokens in sorted(self.records))
        self._write(f"records-{self.order.attempt}.json", RecordSet(attempt=self.order.attempt, records=records))

    def failure(self, reason: FailureReason, message: str) -> None:
        """Say why this attempt ended without its records."""
        if len(message) > _LONGEST_MESSAGE:
            message = message[: _LONGEST_MESSAGE - 1] + "…"
        failure = Failure(
            attempt=self.order.attempt, reason=reason, message=message, node=socket.gethostname(), at=now()
        )
        self._write(f"failure-{self.order.attempt}.json", failure)

    def _earlier_records(self) -> dict[int, Record]:
        """Records of this very configuration that earlier attempts measured; they are not measured again."""
        found: dict[int, Record] = {}
        for path in sorted(self.folder.glob("records-*.json")):
            try:
                records = RecordSet.model_validate_json(path.read_bytes()).records
            except (OSError, ValidationError) as error:
                log.warning("%s is not a record set and is left out: %s", path, error)
                continue
            for record in records:
                mine = record.run.uid == self.order.uid and record.run.config_digest == self.order.config_digest
                if mine and record.tokens in self.order.run.tokens:
                    found.setdefault(record.tokens, record)
        return found

    def _write(self, name: str, document: Document) -> None:
        write_atomically(self.folder / name, json.dumps(document.to_json(), indent=1).encode())


def now() -> str:
    """The time as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
