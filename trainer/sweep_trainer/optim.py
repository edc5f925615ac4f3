"""AdamW over two flat buffers, and the clipping of their gradient.

Owns the layout of parameters in memory: matrices in one buffer, which decay, gains in another, which do not. Two
buffers instead of thirty tensors make the update a handful of calls. Knows no schedule (`schedule.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sweep_analysis.recipe import Optimizer

_EPS = 1e-8
MOMENTS = ("mean", "square")
"""Prefixes under which a state holds a parameter's moments; every engine uses them, so that any reads any's state."""
STEPS = "optimizer.steps"
_EMBEDDINGS = {"embedding", "output"}


@dataclass(frozen=True)
class Group:
    """Parameters that are updated alike."""

    name: str
    parameters: dict[str, nn.Parameter]
    decay: float
    rate: float
    """Multiplies the learning rate."""


def parameter_groups(model: nn.Module, recipe: Optimizer, width_ratio: float) -> tuple[Group, ...]:
    """Matrices, which decay, and gains, which do not; a group that would have no parameters is left out.

    Where muP's base width is another than the model's, the hidden matrices' rate is multiplied by base / width and the
    embeddings' is not (Yang et al. 2022, arXiv:2203.03466, table 8).
    """
    named = dict(model.named_parameters())
    matrices = {name: p for name, p in named.items() if p.ndim > 1}
    gains = Group("gains", {name: p for name, p in named.items() if p.ndim <= 1}, 0.0, 1.0)
    if width_ratio == 1.0:
        return tuple(g for g in (Group("matrices", matrices, recipe.weight_decay, 1.0), gains) if g.parameters)
    hidden = {name: p for name, p in matrices.items() if name not in _EMBEDDINGS}
    outer = {name: p for name, p in matrices.items() if name in _EMBEDDINGS}
    return (
        Group("matrices", hidden, recipe.weight_decay, width_ratio),
        Group("embeddings", outer, recipe.weight_decay, 1.0),
        gains,
    )


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) on a model whose parameters become views of flat buffers.

    Calls the kernel behind `torch.optim.AdamW(fused=True)` itself: at these sizes the optimizer class costs more than
    the update, and its first step imports seconds' worth of compiler.
    """

    def __init__(self, model: nn.Module, recipe: Optimizer, width_ratio: float = 1.0) -> None:
        self.recipe = recipe
        self._groups = {group.name: group for group in parameter_groups(model, recipe, width_ratio)}
        self.buffers = {name: _flatten(list(group.parameters.values())) for name, group in self._groups.items()}
        self._state = {
            f"{name}.{kind}": torch.zeros_like(buffer, requires_grad=False)
            for name, buffer in self.buffers.items()
            for kind in MOMENTS
        }
        self._steps = torch.zeros((), device=self.buffers["matrices"].device)
        self._clip = torch.tensor(recipe.clip_norm, device=self._steps.device)

    def zero_gradients(self) -> None:
        """Gradients stay allocated, as views of the flat ones, so that the backward pass adds into them."""
        for buffer in self.buffers.values():
            gradient_of(buffer).zero_()

    @torch.no_grad()
    def step(self, learning_rate: float, overflow: Tensor | None = None) -> Tensor:
        """Clip to the recipe's norm and update; returns the gradient norm before clipping, a scalar on the device.

        Where `overflow` holds 1 the update is left out, without a look at it from the host.
        """
        gradients = [gradient_of(buffer) for buffer in self.buffers.values()]
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        shrink = (self._clip / (norm + 1e-6)).clamp_(max=1.0)
        self._steps.add_(1) if overflow is None else self._steps.add_(1 - overflow)
        for (name, buffer), gradient in zip(self.buffers.items(), gradients, strict=True):
            torch._fused_adamw_(
                [buffer],
                [gradient.mul_(shrink)],
                [self._state[f"{name}.mean"]],
                [self._state[f"{name}.square"]],
                [],
                [self._steps],
                lr=learning_rate * self._groups[name].rate,
                beta1=self.recipe.beta1,
                beta2=self.recipe.beta2,
                weight_decay=self._groups[name].decay,
                eps=_EPS,
                amsgrad=False,
                maximize=False,
                found_inf=overflow,
            )
        return norm

    def named(self) -> dict[str, Tensor]:
        """All that training changes: each parameter, its moments under `mean.` and `square.`, and the steps done.

        The tensors are the optimizer's own: what is copied into them is taken up.
        """
        tensors = {STEPS: self._steps}
        for group, members in self._groups.items():
            at = 0
            for name, p in members.parameters.items():
                tensors[name] = p.data
                for kind in MOMENTS:
                    tensors[f"{kind}.{name}"] = self._state[f"{group}.{kind}"][at : at + p.numel()].view_as(p)
                at += p.numel()
        return tensors


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient that `_flatten` gave a parameter."""
    assert parameter.grad is not None, "flattened parameters always hold a gradient"
    return parameter.grad


def _flatten(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One buffer that holds all; each parameter becomes a view of it, its gradient a view of the buffer's gradient."""
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    at = 0
    for p in parameters:
        p.data = flat.data[at : at + p.numel()].view_as(p)
        p.grad = flat.grad[at : at + p.numel()].view_as(p)
        at += p.numel()
    return flat
