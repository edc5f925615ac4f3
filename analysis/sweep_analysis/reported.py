"""What an own trainer hands in, and how it becomes a record set: one JSON document, checked and filled in.

Owns the document's schema, its limits, and every sentence of a refusal. A trainer states what only it can know (the
loss, at how many tokens); the run's identity and its plain numbers come from `Due`. A statement that contradicts them
is refused, never corrected. Our own trainer's record sets are documents of this form with nothing left out.
"""

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from sweep_analysis.document import Document
from sweep_analysis.flops import six_nd
from sweep_analysis.record import Curve, Failure, FailureReason, Progress, Record, RecordSet
from sweep_analysis.rung import Purpose

LARGEST_BYTES = 64 * 1024
DEEPEST = 16
"""A document of this form has five levels."""
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""
COMPRESSED = "zlib:"
"""Before a termination message that is base64 of a zlib stream of the document."""
UNSTATED = "unstated"
"""Digest of a validation set or tokenizer that the trainer did not name; comparable with its like alone."""


class OwnRun(Document):
    """Which run the document is about; what is given must be this very run."""

    uid: str | None = Field(default=None, max_length=64)
    attempt: int | None = Field(default=None, ge=1)
    config_digest: str | None = Field(default=None, max_length=80)


class OwnParameters(Document):
    """N by up to three conventions; total is the run's own number."""

    total: int | None = Field(default=None, gt=0)
    non_embedding: int | None = Field(default=None, gt=0)
    active: int | None = Field(default=None, gt=0)


class OwnFlops(Document):
    """C, training FLOPs up to the record."""

    six_nd: float | None = Field(default=None, gt=0, alias="sixND")
    detailed: float | None = Field(default=None, gt=0)


class OwnRecord(Document):
    """One measured point; everything but tokens and loss may be left out."""

    tokens: int = Field(gt=0)
    """D, training tokens seen; one of those in SCALINGSWEEP_TOKENS."""
    loss: float = Field(gt=0)
    """Validation cross-entropy, nats per token."""
    api_version: Literal["scalingsweep.dev/record-v1"] = "scalingsweep.dev/record-v1"
    run: OwnRun = OwnRun()
    purpose: Purpose | None = None
    parameters: OwnParameters = OwnParameters()
    unique_tokens: int | None = Field(default=None, gt=0)
    """Distinct training tokens among them; all of them when left out."""
    epochs: float | None = Field(default=None, gt=0)
    flops: OwnFlops = OwnFlops()
    seed: int | None = Field(default=None, ge=0)
    validation_digest: str = Field(default=UNSTATED, max_length=80)
    """Any text that changes with the validation set; records with different ones are never compared."""
    tokenizer_digest: str = Field(default=UNSTATED, max_length=80)
    gpu_seconds: float | None = Field(default=None, ge=0)
    curve: Curve | None = None
    trainer_version: str = Field(default=UNSTATED, max_length=64)
    finished_at: str | None = Field(default=None, max_length=40)


class OwnProgress(Document):
    """Where the run stands."""

    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    tokens: int | None = Field(default=None, ge=0)
    loss: float | None = None
    tokens_per_second: float = Field(default=0.0, ge=0)
    eta_seconds: float | None = Field(default=None, ge=0)


class OwnFailure(Document):
    """Why there will be no (more) records."""

    attempt: int | None = Field(default=None, ge=1)
    reason: FailureReason = FailureReason.CRASHED
    message: str = Field(max_length=1024)
    node: str = Field(default="", max_length=253)
    at: str = Field(default="", max_length=40)


class OwnReport(Document):
    """The document. Each writing of it is complete and stands for all that the attempt has to say."""

    attempt: int | None = Field(default=None, ge=1)
    records: tuple[OwnRecord, ...] = Field(default=(), max_length=16)
    progress: OwnProgress | None = None
    failure: OwnFailure | None = None


def schema() -> dict[str, Any]:
    """The document's JSON schema, for editors and for trainers that check themselves."""
    form = OwnReport.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **form, "title": "Report of an own trainer"}


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


@dataclass(frozen=True, slots=True)
class Reported:
    """A document that was taken."""

    records: RecordSet
    progress: Progress | None = None


