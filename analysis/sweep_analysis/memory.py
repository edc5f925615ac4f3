"""Memory of one GPU in data-parallel training: model state by ZeRO stage, activations with and without checkpointing.

Owns the estimate and the choice of the lightest setting that fits. An estimate: allocators and communication buffers
take what is left of the capacity. Knows no cluster.
"""

import math
from dataclasses import dataclass
from typing import Literal

from sweep_analysis.document import Document
from sweep_analysis.shape import Shape

USABLE = 0.9
"""Share of a device's memory that may be planned with: the rest is the driver's, the allocator's, and buffers."""
MOST_GPUS = 65_536

Stage = Literal[0, 1, 2, 3]


class GpuMemory(Document):
    """One setting and the bytes it takes on each GPU."""

    zero_stage: Stage
    """What the GPUs share out: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass instead of being kept."""
    gpus: int
    state_bytes: float
    activation_bytes: float

    @property
    def total_bytes(self) -> float:
        return self.state_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class Fit:
    """The lightest setting that fits, or None and the reason in words."""

    memory: GpuMemory | None
    message: str


def state_bytes(parameters: float, stage: Stage, gpus: int) -> float:
    """Mixed-precision AdamW: 2 bytes a weight, 2 a gradient, 12 of fp32 copy and moments, shared out by stage.

    Rajbhandari et al. 2020, arXiv:1910.02054, §3.1 and figure 1.
    """
    weights, gradients, optimizer = 2.0 * parameters, 2.0 * parameters, 12.0 * parameters
    if stage >= 1:
        optimizer /= gpus
    if stage >= 2:
        gradients /= gpus
    if stage >= 3:
        weights /= gpus
    return weights + gradients + optimizer


def activation_bytes(shape: Shape, tokens: int, *, checkpointing: bool) -> float:
    """Kept for the backward pass of `tokens` on one GPU, bf16, attention without its score matrix (flash).

    A layer keeps 8 vectors of the width (input, two norms, q, k, v, attention's output, residual) and 4 of the hidden
    width a token, as Korthikanti et al. 2022 (arXiv:2205.05198, §4.1) count them for another block; with checkpointing
    every layer keeps its input alone, and one layer at a time is whole. Logits: bf16, and fp32 with their gradient.
    """
    layer = 2.0 * (8 * shape.width + 4 * shape.hidden)
    kept = shape.layers * 2.0 * shape.width + layer if checkpointing else shape.layers * layer
    return tokens * (kept + 10.0 * shape.vocabulary)


def memory_of(
    shape: Shape, sequence_length: int, gpus: int, stage: Stage, *, checkpointing: bool, sequences: int = 1
) -> GpuMemory:
    """One setting; `sequences` at a time on each GPU (the batch is made of several such steps)."""
    state = state_bytes(shape.parameters, stage, gpus)
    if stage == 3:  # the layer at work is gathered whole, its weights and gradients
        state += 4.0 * shape.non_embedding_parameters / shape.layers
    activations = activation_bytes(shape, sequences * sequence_length, checkpointing=checkpointing)
    return GpuMemory(
        zero_stage=stage, checkpointing=checkpointing, gpus=gpus, state_bytes=state, activation_bytes=activations
    )


def lightest(shape: Shape, sequence_length: int, capacity: float, gpus: int | None = None) -> Fit:
    """The first setting that fits `capacity` bytes, plain ones first: checkpointing before a higher ZeRO stage.

    Checkpointing costs a third more compute and no traffic, sharing out costs traffic. Where `gpus` is None, the fewest
    (a power of two) that any setting fits on.
    """
    for count in (gpus,) if gpus else (2**i for i in range(int(math.log2(MOST_GPUS)) + 1)):
        stages: tuple[Stage, ...] = (0, 1, 2, 3) if count > 1 else (0,)
        for stage in stages:
            for checkpointing in (False, True):
                memory = memory_of(shape, sequence_length, count, stage, checkpointing=checkpointing)
                if memory.total_bytes <= USABLE * capacity:
                    return Fit(memory, words(memory))
    where = f"{gpus} GPUs" if gpus else f"{MOST_GPUS:,} GPUs"
    more = lightest(shape, sequence_length, capacity).memory if gpus else None
    remedy = f"; {more.gpus} would carry it ({words(more)})" if more else "; its layers must be split across GPUs"
    return Fit(None, f"does not fit {where} of {capacity / 1e9:.0f} GB by ZeRO and checkpointing{remedy}")


def words(memory: GpuMemory) -> str:
    """`ZeRO 2, checkpointing`."""
    return f"ZeRO {memory.zero_stage}, {'' if memory.checkpointing else 'no '}checkpointing"
