"""Memory of one device in data-parallel training: model state by engine and ZeRO stage, activations, logits.

Owns the prediction of the peak of a training step, the choice of the lightest setting that fits, and the smallest
change that makes a recipe fit. What is counted is what the allocator hands out (`torch.cuda.max_memory_allocated`);
`benchmarks/memory.py` holds the prediction against measured peaks. Knows no cluster.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sweep_analysis.document import Document
from sweep_analysis.execution import BUCKET, DeepSpeed, EngineName
from sweep_analysis.recipe import Hyperparameters, Training
from sweep_analysis.shape import Shape

USABLE = 0.9
"""Share of a device's memory that may be planned with: the rest is the driver's, the allocator's, and buffers."""
MOST_GPUS = 65_536
MOST_OF_A_NODE = 64
"""Devices of one node that a remedy may ask for."""

Stage = Literal[0, 1, 2, 3]
Precision = Literal["fp32", "bf16", "fp16"]


class Setting(Document):
    """How a step is carried out, as far as memory depends on it."""

    engine: EngineName = "DeepSpeed"
    zero_stage: Stage = 0
    """What the devices share out: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of being kept."""
    gpus: int = 1
    precision: Precision = "bf16"
    sequences: int = 1
    """Computed at a time on each device; the batch is made of several such pieces."""
    offload_optimizer: bool = False
    offload_parameters: bool = False


class GpuMemory(Setting):
    """One setting and the bytes it takes on each device."""

    state_bytes: float
    """Stands through the whole step."""
    activation_bytes: float
    """Comes on top at its peak: activations and logits, or gradients and their update where those take more."""

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


def _state(shape: Shape, setting: Setting) -> tuple[float, float]:
    """Bytes that stand through the whole step, and those that come with its end: gradients and what updates them.

    PyTorch alone keeps weights, gradients and moments in fp32. DeepSpeed keeps the weights that compute, an fp32 copy
    of them even in fp32, and the moments; gradients come in the backward pass, and once more in fp32 for the update;
    stage 3 keeps room for its gradients, and gathers the layer at work. Counted under DeepSpeed 0.19.
    """
    N = float(shape.parameters)
    if setting.engine == "Torch":
        return 16.0 * N, 0.0
    element = 4.0 if setting.precision == "fp32" else 2.0
    stage, share = setting.zero_stage, 1.0 / setting.gpus
    bucket = BUCKET * element if stage else 0.0
    weights = 0.0 if setting.offload_parameters else element * N * (share if stage == 3 else 1.0)
    optimizer = 12.0 * N * (share if stage else 1.0)
    update = 4.0 * N * (share if stage else 1.0)
    if setting.offload_optimizer:
        optimizer = update = 0.0
    gradients = element * N * (share if stage >= 2 else 1.0)
    if stage == 3:
        at_work = element * shape.block_weights if setting.gpus > 1 else 0.0
        return weights + optimizer + gradients + bucket + 2 * at_work, 0.0
    return weights + optimizer, gradients + update + bucket


def activation_bytes(
    shape: Shape, tokens: int, *, checkpointing: bool, precision: Precision = "bf16", autocast: bool = False
) -> float:
    """The most that a step keeps beside its state, for `tokens` on one device; attention keeps no score matrix.

    A block keeps, of each token, both norms' input, normed value and output, queries, keys and values before and after
    their rotation, attention's output, and of SwiGLU gate, up, opened gate and product. With checkpointing it keeps its
    input alone, and one block at a time is whole. The peak is at the end of the forward pass (logits, in fp32 too, and
    their log-softmax), at the beginning of the backward pass (log-softmax and two gradients), or in the last block's.
    Counted on `model.Decoder` under PyTorch 2.15, whose norm keeps its value before the gain.
    """
    w, V = shape.width, shape.vocabulary
    queries, keys = shape.attention_width, shape.key_heads * shape.head_size
    attended = queries + 2 * keys + queries + keys + queries
    met = (shape.experts.top_k + shape.experts.shared) if shape.experts else 1
    a = 4.0 if precision == "fp32" else 2.0
    norm = 8.0 + a  # its input, here or in fp32 again, and its value before the gain; and after it
    stream = 4.0 if precision == "fp32" or autocast else 2.0
    block = 2 * norm * w + a * attended + 4 * a * shape.hidden * met + 4 * (2 + shape.heads)
    final = norm * w
    backward = 3 * a * shape.hidden * met + stream * w
    kept = shape.layers * (stream * w + 8 if checkpointing else block)
    logits = 8.0 if precision == "fp32" else 10.0
    peaks = (kept + final + logits * V, kept + final + 12.0 * V, kept + (block if checkpointing else 0.0) + backward)
    if not (autocast and precision != "fp32"):
        return tokens * max(peaks)
    casts = 2.0 * shape.parameters  # in the forward pass, and kept for the backward pass unless it casts again
    after = 2.0 * shape.block_weights if checkpointing else casts
    return max(tokens * peaks[0] + casts, tokens * max(peaks[1:]) + after)


def peak(shape: Shape, sequence_length: int, setting: Setting) -> GpuMemory:
    """The prediction for one setting: a step's peak is in its middle, or where the optimizer updates."""
    activations = activation_bytes(
        shape,
        setting.sequences * sequence_length,
        checkpointing=setting.checkpointing,
        precision=setting.precision,
        autocast=setting.engine == "Torch",
    )
    standing, ending = _state(shape, setting)
    return GpuMemory(**dict(setting), state_bytes=standing, activation_bytes=max(activations, ending))


