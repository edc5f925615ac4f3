"""Where a run keeps its state: a folder, or objects under any address that fsspec knows (s3://, gs://, …).

Owns putting, getting and removing whole objects by name, and patience with storage that fails for minutes. Refuses to
know what the objects are.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sweep_analysis.record import FailureReason
from sweep_trainer.failure import RunError
from sweep_trainer.files import write_atomically

PATIENCE_SECONDS = 600.0
"""How long storage may fail before the run gives up on it; training goes on meanwhile."""
_LONGEST_PAUSE = 15.0
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETDOWN, errno.EHOSTDOWN, errno.ECONNRESET}
"""Errors of a mounted file system whose server is away; a full or read-only disk does not pass by itself."""
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
"""Errors of a folder that may not be written, or is none: before the first step they are the configuration's."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Storage(Protocol):
    """Objects by name. Every method raises OSError; a put object is whole or absent to every reader."""

    def put(self, name: str, content: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def names(self) -> list[str]:
        """Of all objects, sorted; those whose writing was cut short are not among them."""
        ...

    def remove(self, name: str) -> None:
        """Without complaint when it is gone already."""
        ...

    def address(self, name: str) -> str:
        """Where a person finds the object."""
        ...

    def passes(self, error: OSError) -> bool:
        """Whether the error may be gone in a while."""
        ...


class Folder:
    """A folder of this machine, or of a volume that is mounted here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, content: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / name, content)

    def get(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def names(self) -> list[str]:
        return sorted(p.name for p in self.path.iterdir() if p.is_file()) if self.path.is_dir() else []

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def address(self, name: str) -> str:
        return str(self.path / name)

    def passes(self, error: OSError) -> bool:
        return error.errno in _PASSING


class Objects:
    """An address of fsspec's. Object stores make an object visible whole, at the end of its upload."""

    def __init__(self, uri: str) -> None:
        """Raises RunError when there is no program for such an address, or the address cannot be written."""
        self.uri = uri.rstrip("/")
        try:
            import fsspec

            self._system, self._root = fsspec.core.url_to_fs(self.uri)
        except ImportError as error:
            scheme = uri.split("://")[0]
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"storage at {uri} needs a package that is not installed ({error}); install 'scalingsweep[{scheme}]'",
            ) from None
        except ValueError as error:
            raise RunError(FailureReason.BAD_CONFIGURATION, f"storage at {uri}: {error}") from None

    def put(self, name: str, content: bytes) -> None:
        self._do(lambda: self._system.pipe_file(f"{self._root}/{name}", content), name)

    def get(self, name: str) -> bytes:
        content: bytes = self._do(lambda: self._system.cat_file(f"{self._root}/{name}"), name)
        return content

    def names(self) -> list[str]:
        def listed() -> list[str]:
            self._system.invalidate_cache()
            try:
                found: list[dict[str, Any]] = self._system.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
            return sorted(entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")

        return self._do(listed, "")

    def remove(self, name: str) -> None:
        def removed() -> None:
            try:
                self._system.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return

        self._do(removed, name)

    def address(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def passes(self, error: OSError) -> bool:
        return not isinstance(error, PermissionError | FileNotFoundError)

    def _do(self, action: Callable[[], T], name: str) -> T:
        """Clients of object stores raise what they like; here it is an OSError that names the object."""
        try:
            return action()
        except (PermissionError, FileNotFoundError) as error:
            number = error.errno or (errno.EACCES if isinstance(error, PermissionError) else errno.ENOENT)
            said = os.strerror(number) if error.errno else f"{os.strerror(number)}: {error}"
            raise type(error)(number, said, self.address(name)) from error
        except Exception as error:  # they share no base class; it is raised again as an OSError
            refused = any(word in type(error).__name__ for word in ("Credentials", "Param"))
            kind, number = (PermissionError, errno.EACCES) if refused else (OSError, errno.EIO)
            raise kind(number, f"{type(error).__name__}: {error}", self.address(name)) from error


def storage_at(uri: str) -> Storage:
    """The storage of an address, or of a path. Raises RunError where no storage can be had by it."""
    if uri.startswith("file://"):
        return Folder(Path(uri.removeprefix("file://")))
    return Objects(uri) if "://" in uri else Folder(Path(uri))


def is_folder(uri: str) -> bool:
    """Whether the address is a path of this machine."""
    return "://" not in uri or uri.startswith("file://")


def probe(storage: Storage) -> None:
    """Write, read and remove an object before anything is computed.

    Raises RunError with the remedy; of a folder, OSError for what may pass or has a reason of its own.
    """
    try:
        storage.put("probe", b"may this run write here?")
        storage.get("probe")
        storage.remove("probe")
    except OSError as error:
        if isinstance(storage, Folder) and error.errno not in FORBIDDEN:
            raise
        raise unusable(storage.address(""), error) from error


def unusable(address: str, error: OSError) -> RunError:
    """The sentence for storage that cannot be written before the first step; trying again would not help."""
    return RunError(
        FailureReason.BAD_CONFIGURATION,
        f"{address} cannot be used as storage ({error.strerror}); check its name and permissions",
    )


def patiently(action: Callable[[], T], storage: Storage, *, patience: float = PATIENCE_SECONDS) -> T:
    """Do it again, ever more rarely, while the storage fails in a way that passes. Raises OSError in the end."""
    deadline, pause = time.monotonic() + patience, 0.25
    while True:
        try:
            return action()
        except OSError as error:
            if not storage.passes(error) or time.monotonic() + pause > deadline:
                raise
            log.warning("the storage fails (%s); again in %.2g s", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
