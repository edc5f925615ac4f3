"""Records from anything that has columns: what a law reads, checked, in one canonical order.

Owns reading (records, dicts, arrays, data frames by duck typing, CSV, JSON lines, Parquet), the names a column may go
by, and the refusal of values no law can use, with the row named. Imports no data-frame library; Parquet alone asks
for pyarrow. Guesses no units: what looks mixed up is said in `suspect.py`.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import ValidationError

from sweep_analysis.laws.base import Array
from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose
from sweep_analysis.scale import parse_scale

Records: TypeAlias = Any
"""Records, a dict of columns, a list of dicts, a data frame, a Text, or the path of a CSV, JSON lines or
Parquet file."""
Convention: TypeAlias = Literal["total", "non_embedding", "active"]

ALIASES: dict[str, tuple[str, ...]] = {
    "parameters": ("N", "n_params", "num_params", "params"),
    "tokens": ("D", "n_tokens", "num_tokens", "training_tokens"),
    "flops": ("C", "compute", "flops_6ND"),
    "loss": ("L", "val_loss", "validation_loss"),
    "unique_tokens": ("U", "uniqueTokens"),
    "run": ("run_name", "run_id"),
}
"""Other names under which a column is found when the canonical one is missing and no map was given."""
LABELS = ("run", "rung", "validationDigest", "tokenizerDigest")
SIZES = ("parameters", "tokens", "flops", "unique_tokens")
"""Columns whose text may be written as a Scale: 7B, 1.4T."""


@dataclass(frozen=True, slots=True)
class Text:
    """The content of a CSV or JSON lines file that is kept elsewhere than in a file of this machine."""

    name: str
    """In sentences; its ending tells the form."""
    content: str


class TableError(ValueError):
    """Input that no law can be fitted to, in one sentence: what, where, what would be right."""


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Columns of equal length in canonical order (sorted by value), so that the order of records changes nothing."""

    columns: Mapping[str, Array]  # canonical name → (n,) floats
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # LABELS, as far as they are there
    source: str = "the records"
    named: Mapping[str, str] = field(default_factory=dict)  # canonical name → the name it was found under

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def __repr__(self) -> str:
        return f"<Table {len(self)} records of {', '.join(self.columns)} from {self.source}>"

    def take(self, rows: Array) -> "Table":
        """The given rows (indices or mask), in canonical order still."""
        index = np.flatnonzero(rows) if rows.dtype == bool else np.sort(rows)
        labels = {k: tuple(v[i] for i in index.tolist()) for k, v in self.labels.items()}
        return Table({k: v[index] for k, v in self.columns.items()}, labels, self.source, self.named)


