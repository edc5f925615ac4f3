"""The engine of DeepSpeed: ZeRO 0-3, optimizer and parameter offload.

Owns the conversation with DeepSpeed: its start without the operators that it would compile for minutes, the step in
equal pieces, and its partitioned state gathered tensor by tensor into the engine-independent form. Its own checkpoint
files are pickles and are never written nor read.
"""

import contextlib
import gc
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Hyperparameters, Training
from sweep_trainer.build import LanguageModel, attention_of, build, told_attention
from sweep_trainer.counted import against_others, count_of
from sweep_trainer.engines import state as shares
from sweep_trainer.engines.deepspeed_config import deepspeed_config, fewer
from sweep_trainer.engines.deepspeed_here import check, imported
from sweep_trainer.engines.micro_batch import MicroBatch, ran_out, say_fewer
from sweep_trainer.engines.plain import device_of, recompute_blocks
from sweep_trainer.engines.protocol import Batch, State
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.engines.scaling import GOOD, PATIENCE, SCALE
from sweep_trainer.failure import BeginAgain
from sweep_trainer.model import fixed
from sweep_trainer.optim import MOMENTS, STEPS, parameter_groups

_DEEPSPEED_NAMES = dict(zip(MOMENTS, ("exp_avg", "exp_avg_sq"), strict=True))


