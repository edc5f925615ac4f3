"""Loss scaling for fp16: gradients too small for the format are kept out of zero by a factor that finds itself.

Owns the factor (Micikevicius et al. 2018, arXiv:1710.03740, §3.2): halved after an overflow, whose step is left out,
doubled after two thousand steps without one. It lives on the device, so that no step waits for it.
"""

import torch
from torch import Tensor

SCALE, GOOD = "lossScale.factor", "lossScale.good"
_FIRST, PATIENCE = 2.0**16, 2000


class LossScale:
    """A factor, and the number of steps since the last overflow."""

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), _FIRST, device=device)
        self.good = torch.zeros((), device=device)

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> Tensor:
        """Divide the factor out of the gradients and adapt it; returns 1 where they overflowed, else 0."""
        for gradient in gradients:
            gradient.div_(self.factor)
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        self.good.copy_(torch.where(finite, self.good + 1, 0))
        grow = self.good >= PATIENCE
        self.factor.mul_(torch.where(finite, torch.where(grow, 2.0, 1.0), 0.5)).clamp_(min=1.0)
        self.good.mul_(~grow)
        return (~finite).float()

    def named(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint keeps."""
        return {SCALE: self.factor, GOOD: self.good}
