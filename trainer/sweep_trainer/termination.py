"""The termination message: 4,096 bytes that outlive a process although no API server hears it.

Owns the writing of a record set into them. The operator reads them back (`sweep_analysis.reported`).
"""

import base64
import json
import os
import zlib
from pathlib import Path

from sweep_analysis.record import RecordSet
from sweep_analysis.reported import COMPRESSED, TERMINATION_BYTES

LOG = Path("/dev/termination-log")


def write_termination_message(text: str) -> bool:
    """Leave the text for the operator; False where there is no such place (outside a pod)."""
    path = Path(os.environ.get("SCALINGSWEEP_TERMINATION_LOG", LOG))
    try:
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(text.encode()[:TERMINATION_BYTES])
            file.truncate()
    except OSError:
        return False
    return True


def packed(records: RecordSet) -> str:
    """The set in at most 4,096 bytes: as JSON, or compressed, or without what no law is fitted to."""
    bare = records.changed(
        records=tuple(record.changed(curve=None, evaluations=(), domains=()) for record in records.records)
    )
    for candidate in (records, bare, bare.changed(failure=None, refused=None)):
        text = json.dumps(candidate.to_json(), separators=(",", ":"))
        if len(text.encode()) <= TERMINATION_BYTES:
            return text
        text = COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(text) <= TERMINATION_BYTES:
            return text
    raise AssertionError("sixteen bare records fit into 4,096 bytes")
