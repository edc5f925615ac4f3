"""Which tokens of a sequence belong to one document.

Owns what follows from the ends of documents: positions that start anew, the attention mask, and the bounds that
variable-length kernels ask for. Knows no attention.
"""

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional


class Documents:
    """The documents of (B, T) tokens, from where each ends."""

    def __init__(self, ends: Tensor) -> None:
        """`ends`: (B, T) bool, true at the last token of a document, which belongs to it."""
        self._starts = functional.pad(ends[:, :-1], (1, 0), value=True)  # (B, T): true at a first token

    @cached_property
    def positions(self) -> Tensor:
        """(B, T): how many tokens of its document stand before each token."""
        at = torch.arange(self._starts.shape[1], device=self._starts.device)
        return at - torch.where(self._starts, at, 0).cummax(1).values

    @cached_property
    def mask(self) -> Tensor:
        """(B, 1, T, T) bool: whether a query (rows) sees a key: one of its document, itself or before it."""
        number = self._starts.cumsum(1)
        same = number[:, :, None] == number[:, None, :]
        return same.tril()[:, None]

    @cached_property
    def bounds(self) -> tuple[Tensor, int]:
        """Starts of all documents of the B·T tokens laid end to end, with the end of the last, int32; the longest."""
        flat = self._starts.flatten()
        starts = flat.nonzero().flatten()
        bounds = functional.pad(starts, (0, 1), value=flat.numel()).to(torch.int32)
        return bounds, int(bounds.diff().max())
