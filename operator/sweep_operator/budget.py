"""What was spent, what is reserved, and whether the next step still fits.

Owns the arithmetic of FLOPs and GPU-seconds. FLOPs are exact before a run (6·N·D over every step that will be
trained); GPU-seconds are told from the runs that finished: the largest one's price of a FLOP, between the cheapest
and the dearest seen, which is what a budget reserves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweep_analysis.flops import six_nd
from sweep_analysis.recipe import Training
from sweep_analysis.rung import Purpose, Run
from sweep_operator.api import Budget, RunState, ScalingRun, Spent

DIAGNOSIS_SHARE = 0.05
"""Diagnosis never takes more than this share of a budget."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An expected cost; gpu_seconds (low, expected, high) is None while nothing was measured to tell it from."""

    flops: float
    gpu_seconds: tuple[float, float, float] | None

    @property
    def reserved_seconds(self) -> float:
        """What a budget sets aside: the upper estimate, or nothing while there is none."""
        return self.gpu_seconds[2] if self.gpu_seconds else 0.0


def trained_tokens(training: Training, run: Run) -> int:
    """Tokens over all steps of a run: the trunk up to the largest count, and a decay branch for each smaller one."""
    plan = run.resolved(training)
    branches = sum(round(training.schedule.decay * steps) for steps in plan.steps[:-1])
    return (plan.steps[-1] + branches) * plan.batch_tokens


def cost_of(training: Training, runs: Iterable[Run], measured: Sequence[ScalingRun]) -> Cost:
    """What runs will cost, at the prices of the runs that finished so far."""
    flops = sum(six_nd(run.parameters, trained_tokens(training, run)) for run in runs)
    finished = [r for r in measured if r.status.state is RunState.SUCCEEDED and r.status.flops > 0]
    if not finished:
        return Cost(flops, None)
    prices = [r.status.gpu_seconds / r.status.flops for r in finished]
    largest = max(zip((r.status.flops for r in finished), prices, strict=True))[1]
    return Cost(flops, (flops * min(prices), flops * largest, flops * max(prices)))


def spent_on(runs: Iterable[ScalingRun]) -> Spent:
    """What runs have used, all attempts and diagnosis included."""
    runs = list(runs)
    diagnosis = [r for r in runs if r.spec.run.purpose is Purpose.DIAGNOSIS]
    return Spent(
        flops=sum(r.status.flops for r in runs),
        gpu_seconds=sum(r.status.gpu_seconds for r in runs),
        diagnosis_flops=sum(r.status.flops for r in diagnosis),
        diagnosis_gpu_seconds=sum(r.status.gpu_seconds for r in diagnosis),
    )


def added(*parts: Spent) -> Spent:
    """All of them together."""
    return Spent(**{name: sum(getattr(part, name) for part in parts) for name in Spent.model_fields})


def at_least(before: Spent, found: Spent) -> Spent:
    """The larger of both, number by number."""
    return Spent(**{name: max(getattr(before, name), getattr(found, name)) for name in Spent.model_fields})


def vanished(before: Spent, found: Spent) -> Spent:
    """What was written down before and is found no more: deleting a run does not give its budget back."""
    return Spent(**{name: max(0.0, getattr(before, name) - getattr(found, name)) for name in Spent.model_fields})


def overdrawn(budget: Budget, spent: Spent) -> str | None:
    """One sentence when more was spent than the budget holds, or None."""
    if budget.flops is not None and spent.flops > budget.flops:
        return f"{spent.flops:.3g} FLOPs were used, and the budget is {budget.flops:.3g}; raise budget.flops to go on"
    hours = spent.gpu_seconds / 3600
    if budget.gpu_hours is not None and hours > budget.gpu_hours:
        return (
            f"{hours:.3g} GPU-hours were used, and the budget is {budget.gpu_hours:g}; raise budget.gpuHours to go on"
        )
    return None


def objection(budget: Budget, spent: Spent, cost: Cost, what: str) -> str | None:
    """One sentence when spent plus cost does not fit the budget, or None. `what` names that which is to be paid."""
    if budget.flops is not None:
        left = budget.flops - spent.flops
        if cost.flops > left:
            need = f"{what} needs {cost.flops:.3g} FLOPs"
            return f"{need} and {max(0.0, left):.3g} of {budget.flops:.3g} are left; raise budget.flops to go on"
    if budget.gpu_hours is not None:
        left = budget.gpu_hours - spent.gpu_seconds / 3600
        if cost.reserved_seconds / 3600 > left:
            need = f"{what} needs up to {cost.reserved_seconds / 3600:.3g} GPU-hours"
            return f"{need} and {max(0.0, left):.3g} of {budget.gpu_hours:g} are left; raise budget.gpuHours to go on"
    return None


def diagnosis_fits(budget: Budget, spent: Spent, cost: Cost) -> bool:
    """Whether diagnosis, this one included, stays within its share of the budget."""
    if budget.flops is not None and spent.diagnosis_flops + cost.flops > DIAGNOSIS_SHARE * budget.flops:
        return False
    if budget.gpu_hours is None:
        return True
    return spent.diagnosis_gpu_seconds + cost.reserved_seconds <= DIAGNOSIS_SHARE * budget.gpu_hours * 3600
