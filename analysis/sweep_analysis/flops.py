"""Training FLOPs by the two conventions, both stored with every record and never mixed.

Owns the arithmetic C(N, D). `six_nd` is the convention of the scaling-law papers; `detailed` counts the matrix
products of the decoder, attention and output projection included, embeddings left out.
"""

from sweep_analysis.shape import Shape


def six_nd(parameters: float, tokens: float) -> float:
    """C = 6·N·D training FLOPs (Kaplan et al. 2020, arXiv:2001.08361, §2.1), N counting all parameters.

    For a mixture of experts N is the active count: 6·N·D counts what a token is multiplied by.
    """
    return 6.0 * parameters * tokens


def detailed(shape: Shape, tokens: float, sequence_length: int) -> float:
    """Training FLOPs of the matrix products, forward and backward (Hoffmann et al. 2022, arXiv:2203.15556, appendix F).

    A token costs 2 FLOPs a weight in attention, in the SwiGLU or the router and the experts that it meets, and in the
    output projection, and 4·s·w a layer for the attention scores and their use (s: sequence length, counted in full
    although the mask is causal; w: the width of all query heads, in the layers that attend); the backward
    pass costs twice the forward one.
    """
    outputs = 1 if shape.scalar_head else shape.vocabulary
    weights = shape.met_weights + outputs * shape.width
    forward = 2 * weights + 4 * sequence_length * shape.score_widths
    return 3.0 * forward * tokens
