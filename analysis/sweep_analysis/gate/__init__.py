"""The gate: a verdict on one rung, from an ordered tuple of checks over one gathered evidence.

Owns which check decides. The checks themselves stand in `checks`, the experiments that a doubtful rung asks for in
`diagnosis`, the stored documents in `verdict`. Pure: no clock, no network, the same evidence gives the same digest.
"""

from sweep_analysis.gate.checks import CHECKS
from sweep_analysis.gate.diagnosis import Settled, diagnose
from sweep_analysis.gate.evidence import Evidence, Gathered
from sweep_analysis.gate.verdict import (
    Affordable,
    CheckResult,
    Experiment,
    Outcome,
    Reason,
    Thresholds,
    Verdict,
)

__all__ = [
    "CHECKS",
    "Affordable",
    "CheckResult",
    "Evidence",
    "Experiment",
    "Gathered",
    "Outcome",
    "Reason",
    "Thresholds",
    "Verdict",
    "judge",
]

DIAGNOSED = (Reason.RUN_DIVERGED, Reason.LOSS_ABOVE_PREDICTION)
"""Findings that ask for experiments before they ask for a person."""


def judge(evidence: Evidence) -> Verdict:
    """The verdict on a rung.

    All checks are evaluated in order and listed. The first that fails or is inconclusive decides, save that
    `ForecastTooWide`, which only says that nothing is known, gives way to any later finding. When none does, a check
    that could not be judged for want of records makes the rung NotJudged.
    """
    g = Gathered(evidence)
    checks = tuple(check(g) for check in CHECKS)
    against = [check for check in checks if check.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)]
    if against:
        deciding = against[0]
        if deciding.reason is Reason.FORECAST_TOO_WIDE:
            deciding = next((check for check in against if check.reason is not deciding.reason), deciding)
        if deciding.reason in DIAGNOSED:
            return _verdict(diagnose(g, deciding.reason, deciding.message), checks)
        return _verdict(Settled(deciding.outcome, deciding.reason, deciding.message), checks)
    unjudged = next((check for check in checks if check.outcome is Outcome.NOT_JUDGED), None)
    if unjudged is not None:
        return _verdict(Settled(Outcome.NOT_JUDGED, unjudged.reason, unjudged.message), checks)
    observed = next(check for check in checks if check.reason is Reason.AS_PREDICTED)
    return _verdict(Settled(Outcome.PASS, Reason.CONSISTENT, observed.message), checks)


def _verdict(settled: Settled, checks: tuple[CheckResult, ...]) -> Verdict:
    return Verdict(
        outcome=settled.outcome,
        reason=settled.reason,
        message=settled.message,
        checks=checks,
        experiments=settled.experiments,
        retune=settled.retune,
    ).sealed()
