"""AdamW over two flat buffers, and the clipping of their gradient.

Owns the layout of parameters in memory: matrices in one buffer, which decay, gains in another, which do not. Two
buffers instead of thirty tensors make the update a handful of calls. Knows no schedule (`schedule.py`).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sweep_analysis.recipe import Optimizer

_EPS = 1e-8


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) on a model whose parameters become views of flat buffers.

    Calls the kernel behind `torch.optim.AdamW(fused=True)` itself: at these sizes the optimizer class costs more than
    the update, and its first step imports seconds' worth of compiler.
    """

    def __init__(self, model: nn.Module, recipe: Optimizer) -> None:
        parameters = list(model.parameters())
        self.recipe = recipe
        self.buffers = {
            "matrices": _flatten([p for p in parameters if p.ndim > 1]),
            "gains": _flatten([p for p in parameters if p.ndim == 1]),
        }
        self._decay = {"matrices": recipe.weight_decay, "gains": 0.0}
        self._state = {
            f"{name}.{kind}": torch.zeros(() if kind == "steps" else buffer.shape)
            for name, buffer in self.buffers.items()
            for kind in ("mean", "square", "steps")
        }
        self._clip = torch.tensor(recipe.clip_norm)

    def zero_gradients(self) -> None:
        """Gradients stay allocated, as views of the flat ones, so that the backward pass adds into them."""
        for buffer in self.buffers.values():
            gradient_of(buffer).zero_()

    @torch.no_grad()
    def step(self, learning_rate: float) -> Tensor:
        """Clip to the recipe's norm and update; returns the gradient norm before clipping, a scalar on the device."""
        gradients = [gradient_of(buffer) for buffer in self.buffers.values()]
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        shrink = (self._clip / (norm + 1e-6)).clamp_(max=1.0)
        for (name, buffer), gradient in zip(self.buffers.items(), gradients, strict=True):
            steps = self._state[f"{name}.steps"].add_(1)
            torch._fused_adamw_(
                [buffer],
                [gradient.mul_(shrink)],
                [self._state[f"{name}.mean"]],
                [self._state[f"{name}.square"]],
                [],
                [steps],
                lr=learning_rate,
                beta1=self.recipe.beta1,
                beta2=self.recipe.beta2,
                weight_decay=self._decay[name],
                eps=_EPS,
                amsgrad=False,
                maximize=False,
            )
        return norm

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Copies of parameters, moments and step counts, by name."""
        return {name: tensor.detach().numpy().copy() for name, tensor in (self.buffers | self._state).items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take up a state; the model's parameters, being views, follow. Raises KeyError or ValueError for another's."""
        for name, tensor in (self.buffers | self._state).items():
            found = tensors[name]
            if found.shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {found.shape}, not {tuple(tensor.shape)}")
            tensor.copy_(torch.from_numpy(np.array(found)))


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
