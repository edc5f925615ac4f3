"""What a loss is a mean over, and so how much a part of a batch weighs in it.

Owns the count. Fine-tuning predicts some tokens of a sequence and not others, so that parts of as many sequences hold
different numbers of them: a mean of the parts' means would be another loss for every cut. Weighted by this count it is
the mean over the whole batch, however pieces and processes share it. Knows no model.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sweep_analysis.recipe import Hyperparameters
from sweep_trainer.engines.ranks import Ranks

Batch = npt.NDArray[np.integer]
Count = Callable[[Batch], int]
"""Of (sequences, T + 1) token ids; never 0, for every row of fine-tuning holds a whole example."""


def count_of(hyper: Hyperparameters) -> Count:
    """Predicted tokens of a fine-tuning batch; sequences where each weighs alike, as text and pairs of answers do."""
    by_token = hyper.objective is not None and hyper.objective.kind == "FineTuning"
    return predicted if by_token else len


def predicted(batch: Batch) -> int:
    """Tokens that are to be predicted; those that are not stand as ~id, and the first one never is."""
    return int(np.count_nonzero(batch[:, 1:] >= 0))


def against_others(batch: Batch, count: Count, ranks: Ranks) -> float:
    """How much this rank's share weighs against the mean share; 1 where all weigh alike. All ranks call."""
    if count is len or ranks.world == 1:
        return 1.0
    mine = float(count(batch))
    return mine / ranks.mean([mine])[0]