class Zero:
    """One rank of DeepSpeed's. Needs a process group, also of one; `ranks.join` or Ray makes it."""

    def __init__(self, training: Training, hyper: Hyperparameters, seed: int, threads: int, ranks: Ranks) -> None:
        """Raises ValueError when the batch does not divide, or DeepSpeed refuses the configuration on this device."""
        torch.set_num_threads(threads)
        self._deepspeed = imported()
        check(training, hyper)
        self._training, self._hyper, self._seed, self._ranks = training, hyper, seed, ranks
        self._stage = (training.deepspeed or DeepSpeed()).zero_stage
        self._count = count_of(hyper)
        self._attention = attention_of(hyper, device_of(ranks))
        os.environ.setdefault("LOCAL_RANK", str(ranks.local))  # DeepSpeed asks for it, whoever made the group
        self._deepspeed.init_distributed(verbose=False)  # takes up the group that is there
        self._gathered = self._deepspeed.zero.GatheredParameters
        self._begin()
        self._measured: list[tuple[Tensor, float]] = []

    def _begin(self) -> None:
        """Build the model and DeepSpeed around it, for as many sequences at a time as the recipe says now."""
        training, hyper = self._training, self._hyper
        config = deepspeed_config(training, hyper, self._ranks.world)
        self.sequences = config["train_micro_batch_size_per_gpu"]
        self.model = build(hyper, self._seed, torch.device("cpu"), self._attention)
        self.attention = told_attention(self.model, self._attention)
        self.start_digest: str | None = self.model.start_digest
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.untrained = sum(buffer.numel() for buffer in fixed(self.model).values())
        self._shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        if training.activation_checkpointing:
            recompute_blocks(self.model)
        groups = parameter_groups(self.model, hyper.optimizer, hyper.width_ratio)
        self._adam = torch.optim.AdamW(
            [
                {"params": list(group.parameters.values()), "weight_decay": group.decay, "rate": group.rate}
                for group in groups
            ],
            lr=hyper.learning_rate,
            betas=(hyper.optimizer.beta1, hyper.optimizer.beta2),
            fused=True,
        )
        self._engine, self._zero, _, _ = self._deepspeed.initialize(
            model=_Loss(self.model), optimizer=self._adam, config=config
        )
        self._masters = self._begin_moments()
        self._updating = False
        self.path = f"DeepSpeed {self._deepspeed.__version__}, ZeRO {self._stage}, {self.sequences} sequences at a time"

    def step(self, batch: Batch, learning_rate: float) -> None:
        share = against_others(batch, self._count, self._ranks)
        while True:
            try:
                self._measured.append(self._in_pieces(batch, learning_rate, share))
                return
            except Exception as error:
                if not ran_out(error) or self._updating:  # what is half updated cannot be done again from here
                    raise
                less = fewer(self._training, self._hyper, self._ranks.world)
                if less is None:
                    raise
                if self._ranks.world > 1:
                    raise BeginAgain(less, self.sequences) from error
            self._begin_again(less, len(batch))

    def _in_pieces(self, batch: Batch, learning_rate: float, share: float) -> tuple[Tensor, float]:
        """One step; its loss over this rank's share, and the gradient norm."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate * group["rate"]
        total = torch.zeros((), device=self._engine.device)
        pieces = list(MicroBatch(self.sequences, count=self._count).pieces(batch))
        norm = None
        for place, (piece, weight) in enumerate(pieces):
            loss = self._engine(self._tensor(piece))
            relative = weight * len(pieces) * share  # DeepSpeed takes the mean over pieces and over ranks
            if self._count is not len:
                loss = loss * relative
            self._engine.backward(loss)
            total += loss.detach() / len(pieces)
            self._updating = place + 1 == len(pieces)
            if self._updating:
                norm = self._norm_before_clipping()
            self._engine.step()
        self._updating = False
        return total, float(self._engine.get_global_grad_norm() if norm is None else norm)

    def _begin_again(self, less: int, sequences: int) -> None:
        """Give up what was computed of a step, and begin it again with fewer sequences at a time, in one process.

        A backward pass that was broken off leaves DeepSpeed's buckets and hooks in the middle: it is made anew around
        the state, which a step changes at its end alone.
        """
        before, state = self.sequences, self.state()
        self._engine.destroy()
        del self._engine, self._zero, self._adam, self._masters, self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._training = self._training.changed(micro_batch=less)
        self._begin()
        self.load(state)
        say_fewer(self.sequences, before, sequences)

    def _norm_before_clipping(self) -> Tensor | None:
        """In fp32 at stage 0 DeepSpeed wraps no optimizer and tells no norm; the gradients are averaged by now."""
        if self._zero is not self._adam:
            return None
        norms = [torch.linalg.vector_norm(p.grad) for p in self.model.parameters() if p.grad is not None]
        whole: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return whole

    def measured(self) -> list[tuple[float, float]]:
        taken, self._measured = self._measured, []
        if not taken:
            return []
        losses = self._ranks.mean(torch.stack([loss for loss, _ in taken]).tolist())
        return [(loss, norm) for loss, (_, norm) in zip(losses, taken, strict=True)]

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> float:
        self._engine.eval()
        loss = self._engine(self._tensor(batch)).item()
        self._engine.train()
        return float(loss)

    @torch.no_grad()
    def likelihood(self, batch: Batch) -> list[tuple[float, bool]]:
        self._engine.eval()
        nats, right = self._engine(self._tensor(batch), likelihood=True)
        self._engine.train()
        return list(zip(nats.tolist(), right.tolist(), strict=True))

    def state(self) -> State:
        mine = shares.kept_by(self._state_shapes(), self._ranks)
        state: State = {}
        for name, p in self.model.named_parameters():
            for kind in ("", *MOMENTS):
                whole = self._whole(p, kind)  # a collective: also for what another rank keeps
                if (full := f"{kind}.{name}" if kind else name) in mine:
                    state[full] = whole.detach().to("cpu", torch.float32).numpy().reshape(self._shapes[name]).copy()
        numbers = {STEPS: self._steps()[0].item()} | self._scale()
        return state | {name: np.array(numbers[name], dtype=np.float32) for name in mine & numbers.keys()}

    def load(self, state: State) -> None:
        parameters = dict(self.model.named_parameters())

        def take(name: str, value: Tensor) -> None:
            kind, _, rest = name.partition(".")
            if name == STEPS:
                for steps in self._steps():
                    steps.fill_(value.item())
            elif name == SCALE:
                self._zero.loss_scaler.cur_scale = value.item()
            elif name == GOOD:
                scaler = self._zero.loss_scaler
                scaler.last_overflow_iter = scaler.cur_iter - 1 - int(value.item())
            elif kind in MOMENTS:
                self._put(parameters[rest], value, kind)
            else:
                self._put(parameters[name], value, "")

        shares.handed_out(state, self._state_shapes(), self._ranks, take)

    def weights(self) -> State:
        found: State = {}
        for name, p in self.model.named_parameters():
            whole = self._whole(p, "")  # a collective: also where nothing is kept
            if self._ranks.first:
                found[name] = whole.detach().to("cpu", torch.float32).numpy().reshape(self._shapes[name]).copy()
        if self._ranks.first:
            for name, tensor in fixed(self.model).items():  # every rank has them whole
                found[name] = tensor.detach().to("cpu", torch.float32).numpy().copy()
        return found

    def _state_shapes(self) -> dict[str, tuple[int, ...]]:
        moments = {f"{kind}.{name}": shape for kind in MOMENTS for name, shape in self._shapes.items()}
        return self._shapes | moments | {STEPS: ()} | dict.fromkeys(self._scale(), ())

    def _scale(self) -> dict[str, float]:
        """DeepSpeed's loss scale in the terms of ours, which finds itself by the same rule; nothing unless in fp16."""
        if self._hyper.precision != "fp16":
            return {}
        scaler = self._zero.loss_scaler
        return {SCALE: scaler.cur_scale, GOOD: (scaler.cur_iter - scaler.last_overflow_iter - 1) % PATIENCE}

    def _begin_moments(self) -> dict[int, Tensor]:
        """Give every partition its moments before the first step, so that a state can be taken up.

        Returns, at stage 0, the fp32 copy of each parameter by the parameter's id.
        """
        zero = self._zero
        masters: dict[int, Tensor] = {}
        if self._stage == 3:
            flat = zero.fp32_partitioned_groups_flat
        elif self._stage in (1, 2):
            flat = zero.single_partition_of_fp32_groups
        else:
            pairs = [(p, p) for p in self.model.parameters()]
            if zero is not self._adam:
                groups = zip(zero.fp16_groups, zero.fp32_groups, strict=True)
                pairs = [pair for low, high in groups for pair in zip(low, high, strict=True)]
            masters = {id(low): high for low, high in pairs}
            flat = list(masters.values())
        for place, partition in enumerate(flat):
            with self._on_this_side_of_the_disk(place):
                self._adam.state[partition].update(
                    step=torch.zeros((), device=partition.device),
                    exp_avg=torch.zeros_like(partition, requires_grad=False),
                    exp_avg_sq=torch.zeros_like(partition, requires_grad=False),
                )
        if self._stage in (1, 2):
            from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state

            for group, partition in zip(zero.bit16_groups, flat, strict=True):
                lazy_init_hp_params_optimizer_state(group, partition, self._adam.state)
        return masters

    @contextlib.contextmanager
    def _on_this_side_of_the_disk(self, place: int) -> Iterator[None]:
        """A group of parameters in memory, where DeepSpeed keeps it on a disk: it takes moments along that are there
        when the group goes back, and has made none."""
        away = self._stage == 3 and self._zero.swap_optimizer and self._zero._swappable_optimizer_subgroup(place)
        if away:
            self._zero._optimizer_states_and_gradient_swap_in(place, set())
        yield
        if away:
            self._zero._optimizer_states_and_gradient_swap_out(place, set())

    def _steps(self) -> list[Tensor]:
        return [state["step"] for state in self._adam.state.values() if "step" in state]

    def _whole(self, p: nn.Parameter, kind: str) -> Tensor:
        """The fp32 parameter, or its moment, from all partitions."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._stage == 0:
            master = self._masters[id(p)]
            whole: Tensor = self._adam.state[master][_DEEPSPEED_NAMES[kind]] if kind else master
        elif kind:
            whole = safe_get_full_optimizer_state(p, _DEEPSPEED_NAMES[kind])
        else:
            whole = safe_get_full_fp32_param(p)
        return whole

    def _put(self, p: nn.Parameter, value: Tensor, kind: str) -> None:
        """The reverse of `_whole`; a parameter also reaches the copy that computes."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        value = value.to(self._engine.device)
        if self._stage == 3:
            self._put_partition(p, value, kind)
        elif self._stage == 0:
            self._whole(p, kind).data.copy_(value)
        elif kind:
            safe_set_full_optimizer_state(p, value, _DEEPSPEED_NAMES[kind])
        else:
            safe_set_full_fp32_param(p, value)
        if not kind:
            if self._stage == 3:
                with self._gathered([p], modifier_rank=0):
                    if self._ranks.first:
                        p.data.copy_(value)
            else:
                p.data.copy_(value)

    def _put_partition(self, p: nn.Parameter, value: Tensor, kind: str) -> None:
        """At stage 3 a rank sets its own piece; DeepSpeed's setter of whole tensors forgets the padding of the last."""
        from deepspeed.utils import (
            safe_get_local_fp32_param,
            safe_get_local_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        name = _DEEPSPEED_NAMES.get(kind)
        here = safe_get_local_optimizer_state(p, name) if name else safe_get_local_fp32_param(p)
        size = here.numel()
        padded = torch.zeros(size * self._ranks.world, device=value.device)
        padded[: value.numel()] = value.flatten()
        piece = padded[self._ranks.rank * size : (self._ranks.rank + 1) * size].view_as(here)
        if name:
            safe_set_local_optimizer_state(p, piece, name)
        else:
            safe_set_local_fp32_param(p, piece)

    def _tensor(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch.astype(np.int64)).to(self._engine.device, non_blocking=True)


class _Loss(nn.Module):
    """What DeepSpeed wraps: tokens in, mean loss out, or each row's likelihood."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, *, likelihood: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        return self.model.likelihood(tokens) if likelihood else self.model.loss(tokens)
