"""A termination message as evidence: the records that no API server heard, or a sentence of the trainer's.

Owns what is known of an attempt when its pod's last words are read. The form is `sweep_analysis.reported`'s.
"""

from dataclasses import dataclass

from sweep_analysis.record import RecordSet
from sweep_analysis.reported import Due, ReportRefused, read_termination_message
from sweep_operator.api import ScalingRun


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that was meant as a document and cannot be taken; one sentence says why."""

    reason: str


def parse_termination_message(
    text: str, run: ScalingRun, attempt: int | None = None, *, ended_at: str = ""
) -> RecordSet | Refusal | None:
    """What the message says of the attempt (the newest one by default); None where it is no document."""
    spec = run.spec.run
    due = Due(
        uid=run.metadata.uid,
        attempt=attempt or run.status.attempt,
        config_digest=run.spec.config_digest,
        purpose=spec.purpose,
        parameters=spec.parameters,
        tokens=spec.tokens,
        seed=spec.seed,
        context_length=spec.sequence_length,
    )
    try:
        reported = read_termination_message(text, due, now=ended_at)
    except ReportRefused as error:
        return Refusal(str(error))
    return reported.records if reported else None
