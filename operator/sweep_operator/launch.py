"""Whether the target may be started: the rule of `target.launch`, as an ordered tuple of named checks.

Owns the launch verdict. It has the form of every other verdict, so a person accepts it in the same way, by its digest.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sweep_analysis.forecast import Forecast
from sweep_analysis.gate import CheckResult, Outcome, Reason, Verdict
from sweep_operator import budget
from sweep_operator.api import RungState, RungStatus, ScalingSweep
from sweep_operator.budget import Cost

LARGEST_CALIBRATED_JUMP = 300.0
"""Ratio of compute up to which the coverage of forecasts was measured (docs/forecasts.md)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that the rule looks at."""

    sweep: ScalingSweep
    rung: RungStatus
    """The target's, with its forecast."""
    cost: Cost

    @property
    def forecast(self) -> Forecast | None:
        outcome = self.rung.forecast.outcome if self.rung.forecast else None
        return outcome if isinstance(outcome, Forecast) else None


def last_two_rungs_passed(launch: Launch) -> CheckResult:
    """The last two rungs were judged and passed; a rung that only a person accepted does not count."""
    rungs = [r for r in launch.sweep.status.rungs if r.state is RungState.PROMOTED and r.name != "target"][-2:]
    passed = [r.name for r in rungs if r.verdict and r.verdict.outcome is Outcome.PASS]
    return _result(
        "LastTwoRungsPassed",
        len(passed) == 2,
        Reason.LADDER_PROVEN,
        Reason.LADDER_NOT_PROVEN,
        f"{len(passed)} of the last two rungs were judged and passed",
        {"passed": float(len(passed))},
    )


def worth_its_cost(launch: Launch) -> CheckResult:
    """maxLoss is set, and not even the upper bound of the forecast is above it."""
    limit = launch.sweep.spec.target.max_loss
    if limit is None:
        return _result(
            "WorthItsCost", False, Reason.TARGET_IN_REACH, Reason.MAX_LOSS_NOT_SET, "target.maxLoss is not set", {}
        )
    if launch.forecast is None:
        return _result(
            "WorthItsCost", False, Reason.TARGET_IN_REACH, Reason.NO_FORECAST, "there is no forecast of the target", {}
        )
    high = launch.forecast.predictions[0].high
    return _result(
        "WorthItsCost",
        high <= limit,
        Reason.TARGET_IN_REACH,
        Reason.MAX_LOSS_NOT_CERTAIN,
        f"the forecast's upper bound is {high:.4g} nats/token, maxLoss is {limit:.4g}",
        {"high": high, "maxLoss": limit},
    )


def jump_is_calibrated(launch: Launch) -> CheckResult:
    """The jump in compute is within the largest for which intervals were calibrated."""
    jump = launch.forecast.jump if launch.forecast else float("inf")
    return _result(
        "JumpIsCalibrated",
        jump <= LARGEST_CALIBRATED_JUMP,
        Reason.JUMP_CALIBRATED,
        Reason.JUMP_TOO_LARGE,
        f"the target is {jump:.3g} times the largest compute measured;"
        f" intervals are calibrated up to {LARGEST_CALIBRATED_JUMP:g}",
        {"jump": jump} if launch.forecast else {},
    )


def cost_fits_budget(launch: Launch) -> CheckResult:
    """The upper bound of the target's cost fits what is left of the budget."""
    objection = budget.objection(launch.sweep.spec.budget, launch.sweep.status.spent, launch.cost, "the target")
    return _result(
        "CostFitsBudget",
        objection is None,
        Reason.AFFORDABLE,
        Reason.OVER_BUDGET,
        objection or "the target fits the budget",
        {},
    )


CHECKS: tuple[Callable[[Launch], CheckResult], ...] = (
    last_two_rungs_passed,
    worth_its_cost,
    jump_is_calibrated,
    cost_fits_budget,
)


def launch_verdict(launch: Launch) -> Verdict:
    """Pass: start the target. Inconclusive: a person decides, told which checks failed."""
    results = tuple(check(launch) for check in CHECKS)
    objections = [r.message for r in results if r.outcome is not Outcome.PASS]
    if launch.sweep.spec.target.launch != "Automatic":
        objections.insert(0, "target.launch is Approval")
    outcome, reason = (
        (Outcome.INCONCLUSIVE, Reason.LAUNCH_NEEDS_APPROVAL) if objections else (Outcome.PASS, Reason.LAUNCH_ALLOWED)
    )
    message = "; ".join(objections or [r.message for r in results])
    return Verdict(outcome=outcome, reason=reason, message=message, checks=results).sealed()


def _result(
    name: str, passed: bool, reason: Reason, objection: Reason, message: str, numbers: dict[str, float]
) -> CheckResult:
    outcome = Outcome.PASS if passed else Outcome.INCONCLUSIVE
    return CheckResult(
        name=name, outcome=outcome, reason=reason if passed else objection, message=message, numbers=numbers
    )
