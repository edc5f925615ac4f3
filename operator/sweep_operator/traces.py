"""Spans of a sweep, derived from its status: sweep → rung → run → attempt.

Owns which spans there are, their identities and the form in which OpenTelemetry collectors take them (OTLP, JSON).
Identities follow from UIDs, so that a span told twice is the same span. Nothing is timed here and nothing is sent
(`controller.tracing`); what the status does not hold is in no span.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sweep_operator.api import RungStatus, RunState, ScalingRun, ScalingSweep

_INTERNAL, _OK, _ERROR = 1, 1, 2
"""Of OTLP: the kind of all our spans, and their status codes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that has ended."""

    trace: str
    """32 hex digits, of the sweep."""
    identity: str
    """16 hex digits."""
    parent: str
    """The span that it is part of; empty for the sweep's own."""
    name: str
    began: datetime
    ended: datetime
    attributes: dict[str, str | int | float] = field(default_factory=dict)
    error: str = ""
    """Why it failed, when it did."""

    def to_json(self) -> dict[str, Any]:
        """As OTLP's JSON has it."""
        status: dict[str, Any] = {"code": _ERROR, "message": self.error} if self.error else {"code": _OK}
        return {
            "traceId": self.trace,
            "spanId": self.identity,
            **({"parentSpanId": self.parent} if self.parent else {}),
            "name": self.name,
            "kind": _INTERNAL,
            "startTimeUnixNano": _nanoseconds(self.began),
            "endTimeUnixNano": _nanoseconds(self.ended),
            "attributes": [{"key": key, "value": _value(value)} for key, value in self.attributes.items()],
            "status": status,
        }


def spans_of(sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> list[Span]:
    """Every span of the sweep that has ended, the outer before the inner."""
    trace = trace_of(sweep.metadata.uid)
    root = _digits(16, sweep.metadata.uid, "sweep")
    named: dict[str, str | int | float] = {
        "k8s.namespace.name": sweep.metadata.namespace,
        "scalingsweep.sweep": sweep.metadata.name,
    }
    spans = [*_sweep_span(sweep, trace, root, named)]
    of_rung: dict[tuple[str, int], list[ScalingRun]] = {}
    for run in runs:
        of_rung.setdefault((run.spec.rung, run.spec.revision), []).append(run)
    for rung in sweep.status.rungs:
        identity = _digits(16, sweep.metadata.uid, rung.name, str(rung.revision))
        spans += _rung_span(rung, trace, identity, root, named)
        for run in of_rung.get((rung.name, rung.revision), ()):
            spans += _run_spans(run, trace, identity, named | {"scalingsweep.rung": rung.name})
    return spans


def trace_of(sweep: str) -> str:
    """The trace of the sweep with that UID."""
    return _digits(32, sweep)


def span_of_attempt(run: str, attempt: int) -> str:
    """The span of one attempt at the run with that UID."""
    return _digits(16, run, str(attempt))


def request_of(spans: Iterable[Span]) -> dict[str, Any]:
    """The body of an export request."""
    resource = [
        {"key": "service.name", "value": _value("scalingsweep")},
        {"key": "service.version", "value": _value(version("scalingsweep"))},
    ]
    scope = {"scope": {"name": "sweep_operator.traces"}, "spans": [span.to_json() for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}


def _sweep_span(sweep: ScalingSweep, trace: str, root: str, named: dict[str, str | int | float]) -> Iterable[Span]:
    finished = sweep.status.condition("Finished")
    if finished is None or finished.status != "True" or not sweep.metadata.creation_timestamp:
        return
    good = finished.reason in ("Succeeded", "Aborted")
    yield Span(
        trace,
        root,
        "",
        f"sweep {sweep.metadata.name}",
        _time(sweep.metadata.creation_timestamp),
        _time(finished.last_transition_time),
        named | {"scalingsweep.reason": finished.reason, "scalingsweep.gpu_seconds": sweep.status.spent.gpu_seconds},
        "" if good else f"{finished.reason}: {finished.message}",
    )


def _rung_span(
    rung: RungStatus, trace: str, identity: str, parent: str, named: dict[str, str | int | float]
) -> Iterable[Span]:
    if not rung.started_at or not rung.finished_at:
        return
    attributes = named | {"scalingsweep.rung": rung.name, "scalingsweep.revision": rung.revision}
    attributes |= {"scalingsweep.state": rung.state, "scalingsweep.gpu_seconds": rung.spent.gpu_seconds}
    error = ""
    if rung.verdict:
        attributes |= {"scalingsweep.outcome": rung.verdict.outcome, "scalingsweep.reason": rung.verdict.reason}
        if rung.verdict.outcome == "Fail":
            error = f"{rung.verdict.reason}: {rung.verdict.message}"
    began, ended = _time(rung.started_at), _time(rung.finished_at)
    yield Span(trace, identity, parent, f"rung {rung.name}", began, ended, attributes, error)


def _run_spans(run: ScalingRun, trace: str, parent: str, named: dict[str, str | int | float]) -> Iterable[Span]:
    """The run, once it is finished, and each of its attempts that has ended."""
    attempts = [attempt for attempt in run.status.attempts if attempt.ended_at]
    if not attempts:
        return
    identity = _digits(16, run.metadata.uid)
    failures = {failure.attempt: f"{failure.reason}: {failure.message}" for failure in run.status.failures}
    named = named | {"scalingsweep.run": run.metadata.name}
    if run.status.finished:
        failed = run.status.state is RunState.FAILED
        error = failures.get(run.status.attempt, "failed") if failed else ""
        attributes = named | {
            "scalingsweep.state": run.status.state,
            "scalingsweep.gpu_seconds": run.status.gpu_seconds,
        }
        attributes |= {"scalingsweep.parameters": run.spec.run.parameters, "scalingsweep.seed": run.spec.run.seed}
        began, ended = _time(run.status.attempts[0].started_at), _time(attempts[-1].ended_at or "")
        yield Span(trace, identity, parent, f"run {run.metadata.name}", began, ended, attributes, error)
    for attempt in attempts:
        attributes = named | {"scalingsweep.attempt": attempt.attempt, "scalingsweep.outcome": attempt.outcome}
        attributes |= {"scalingsweep.gpu_seconds": attempt.gpu_seconds}
        yield Span(
            trace,
            span_of_attempt(run.metadata.uid, attempt.attempt),
            identity,
            f"attempt {attempt.attempt}",
            _time(attempt.started_at),
            _time(attempt.ended_at or ""),
            attributes,
            failures.get(attempt.attempt, ""),
        )


def _digits(count: int, *parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:count]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _nanoseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1e6) * 1000)


def _value(value: str | int | float) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": str(value)}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}
