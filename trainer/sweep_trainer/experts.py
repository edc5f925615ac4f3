"""The mixture of experts that stands in place of a block's SwiGLU.

Owns the router, its two auxiliary losses, and the sending of tokens to experts and back; no token is dropped. The
weight of each loss is the recipe's (`shape.Experts`). E: experts, k: topK, w: width, f: an expert's inner width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.shape import Experts


class Mixture(nn.Module):
    """(M, w) tokens in, (M, w) out. What it adds starts at zero, as the dense block's does."""

    def __init__(self, experts: Experts, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.experts = experts
        self.router = nn.Parameter(torch.randn(experts.count, width, generator=generator) / math.sqrt(width))
        gate_up = torch.randn(experts.count, 2 * hidden, width, generator=generator) / math.sqrt(width)
        self.gate_up = nn.Parameter(gate_up)
        self.down = nn.Parameter(torch.zeros(experts.count, width, hidden))
        if experts.shared:
            f = experts.shared * hidden
            shared = torch.randn(2 * f, width, generator=generator) / math.sqrt(width)
            self.shared_gate_up = nn.Parameter(shared)
            self.shared_down = nn.Parameter(torch.zeros(width, f))
        self.auxiliary: Tensor = torch.zeros(())
        """Load-balancing and z-loss of the last forward pass, weighted."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, w) → (M, w)."""
        logits = functional.linear(x, self.router).float()  # (M, E)
        probabilities = logits.softmax(-1)
        weights, chosen = probabilities.topk(self.experts.top_k)  # (M, k) each
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        self.auxiliary = self._auxiliary(logits, probabilities, chosen)
        out = torch.zeros_like(x)
        order = chosen.flatten().argsort(stable=True)  # assignments by expert; M·k of them
        tokens = order // self.experts.top_k
        shares = weights.flatten()[order, None]
        counts = torch.bincount(chosen.flatten(), minlength=self.experts.count).tolist()
        parts = zip(torch.split(tokens, counts), torch.split(shares, counts), strict=True)
        for expert, (sent, share) in enumerate(parts):
            if len(sent):
                y = swiglu(x[sent], self.gate_up[expert], self.down[expert])
                out = out.index_add(0, sent, y.to(out.dtype) * share)
        if self.experts.shared:
            out = out + swiglu(x, self.shared_gate_up, self.shared_down)
        return out

    def _auxiliary(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """E · Σ fraction of assignments · mean probability, which is 1 when all experts are used alike; and the mean of
        (ln Σ e^logit)²."""
        E = self.experts.count
        fraction = functional.one_hot(chosen, E).float().mean((0, 1))  # (E,)
        balance = E * (fraction * probabilities.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        return self.experts.load_balance * balance + self.experts.z_loss * z


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """(…, w) → (…, w) through gate_up (2f, w) and down (w, f) (Shazeer 2020, arXiv:2002.05202)."""
    gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)  # (…, f) each
    return functional.linear(functional.silu(gate) * up, down)
