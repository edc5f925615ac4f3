"""The engine of PyTorch alone: one process, or several that each compute a share of the batch.

Owns the step: gradients piece by piece, averaged over the ranks, clipped, applied. Every rank holds the whole model and
optimizer state; `zero` shares them out. Gradients lie in two flat buffers (`optim`), so averaging is two all-reduces
after the last piece: a rank whose memory ran out can still say so, and all take smaller pieces.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.checkpoint import checkpoint

from sweep_analysis.execution import Execution
from sweep_analysis.recipe import Hyperparameters
from sweep_trainer.build import DTYPES, LanguageModel, attention_of, build, told_attention
from sweep_trainer.counted import against_others, count_of
from sweep_trainer.engines import state as shares
from sweep_trainer.engines.micro_batch import MicroBatch, ran_out
from sweep_trainer.engines.protocol import Batch, State
from sweep_trainer.engines.ranks import ALONE, Ranks
from sweep_trainer.engines.scaling import LossScale
from sweep_trainer.fused import FusedLoss, objection
from sweep_trainer.model import fixed
from sweep_trainer.optim import FlatAdamW, gradient_of


class PlainTorch:
    """On the GPU of this rank's number where there is one, on the CPU otherwise."""

    def __init__(
        self,
        hyper: Hyperparameters,
        seed: int,
        threads: int,
        ranks: Ranks = ALONE,
        execution: Execution | None = None,
    ) -> None:
        execution = execution or Execution()
        torch.set_num_threads(threads)
        _keep_freed_memory()
        self._ranks = ranks
        self._device = device_of(ranks)
        attention = attention_of(hyper, self._device)
        self.model = build(hyper, seed, self._device, attention)
        self.attention = told_attention(self.model, attention)
        self.start_digest: str | None = self.model.start_digest
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.untrained = sum(buffer.numel() for buffer in fixed(self.model).values())
        self._optimizer = FlatAdamW(self.model, hyper.optimizer, hyper.width_ratio)
        self._count = count_of(hyper)
        self._micro = MicroBatch(execution.micro_batch, 2 if hyper.shape.scalar_head else 1, self._count)
        self._autocast = partial(
            torch.autocast, self._device.type, DTYPES[hyper.precision], enabled=hyper.precision != "fp32"
        )
        self._scale = LossScale(self._device) if hyper.precision == "fp16" else None
        reason = self._not_by_hand(hyper, execution)
        self._fused = FusedLoss(self.model) if reason is None else None
        self.path = "hand-derived gradients" if reason is None else f"autograd, because {reason}"
        if execution.activation_checkpointing:
            recompute_blocks(self.model)
        self._loss: Callable[[Tensor], Tensor] = self.model.loss
        if execution.compile:
            self._loss = torch.compile(self.model.loss)
        self._measured: list[tuple[Tensor, Tensor]] = []

    def _not_by_hand(self, hyper: Hyperparameters, execution: Execution) -> str | None:
        """Why gradients must come from autograd; None where `fused` may compute them."""
        if self._device.type != "cpu":
            return f"the device is {self._device.type}"
        if hyper.precision != "fp32":
            return f"the precision is {hyper.precision}"
        if execution.micro_batch or execution.activation_checkpointing or execution.compile:
            return "a step is cut into pieces, recomputed or compiled"
        return objection(hyper)

    @property
    def sequences(self) -> int | None:
        return self._micro.sequences

    def step(self, batch: Batch, learning_rate: float) -> None:
        loss = self._gradients(batch)
        gradients = [gradient_of(buffer) for buffer in self._optimizer.buffers.values()]
        if self._ranks.world > 1:
            for gradient in gradients:
                distributed.all_reduce(gradient)
                gradient.div_(self._ranks.world)
        overflow = self._scale.unscale(gradients) if self._scale else None
        self._measured.append((loss, self._optimizer.step(learning_rate, overflow)))

    def _gradients(self, batch: Batch) -> Tensor:
        """Loss of this rank's share, its gradient in the flat buffers; in smaller pieces if memory runs out on any."""
        share = against_others(batch, self._count, self._ranks)
        while True:
            loss, failure = torch.zeros((), device=self._device), None
            try:
                loss = self._in_pieces(batch, share)
            except Exception as error:
                if not ran_out(error):
                    raise
                failure = error.with_traceback(None)  # its frames would keep the activations alive
            if not self._ranks.any(failure is not None)[0]:
                return loss
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if not self._micro.halve(len(batch)):
                raise failure or torch.OutOfMemoryError("another rank's memory ran out at one sequence at a time")

    def _in_pieces(self, batch: Batch, share: float) -> Tensor:
        if self._fused and self._micro.sequences is None:
            return self._fused.loss_and_gradients(self._tensor(batch))
        self._optimizer.zero_gradients()
        total: Tensor | None = None
        for piece, weight in self._micro.pieces(batch):
            with self._autocast():
                loss = self._loss(self._tensor(piece))
            if weight * share != 1.0:
                loss = loss * (weight * share)
            (loss * self._scale.factor if self._scale else loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None, "a batch has at least one sequence"
        return total

    def measured(self) -> list[tuple[float, float]]:
        taken, self._measured = self._measured, []
        if not taken:
            return []
        losses, norms = (torch.stack(column).tolist() for column in zip(*taken, strict=True))
        return list(zip(self._ranks.mean(losses), norms, strict=True))

    @torch.inference_mode()
    def evaluate(self, batch: Batch) -> float:
        tokens = self._tensor(batch)
        if self._fused:
            return self._fused.loss(tokens).item()
        with self._autocast():
            return float(self.model.loss(tokens).item())

    @torch.inference_mode()
    def likelihood(self, batch: Batch) -> list[tuple[float, bool]]:
        with self._autocast():
            nats, right = self.model.likelihood(self._tensor(batch))
        return list(zip(nats.tolist(), right.tolist(), strict=True))

    def state(self) -> State:
        return shares.copied(self._named(), self._ranks)

    def load(self, state: State) -> None:
        named = self._named()
        shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}

        def take(name: str, tensor: Tensor) -> None:
            named[name].copy_(tensor)

        shares.handed_out(state, shapes, self._ranks, take)

    def weights(self) -> State:
        tensors = dict(self.model.named_parameters()) | fixed(self.model) if self._ranks.first else {}
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}

    def _named(self) -> dict[str, Tensor]:
        return self._optimizer.named() | (self._scale.named() if self._scale else {})

    def _tensor(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch.astype(np.int64)).to(self._device, non_blocking=True)


def device_of(ranks: Ranks) -> torch.device:
    """The GPU of this rank's number, or the CPU."""
    return torch.device("cuda", ranks.local) if torch.cuda.is_available() else torch.device("cpu")


def recompute_blocks(model: LanguageModel) -> None:
    """Keep of each block its input alone; the rest is computed again in the backward pass (Chen et al. 2016,
    arXiv:1604.06174)."""
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # parameters keep their names


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: activations are megabytes, and mapping them anew costs a fifth of a step."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3
            mallopt(trim_threshold, 1 << 30)
            mallopt(mmap_threshold, 32 << 20)  # the largest that every glibc takes
