"""Conditions as Kubernetes means them: one entry a type, and a transition time that moves only when the status does."""

from datetime import datetime
from typing import Literal

from sweep_operator.api import Condition


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


def with_condition(
    conditions: tuple[Condition, ...],
    kind: str,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with one of them set; equal ones, said of the same generation, are returned as they are."""
    old = next((c for c in conditions if c.type == kind), None)
    message = message[:2048]
    told = (old.status, old.reason, old.message, old.observed_generation) if old else None
    if told == (status, reason, message, generation):
        return conditions
    since = old.last_transition_time if old and old.status == status else timestamp(now)
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
    return tuple(new if c.type == kind else c for c in conditions) if old else (*conditions, new)
