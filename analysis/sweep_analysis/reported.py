"""What an own trainer hands in, and how it becomes a record set: one JSON document, filled in and checked.

Owns the document's form, its limits, and every sentence of a refusal. A trainer states what only it can know (the loss,
at how many tokens); the run's identity and its plain numbers come from `Due`. A statement that contradicts them is
refused, never corrected. What is filled in is then a `RecordSet` or not: there is no second list of fields here, and
our own trainer's record sets are documents of this form with nothing left out.
"""

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from sweep_analysis.document import Document
from sweep_analysis.flops import six_nd
from sweep_analysis.record import FailureReason, Progress, Record, RecordSet
from sweep_analysis.rung import Purpose

LARGEST_BYTES = 64 * 1024
DEEPEST = 16
"""A document of this form has six levels."""
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""
COMPRESSED = "zlib:"
"""Before a termination message that is base64 of a zlib stream of the document."""
_LARGEST_COUNT = 2**63 - 1
"""What Kubernetes stores as an integer."""
UNSTATED = "unstated"
"""Digest of a validation set or tokenizer that the trainer did not name; comparable with its like alone."""

_REQUIRED = {
    "Record": ["tokens", "loss"],
    "RunReference": [],
    "ParameterCounts": [],
    "FlopCounts": [],
    "Failure": ["message"],
    "Progress": ["step", "steps"],
}
"""What must be stated of each part; all else is filled in."""

JSON = dict[str, Any]
D = TypeVar("D", bound=Document)


def schema() -> JSON:
    """The document's JSON schema, for editors and for trainers that check themselves."""
    form = RecordSet.model_json_schema(by_alias=True)
    progress = Progress.model_json_schema(by_alias=True)
    parts = {**form.pop("$defs"), **progress.pop("$defs", {}), "Progress": progress}
    for name, required in _REQUIRED.items():
        parts[name]["required"] = required
    form["properties"]["progress"] = {"$ref": "#/$defs/Progress", "description": progress["description"]}
    form["required"] = []
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Report of an own trainer"}
    return {**form, **head, "$defs": parts}


class ReportRefused(ValueError):  # noqa: N818 - a finding about the input, not a fault of the program
    """The document is not taken; the text is one sentence: what, where, what would be right."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is known of an attempt without asking its trainer."""

    uid: str
    attempt: int
    config_digest: str
    purpose: Purpose
    parameters: int
    tokens: tuple[int, ...]
    seed: int
    context_length: int | None = None
    """Tokens of a sequence, where the run has a context of its own."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A document that was taken."""

    records: RecordSet
    progress: Progress | None = None


def read_report(content: bytes, due: Due, *, now: str, gpu_seconds: float = 0.0) -> Reported:
    """The document as the operator wants it. `now` (RFC 3339) and `gpu_seconds` stand where it says nothing.

    Raises ReportRefused.
    """
    stated = _parsed(content)
    if not isinstance(stated, dict):
        raise ReportRefused('the document is no JSON object; write {"records": [{"tokens": …, "loss": …}]}')
    stated_progress = stated.pop("progress", None)
    known: JSON = {"attempt": due.attempt, "records": []}
    if isinstance(stated.get("records"), list):
        stated["records"] = [_over(_known_of(record, due, now, gpu_seconds), record) for record in stated["records"]]
    if isinstance(stated.get("failure"), dict):
        stated["failure"] = {"attempt": due.attempt, "reason": FailureReason.CRASHED, "at": now, **stated["failure"]}
    records = _as(RecordSet, {**known, **stated})
    _check(records, due)
    if stated_progress is None:
        return Reported(records)
    return Reported(records, _progress(stated_progress, due, now))


def read_termination_message(text: str, due: Due, *, now: str) -> Reported | None:
    """The document in a termination message, or None where it is a sentence of the trainer's. Raises ReportRefused."""
    text = text.strip()
    if text.startswith(COMPRESSED):
        try:
            stream = zlib.decompressobj()
            content = stream.decompress(
                base64.b64decode(text.removeprefix(COMPRESSED), validate=True), LARGEST_BYTES + 1
            )
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ReportRefused(f"the termination message is damaged: {error}") from None
        return read_report(content, due, now=now)
    if not text.startswith("{") or not any(f'"{part}"' in text for part in ("records", "failure")):
        return None  # also what Kubernetes takes from the log of a container that left no message: JSON lines, maybe
    return read_report(text.encode(errors="replace"), due, now=now)


