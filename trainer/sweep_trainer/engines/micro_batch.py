"""How a step is cut into pieces that one device can hold.

Owns the size of the piece and halving it when memory runs out. The step stays the same step: as many sequences, each
weighing as much, their gradients added up in another order at most.
"""

import logging
from collections.abc import Iterator

from sweep_trainer.counted import Count
from sweep_trainer.engines.protocol import Batch
from sweep_trainer.failure import out_of_memory

log = logging.getLogger(__name__)
_SAID = "the device's memory ran out: %d sequences at a time instead of %d; a step still has %d"


class MicroBatch:
    """Sequences that are computed at a time; None until the first step says how many there are."""

    def __init__(self, asked: int | None, least: int = 1, count: Count = len) -> None:
        """`least`: sequences that belong together, as two answers to one prompt do; `asked` is a multiple of it.
        `count`: what the loss is a mean over."""
        self.sequences = asked
        self._least, self._count = least, count

    def pieces(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """The batch in pieces, each with its share of what is counted in the batch."""
        size, whole = min(self.sequences or len(batch), len(batch)), self._count(batch)
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            yield piece, self._count(piece) / whole

    def halve(self, sequences: int) -> bool:
        """Take half as many from now on, of a step of so many; False when the least at a time was too much already."""
        size = min(self.sequences or sequences, sequences) // self._least
        if size == 1:
            return False
        self.sequences = (size + 1) // 2 * self._least
        say_fewer(self.sequences, size * self._least, sequences)
        return True


def say_fewer(now: int, before: int, step: int) -> None:
    """Log that memory ran out and what is done about it: `now` sequences at a time, of a step of so many."""
    log.warning(_SAID, now, before, step)


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return out_of_memory(error)
