"""Columns by name out of anything that has them: records, dicts, arrays, data frames, CSV, JSON lines, Parquet.

Owns the forms that records come in, and where in its source a row stands, so that a sentence can name it. Imports no
data-frame library; Parquet alone asks for pyarrow. Knows no law and judges no value: `table.py` does.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import ValidationError

from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose

Records: TypeAlias = Any
"""Records, a dict of columns, a list of dicts, a data frame, a Text, or the path of a CSV, JSON lines or
Parquet file."""
Convention: TypeAlias = Literal["total", "non_embedding", "active"]
LABELS = ("run", "rung", "validationDigest", "tokenizerDigest")
SIZES = ("parameters", "tokens", "flops", "unique_tokens")
"""Columns whose text may be written as a Scale: 7B, 1.4T."""
HELD = "the records"
"""What records that are in memory are called in a sentence."""


@dataclass(frozen=True, slots=True)
class Text:
    """The content of a CSV or JSON lines file that is kept elsewhere than in a file of this machine."""

    name: str
    """In sentences; its ending tells the form."""
    content: str


class TableError(ValueError):
    """Input that no law can be fitted to, in one sentence: what, where, what would be right."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Raw columns, and where they came from."""

    named: Mapping[str, Any]
    source: str = HELD
    lines: Sequence[int] = ()
    """The line of the source that each row begins on; empty where rows have none, and are counted from 1."""

    def row(self, index: int) -> str:
        """`line 7 of runs.csv`, `row 7 of the records`."""
        return f"line {self.lines[index]} of {self.source}" if self.lines else f"row {index + 1} of {self.source}"

    def listed(self) -> str:
        """The names that are there, for a sentence."""
        names = [str(n) for n in self.named]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return ", ".join(names[:20]) + more if names else "none"


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is taken of a record."""

    convention: Convention
    contexts: bool
    """Records of one model at several context lengths, compared by it; else of the target's alone."""


def columns_of(records: Records, *, convention: Convention = "total", contexts: bool = False) -> Columns:
    """The columns of any source; of Records those that a fit may see, N by `convention`. Raises TableError."""
    how = _Reading(convention, contexts)
    if isinstance(records, str | Path):
        return _file(Path(records), how)
    if isinstance(records, Text):
        return _text(records.content, records.name, how)
    if isinstance(records, Mapping):
        return Columns(records)
    if isinstance(records, np.ndarray) and records.dtype.names:
        return Columns({n: records[n] for n in records.dtype.names})
    if hasattr(records, "column_names") and hasattr(records, "column"):  # pyarrow.Table
        return Columns({n: records.column(n).to_pylist() for n in records.column_names})
    if hasattr(records, "collect_schema") and hasattr(records, "collect"):  # polars, lazy
        records = records.collect() if not hasattr(records, "get_column") else records
    if hasattr(records, "columns") and hasattr(records, "__getitem__"):  # pandas, polars
        return Columns({str(n): _series(records[n]) for n in records.columns})
    if isinstance(records, Iterable):
        return _rows(list(records), how)
    raise TableError(
        f"cannot read records from {type(records).__name__}: give Records, a dict of columns, a list of dicts, a data "
        "frame, or the path of a CSV, JSON lines or Parquet file"
    )


def _series(series: Any) -> Any:
    return series.to_numpy() if hasattr(series, "to_numpy") else np.asarray(series)


def _rows(rows: list[Any], how: _Reading, source: str = HELD, lines: Sequence[int] = ()) -> Columns:
    places = Columns({}, source, lines)
    flat: list[Mapping[str, Any]] = []
    kept: list[int] = []
    left_out = {Purpose.DIAGNOSIS}  # retrying what looked bad and keeping the better would bias the fit
    if not how.contexts:
        left_out.add(Purpose.CONTEXT)
    for i, row in enumerate(rows):
        if isinstance(row, Mapping) and str(row.get("apiVersion", "")).startswith("scalingsweep.dev/record-"):
            try:
                row = Record.model_validate(row)
            except ValidationError as error:
                first_error = error.errors()[0]
                where = ".".join(str(part) for part in first_error["loc"])
                raise TableError(f"{places.row(i)} is not a record: {where}: {first_error['msg']}") from None
        if isinstance(row, Record):
            if row.purpose in left_out:
                continue
            flat.append(_of_record(row, how))
        elif isinstance(row, Mapping):
            flat.append(_flatten(row))
        elif hasattr(row, "parameters") and hasattr(row, "tokens"):  # any object with the fields of a point
            flat.append({n: getattr(row, n) for n in (*SIZES, "loss", *LABELS) if hasattr(row, n)})
        else:
            raise TableError(f"{places.row(i)} is a {type(row).__name__}; a record or a dict would be right")
        kept.append(i)
    _comparable([row for row in flat if "validationDigest" in row], how, source)
    names = dict.fromkeys(name for row in flat for name in row)
    return Columns({n: [row.get(n) for row in flat] for n in names}, source, [lines[i] for i in kept] if lines else ())


