"""How a step is carried out: the seam behind which plain PyTorch stands today.

Owns the protocol between the training loop and whatever holds the model, and the one engine there is: plain PyTorch in
one process on the CPU. Knows no schedule, no files and no time.
"""

import ctypes
import sys
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sweep_analysis.recipe import Hyperparameters
from sweep_trainer.fused import FusedLoss, agrees
from sweep_trainer.model import Decoder
from sweep_trainer.optim import FlatAdamW

State = dict[str, npt.NDArray[np.generic]]


class Engine(Protocol):
    """What the training loop asks of an engine; batches are (sequences, sequence_length + 1) token ids."""

    parameters: int
    """N, all trainable parameters, counted on the built model."""
    path: str
    """How losses and gradients are computed, and why so; for the log."""

    def step(self, batch: npt.NDArray[np.integer], learning_rate: float) -> None:
        """One optimizer step. Its loss and gradient norm are read later, in bulk, so that no step waits for them."""
        ...

    def measured(self) -> list[tuple[float, float]]:
        """(loss in nats per token, gradient norm) of each step since the last call."""
        ...

    def evaluate(self, batch: npt.NDArray[np.integer]) -> float:
        """Mean loss, nats per token, without training on it."""
        ...

    def state(self) -> State:
        """A copy of all that training changes."""
        ...

    def load(self, state: State) -> None:
        """Take up a state; the next step is then what it would have been. Raises KeyError or ValueError when it is of
        another model."""
        ...

    def weights(self) -> State:
        """The parameters by name, for the final model."""
        ...


class PlainTorch:
    """One process, one CPU, PyTorch alone."""

    def __init__(self, hyper: Hyperparameters, seed: int, threads: int) -> None:
        torch.set_num_threads(threads)
        _keep_freed_memory()
        self.model = Decoder(hyper.shape, hyper.sequence_length, seed)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self._optimizer = FlatAdamW(self.model, hyper.optimizer)
        self._bf16 = hyper.precision == "bf16"
        objection = "the precision is bf16" if self._bf16 else agrees(hyper.shape)
        self._fused = FusedLoss(self.model) if objection is None else None
        self.path = "hand-derived gradients" if objection is None else f"autograd, because {objection}"
        self._measured: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(self, batch: npt.NDArray[np.integer], learning_rate: float) -> None:
        tokens = _tensor(batch)
        if self._fused:
            loss = self._fused.loss_and_gradients(tokens)
        else:
            self._optimizer.zero_gradients()
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                loss = self.model.loss(tokens)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._measured.append((loss.detach(), self._optimizer.step(learning_rate)))

    def measured(self) -> list[tuple[float, float]]:
        taken, self._measured = self._measured, []
        if not taken:
            return []
        losses, norms = (torch.stack(column).tolist() for column in zip(*taken, strict=True))
        return list(zip(losses, norms, strict=True))

    @torch.inference_mode()
    def evaluate(self, batch: npt.NDArray[np.integer]) -> float:
        tokens = _tensor(batch)
        if self._fused:
            return self._fused.loss(tokens).item()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            return self.model.loss(tokens).item()

    def state(self) -> State:
        return self._optimizer.state()

    def load(self, state: State) -> None:
        self._optimizer.load(state)

    def weights(self) -> State:
        return {name: p.detach().numpy().copy() for name, p in self.model.named_parameters()}


def _tensor(batch: npt.NDArray[np.integer]) -> torch.Tensor:
    return torch.from_numpy(batch.astype(np.int64))


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: activations are megabytes, and mapping them anew costs a fifth of a step."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3
            mallopt(trim_threshold, 1 << 30)
            mallopt(mmap_threshold, 32 << 20)  # the largest that every glibc takes
