"""From one dial to a decoder: how many layers, how wide, and exactly how many parameters.

Owns the arithmetic of a dense decoder's shape (RMSNorm, RoPE, SwiGLU, no biases). Builds no model: the trainer does,
and a test holds its count against the one here.
"""

import math
from functools import lru_cache
from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document


class Model(Document):
    """The model family and what of its shape the user fixes; what is left out is derived from the parameter count."""

    family: Literal["Decoder"] = "Decoder"
    """A dense decoder: RMSNorm before each block, rotary positions, SwiGLU, no biases."""
    layers: int | None = Field(default=None, ge=1, le=512)
    """Number of blocks; derived from the width when left out."""
    tied_embeddings: bool = True
    """Whether the output projection shares the embedding's weights."""


class Shape(Document):
    """One decoder's exact dimensions."""

    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    hidden: int = Field(ge=2)
    """Inner width of the SwiGLU block."""
    vocabulary: int = Field(ge=2)
    tied_embeddings: bool = True

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding, and of the output projection when it is not tied."""
        return self.vocabulary * self.width * (1 if self.tied_embeddings else 2)

    @property
    def non_embedding_parameters(self) -> int:
        """Attention 4w², SwiGLU 3wh and two norms a layer, and the final norm."""
        w = self.width
        return self.layers * (4 * w * w + 3 * w * self.hidden + 2 * w) + w

    @property
    def parameters(self) -> int:
        """N, all trainable parameters."""
        return self.embedding_parameters + self.non_embedding_parameters


def layers_of_width(width: int) -> int:
    """Blocks for a width: width/layers is 64 at 768 and about 125 at 4,096, where published dense models stand."""
    return max(3, round(width / (64 * math.pow(width / 768, 0.4))))


def shape_of_width(width: int, vocabulary: int, model: Model, layers: int) -> Shape:
    """The decoder of a given width and depth, by the rules below.

    Heads are about 32 wide up to width 128, 64 up to 2,048, 128 beyond, and from width 128 on a multiple of 8, which
    fused attention kernels ask for; SwiGLU's hidden width is 8/3 of the width (Shazeer 2020, arXiv:2002.05202),
    rounded to a multiple of 8.
    """
    head = 32 if width <= 128 else 64 if width <= 2048 else 128
    multiple = 2 if width < 128 else 8  # rotary pairs need even heads
    heads = next(h for h in range(max(1, width // head), 0, -1) if width % (multiple * h) == 0)
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        hidden=max(8, 8 * round(width / 3)),
        vocabulary=vocabulary,
        tied_embeddings=model.tied_embeddings,
    )


_WIDTHS = [*range(8, 64, 4), *range(64, 128, 16), *range(128, 512, 32), *range(512, 2048, 64), *range(2048, 65537, 128)]


@lru_cache(maxsize=4096)
def shape_for(parameters: int, vocabulary: int, model: Model) -> Shape:
    """The decoder whose parameter count is nearest to `parameters`.

    Widths are multiples of 4 below 64, of 16 below 128, of 32 below 512, of 64 below 2,048 and of 128 above, so that
    kernels are well fed; a depth that the user left open may be one block off its rule where that comes nearer.
    Raises ValueError when no shape comes within 25 % of the size asked for.
    """
    candidates = [
        shape_of_width(width, vocabulary, model, layers)
        for width in _near(parameters, vocabulary, model)
        for layers in _depths(width, model)
    ]
    best = min(candidates, key=lambda s: abs(s.parameters - parameters))
    if abs(best.parameters - parameters) > 0.25 * parameters:
        raise ValueError(
            f"no decoder with a vocabulary of {vocabulary} comes near {parameters:,} parameters;"
            f" the nearest has {best.parameters:,}"
        )
    return best


def _depths(width: int, model: Model) -> tuple[int, ...]:
    """Depths to choose from, the rule's own first, so that it wins a tie."""
    if model.layers is not None:
        return (model.layers,)
    rule = layers_of_width(width)
    return (rule, rule + 1, max(3, rule - 1))


def _near(parameters: int, vocabulary: int, model: Model) -> list[int]:
    """The few widths around the size, by bisection: at the rule's depth the count grows with the width."""
    low, high = 0, len(_WIDTHS) - 1
    while high - low > 1:
        middle = (low + high) // 2
        width = _WIDTHS[middle]
        if shape_of_width(width, vocabulary, model, _depths(width, model)[0]).parameters <= parameters:
            low = middle
        else:
            high = middle
    return _WIDTHS[max(0, low - 1) : high + 2]
