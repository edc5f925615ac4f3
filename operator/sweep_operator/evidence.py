"""A judged rung's records as its status keeps them, and from there back into forecasts.

Owns what of a record outlives its run: all that a forecast rests on (N, D, loss, which run, distinct tokens) and that
makes losses comparable (validation set, tokenizer). Curves, evaluations and the rest go with the run.
"""

from collections.abc import Sequence

from sweep_analysis.record import FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import Purpose
from sweep_operator.api.status import Observed


def observed(records: Sequence[Record]) -> Observed | None:
    """What is kept of a rung's records, in their order; None where there are none."""
    if not records:
        return None
    uids = tuple(dict.fromkeys(record.run.uid for record in records))
    return Observed(
        uids=uids,
        runs=tuple(uids.index(record.run.uid) for record in records),
        parameters=tuple(record.parameters.total for record in records),
        tokens=tuple(record.tokens for record in records),
        loss=tuple(record.loss for record in records),
        unique_tokens=tuple(record.unique_tokens for record in records),
        validation_digest=records[0].validation_digest,
        tokenizer_digest=records[0].tokenizer_digest,
    )


def observed_records(kept: Observed) -> tuple[Record, ...]:
    """What the status keeps, as records."""
    columns = zip(kept.runs, kept.parameters, kept.tokens, kept.unique_tokens, kept.loss, strict=True)
    comparable = kept.validation_digest, kept.tokenizer_digest
    return tuple(
        remembered(kept.uids[run], Purpose.LADDER, N, D, unique, loss, comparable)
        for run, N, D, unique, loss in columns
    )


def remembered(
    uid: str, purpose: Purpose, N: int, D: int, unique: int, loss: float, comparable: tuple[str, str]
) -> Record:
    """A record of which only that is known; what is not known is left empty, and 6·N·D stands for its FLOPs.

    `uid` is of its run, `comparable` are the digests of validation set and tokenizer.
    """
    validation_digest, tokenizer_digest = comparable
    return Record(
        run=RunReference(uid=uid, attempt=1, config_digest=""),
        purpose=purpose,
        parameters=ParameterCounts(total=N, non_embedding=N, active=N),
        tokens=D,
        unique_tokens=unique,
        epochs=max(1.0, D / unique),
        flops=FlopCounts(six_nd=6.0 * N * D, detailed=6.0 * N * D),
        seed=0,
        loss=loss,
        validation_digest=validation_digest,
        tokenizer_digest=tokenizer_digest,
        gpu_seconds=0.0,
        trainer_version="",
        finished_at="",
    )
