"""Documents from files: text, JSON lines (plain, gzip, zstd), Parquet, saved Hugging Face datasets, token ids.

Owns the formats, one function each, and the sentence for a file that cannot be read as its format. A document is a
tuple of the fields asked for, each text or a list of token ids. Tokenizes nothing.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sweep_analysis.sources import HUB, Format, Source, format_of
from sweep_trainer.corpus import BadDataError, DataError, unreadable
from sweep_trainer.data.hub import downloaded

Field = str | list[int] | npt.NDArray[np.integer]
Document = tuple[Field, ...]
Read = Iterator[tuple[Document, float]]
"""Documents, each with the share of its file that was read so far."""

_TEXT_PIECE = 16_384
_CHUNK = 1 << 24
_PACKED = 1 << 20
"""Bytes of a compressed file that are unpacked together."""
_LARGEST_ID = 2**32 - 1
_ROWS = 1024
_ROOT = "relative paths start at the manifest's folder"


def files_of(source: Source, cache: Path) -> list[tuple[Path, Format]]:
    """The source's files in order, each with its format; what the hub has is downloaded into the cache.

    Raises DataError for a name that is no file.
    """
    found: list[tuple[Path, Format]] = []
    for name in source.files:
        if name.startswith(HUB):
            found += [(path, source.format or format_of(path.name)) for path in downloaded(name, cache / "hub")]
            continue
        names = sorted(glob(name)) if any(c in name for c in "*?[") else [name]  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not names:
            raise DataError(f"source {source.name}: no file matches {name}; {_ROOT}")
        for one in names:
            path = Path(one)
            try:
                there, folder = path.exists(), path.is_dir()
            except PermissionError as error:  # a folder on the way may not be entered
                raise unreadable(f"source {source.name}: {path}", error) from None
            form = source.format or ("Dataset" if folder else format_of(one))
            if not there:
                raise DataError(f"source {source.name}: {path} does not exist; {_ROOT}")
            if folder != (form == "Dataset"):
                what = "a folder; name the files in it" if folder else "not the folder of a saved dataset"
                raise BadDataError(f"source {source.name}: {path} is {what}")
            found.append((path, form))
    return found


def documents(path: Path, form: Format, fields: tuple[str, ...], *, vocabulary: int, end: int) -> Read:
    """The documents of one file. Raises DataError where the file is not what its format says."""
    try:
        if form == "Text":
            yield from _text(path, fields)
        elif form == "Tokens":
            yield from _tokens(path, vocabulary, end)
        else:
            yield from {"JsonLines": _json_lines, "Parquet": _parquet, "Dataset": _dataset}[form](path, fields)
    except UnicodeDecodeError as error:  # in a table, which may hold any bytes as text
        raise BadDataError(
            f"{path} holds text that is not UTF-8 ({error}); convert it, or make the file anew"
        ) from None
    except OSError as error:
        if error.errno is None:  # not the system's: pyarrow says so of pages that are damaged
            raise BadDataError(f"{path} is damaged ({_first_line(error)}); make it anew") from None
        raise unreadable(str(path), error) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _text(path: Path, fields: tuple[str, ...]) -> Read:
    """Pieces of about 16 KB, cut behind a line."""
    if len(fields) != 1:
        raise BadDataError(f"{path} is plain text, and {', '.join(fields)} are asked for; give tables")
    size = path.stat().st_size
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, done = "", 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            try:
                text += decoder.decode(chunk, final=done + len(chunk) == size)
            except UnicodeDecodeError as error:
                at = done + error.start - len(decoder.getstate()[0])
                raise BadDataError(f"{path} is not UTF-8 (near byte {max(0, at)}); convert it") from None
            done += len(chunk)
            at = 0
            while len(text) - at > 2 * _TEXT_PIECE:
                cut = text.find("\n", at + _TEXT_PIECE) + 1 or at + _TEXT_PIECE
                yield (text[at:cut],), done / size
                at = cut
            text = text[at:]
    if text:
        yield (text,), 1.0


def _json_lines(path: Path, fields: tuple[str, ...]) -> Read:
    size = max(1, path.stat().st_size)
    with path.open("rb") as raw:
        try:
            for number, line in enumerate(_opened(path, raw), 1):
                if line.strip():
                    yield _row(path, f"line {number}", _parsed(path, number, line), fields), raw.tell() / size
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadDataError(f"{path} is not a whole gzip file ({error})") from None


def _opened(path: Path, raw: BinaryIO) -> Iterable[bytes]:
    if path.name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if path.name.endswith(".zst"):
        return _unpacked(path, raw)
    return raw


def _unpacked(path: Path, raw: BinaryIO) -> Iterator[bytes]:
    """Lines of a zstd file."""
    try:
        import zstandard
    except ImportError:
        raise BadDataError(f"{path} needs the package zstandard; install scalingsweep[trainer]") from None
    frame, rest = None, b""
    try:
        while packed := raw.read(_PACKED):
            while packed:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                *lines, rest = (rest + frame.decompress(packed)).split(b"\n")
                yield from lines
                packed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise BadDataError(f"{path} is not a whole zstd file ({error})") from None
    if frame is not None:
        raise BadDataError(f"{path} is not a whole zstd file (it ends within a frame)")
    yield rest


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"{path}: line {number} is not JSON that can be read ({error})") from None
    if not isinstance(row, dict):
        raise BadDataError(f"{path}: line {number} is not an object with fields")
    return row


def _parquet(path: Path, fields: tuple[str, ...]) -> Read:
    from pyarrow import ArrowException, parquet

    try:
        with closing(parquet.ParquetFile(path)) as file:
            _columns(path, fields, file.schema_arrow.names)
            total, done = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(_ROWS, columns=list(fields)):
                yield from _of_batch(path, batch, fields, done, total)
                done += batch.num_rows
    except ArrowException as error:
        raise BadDataError(f"{path} is not a Parquet file ({str(error).splitlines()[0]})") from None


def _dataset(path: Path, fields: tuple[str, ...]) -> Read:
    """A folder that `datasets` saved: Arrow streams, named in its state.json."""
    from pyarrow import ArrowException, ipc, memory_map

    if (path / "dataset_dict.json").exists():
        splits = json.loads((path / "dataset_dict.json").read_text()).get("splits", [])
        raise BadDataError(f"{path} holds several splits; name one of them: {', '.join(f'{path}/{s}' for s in splits)}")
    try:
        state = json.loads((path / "state.json").read_text())
        parts = [path / part["filename"] for part in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadDataError(f"{path} is not a folder that datasets saved: it has no readable state.json") from None
    for place, part in enumerate(parts):
        try:
            with memory_map(str(part)) as mapped, ipc.open_stream(mapped) as stream:
                _columns(path, fields, stream.schema.names)
                for batch in stream:
                    for document, _ in _of_batch(part, batch, fields, 0, 1):
                        yield document, (place + 1) / len(parts)
        except ArrowException as error:
            raise BadDataError(f"{part} is not an Arrow stream ({str(error).splitlines()[0]})") from None


def _columns(path: Path, fields: tuple[str, ...], there: list[str]) -> None:
    for field in fields:
        if field not in there:
            raise BadDataError(f"{path} has no column {field}; it has {', '.join(there)}")


def _of_batch(path: Path, batch: Any, fields: tuple[str, ...], done: int, total: int) -> Read:
    columns = [batch.column(field).to_pylist() for field in fields]
    for row, values in enumerate(zip(*columns, strict=True)):
        place = f"row {done + row}"
        yield _row(path, place, dict(zip(fields, values, strict=True)), fields), (done + row + 1) / total


def _row(path: Path, place: str, row: dict[str, Any], fields: tuple[str, ...]) -> Document:
    values: list[Field] = []
    for field in fields:
        if field not in row:
            raise BadDataError(f"{path}: {place} has no field {field}; it has {', '.join(map(str, row)) or 'none'}")
        value = row[field]
        if isinstance(value, str):
            _check_text(value, f"{path}: {place}: {field}")
        elif not (isinstance(value, list) and all(map(_is_id, value))):
            raise BadDataError(f"{path}: {place}: {field} is neither text nor a list of token ids")
        values.append(value)
    return tuple(values)


def _check_text(text: str, where: str) -> None:
    """Raises BadDataError for half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise BadDataError(f"{where} holds half a surrogate pair at character {error.start}; remove it") from None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_ID