def _comparable(records: list[Mapping[str, Any]], how: _Reading, source: str) -> None:
    """Refuse losses that cannot be compared; those of another context are of its own windows of the validation set."""
    kinds = {(r["validationDigest"], r["tokenizerDigest"], r["context"] if how.contexts else None) for r in records}
    if len(kinds) > (len({r["context"] for r in records}) if how.contexts else 1):
        raise TableError(
            f"{source} mix {len(kinds)} pairs of validation set and tokenizer, whose losses cannot be compared: "
            "fit them one at a time, or compare them with compare_corpora"
        )
    sizes = {r["parameters"] for r in records}
    tokens = [r["tokens"] for r in records]
    if how.contexts and records and (len(sizes) > 1 or max(tokens) > 1.05 * min(tokens)):
        raise TableError(
            f"{source} hold models of {min(sizes):,} to {max(sizes):,} parameters on {min(tokens):,} to {max(tokens):,}"
            " tokens; context lengths are compared at one size and one token count: choose the records of one"
        )


def _of_record(record: Record, how: _Reading) -> dict[str, Any]:
    return {
        "parameters": getattr(record.parameters, how.convention),
        "tokens": record.tokens,
        "loss": record.loss,
        "flops": record.flops.six_nd,
        "unique_tokens": record.unique_tokens,
        "context": record.context_length,
        "run": record.run.uid,
        "validationDigest": record.validation_digest,
        "tokenizerDigest": record.tokenizer_digest,
    }


def _flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects under dotted names, as experiment trackers write them: {"config": {"N": 1}} → config.N."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out.update(_flatten(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def _file(path: Path, how: _Reading) -> Columns:
    if not path.exists():
        raise TableError(f"there is no file {path}")
    if path.is_dir():
        raise TableError(f"{path} is a folder; name a CSV, JSON lines or Parquet file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from None
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(content, path.name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TableError(f"{path.name} is not UTF-8 text; CSV, JSON lines or Parquet would be right") from None
    return _text(text, path.name, how)


def _parquet(content: bytes, name: str) -> Columns:
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError:
        raise TableError(f"reading {name} needs pyarrow: install scalingsweep[tables], or give CSV") from None
    try:
        table = parquet.read_table(BufferReader(content))
    except (ArrowException, OSError):  # OSError where a page is damaged and not the footer
        raise TableError(f"{name} is no Parquet file, or a damaged one; write it again, or give CSV") from None
    return Columns({n: table.column(n).to_pylist() for n in table.column_names}, name)


def _lines(text: str) -> io.StringIO:
    """Lines as CSV and JSON have them: a form feed or a Unicode separator is a character like any other."""
    return io.StringIO(text, newline="")


def _text(text: str, name: str, how: _Reading) -> Columns:
    """CSV or JSON lines, by the name's ending."""
    suffix = Path(name).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json(text, name, how)
    if suffix not in (".csv", ".tsv", ".txt", ""):
        raise TableError(f"{name}: unknown kind {suffix}; CSV, JSON lines (.jsonl) or Parquet would be right")
    reader = csv.reader(_lines(text), delimiter="\t" if suffix == ".tsv" else ",")
    rows: list[list[str]] = []
    lines: list[int] = []
    ended = 0  # the line that the row before ended on: a quoted value may hold several
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(ended + 1)
            ended = reader.line_num
    except csv.Error as error:
        raise TableError(f"line {ended + 1} of {name} is not CSV: {error}") from None
    if not rows:
        raise TableError(f"{name} is empty; its first line should name the columns")
    head, body, lines = [h.strip() for h in rows[0]], rows[1:], lines[1:]
    if len(set(head)) < len(head):
        twice = next(h for h in head if head.count(h) > 1)
        raise TableError(f"{name} names the column {twice!r} twice")
    for line, row in zip(lines, body, strict=True):
        if len(row) != len(head):
            raise TableError(f"line {line} of {name} has {len(row)} values; the header names {len(head)} columns")
    values = zip(*body, strict=True) if body else ((),) * len(head)
    return Columns(dict(zip(head, values, strict=True)), name, lines)


def _json(text: str, source: str, how: _Reading) -> Columns:
    """A JSON array of objects, or one object a line."""
    if text.lstrip().startswith("["):
        try:
            return _rows(_parsed(text), how, source)
        except json.JSONDecodeError as error:
            raise TableError(f"{source} is not JSON: {error.msg} at line {error.lineno}") from None
    rows, lines = [], []
    for number, line in enumerate(_lines(text), start=1):
        if line.strip():
            try:
                rows.append(_parsed(line))
            except json.JSONDecodeError as error:
                raise TableError(f"line {number} of {source} is not JSON: {error.msg}") from None
            lines.append(number)
    return _rows(rows, how, source, lines)


def _parsed(text: str) -> Any:
    """The value of JSON. Raises JSONDecodeError, also on what Python itself refuses to hold."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("brackets within brackets, a thousand deep", text, 0) from None
    except ValueError:
        raise json.JSONDecodeError("a number of thousands of digits", text, 0) from None
