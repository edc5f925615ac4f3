"""The texts that `kubectl get sweeps` prints: everything but the last two columns is about the rung that is named.

Owns their wording. Derived from the rest of the status; nothing reads them but a printed column.
"""

from sweep_analysis.fit import Interval
from sweep_analysis.forecast import Forecast
from sweep_operator.api import Printed, RungState, RungStatus, SweepStatus, TargetStatus

_LEFT_BEHIND = (RungState.PROMOTED, RungState.SUPERSEDED)


def printed(status: SweepStatus) -> Printed:
    """One row for a sweep: its current rung, the target, and what was spent."""
    hours = status.spent.gpu_seconds / 3600
    common = Printed(target=_target(status.target), gpu_hours=f"{hours:.0f}" if hours >= 100 else f"{hours:.2g}")
    if not status.rungs:
        return common
    rung = next((r for r in status.rungs if r.state not in _LEFT_BEHIND), status.rungs[-1])
    return common.changed(
        rung=rung.name if rung.revision == 1 else f"{rung.name} (revision {rung.revision})",
        runs=_runs(rung),
        loss=f"{rung.loss:.4f}" if rung.loss is not None else "",
        forecast=_forecast(rung),
        verdict=_verdict(rung),
    )


def _runs(rung: RungStatus) -> str:
    progress = rung.progress
    if progress is None:
        return f"0/{len(rung.runs)}"
    return f"{progress.done}/{progress.total}" + (f" ({progress.failed} failed)" if progress.failed else "")


def _forecast(rung: RungStatus) -> str:
    """Of the record that was forecast to have the lowest loss, since the lowest loss stands beside it."""
    outcome = rung.forecast.outcome if rung.forecast else None
    if outcome is None:
        return ""
    if not isinstance(outcome, Forecast):
        return outcome.reason
    lowest = min(outcome.predictions, key=lambda prediction: prediction.loss)
    return f"{lowest.loss:.4f} [{lowest.low:.4f}, {lowest.high:.4f}]"


def _verdict(rung: RungStatus) -> str:
    verdict = rung.verdict
    if verdict is None:
        return ""
    return str(verdict.outcome) if verdict.outcome == "Pass" else f"{verdict.outcome}: {verdict.reason}"


def _target(target: TargetStatus) -> str:
    if target.observed is not None:
        return f"{target.observed:.4f} observed"
    return _interval(target.prediction) if target.prediction else ""


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