def _tokens(path: Path, vocabulary: int, end: int) -> Read:
    """A memory map of token ids: .npy, or raw and little-endian, as wide as the vocabulary needs."""
    if path.suffix == ".npy":
        try:
            stream = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise BadDataError(f"{path} is not a NumPy file ({error})") from None
        if stream.ndim != 1 or stream.dtype.kind not in "iu":
            raise BadDataError(
                f"{path} holds {stream.dtype} of {stream.ndim} dimensions; one of whole numbers is right"
            )
    else:
        dtype = np.dtype(dtype_of(vocabulary)).newbyteorder("<")
        if path.stat().st_size % dtype.itemsize:
            raise BadDataError(f"{path} is not a whole number of {dtype.itemsize}-byte ids, as its vocabulary needs")
        stream = np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
    start = 0
    for at in range(0, len(stream), _CHUNK):
        for stop in np.flatnonzero(stream[at : at + _CHUNK] == end) + at + 1:
            yield (np.asarray(stream[start : stop - 1]),), stop / len(stream)
            start = int(stop)
    if start < len(stream):
        yield (np.asarray(stream[start:]),), 1.0


def dtype_of(vocabulary: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type that holds every id."""
    return np.uint8 if vocabulary <= 1 << 8 else np.uint16 if vocabulary <= 1 << 16 else np.uint32