def _known_of(stated: Any, due: Due, now: str, gpu_seconds: float) -> JSON:
    """A record with what is known of it without its trainer; from what was stated only the counts that others need."""
    record = stated if isinstance(stated, dict) else {}
    tokens = _count(record.get("tokens"), 1)
    unique = _count(record.get("uniqueTokens"), tokens)
    flops = six_nd(due.parameters, tokens)
    return {
        "run": {"uid": due.uid, "attempt": due.attempt, "configDigest": due.config_digest},
        "purpose": due.purpose,
        "parameters": {"total": due.parameters, "nonEmbedding": due.parameters, "active": due.parameters},
        "uniqueTokens": unique,
        "epochs": max(1.0, tokens / unique),
        "flops": {"sixND": flops, "detailed": flops},
        "seed": due.seed,
        "validationDigest": UNSTATED,
        "tokenizerDigest": UNSTATED,
        "gpuSeconds": gpu_seconds,
        "contextLength": due.context_length,
        "trainerVersion": UNSTATED,
        "finishedAt": now,
    }


def _count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 < value < 10**30 else otherwise


def _over(known: JSON, stated: Any) -> Any:
    """What was stated, over what is known; objects field by field."""
    if not isinstance(stated, dict):
        return stated
    both = {name: _over(known[name], stated[name]) for name in known.keys() & stated.keys() if name in _PARTS}
    return {**known, **stated, **both}


_PARTS = ("run", "parameters", "flops")


def _check(records: RecordSet, due: Due) -> None:
    """Refuse what contradicts the run. Raises ReportRefused."""
    _same("attempt", records.attempt, due.attempt)
    if records.failure is not None:
        _same("failure.attempt", records.failure.attempt, due.attempt)
    for place, record in enumerate(records.records):
        _check_record(record, f"records[{place}]", due)
    if len({record.tokens for record in records.records}) < len(records.records):
        raise ReportRefused("records: two records have the same tokens; keep one of them")


def _check_record(record: Record, where: str, due: Due) -> None:
    _same(f"{where}.run.uid", record.run.uid, due.uid)
    _same(f"{where}.run.configDigest", record.run.config_digest, due.config_digest)
    _same(f"{where}.purpose", record.purpose, due.purpose)
    _same(f"{where}.parameters.total", record.parameters.total, due.parameters)
    _same(f"{where}.seed", record.seed, due.seed)
    if due.context_length is not None:
        _same(f"{where}.contextLength", record.context_length, due.context_length)
    if record.run.attempt > due.attempt:
        raise ReportRefused(f"{where}.run.attempt is {record.run.attempt}; this is attempt {due.attempt}")
    if record.tokens not in due.tokens:
        wanted = ", ".join(map(str, due.tokens))
        raise ReportRefused(f"{where}.tokens is {record.tokens}; records are due at {wanted}")


def _progress(stated: Any, due: Due, now: str) -> Progress:
    """Raises ReportRefused."""
    known: JSON = {"attempt": due.attempt, "tokens": 0, "lastUpdated": now}
    progress = _as(Progress, {**known, **stated} if isinstance(stated, dict) else stated, "progress")
    _same("progress.attempt", progress.attempt, due.attempt)
    if "tokens" in stated:
        return progress
    share = progress.step / progress.steps if progress.step < progress.steps else 1.0
    return progress.changed(tokens=round(share * max(due.tokens)))


def _as(model: type[D], value: Any, where: str = "") -> D:
    """The value as that document. Raises ReportRefused with the first fault."""
    try:
        return model.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in (where, *fault["loc"]) if part != "") or "the document"
        raise ReportRefused(f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]}"[:1024]) from None


def _same(where: str, stated: Any, due: Any) -> None:
    if stated != due:
        raise ReportRefused(f"{where} is {str(stated)[:80]}, not {due}; leave it out or state this run's")


def _parsed(content: bytes) -> Any:
    """The JSON value; refuses what is no JSON, and JSON that is built to hurt. Raises ReportRefused."""
    if len(content) > LARGEST_BYTES:
        raise ReportRefused(f"the document has more than {LARGEST_BYTES:,} bytes; it holds records, not curves")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ReportRefused("the document is not UTF-8 text") from None
    if _depth(text) > DEEPEST:
        raise ReportRefused(f"the document is nested deeper than {DEEPEST} levels")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_whole, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        said = f"the document is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise ReportRefused(
            f"{said}; write it beside its place and rename it, so that it is never seen half-written"
        ) from None


def _depth(text: str) -> int:
    """How deep brackets are nested at most, those within texts included: an upper bound, without recursion."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_constant(name: str) -> Any:
    raise ReportRefused(f"the document holds {name}, which is no number; report the failure Diverged instead")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > _LARGEST_COUNT:
        raise ReportRefused(f"the document holds the number {digits[:24]}…, which is beyond any count")
    return int(digits)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ReportRefused("the document names a field twice; keep one of them")
    return found
