"""What an own trainer hands in: what is filled in, and the one sentence for everything that is not taken."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep_analysis.measure import TaskResult
from sweep_analysis.record import Curve, Failure, FailureReason, Record, RecordSet, Refused
from sweep_analysis.reported import (
    LARGEST_BYTES,
    TERMINATION_BYTES,
    Due,
    ReportRefused,
    read_report,
    read_termination_message,
)
from sweep_analysis.rung import Purpose
from sweep_trainer.termination import packed

NOW = "2026-01-01T00:00:00Z"
DUE = Due("uid-1", 2, "sha256:c", Purpose.LADDER, 1_000_000, (10_000_000, 20_000_000), 7)


def read(document: Any) -> RecordSet:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_report(content, DUE, now=NOW, gpu_seconds=12.5).records


def one(**fields: Any) -> dict[str, Any]:
    return {"records": [{"tokens": 10_000_000, "loss": 3.5, **fields}]}


def test_tokens_and_loss_are_enough() -> None:
    [record] = read(one()).records
    assert (record.run.uid, record.run.attempt, record.run.config_digest) == ("uid-1", 2, "sha256:c")
    assert (record.parameters.total, record.seed, record.purpose) == (1_000_000, 7, Purpose.LADDER)
    assert record.flops.six_nd == record.flops.detailed == 6e13
    assert (record.unique_tokens, record.epochs) == (10_000_000, 1.0)
    assert (record.gpu_seconds, record.finished_at) == (12.5, NOW)
    assert record.validation_digest == record.tokenizer_digest == "unstated"


def test_what_the_trainer_states_is_kept() -> None:
    stated = {
        "uniqueTokens": 5_000_000,
        "flops": {"sixND": 6e13, "detailed": 7e13},
        "parameters": {"nonEmbedding": 900_000},
        "validationDigest": "v",
        "gpuSeconds": 3.0,
        "finishedAt": "2025-12-31T00:00:00Z",
    }
    [record] = read(one(**stated)).records
    assert (record.epochs, record.flops.detailed, record.parameters.non_embedding) == (2.0, 7e13, 900_000)
    assert (record.validation_digest, record.gpu_seconds, record.finished_at[:4]) == ("v", 3.0, "2025")


def test_progress_and_failure_get_the_attempt_and_the_time() -> None:
    document = {"progress": {"step": 1, "steps": 4}, "failure": {"reason": "Diverged", "message": "loss is NaN"}}
    reported = read_report(json.dumps(document).encode(), DUE, now=NOW)
    assert reported.progress is not None
    assert (reported.progress.attempt, reported.progress.tokens, reported.progress.last_updated) == (2, 5_000_000, NOW)
    failure = reported.records.failure
    assert failure is not None
    assert (failure.attempt, failure.reason, failure.at) == (2, FailureReason.DIVERGED, NOW)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b'{"records": [{"tok', "not JSON (line 1, column 15"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b" " * (LARGEST_BYTES + 1), "more than 65,536 bytes"),
        (b"[" * 20_000, "nested deeper than 16"),
        (b'{"a":' * 9_000, "nested deeper than 16"),
        (b'{"records": [{"tokens": 10000000, "loss": NaN}]}', "holds NaN"),
        (b'{"records": [{"tokens": 10000000, "loss": Infinity}]}', "holds Infinity"),
        (b'{"records": [{"tokens": 10000000, "loss": 1e999}]}', "finite number"),
        (b'{"records": [{"tokens": ' + b"9" * 5000 + b"}]}", "beyond any count"),
        (b'{"records": [], "records": []}', "names a field twice"),
        (b'{"records": [], "failure": {"message": "\\ud800"}}', "invalid JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        ({"records": 3}, "records: input should be a valid array"),
        ({"records": [3]}, "records.0: input should be an object"),
        ({"records": [], "progress": 3}, "progress: input should be an object"),
        ({"records": [], "progress": {"step": 1}}, "progress.steps: field required"),
        ({"records": [], "progress": {"step": 1, "steps": 2, "attempt": 1}}, "progress.attempt is 1, not 2"),
        ({"records": [{"loss": 3.0}]}, "records.0.tokens: field required"),
        (one(loss=-1), "records.0.loss: input should be greater than 0"),
        (one(loss="3.5"), "records.0.loss: input should be a valid number"),
        (one(tokens=True), "records.0.tokens: input should be a valid integer"),
        (one(tokens=10_000_001), "records[0].tokens is 10000001; records are due at 10000000, 20000000"),
        (one(run={"uid": "another"}), "records[0].run.uid is another, not uid-1"),
        (one(run={"attempt": 3}), "records[0].run.attempt is 3; this is attempt 2"),
        (one(run={"configDigest": "sha256:d"}), "records[0].run.configDigest is sha256:d"),
        (one(parameters={"total": 5}), "records[0].parameters.total is 5, not 1000000"),
        (one(seed=8), "records[0].seed is 8, not 7"),
        (one(purpose="Target"), "records[0].purpose is Target, not Ladder"),
        (one(uniqueTokens=2**63), "the number 9223372036854775808…, which is beyond any count"),
        (one(perplexity=2), "records.0.perplexity: extra inputs are not permitted"),
        ({"attempt": 1, "records": []}, "attempt is 1, not 2"),
        ({"records": one()["records"] * 2}, "two records have the same tokens"),
        ({"records": one()["records"] * 17}, "records: "),
        ({"failure": {"message": "x" * 1025}}, "failure.message: string should have at most 1024"),
        ({"failure": {"reason": "Sad", "message": "x"}}, "failure.reason: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_taken_is_answered_in_one_sentence(document: Any, sentence: str) -> None:
    with pytest.raises(ReportRefused) as refused:
        read(document)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 1024


def test_a_run_with_a_context_of_its_own_has_it_in_its_records() -> None:
    due = replace(DUE, context_length=512, purpose=Purpose.CONTEXT)

    def told(**fields: Any) -> int | None:
        (record,) = read_report(json.dumps(one(**fields)).encode(), due, now=NOW).records.records
        return record.context_length

    assert told() == told(contextLength=512) == 512
    with pytest.raises(ReportRefused, match=r"records\[0\].contextLength is 128, not 512"):
        told(contextLength=128)


WORDS = st.sampled_from(
    ["records", "tokens", "loss", "run", "uid", "attempt", "flops", "sixND", "failure", "message", "progress", "step"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10_000_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(st.one_of(ANYTHING.map(lambda value: json.dumps(value).encode()), st.binary(max_size=200)))
@settings(max_examples=400, deadline=None)
def test_whatever_is_written_is_taken_or_refused_and_nothing_else(content: bytes) -> None:
    try:
        reported = read_report(content, DUE, now=NOW)
    except ReportRefused:
        return
    assert reported.records.attempt == DUE.attempt
    assert {record.tokens for record in reported.records.records} <= set(DUE.tokens)


def full_set(records: int, message: str = "") -> RecordSet:
    """A set such as our own trainer reports, curves and digests included."""
    due = Due("uid-1", 2, "sha256:" + "c" * 64, Purpose.LADDER, 1_000_000, tuple(range(1, records + 1)), 7)
    found: list[Record] = []
    for tokens in due.tokens:
        [bare] = read_report(
            json.dumps({"records": [{"tokens": tokens, "loss": 3.123456789 / tokens**0.1}]}).encode(), due, now=NOW
        ).records.records
        curve = Curve(uri=f"file:///storage/{'x' * 60}/curve.jsonl", digest=f"sha256:{hash((tokens,)) % 2**64:064x}")
        found.append(bare.changed(curve=curve, validation_digest="sha256:" + "v" * 64))
    failure = Failure(attempt=2, reason=FailureReason.STORAGE_FULL, message=message, at=NOW) if message else None
    return RecordSet(attempt=2, records=tuple(found), failure=failure)


@pytest.mark.parametrize(("records", "message"), [(0, "full"), (1, ""), (4, "no space"), (16, "ü" * 1024)])
def test_a_record_set_survives_the_termination_message_whole(records: int, message: str) -> None:
    given = full_set(records, message)
    text = packed(given)
    assert len(text.encode()) <= TERMINATION_BYTES
    due = Due("uid-1", 2, "sha256:" + "c" * 64, Purpose.LADDER, 1_000_000, tuple(range(1, records + 1)) or (1,), 7)
    back = read_termination_message(text, due, now=NOW)
    assert back is not None
    assert back.records == given


def test_what_was_refused_stays_counted_in_the_termination_message() -> None:
    given = full_set(1).changed(refused=Refused(documents=2, reason="why"))
    due = Due("uid-1", 2, "sha256:" + "c" * 64, Purpose.LADDER, 1_000_000, (1,), 7)
    back = read_termination_message(packed(given), due, now=NOW)
    assert back is not None
    assert back.records == given


def test_evaluations_give_way_where_the_termination_message_is_too_short() -> None:
    tasks = tuple(
        TaskResult(
            name=f"task-{n}",
            kind="Cloze",
            questions=n + 1,
            accuracy=n / 97,
            data_digest=f"sha256:{hash((n, n)) % 2**64:064x}",
        )
        for n in range(60)
    )
    given = full_set(16)
    heavy = given.changed(records=tuple(record.changed(evaluations=tasks) for record in given.records))
    text = packed(heavy)
    assert len(text) <= TERMINATION_BYTES
    due = Due("uid-1", 2, "sha256:" + "c" * 64, Purpose.LADDER, 1_000_000, tuple(range(1, 17)), 7)
    back = read_termination_message(text, due, now=NOW)
    assert back is not None
    assert [record.loss for record in back.records.records] == [record.loss for record in heavy.records]


def test_a_sentence_is_no_document_and_a_damaged_document_is_refused() -> None:
    assert read_termination_message("Traceback: it broke", DUE, now=NOW) is None
    assert read_termination_message('{"level": "error", "message": "a line of a log"}', DUE, now=NOW) is None
    assert read_termination_message("", DUE, now=NOW) is None
    for damaged in ('{"records": [{"tok', "zlib:", "zlib:%%%", "zlib:eJw="):
        with pytest.raises(ReportRefused):
            read_termination_message(damaged, DUE, now=NOW)


def test_a_compressed_message_never_grows_beyond_the_limit() -> None:
    import base64
    import zlib

    bomb = "zlib:" + base64.b64encode(zlib.compress(b" " * 50_000_000, 9)).decode()
    with pytest.raises(ReportRefused, match="more than 65,536 bytes"):
        read_termination_message(bomb, DUE, now=NOW)
