"""The folder that a run keeps on this machine: its lock and its learning curve.

Owns who may write there, and that the curve never holds a step twice. Checkpoints are `checkpoint.py`'s; where the
run's storage is an object store, the folder is a passing one and the curve is put beside the checkpoints.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep_analysis.record import FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.failure import RunError
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.storage import FORBIDDEN, is_folder, unusable

CURVE = "curve.jsonl"
_PATIENCE_SECONDS = 10.0


@contextlib.contextmanager
def folder_of(order: RunOrder, ranks: Ranks) -> Iterator[Path]:
    """Where this process keeps files: the run's storage where that is a folder, else one that goes with the process.

    Ranks other than the first keep a curve too, which nobody reads: it stays theirs.
    """
    if is_folder(order.storage) and ranks.first:
        yield Path(order.storage.removeprefix("file://"))
        return
    with tempfile.TemporaryDirectory(prefix="scalingsweep-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def locked(storage: Path, attempt: int, interruption: Interruption) -> Iterator[None]:
    """Hold the run's lock; waits up to ten seconds for a trainer that is just leaving.

    Raises RunError with the holder's name after that or where the folder may not be written, Interrupted when asked to
    stop meanwhile.
    """
    try:
        storage.mkdir(parents=True, exist_ok=True)
        opened = (storage / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        raise unusable(str(storage), error) from error
    with opened as file:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if interruption.requested:
                    raise Interrupted from None
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another trainer"
                    raise RunError(
                        FailureReason.STORAGE_UNWRITABLE,
                        f"{storage} is in use by {holder}; this attempt changed nothing, stop that one and try again",
                    ) from None
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}, attempt {attempt}\n")
        file.flush()
        for leftover in storage.glob(".*.[0-9]*"):  # half-written files of a killed attempt
            leftover.unlink(missing_ok=True)
        yield  # the kernel lets go of the lock with the file, however this process ends


class LearningCurve:
    """`curve.jsonl`: a line a step, appended when a checkpoint or a record is due, cut back to what is resumed from.

    `step` counts executed steps of the whole run, branches included; `tokens` is D on the step's
    path; `branch` is the token count whose decay it belongs to, absent on the trunk. A line with `validationLoss` was
    measured after that step and belongs before the next.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        """Open the curve, dropping every line after executed step `last_step`, and any half-written one."""
        self.path = path
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        kept = 0
        with path.open("a+b") as file:
            file.seek(0)
            for line in file:
                step = _step_of(line) if line.endswith(b"\n") else None
                if step is None or step > last_step:
                    break
                kept += len(line)
                self._digest.update(line)
            file.truncate(kept)

    def add(self, point: dict[str, Any]) -> None:
        """Note one step; it reaches the disk with `flush`."""
        self._waiting.append(json.dumps(point, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Write what was noted, down to the disk."""
        content = b"".join(self._waiting)
        with self.path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()
        self._digest.update(content)

    @property
    def digest(self) -> str:
        """Of all lines flushed so far."""
        return "sha256:" + self._digest.hexdigest()


def _step_of(line: bytes) -> int | None:
    try:
        point = json.loads(line)
        return int(point["step"]) + ("validationLoss" in point)  # which is measured before the next step
    except (ValueError, KeyError, TypeError):
        return None
