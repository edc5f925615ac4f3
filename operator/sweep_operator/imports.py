"""Records of earlier runs: from the texts that a sweep names to what its status keeps, and from there into the fit.

Owns the limits, and what of a source is kept. Reads no file and no cluster: each place brings the texts. What a row
must hold, and the words of its refusal, are the table's.
"""

from collections.abc import Sequence

import numpy as np

from sweep_analysis.document import digest_of
from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose
from sweep_analysis.table import LABELS, Table, TableError, Text, read
from sweep_operator.api import Imports
from sweep_operator.api.status import MAX_IMPORTED
from sweep_operator.clusters import Unavailable
from sweep_operator.evidence import remembered

MAX_BYTES = 1 << 20
"""Of all sources together; a ConfigMap holds no more."""
_UNSTATED = frozenset({"", "None"})
"""What a table's label says where a row has none."""


def imports_of(texts: Sequence[Text]) -> Imports:
    """The records in these texts. Raises Unavailable."""
    size = sum(len(text.content.encode()) for text in texts)
    if size > MAX_BYTES:
        raise Unavailable(f"spec.records names {size:,} bytes; at most {MAX_BYTES:,} are taken in all")
    try:
        tables = [read(text) for text in texts]
    except TableError as error:
        raise Unavailable(f"spec.records: {error}") from None
    count = sum(len(table) for table in tables)
    if count > MAX_IMPORTED:
        raise Unavailable(f"spec.records names {count:,} records; at most {MAX_IMPORTED:,} are taken in all")
    sizes = {name: _whole(tables, name) for name in ("parameters", "tokens")}
    columns = {
        **sizes,
        "loss": [float(loss) for table in tables for loss in table["loss"]],
        "runs": _runs(tables),
        "validationDigest": _stated(tables, "validation sets", "validationDigest"),
        "tokenizerDigest": _stated(tables, "tokenizers", "tokenizerDigest"),
    }
    if all("unique_tokens" in table.columns for table in tables):
        columns["uniqueTokens"] = _whole(tables, "unique_tokens")
    return Imports.model_validate({"digest": digest_of(columns), **columns})


def records_of(imports: Imports | None) -> tuple[Record, ...]:
    """What the status keeps, as records. N is all that is known of their parameters, 6·N·D of their FLOPs."""
    if imports is None:
        return ()
    unique = imports.unique_tokens or imports.tokens
    columns = zip(imports.parameters, imports.tokens, imports.loss, imports.runs, unique, strict=True)
    comparable = imports.validation_digest, imports.tokenizer_digest
    return tuple(
        remembered(f"imported-{run}", Purpose.IMPORTED, N, D, min(D, distinct), loss, comparable)
        for N, D, loss, run, distinct in columns
    )


def _whole(tables: Sequence[Table], name: str) -> list[int]:
    """A column of sizes as whole numbers."""
    values = np.concatenate([table[name] for table in tables])
    wrong = np.flatnonzero((values < 1) | (values > 2**53))
    if wrong.size:
        raise Unavailable(f"spec.records: {name} is {values[wrong[0]]:g}; it must be within 1 and 2^53")
    return [round(value) for value in values.tolist()]


def _runs(tables: Sequence[Table]) -> list[int]:
    """Runs by number: rows that name the same run share one, a row that names none is a run of its own."""
    numbers: dict[tuple[int, str], int] = {}
    found = []
    for source, table in enumerate(tables):
        names = table.labels.get("run") or ("",) * len(table)
        for row, name in enumerate(names):
            key = (source, f"row {row}" if name in _UNSTATED else f"run {name}")
            found.append(numbers.setdefault(key, len(numbers)))
    return found


def _stated(tables: Sequence[Table], what: str, label: str) -> str:
    """The one digest that the records state; empty where none does."""
    assert label in LABELS
    stated = {digest for table in tables for digest in table.labels.get(label, ())} - _UNSTATED
    if len(stated) > 1:
        raise Unavailable(f"spec.records come from {len(stated)} {what}, whose losses cannot be compared; name one's")
    return stated.pop() if stated else ""