def read_report(content: bytes, due: Due, *, now: str, gpu_seconds: float = 0.0) -> Reported:
    """The document as the operator wants it. `now` (RFC 3339) and `gpu_seconds` stand where it says nothing.

    Raises ReportRefused.
    """
    try:
        document = OwnReport.model_validate_json(
            json.dumps(_parsed(content)), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        raise ReportRefused(_first_fault(error)) from None
    _same("attempt", document.attempt, due.attempt)
    records = tuple(
        _record(stated, due, f"records[{i}]", now, gpu_seconds) for i, stated in enumerate(document.records)
    )
    if len({record.tokens for record in records}) < len(records):
        raise ReportRefused("records: two records have the same tokens; keep one of them")
    failure = None
    if document.failure is not None:
        _same("failure.attempt", document.failure.attempt, due.attempt)
        stated_failure = {**dict(document.failure), "attempt": due.attempt, "at": document.failure.at or now}
        failure = Failure.model_validate(stated_failure)
    progress = None
    if document.progress is not None:
        done = min(1.0, document.progress.step / document.progress.steps)
        tokens = document.progress.tokens
        stated_progress = {
            **dict(document.progress),
            "attempt": due.attempt,
            "tokens": round(done * max(due.tokens)) if tokens is None else tokens,
            "last_updated": now,
        }
        progress = Progress.model_validate(stated_progress)
    return Reported(RecordSet(attempt=due.attempt, records=records, failure=failure), progress)


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
    if not text.startswith("{") or not any(f'"{field}"' in text for field in OwnReport.model_fields):
        return None  # also what Kubernetes takes from the log of a container that left no message: JSON lines, maybe
    return read_report(text.encode(errors="replace"), due, now=now)


def _record(stated: OwnRecord, due: Due, where: str, now: str, gpu_seconds: float) -> Record:
    _same(f"{where}.run.uid", stated.run.uid, due.uid)
    _same(f"{where}.run.configDigest", stated.run.config_digest, due.config_digest)
    _same(f"{where}.purpose", stated.purpose, due.purpose)
    _same(f"{where}.parameters.total", stated.parameters.total, due.parameters)
    _same(f"{where}.seed", stated.seed, due.seed)
    attempt = stated.run.attempt or due.attempt
    if attempt > due.attempt:
        raise ReportRefused(f"{where}.run.attempt is {attempt}; this is attempt {due.attempt}")
    if stated.tokens not in due.tokens:
        wanted = ", ".join(map(str, due.tokens))
        raise ReportRefused(f"{where}.tokens is {stated.tokens}; records are due at {wanted}")
    unique = min(stated.unique_tokens or stated.tokens, stated.tokens)
    flops = stated.flops.six_nd or six_nd(due.parameters, stated.tokens)
    return Record.model_validate(
        {
            "run": {"uid": due.uid, "attempt": attempt, "configDigest": due.config_digest},
            "purpose": due.purpose,
            "parameters": {
                "total": due.parameters,
                "nonEmbedding": stated.parameters.non_embedding or due.parameters,
                "active": stated.parameters.active or due.parameters,
            },
            "tokens": stated.tokens,
            "uniqueTokens": unique,
            "epochs": stated.epochs or stated.tokens / unique,
            "flops": {"sixND": flops, "detailed": stated.flops.detailed or flops},
            "seed": due.seed,
            "loss": stated.loss,
            "validationDigest": stated.validation_digest,
            "tokenizerDigest": stated.tokenizer_digest,
            "gpuSeconds": gpu_seconds if stated.gpu_seconds is None else stated.gpu_seconds,
            "curve": stated.curve,
            "trainerVersion": stated.trainer_version,
            "finishedAt": stated.finished_at or now,
        }
    )


def _same(where: str, stated: Any, due: Any) -> None:
    if stated is not None and stated != due:
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
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        said = f"the document is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise ReportRefused(
            f"{said}; write it beside its place and rename it, so that it is never seen half-written"
        ) from None
    except ReportRefused:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ReportRefused(f"the document holds a number that is none: {error}") from None


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


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ReportRefused("the document names a field twice; keep one of them")
    return found


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"])) or "the document"
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}"[:1024]