def memory_of(
    shape: Shape, sequence_length: int, gpus: int, stage: Stage, *, checkpointing: bool, sequences: int = 1
) -> GpuMemory:
    """One setting of DeepSpeed in bf16; `sequences` at a time on each device."""
    return peak(
        shape,
        sequence_length,
        Setting(gpus=gpus, zero_stage=stage, checkpointing=checkpointing, sequences=sequences),
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


def words(memory: Setting) -> str:
    """`ZeRO 2, checkpointing`."""
    return f"ZeRO {memory.zero_stage}, {'' if memory.checkpointing else 'no '}checkpointing"


def setting_of(training: Training, hyper: Hyperparameters, gpus: int) -> Setting:
    """The setting that a recipe asks for on so many devices."""
    zero = training.deepspeed or DeepSpeed()
    deep = training.engine == "DeepSpeed"
    share = max(1, hyper.batch_tokens // hyper.sequence_length // gpus)
    return Setting(
        engine=training.engine or "Torch",
        zero_stage=zero.zero_stage if deep else 0,
        checkpointing=bool(training.activation_checkpointing),
        gpus=gpus,
        precision=hyper.precision,
        sequences=min(training.micro_batch or share, share),
        offload_optimizer=deep and zero.offload_optimizer is not None,
        offload_parameters=deep and zero.offload_parameters is not None,
    )


def least_setting(training: Training, hyper: Hyperparameters, gpus: int) -> Setting:
    """The lightest setting that a run reaches by itself: without a micro-batch of its own, the trainer halves it."""
    asked = setting_of(training, hyper, gpus)
    return asked if training.micro_batch else asked.changed(sequences=min(asked.sequences, _together(hyper)))


def refusal(training: Training, hyper: Hyperparameters, gpus: int, capacity: float) -> str | None:
    """Why a run cannot fit devices of so many bytes, and the smallest change that makes it fit; None when it fits.

    `capacity` is the whole of one device's memory. Changes are tried one on top of the other, those that cost no speed
    first: a smaller micro-batch, checkpointing, sharing out by stage, offloading, more devices of the node.
    """
    asked = least_setting(training, hyper, gpus)
    needed = peak(hyper.shape, hyper.sequence_length, asked).total_bytes
    if needed <= USABLE * capacity:
        return None
    devices = "one device" if gpus == 1 else f"each of {gpus} devices"
    says = (
        f"{hyper.shape.parameters:,} parameters need {_gib(needed)} on {devices} of"
        f" {_gib(capacity)}, of which {USABLE:.0%} may be planned with"
    )
    for change, setting in _lighter(training, hyper, asked):
        if peak(hyper.shape, hyper.sequence_length, setting).total_bytes <= USABLE * capacity:
            return f"{says}; {change}"
    return f"{says}; nothing short of splitting its layers across devices would make it fit"


def _gib(size: float) -> str:
    """`41.7 GiB`."""
    return f"{size / 2**30:,.0f} GiB" if size >= 1000 * 2**30 else f"{size / 2**30:.3g} GiB"


def _together(hyper: Hyperparameters) -> int:
    """Sequences that cannot be computed apart: the two answers of a reward model's pair."""
    return 2 if hyper.shape.scalar_head else 1


def _lighter(training: Training, hyper: Hyperparameters, asked: Setting) -> Iterator[tuple[str, Setting]]:
    """Ever lighter settings, each with the change from what was asked, in the manifest's words."""
    said: list[str] = []
    setting, least = asked, _together(hyper)
    while setting.sequences > least:
        setting = setting.changed(sequences=-(-setting.sequences // (2 * least)) * least)
        said = [f"training.microBatch: {setting.sequences}"]
        yield _set(said), setting
    if not setting.checkpointing:
        setting = setting.changed(checkpointing=True)
        said = [*said, "training.activationCheckpointing: true"]
        yield _set(said), setting
    engine = ["training.engine: DeepSpeed"] if asked.engine == "Torch" else []
    if training.compile:
        engine.append("training.compile: false")
    for gpus in (asked.gpus, *(asked.gpus * 2**i for i in range(1, 7) if asked.gpus * 2**i <= MOST_OF_A_NODE)):
        more = [f"placement.gpusPerNode: {gpus}"] if gpus > asked.gpus else []
        for stage in (1, 2, 3) if gpus > 1 else ():
            if stage > setting.zero_stage or (more and stage == setting.zero_stage):
                shared = setting.changed(engine="DeepSpeed", zero_stage=stage, gpus=gpus)
                raised = [f"training.deepspeed.zeroStage: {stage}"] if stage > asked.zero_stage else []
                yield _set([*said, *engine, *raised, *more]), shared
        light = {"engine": "DeepSpeed", "zero_stage": 3, "gpus": gpus, "offload_optimizer": True}
        offloaded = "zeroStage: 3, offloadOptimizer: Cpu"
        yield _set([*said, *engine, f"training.deepspeed: {{{offloaded}}}", *more]), setting.changed(**light)
        yield (
            _set([*said, *engine, f"training.deepspeed: {{{offloaded}, offloadParameters: Cpu}}", *more]),
            setting.changed(**light, offload_parameters=True),
        )


def _set(changes: list[str]) -> str:
    return "set " + ", ".join(changes)
