"""What each Hugging Face causal language model has besides the matrices that all decoders share.

Owns the facts that an exact parameter count needs, so that the operator can size a model without `transformers`; a
test holds each count against the model that `transformers` builds. Builds nothing.
"""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["gemma", "gpt_neox", "llama", "mistral", "olmo2", "qwen2", "qwen3"]


@dataclass(frozen=True, slots=True)
class Facts:
    """One architecture."""

    matrices: int = 3
    """Of a feed-forward block: 3 with a gate, 2 without."""
    biases: bool = False
    """Whether every matrix and norm of a block has a bias."""
    query_biases: bool = False
    """Whether the query, key and value projections have one."""
    head_norms: bool = False
    """Whether queries and keys are normed over each head."""
    wide_norms: bool = False
    """Whether queries and keys are normed over all heads at once."""
    grouped_queries: bool = True
    free_head_size: bool = True
    """Whether heads may be of another size than width divided by heads."""

    def small(self, width: int, queries: int, keys: int, hidden: int) -> int:
        """Gains and biases of one block; `queries` and `keys` are the channels of all their heads."""
        total = 2 * width
        if self.biases:  # of two norms, of q, k, v and the projection, and of the feed-forward matrices
            total += 2 * width + queries + 2 * keys + width + (self.matrices - 1) * hidden + width
        if self.query_biases:
            total += queries + 2 * keys
        if self.wide_norms:
            total += queries + keys
        return total


ARCHITECTURES: dict[Architecture, Facts] = {
    "gemma": Facts(),
    "gpt_neox": Facts(matrices=2, biases=True, grouped_queries=False, free_head_size=False),
    "llama": Facts(),
    "mistral": Facts(),
    "olmo2": Facts(wide_norms=True, free_head_size=False),
    "qwen2": Facts(query_biases=True, free_head_size=False),
    "qwen3": Facts(head_norms=True),
}
