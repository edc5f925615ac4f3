"""When a run does what: its trunk, its decay branches, and the learning rate of every step.

Owns the plan of a run and its schedule, both pure functions of the hyperparameters. Trains nothing, needs no torch.
"""

import math
from dataclasses import dataclass

from sweep_analysis.recipe import Hyperparameters


@dataclass(frozen=True)
class Segment:
    """A stretch of steps trained in one go.

    The trunk runs up to where the first token count begins to decay; there its state is set aside, the branch decays to
    its record, and the trunk goes on from what was set aside. The last branch ends the run.
    """

    start: int
    stop: int
    """Steps [start, stop) of the path from the first step to this segment's end; a step's data depend on it alone."""
    branch: int | None
    """Index of the token count whose decay this is; None on the trunk."""
    first: int
    """Steps executed by all earlier segments; `first + step - start` counts every executed step once."""


def segments(hyper: Hyperparameters) -> tuple[Segment, ...]:
    """The whole run in order of execution."""
    plan: list[Segment] = []
    at, executed = 0, 0
    for branch, stop in enumerate(hyper.steps):
        leave = stop - hyper.schedule.branch_steps(stop)
        for start, end, name in ((at, leave, None), (leave, stop, branch)):
            if end > start:
                plan.append(Segment(start, end, name, executed))
                executed += end - start
        at = max(at, leave)
    return tuple(plan)


def learning_rate(hyper: Hyperparameters, step: int, segment: Segment) -> float:
    """Linear warm-up, stable, and in a branch the way down, which would reach its end one step after the branch's.

    The way down is linear, or half a cosine that begins behind the warm-up.
    """
    rate = hyper.learning_rate * min(1.0, (step + 1) / hyper.warmup_steps)
    if segment.branch is None:
        return rate
    if hyper.schedule.kind == "Cosine":
        done = max(0, step - hyper.warmup_steps) / max(1, segment.stop - hyper.warmup_steps)
        left = 0.5 * (1 + math.cos(math.pi * done))
    else:
        left = (segment.stop - step) / (segment.stop - segment.start)
    final = hyper.schedule.final
    return rate * (final + (1 - final) * left) if final else rate * left
