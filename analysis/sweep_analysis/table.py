"""Records as a table: what a law reads, checked, in one canonical order.

Owns the names a column may go by, and the refusal of values no law can use, with the row named. Where columns come
from is `columns.py`'s. Guesses no units: what looks mixed up is said in `suspect.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from sweep_analysis.columns import HELD, SIZES, Columns, columns_of
from sweep_analysis.columns import LABELS as LABELS
from sweep_analysis.columns import Convention as Convention
from sweep_analysis.columns import Records as Records
from sweep_analysis.columns import TableError as TableError
from sweep_analysis.columns import Text as Text
from sweep_analysis.laws.base import Array
from sweep_analysis.scale import parse_scale

ALIASES: dict[str, tuple[str, ...]] = {
    "parameters": ("N", "n_params", "num_params", "params"),
    "tokens": ("D", "n_tokens", "num_tokens", "training_tokens"),
    "flops": ("C", "compute", "flops_6ND"),
    "loss": ("L", "val_loss", "validation_loss"),
    "unique_tokens": ("U", "uniqueTokens"),
    "run": ("run_name", "run_id"),
}
"""Other names under which a column is found when the canonical one is missing and no map was given."""


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Columns of equal length in canonical order (sorted by value), so that the order of records changes nothing."""

    columns: Mapping[str, Array]  # canonical name → (n,) floats
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # LABELS, as far as they are there
    source: str = HELD
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
    also: Sequence[str] = (),
) -> Table:
    """The table of `needs`, and of run, rung, parameters, tokens, flops and `also` where the source has usable ones.

    columns: canonical name → the source's name. convention: which N of a Record. missing: rows with an empty or NaN
    needed value are refused, or dropped. signed: needed columns that may be zero or negative. Diagnosis records are
    left out, and so are those of runs with a context length of their own unless `context` is needed. Raises TableError.
    """
    if isinstance(records, Table):
        if columns is None and all(n in records.columns for n in needs):
            return records
        raw = Columns({**records.columns, **records.labels}, records.source)
    else:
        raw = columns_of(records, convention=convention, contexts="context" in needs)
    named = _resolve(raw, columns or {}, needs, also)
    length = _length(raw, named)
    if length == 0:
        raise TableError(f"no rows in {raw.source}: a fit needs records with {', '.join(needs)}")
    numbers: dict[str, Array] = {}
    for name, found in named.items():
        if name not in LABELS:
            numbers[name] = _numbers(raw, name, found, required=name in needs)
    _derive(numbers, needs)
    keep = np.ones(length, dtype=bool)
    for name in needs:
        v = numbers[name]
        absent = np.isnan(v)
        if absent.any():
            if missing == "refuse":
                first = raw.row(int(np.flatnonzero(absent)[0]))
                raise TableError(f"{first}: {name} is missing or NaN; give a number, or drop such rows")
            keep &= ~absent
    for name in needs:
        v = numbers[name]
        wrong = keep & (~np.isfinite(v) | ((v <= 0) & (name not in signed)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            must = "finite" if name in signed else "a finite number greater than zero"
            raise TableError(f"{raw.row(row)}: {name} is {v[row]:g}; it must be {must}")
    optional = [n for n in numbers if n not in needs]
    for name in optional:  # not asked for: kept only where it is usable
        v = numbers[name][keep]
        if not (np.isfinite(v) & (v > 0)).all():
            del numbers[name]
    if not keep.any():
        raise TableError(f"{raw.source}: no complete row with {', '.join(needs)}")
    labels = {n: [str(v) for v in raw.named[named[n]]] for n in LABELS if n in named}
    rows = np.flatnonzero(keep)
    keys = [numbers[n][rows] for n in sorted(numbers)]
    keys += [np.array(labels[n], dtype=str)[rows] for n in labels]
    order = rows[np.lexsort(keys[::-1])]
    return Table(
        {n: v[order] for n, v in numbers.items()},
        {n: tuple(v[i] for i in order.tolist()) for n, v in labels.items()},
        raw.source,
        named,
    )


def _resolve(raw: Columns, columns: Mapping[str, str], needs: Sequence[str], also: Sequence[str]) -> dict[str, str]:
    """Canonical name → the source's name, for everything that is there."""
    ours = dict.fromkeys((*needs, "parameters", "tokens", "flops", "unique_tokens", *LABELS, *also))
    for name in columns:
        if name not in ours and name not in (known := _of_any_law()):
            near = get_close_matches(name, [*ours, *known], 1)
            meant = f"; did you mean {near[0]}?" if near else f"; this law reads {', '.join(needs)}"
            raise TableError(f"the column map names {name}, which no law reads{meant}")
    named: dict[str, str] = {}
    for name, found in columns.items():
        if found not in raw.named:
            raise TableError(f"{raw.source}: no column {found!r} (wanted as {name}) among {raw.listed()}")
        named[name] = found
    for name in ours:
        if name not in named:
            match = next((a for a in (name, *ALIASES.get(name, ())) if a in raw.named), None)
            if match is not None:
                named[name] = match
    if not raw.named:
        return named  # nothing at all: there are no rows either, which says more than a missing column
    for name in needs:
        derivable = (name == "flops" and {"parameters", "tokens"} <= named.keys()) or (
            name == "tokens" and {"parameters", "flops"} <= named.keys()
        )
        if name not in named and not derivable:
            raise TableError(
                f"{raw.source}: no column {name} among {raw.listed()}; name the right one with columns={name}=…"
            )
    return named


def _of_any_law() -> set[str]:
    """Every column that a law of the catalogue reads."""
    from sweep_analysis.laws import LAWS  # here, since only a mistake asks for it

    return {name for law in LAWS.values() for name in (law.response, *(axis.name for axis in law.axes))}


def _length(raw: Columns, named: Mapping[str, str]) -> int:
    lengths = {found: len(raw.named[found]) for found in named.values()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{k} {v}" for k, v in lengths.items())
        raise TableError(f"columns of {raw.source} differ in length: {said}")
    return next(iter(lengths.values()), 0)


def _derive(numbers: dict[str, Array], needs: Sequence[str]) -> None:
    """flops = 6·N·D, or tokens = C/(6·N), where asked for and absent."""
    if "flops" in needs and "flops" not in numbers:
        numbers["flops"] = 6.0 * numbers["parameters"] * numbers["tokens"]
    if "tokens" in needs and "tokens" not in numbers:
        numbers["tokens"] = numbers["flops"] / (6.0 * numbers["parameters"])


def _numbers(raw: Columns, name: str, found: str, *, required: bool) -> Array:
    """The column as floats; text that is no number is refused by row (or becomes NaN in a column nobody needs)."""
    values = raw.named[found]
    try:
        array = np.asarray(values)
        if array.ndim != 1:
            raise TypeError("a list, or a column named twice, in place of a number")
        if array.dtype.kind in "fiub":
            return np.array(array, dtype=np.float64)
        if array.dtype.kind == "O":
            return np.array([np.nan if v is None else _number(v, name) for v in array.tolist()])
        return np.array([_number(v, name) for v in array.tolist()])
    except (TypeError, ValueError, OverflowError):
        out = np.full(len(values), np.nan)
        for row, value in enumerate(values):
            try:
                out[row] = np.nan if value is None else _number(value, name)
            except (TypeError, ValueError, OverflowError):
                if required:
                    raise TableError(f"{raw.row(row)}: {found} is {str(value)[:40]!r}, which is not a number") from None
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
