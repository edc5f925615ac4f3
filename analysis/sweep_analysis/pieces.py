"""How the sequences of a step are shared out: to processes evenly, and by each of them in pieces of one size.

Owns the rule, which acceptance asks before anything is scheduled and the trainer before its first step, so that both
say the same. Computes nothing.
"""

from sweep_analysis.recipe import Hyperparameters, Training


def pieces_of(training: Training, hyper: Hyperparameters, world: int) -> tuple[int, int]:
    """(sequences at a time, pieces of a step) of each rank; DeepSpeed wants pieces of one size.

    The size is the largest that divides the rank's share and is not above `training.microBatch`; of a reward model's
    answers, whole pairs. Raises ValueError when the ranks cannot share the batch evenly.
    """
    sequences = hyper.batch_tokens // hyper.sequence_length
    share, rest = divmod(sequences, world)
    if rest:
        raise ValueError(
            f"a step of {sequences:,} sequences does not divide among {world} processes;"
            f" set training.batchTokens to a multiple of {world * hyper.sequence_length:,}"
        )
    at_most, least = min(training.micro_batch or share, share), 2 if hyper.shape.scalar_head else 1
    if share % least:
        raise ValueError(
            f"{sequences // 2} pairs of answers do not divide among {world} processes;"
            f" set training.batchTokens to a multiple of {2 * world * hyper.sequence_length:,}"
        )
    micro = next(size for size in range(at_most, 0, -1) if share % size == 0 and size % least == 0)
    return micro, share // micro
