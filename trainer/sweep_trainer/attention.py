"""Causal self-attention.

Owns the choice of kernel, today PyTorch's own scaled-dot-product attention, which picks the flash kernel of the device.
"""

from torch import Tensor
from torch.nn import functional


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d, causal)·v for q, k, v of (B, T, h, d); returns (B, T, h, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, h, T, d)
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
