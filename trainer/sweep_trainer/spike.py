"""A loss that jumps or is no number: what counts as one, and which batches are left out after it.

Owns the rule. The loop goes back to the newest checkpoint and goes on with the batches after the spike, those between
left out, as Chowdhery et al. 2022 (arXiv:2204.02311, §5.1) did by hand. Without the recipe's `spikes` nothing acts.
"""

import math
from collections import deque
from itertools import pairwise

from sweep_analysis.execution import Spikes

_WINDOW = 64
_SETTLED = 16
"""So many losses must be known before one can be out of line; a young run falls too fast to tell."""


class SpikeWatch:
    """Looks at every step's loss in order."""

    def __init__(self, rule: Spikes) -> None:
        self._rule = rule
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def objection(self, loss: float) -> str | None:
        """Why this loss is a spike, in words; None for an ordinary one, which is remembered."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        mean = sum(self._recent) / len(self._recent) if self._recent else loss
        if len(self._recent) >= _SETTLED and loss > self._rule.factor * mean:
            return f"the loss is {loss:.3g}, {loss / mean:.2f} times the mean of the last {len(self._recent)} steps"
        self._recent.append(loss)
        return None

    def allows(self, rewinds: int) -> bool:
        """Whether one more rewind is within the recipe's limit."""
        return rewinds < self._rule.at_most


def batch_of(step: int, left_out: tuple[tuple[int, int], ...]) -> int:
    """Which batch a step reads: its own, moved on by all that was left out at or before it."""
    return step + sum(batches for at, batches in left_out if at <= step)


def batches_of(steps: int, left_out: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The batches that the first `steps` read, as ranges in order: first, and the one after the last."""
    cuts = sorted({0, steps, *(at for at, _ in left_out if at < steps)})
    return tuple(
        (batch_of(first, left_out), batch_of(first, left_out) + stop - first) for first, stop in pairwise(cuts)
    )
