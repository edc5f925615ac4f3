"""When a run does what: its trunk, its decay branches, and the learning rate of every step.

Owns the plan of a run and its schedule, both pure functions of the hyperparameters. Trains nothing, needs no torch.
"""

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
        leave = stop - decay_steps(hyper, stop)
        for start, end, name in ((at, leave, None), (leave, stop, branch)):
            if end > start:
                plan.append(Segment(start, end, name, executed))
                executed += end - start
        at = max(at, leave)
    return tuple(plan)


def decay_steps(hyper: Hyperparameters, stop: int) -> int:
    """Length of the decay branch of the token count that is reached at step `stop`."""
    return max(1, round(hyper.schedule.decay * stop))


def learning_rate(hyper: Hyperparameters, step: int, segment: Segment) -> float:
    """Linear warm-up, stable, and in a branch linear decay that would reach zero one step after its end."""
    rate = hyper.learning_rate * min(1.0, (step + 1) / hyper.warmup_steps)
    if segment.branch is not None:
        rate *= (segment.stop - step) / (segment.stop - segment.start)
    return rate
