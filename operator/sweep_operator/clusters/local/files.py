"""Files that survive a crash: written whole or not at all, read with a sentence when they are damaged.

Owns the atomic write, the removal of what a crash left behind, the reading of JSON documents, and locks on files.
Knows nothing of sweeps or runs.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"
"""Suffix of a file that is being written; after a crash it is rubbish."""


class DamagedError(Exception):
    """A file holds something else than what was written to it; the text is one sentence with the remedy."""

    def __init__(self, path: Path, fault: str, remedy: str) -> None:
        super().__init__(f"{path} is damaged ({fault}); {remedy}")
        self.path = path


class HeldError(Exception):
    """Somebody else holds the lock; the text says who."""


def write_atomically(path: Path, document: Any) -> None:
    """Write a JSON document so that a reader, or a crash at any moment, sees the old or the new one whole.

    Raises OSError (disk full, read-only …) with the path in it, and leaves nothing behind then.
    """
    data = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error


def in_words(error: OSError) -> str:
    """What the file system refused, where, and what to do about it, in one sentence."""
    where = error.filename or "the ladder's folder"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"no space is left for {where}; free some"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"{where} cannot be written ({os.strerror(error.errno)}); make it writable"
    return f"{where}: {os.strerror(error.errno) if error.errno else error}"


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries (renames, new files) durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(root: Path) -> int:
    """Remove what writers that died left behind under `root`; returns how many files."""
    removed = 0
    for path in root.rglob(f".*{TEMPORARY}"):
        with suppress(FileNotFoundError):
            path.unlink()
            removed += 1
    return removed


def read_object(path: Path, remedy: str) -> dict[str, Any] | None:
    """The JSON object in the file; None when there is no such file. Raises DamagedError for anything else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(path, "empty" if not data.strip() else "not JSON", remedy) from None
    if not isinstance(value, dict):
        raise DamagedError(path, "not a JSON object", remedy)
    return value


def signature(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does (inode, time, size); None when there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Lock:
    """An exclusive lock that the kernel releases with the process; the file says who holds it."""

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        """Take the lock at once. Raises HeldError, with the holder's own words in its text, and OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.read(self._descriptor, 4096)
            os.close(self._descriptor)
            raise HeldError(_who(said)) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps(holder).encode() + b"\n")

    def release(self) -> None:
        """Give the lock back; the file stays, empty, so that nobody locks a file that is gone."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder_of(path: Path) -> str | None:
    """Who holds the lock on the file now; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _who(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)


def _who(said: bytes) -> str:
    try:
        holder = json.loads(said)
        return f"process {holder['pid']} on {holder['host']}, running since {holder['startedAt']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Exclude other writers of the folder's documents for a moment (read, change, write); waits for its turn."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def this_host() -> str:
    """The name under which this machine writes itself into files."""
    return socket.gethostname()
