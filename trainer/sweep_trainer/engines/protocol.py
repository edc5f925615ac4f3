"""What the training loop asks of an engine.

Owns the protocol and the form of a state. A state is complete and engine-independent: every parameter under its name,
its two Adam moments under `mean.` and `square.`, the steps done; so any engine at any number of processes goes on from
what any other left. Knows no schedule, no files and no time.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray[np.generic]]
Batch = npt.NDArray[np.integer]


class Engine(Protocol):
    """Batches are (sequences, sequence_length + 1) token ids: of a training step, this rank's share of them."""

    parameters: int
    """N, all trainable parameters, counted on the built model."""
    untrained: int
    """Numbers that its weights have besides, which no gradient moves."""
    path: str
    """How losses and gradients are computed, and why so; for the log."""
    attention: str
    """The attention kernel and its version; for the record."""
    start_digest: str | None
    """Of the weights that the objective starts from, as they were read; None where they were random."""

    @property
    def sequences(self) -> int | None:
        """How many are computed at a time; None while that is this rank's whole share."""
        ...

    def step(self, batch: Batch, learning_rate: float) -> None:
        """One optimizer step of all ranks. Its loss and gradient norm are read later, in bulk, so that no step waits
        for them."""
        ...

    def measured(self) -> list[tuple[float, float]]:
        """(loss in nats per token, gradient norm) of each step since the last call, over all ranks; all ranks call."""
        ...

    def evaluate(self, batch: Batch) -> float:
        """Mean loss, nats per token, of this rank's batch, without training on it; all ranks call, each with as many
        sequences."""
        ...

    def likelihood(self, batch: Batch) -> list[tuple[float, bool]]:
        """For each row: nats of all its predicted tokens, and whether each was the most likely one.

        `model.targets` says which are predicted. All ranks call, with the same batch.
        """
        ...

    def state(self) -> State:
        """A copy of all that training changes: of several ranks, each one's share (`state.kept_by`); all call."""
        ...

    def load(self, state: State) -> None:
        """Take up a state; the next step is then what it would have been. Raises KeyError or ValueError when it is of
        another model. All ranks call, each with its share."""
        ...

    def weights(self) -> State:
        """The model's parameters, and what is stored beside them, by name: on the first rank, which writes them, and
        nothing on the others; all ranks call."""
        ...
