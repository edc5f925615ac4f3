"""AdamW over two flat buffers, and the clipping of their gradient.

Owns the layout of parameters in memory: matrices in one buffer, which decay, gains in another, which do not. Two
buffers instead of thirty tensors make the update a handful of calls. Knows no schedule (`schedule.py`).
"""

import numpy as np
import torch
from torch import Tensor, nn

from sweep_analysis.recipe import Optimizer

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) on a model whose parameters become views of flat buffers."""

    def __init__(self, model: nn.Module, recipe: Optimizer) -> None:
        parameters = list(model.parameters())
        self.recipe = recipe
        self.buffers = {
            "matrices": _flatten([p for p in parameters if p.ndim > 1]),
            "gains": _flatten([p for p in parameters if p.ndim == 1]),
        }
        decays = {"matrices": recipe.weight_decay, "gains": 0.0}
        self._optimizer = torch.optim.AdamW(
            [{"params": [buffer], "weight_decay": decays[name]} for name, buffer in self.buffers.items()],
            lr=0.0,
            betas=(recipe.beta1, recipe.beta2),
            fused=True,
        )
        self._clip = torch.tensor(recipe.clip_norm)

    def zero_gradients(self) -> None:
        """Gradients stay allocated, as views of the flat ones, so that the backward pass adds into them."""
        for buffer in self.buffers.values():
            gradient_of(buffer).zero_()

    def step(self, learning_rate: float) -> Tensor:
        """Clip to the recipe's norm and update; returns the gradient norm before clipping, a scalar on the device."""
        gradients = [gradient_of(buffer) for buffer in self.buffers.values()]
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        shrink = (self._clip / (norm + 1e-6)).clamp_(max=1.0)
        for gradient in gradients:
            gradient.mul_(shrink)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return norm

    def state(self) -> dict[str, np.ndarray]:
        """Copies of parameters, moments and step count, by name."""
        tensors: dict[str, np.ndarray] = {}
        for name, buffer in self.buffers.items():
            tensors[name] = buffer.detach().numpy().copy()
            moments = self._optimizer.state[buffer]
            for moment in _MOMENTS:
                value = moments[moment].numpy().copy() if moments else np.zeros_like(tensors[name])
                tensors[f"{name}.{moment}"] = value
            tensors[f"{name}.step"] = moments["step"].numpy().copy() if moments else np.zeros((), np.float32)
        return tensors

    def load(self, tensors: dict[str, np.ndarray]) -> None:
        """Take up a state; the model's parameters, being views, follow."""
        with torch.no_grad():
            for name, buffer in self.buffers.items():
                buffer.copy_(torch.from_numpy(tensors[name]))
                self._optimizer.state[buffer] = {
                    key: torch.from_numpy(np.array(tensors[f"{name}.{key}"])) for key in ("step", *_MOMENTS)
                }


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
