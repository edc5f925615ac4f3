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


class BeginAgain(Exception):  # noqa: N818  # what is to be done, by whoever starts the processes
    """Memory ran out on one rank while others wait for it in a collective: all must be started again with fewer."""

    def __init__(self, fewer: int, before: int) -> None:
        super().__init__(
            f"the device's memory ran out at {before} sequences at a time;"
            f" started again, the run takes {fewer} and goes on from the last checkpoint"
        )
        self.fewer = fewer


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
    if out_of_memory(error):
        return (
            FailureReason.OUT_OF_MEMORY,
            "the machine's memory is used up; lower training.batchTokens or run fewer at once",
        )
    if isinstance(error, BeginAgain):
        return FailureReason.CRASHED, str(error)
    return FailureReason.CRASHED, f"{type(error).__name__}: {error}; the traceback is in the run's log"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, the device's or the machine's.

    torch says so in a RuntimeError of its allocator; its own type is matched by name, to import no torch here.
    """
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text))
    )
