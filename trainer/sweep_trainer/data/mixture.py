"""Which source each training sequence comes from.

Owns the interleaving: a pattern of 4,096 sequences in which every source has its share to within one, spread evenly,
and which repeats. It depends on the weights alone, so that a longer run reads what a shorter one read, and more.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

PERIOD = 4096


class Mixture:
    """Places of an endless sequence, each given to one of several sources by weight."""

    def __init__(self, weights: Sequence[float]) -> None:
        """At least one place in 4,096 goes to each source."""
        self.shares = whole_parts(weights, PERIOD)

    @cached_property
    def _pattern(self) -> npt.NDArray[np.intp]:
        """(PERIOD,): the source at each place of the pattern; the j-th of n stands at about (j + ½) / n."""
        at = np.concatenate([(np.arange(n) + 0.5) / n for n in self.shares])
        source = np.repeat(np.arange(len(self.shares)), self.shares)
        return source[np.argsort(at, kind="stable")]

    @cached_property
    def _before(self) -> npt.NDArray[np.intp]:
        """(PERIOD + 1, sources): how many of each source stand before a place of the pattern."""
        taken = np.eye(len(self.shares), dtype=np.intp)[self._pattern]
        return np.concatenate([np.zeros((1, len(self.shares)), np.intp), taken.cumsum(0)])

    def at(self, places: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The source of each place, and how many of that source stand before it."""
        period, within = np.divmod(places, PERIOD)
        source = self._pattern[within]
        return source, period * np.array(self.shares)[source] + self._before[within, source]

    def counts(self, places: int) -> list[int]:
        """How many of the first `places` go to each source."""
        period, within = divmod(places, PERIOD)
        return [int(n) for n in period * np.array(self.shares) + self._before[within]]


def whole_parts(weights: Sequence[float], total: int) -> list[int]:
    """`total` in whole parts by weight, at least 1 each: by largest remainder."""
    exact = np.array(weights, float) / sum(weights) * total
    parts = np.maximum(1, np.floor(exact).astype(int))
    while parts.sum() < total:
        parts[np.argmax(exact - parts)] += 1
    while parts.sum() > total:
        parts[np.argmin(np.where(parts > 1, exact - parts, np.inf))] -= 1
    return [int(part) for part in parts]
