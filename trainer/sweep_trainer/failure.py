"""From what went wrong to a reason that a person can act on.

Owns the exceptions of the trainer's own and the table from exceptions to `FailureReason`. Writes nothing.
"""

import errno

from sweep_analysis.record import FailureReason
from sweep_trainer.corpus import BadDataError, DataError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


class RunError(Exception):
    """An end of the run that is understood; the message is the sentence that a person reads."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def explain(error: BaseException) -> tuple[FailureReason, str]:
    """Reason and sentence for any exception that ended a run."""
    if isinstance(error, RunError):
        return error.reason, error.message
    if isinstance(error, BadDataError):
        return FailureReason.BAD_CONFIGURATION, str(error)
    if isinstance(error, DataError):
        return FailureReason.DATA_UNAVAILABLE, str(error)
    if isinstance(error, OSError) and error.errno in _FULL | _UNWRITABLE:
        where = error.filename or "the run's storage"
        if error.errno in _FULL:
            return FailureReason.STORAGE_FULL, f"no space left for {where}; free some, then the run continues"
        return FailureReason.STORAGE_UNWRITABLE, f"{where} cannot be written ({error.strerror}); check its permissions"
    if _out_of_memory(error):
        return (
            FailureReason.OUT_OF_MEMORY,
            "the machine's memory is used up; lower training.batchTokens or run fewer at once",
        )
    return FailureReason.CRASHED, f"{type(error).__name__}: {error}; the traceback is in the run's log"


def _out_of_memory(error: BaseException) -> bool:
    """torch says so in a RuntimeError of its allocator; its own type is matched by name, to import no torch here."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text))
    )
