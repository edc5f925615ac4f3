"""Which attempt a sweep's counter last counted: of each reason for failures, and of preemptions.

Owns which counters have exemplars and what these name: the run, and the attempt's span where sweeps are traced.
"""

from datetime import datetime

from prometheus_client.samples import Exemplar

from sweep_analysis.record import FailureReason
from sweep_operator.api import Attempt, ScalingRun
from sweep_operator.metrics.exposition import exemplar_of
from sweep_operator.metrics.sweep import Observed
from sweep_operator.traces import span_of_attempt, trace_of

Exemplars = dict[str, dict[tuple[str, ...], Exemplar]]
"""Family: the values of a sample's labels, and its exemplar."""


def exemplars_of(observed: Observed, *, traced: bool) -> Exemplars:
    """The newest attempt of each kind that counters count; `traced` says whether its span is told to anybody."""
    newest: dict[str, tuple[ScalingRun, Attempt, float]] = {}
    for run in observed.runs:
        for attempt in run.status.attempts:
            if attempt.ended_at:
                at = datetime.fromisoformat(attempt.ended_at).timestamp()
                if attempt.outcome not in newest or at > newest[attempt.outcome][2]:
                    newest[attempt.outcome] = run, attempt, at
    metadata = observed.sweep.metadata
    names = (metadata.namespace, metadata.name)
    trace = trace_of(metadata.uid) if traced else None
    found: Exemplars = {"run_failures": {}, "run_preemptions": {}}
    for outcome, (run, attempt, at) in newest.items():
        span = span_of_attempt(run.metadata.uid, attempt.attempt) if traced else None
        exemplar = exemplar_of({"trace_id": trace, "span_id": span, "run": run.metadata.name}, 1.0, at)
        if outcome in list(FailureReason):
            found["run_failures"][*names, outcome] = exemplar
        elif outcome == "Preempted":
            found["run_preemptions"][names] = exemplar
    return found
