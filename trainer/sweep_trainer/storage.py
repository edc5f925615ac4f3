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
START_PATIENCE_SECONDS = 150.0
"""The same before the first step, where devices wait with nothing to do, and the next attempt tries again."""
_LONGEST_PAUSE = 15.0
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETDOWN, errno.EHOSTDOWN, errno.ECONNRESET}
"""Errors of a mounted file system whose server is away; a full or read-only disk does not pass by itself."""
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
"""Errors of a folder that may not be written, or is none: before the first step they are the configuration's."""
_ANSWERED = {errno.EINVAL, errno.EPERM, errno.ENOSYS, getattr(errno, "EREMCHG", errno.EINVAL)}
"""Errors with which an object store says that the request will not do, as of a name that no bucket can have. Of one
object it may be the way there that spoilt it; the first one meets nothing else by trying again."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class DamagedError(OSError, ValueError):
    """An object is there, and is not what was put: to its readers the same as content that makes no sense."""


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

    def refuses(self, error: OSError) -> bool:
        """Whether, met by the first object of all, the error says that this is no storage for us."""
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

    def refuses(self, error: OSError) -> bool:
        return error.errno in FORBIDDEN


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
        def got() -> bytes:
            content: bytes = self._system.cat_file(f"{self._root}/{name}")
            return content

        try:
            return self._do(got, name)
        except DamagedError:
            return self._do(got, name)  # it may have been the way here; twice the same, it lies there so

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
        return not isinstance(error, PermissionError | FileNotFoundError | DamagedError)

    def refuses(self, error: OSError) -> bool:
        said = error.__cause__
        return not self.passes(error) or isinstance(said, ValueError) or getattr(said, "errno", None) in _ANSWERED

    def _do(self, action: Callable[[], T], name: str) -> T:
        """Clients of object stores raise what they like; here it is an OSError that names the object."""
        try:
            return action()
        except (PermissionError, FileNotFoundError) as error:
            number = error.errno or (errno.EACCES if isinstance(error, PermissionError) else errno.ENOENT)
            said = os.strerror(number) if error.errno else f"{os.strerror(number)}: {error}"
            raise type(error)(number, said, self.address(name)) from error
        except Exception as error:  # they share no base class; it is raised again as an OSError
            if "Checksum" in type(error).__name__:
                raise DamagedError(
                    errno.EIO, f"the server's checksum is of another content: {error}", self.address(name)
                ) from error
            refused = any(word in type(error).__name__ for word in ("Credentials", "Param"))
            refused = refused or str(error).startswith("Forbidden")  # gcsfs's 403, an OSError without a number
            kind, number = (PermissionError, errno.EACCES) if refused else (OSError, errno.EIO)
            named = isinstance(error, OSError) and error.strerror
            raise kind(number, named or f"{type(error).__name__}: {error}", self.address(name)) from error


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

    Raises RunError with the remedy: the configuration's where the storage refuses, else StorageUnwritable where objects
    have failed for `START_PATIENCE_SECONDS`; of a folder, OSError for what does not pass and has a reason of its own.
    """

    def tried() -> None:
        try:
            storage.put("probe", b"may this run write here?")
            storage.get("probe")
            storage.remove("probe")
        except OSError as error:
            if storage.refuses(error):
                raise unusable(storage.address(""), error) from error
            raise

    try:
        patiently(tried, storage, patience=START_PATIENCE_SECONDS)
    except OSError as error:
        if isinstance(storage, Folder):
            raise
        raise RunError(
            FailureReason.STORAGE_UNWRITABLE,
            f"{storage.address('')} has failed for {START_PATIENCE_SECONDS:g} s ({error.strerror});"
            " check the address of its server; once that answers, the run continues",
        ) from error


def unusable(address: str, error: OSError) -> RunError:
    """The sentence for storage that cannot be written before the first step; trying again would not help."""
    what = "name and permissions" if is_folder(address) else "name, credentials and permissions"
    return RunError(
        FailureReason.BAD_CONFIGURATION, f"{address} cannot be used as storage ({error.strerror}); check its {what}"
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