def read(
    records: Records,
    needs: Sequence[str] = ("parameters", "tokens", "loss"),
    *,
    columns: Mapping[str, str] | None = None,
    convention: Convention = "total",
    missing: Literal["refuse", "drop"] = "refuse",
    signed: Sequence[str] = (),
) -> Table:
    """The table of `needs`, and of run, rung, parameters, tokens, flops where the source has them.

    columns: canonical name → the source's name. convention: which N of a Record. missing: rows with an empty or NaN
    needed value are refused, or dropped. signed: needed columns that may be zero or negative. Diagnosis records are
    left out, and so are those of runs with a context length of their own unless `context` is needed. Raises TableError.
    """
    if isinstance(records, Table) and columns is None and all(n in records.columns for n in needs):
        return records
    raw, source, first = _columns_of(records, _Reading(convention, "context" in needs))
    named = _resolve(raw, columns or {}, needs, source)
    length = _length(raw, named, source)
    if length == 0:
        raise TableError(f"no rows in {source}: a fit needs records with {', '.join(needs)}")
    numbers: dict[str, Array] = {}
    for name, found in named.items():
        if name not in LABELS:
            numbers[name] = _numbers(raw[found], name, found, source, first, required=name in needs)
    _derive(numbers, needs, source)
    keep = np.ones(length, dtype=bool)
    for name in needs:
        v = numbers[name]
        absent = np.isnan(v)
        if absent.any():
            if missing == "refuse":
                row = int(np.flatnonzero(absent)[0])
                raise TableError(
                    f"{_row(source, first, row)}: {name} is missing or NaN; give a number, or drop such rows"
                )
            keep &= ~absent
    for name in needs:
        v = numbers[name]
        wrong = keep & (~np.isfinite(v) | ((v <= 0) & (name not in signed)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            must = "finite" if name in signed else "a finite number greater than zero"
            raise TableError(f"{_row(source, first, row)}: {name} is {v[row]:g}; it must be {must}")
    optional = [n for n in numbers if n not in needs]
    for name in optional:  # not asked for: kept only where it is usable
        if not np.isfinite(numbers[name][keep]).all():
            del numbers[name]
    if not keep.any():
        raise TableError(f"{source} holds no complete row with {', '.join(needs)}")
    labels = {n: [str(v) for v in raw[named[n]]] for n in LABELS if n in named}
    rows = np.flatnonzero(keep)
    keys = [numbers[n][rows] for n in sorted(numbers)]
    keys += [np.array(labels[n], dtype=str)[rows] for n in labels]
    order = rows[np.lexsort(keys[::-1])]
    return Table(
        {n: v[order] for n, v in numbers.items()},
        {n: tuple(v[i] for i in order.tolist()) for n, v in labels.items()},
        source,
        named,
    )


def _row(source: str, first: int, row: int) -> str:
    return f"row {row + first} of {source}" if first == 1 else f"line {row + first} of {source}"


def _resolve(raw: Mapping[str, Any], columns: Mapping[str, str], needs: Sequence[str], source: str) -> dict[str, str]:
    """Canonical name → the source's name, for everything that is there."""
    named: dict[str, str] = {}
    for name, found in columns.items():
        if found not in raw:
            raise TableError(f"{source} has no column {found!r} (wanted as {name}); it has {_listed(raw)}")
        named[name] = found
    for name in dict.fromkeys((*needs, "parameters", "tokens", "flops", "unique_tokens", *LABELS)):
        if name not in named:
            match = next((a for a in (name, *ALIASES.get(name, ())) if a in raw), None)
            if match is not None:
                named[name] = match
    for name in needs:
        derivable = (name == "flops" and {"parameters", "tokens"} <= named.keys()) or (
            name == "tokens" and {"parameters", "flops"} <= named.keys()
        )
        if name not in named and not derivable:
            raise TableError(
                f"{source} has no column {name}: it has {_listed(raw)}; name the right one with columns={name}=…"
            )
    return named


def _listed(raw: Mapping[str, Any]) -> str:
    names = [str(n) for n in raw]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"


def _length(raw: Mapping[str, Any], named: Mapping[str, str], source: str) -> int:
    lengths = {found: len(raw[found]) for found in named.values()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"columns of {source} differ in length: " + ", ".join(f"{k} {v}" for k, v in lengths.items()))
    return next(iter(lengths.values()), 0)


def _derive(numbers: dict[str, Array], needs: Sequence[str], source: str) -> None:
    """flops = 6·N·D, or tokens = C/(6·N), where asked for and absent."""
    if "flops" in needs and "flops" not in numbers:
        numbers["flops"] = 6.0 * numbers["parameters"] * numbers["tokens"]
    if "tokens" in needs and "tokens" not in numbers:
        numbers["tokens"] = numbers["flops"] / (6.0 * numbers["parameters"])


def _numbers(values: Any, name: str, found: str, source: str, first: int, required: bool) -> Array:
    """The column as floats; text that is no number is refused by row (or becomes NaN in a column nobody needs)."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "fiub":
            return np.array(array, dtype=np.float64)
        if array.dtype.kind == "O":
            return np.array([np.nan if v is None else _number(v, name) for v in array.tolist()])
        return np.array([_number(v, name) for v in array.tolist()])
    except (TypeError, ValueError):
        out = np.full(len(values), np.nan)
        for row, value in enumerate(values):
            try:
                out[row] = np.nan if value is None else _number(value, name)
            except (TypeError, ValueError):
                if required:
                    raise TableError(
                        f"{_row(source, first, row)}: {found} is {str(value)[:40]!r}, which is not a number"
                    ) from None
        return out


def _number(value: Any, name: str) -> float:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return float("nan")
        try:
            return float(text)
        except ValueError:
            if name in SIZES:
                return float(parse_scale(text))
            raise
    return float(value)


# ---- sources: each gives columns by name, what to call it in a sentence, and the number of its first row


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is taken of a record."""

    convention: Convention
    contexts: bool
    """Records of one model at several context lengths, compared by it; else of the target's alone."""


def _columns_of(records: Records, how: _Reading) -> tuple[Mapping[str, Any], str, int]:
    if isinstance(records, Table):
        return {**records.columns, **records.labels}, records.source, 1
    if isinstance(records, str | Path):
        return _file(Path(records), how)
    if isinstance(records, Text):
        return _text(records.content, records.name, how)
    if isinstance(records, Mapping):
        return records, "the records", 1
    if isinstance(records, np.ndarray) and records.dtype.names:
        return {n: records[n] for n in records.dtype.names}, "the records", 1
    if hasattr(records, "column_names") and hasattr(records, "column"):  # pyarrow.Table
        return {n: records.column(n).to_pylist() for n in records.column_names}, "the records", 1
    if hasattr(records, "columns") and hasattr(records, "__getitem__"):  # pandas, polars
        return {str(n): _series(records[n]) for n in records.columns}, "the records", 1
    if isinstance(records, Iterable):
        return _rows(list(records), how, "the records", 1)
    raise TableError(
        f"cannot read records from {type(records).__name__}: give Records, a dict of columns, a list of dicts, a data "
        "frame, or the path of a CSV, JSON lines or Parquet file"
    )


def _series(series: Any) -> Any:
    return series.to_numpy() if hasattr(series, "to_numpy") else np.asarray(series)


def _rows(rows: list[Any], how: _Reading, source: str, first: int) -> tuple[Mapping[str, Any], str, int]:
    flat: list[Mapping[str, Any]] = []
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
                raise TableError(f"{_row(source, first, i)} is not a record: {where}: {first_error['msg']}") from None
        if isinstance(row, Record):
            if row.purpose not in left_out:
                flat.append(_of_record(row, how))
        elif isinstance(row, Mapping):
            flat.append(_flatten(row))
        elif hasattr(row, "parameters") and hasattr(row, "tokens"):  # any object with the fields of a point
            flat.append({n: getattr(row, n) for n in (*SIZES, "loss", *LABELS) if hasattr(row, n)})
        else:
            raise TableError(f"{_row(source, first, i)} is a {type(row).__name__}; a record or a dict would be right")
    _comparable([row for row in flat if "validationDigest" in row], how, source)
    names = dict.fromkeys(name for row in flat for name in row)
    return {n: [row.get(n) for row in flat] for n in names}, source, first


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


def _file(path: Path, how: _Reading) -> tuple[Mapping[str, Any], str, int]:
    if not path.exists():
        raise TableError(f"there is no file {path}")
    if path.is_dir():
        raise TableError(f"{path} is a folder; name a CSV, JSON lines or Parquet file")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        try:
            from pyarrow import parquet
        except ImportError:
            raise TableError(f"reading {path.name} needs pyarrow: install scalingsweep[tables], or give CSV") from None
        table = parquet.read_table(path)
        return {n: table.column(n).to_pylist() for n in table.column_names}, path.name, 1
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TableError(f"{path.name} is not UTF-8 text; CSV, JSON lines or Parquet would be right") from None
    return _text(text, path.name, how)


def _text(text: str, name: str, how: _Reading) -> tuple[Mapping[str, Any], str, int]:
    """CSV or JSON lines, by the name's ending."""
    suffix = Path(name).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json(text, name, how)
    if suffix not in (".csv", ".tsv", ".txt", ""):
        raise TableError(f"{name}: unknown kind {suffix}; CSV, JSON lines (.jsonl) or Parquet would be right")
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ","))
    if not rows:
        raise TableError(f"{name} is empty; its first line should name the columns")
    head, body = [h.strip() for h in rows[0]], [r for r in rows[1:] if r]
    if len(set(head)) < len(head):
        twice = next(h for h in head if head.count(h) > 1)
        raise TableError(f"{name} names the column {twice!r} twice")
    for i, row in enumerate(body):
        if len(row) != len(head):
            raise TableError(f"line {i + 2} of {name} has {len(row)} values; the header names {len(head)} columns")
    return dict(zip(head, zip(*body, strict=True), strict=True)) if body else {h: [] for h in head}, name, 2


def _json(text: str, source: str, how: _Reading) -> tuple[Mapping[str, Any], str, int]:
    """A JSON array of objects, or one object a line."""
    if text.lstrip().startswith("["):
        try:
            return _rows(json.loads(text), how, source, 1)
        except json.JSONDecodeError as error:
            raise TableError(f"{source} is not JSON: {error.msg} at line {error.lineno}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise TableError(f"line {number} of {source} is not JSON: {error.msg}") from None
    return _rows(rows, how, source, 1)
