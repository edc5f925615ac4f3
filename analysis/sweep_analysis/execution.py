"""How a run is carried out: engine, sharing out of memory, checkpoints, survival, and who is told.

Owns the part of a recipe that changes what a run costs and how it survives, and nothing that it computes: two runs that
differ here alone have the same configuration digest, and one goes on from the other's checkpoint. Trains nothing.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document

BUCKET = 50_000_000
"""Elements that DeepSpeed reduces or gathers at a time: its own default, ten times as many, costs a gigabyte."""

EngineName = Literal["Torch", "DeepSpeed"]

_OURS = {
    "train_batch_size": "training.batchTokens",
    "train_micro_batch_size_per_gpu": "training.microBatch",
    "gradient_accumulation_steps": "training.batchTokens and training.microBatch",
    "gradient_clipping": "training.optimizer.clipNorm",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "activation_checkpointing": "training.activationCheckpointing",
}
"""Keys of DeepSpeed's configuration that follow from the recipe, and where the recipe says them."""


class DeepSpeed(Document):
    """What the DeepSpeed engine shares out and moves off the device (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """What the ranks share out: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    offload_optimizer: Literal["Cpu", "Nvme"] | None = None
    """Where optimizer state lies and is updated; on the device when left out. Needs stage 1 or higher, Nvme stage 3 and
    libaio."""
    offload_parameters: Literal["Cpu", "Nvme"] | None = None
    """Where weights wait until their layer is at work. Needs stage 3."""
    nvme_path: str | None = Field(default=None, min_length=1, max_length=1024, pattern=r"^/")
    """Folder on a local NVMe disk, for what is offloaded there."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Laid over the generated configuration, key by key; keys that the recipe says already are refused."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "DeepSpeed":
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offloadParameters needs zeroStage 3, not {self.zero_stage}: only stage 3 moves weights")
        if self.offload_optimizer == "Cpu" and self.zero_stage == 0:
            raise ValueError("offloadOptimizer needs zeroStage 1 or higher: stage 0 keeps all state on the device")
        if self.offload_optimizer == "Nvme" and self.zero_stage != 3:
            raise ValueError(f"offloadOptimizer: Nvme needs zeroStage 3, not {self.zero_stage}")
        if "Nvme" in (self.offload_optimizer, self.offload_parameters) and self.nvme_path is None:
            raise ValueError("offloading to Nvme needs nvmePath, a folder on a local disk")
        for key in self.config:
            if key in _OURS:
                raise ValueError(f"config.{key} follows from {_OURS[key]}; set it there")
        zero = self.config.get("zero_optimization", {})
        if not isinstance(zero, dict):
            raise ValueError("config.zero_optimization must be an object")
        for key in ("stage", "offload_optimizer", "offload_param"):
            if key in zero:
                raise ValueError(f"config.zero_optimization.{key} has a field of its own beside config; set it there")
        return self

    def __hash__(self) -> int:
        return hash(self.content_digest)  # recipes are keys of caches, and `config` alone could be none


class Checkpoints(Document):
    """Which checkpoints stay. The newest two always do, so that a damaged one costs little."""

    keep: int = Field(default=2, ge=2, le=1000)
    """The newest so many."""
    keep_every_steps: int | None = Field(default=None, ge=1)
    """Of the older ones, the first in every so many executed steps."""


class Spikes(Document):
    """What is done about a NaN or a jump of the loss: go back to the last checkpoint and leave the batches out."""

    factor: float = Field(default=1.5, gt=1, le=100)
    """A step whose loss is above this multiple of the mean of the last 64 is a spike; NaN always is."""
    at_most: int = Field(default=3, ge=1, le=100)
    """Rewinds of one run; the next spike ends it as diverged."""


class ReportTo(Document):
    """Where progress goes besides the run's own report; trouble there never touches the run."""

    tensorboard: str | None = Field(default=None, min_length=1, max_length=1024)
    """Folder of the event files."""
    mlflow: str | None = Field(default=None, max_length=1024, pattern=r"^https?://[^\s]+$")
    """Tracking address; the experiment is the sweep's run name."""
    wandb: str | None = Field(default=None, min_length=1, max_length=128)
    """Project; the key comes from the environment (WANDB_API_KEY)."""


class Execution(Document):
    """The fields of a recipe that decide how, and never what; the recipe inherits them."""

    engine: EngineName | None = None
    """Torch, the default: PyTorch alone, data-parallel over several processes. DeepSpeed: ZeRO, as `deepspeed` says."""
    deepspeed: DeepSpeed | None = None
    micro_batch: int | None = Field(default=None, ge=1, le=65_536)
    """Sequences that one device computes at a time; a step is made of as many as it takes. All of its share by default,
    and half as many after the device's memory ran out."""
    activation_checkpointing: bool | None = None
    """Whether each layer's activations are computed again in the backward pass instead of being kept."""
    compile: bool | None = None
    """Whether the model goes through torch.compile; pays on a GPU, not at laptop sizes."""
    checkpoints: Checkpoints | None = None
    spikes: Spikes | None = None
    """Without it the first NaN or divergence ends the run."""
    stall_seconds: float | None = Field(default=None, ge=10, le=86_400)
    """A step or collective of several processes that takes longer is a hang: stacks are dumped, the process ends and is
    started again. Ten minutes when left out."""
    report_to: ReportTo | None = None

    @model_validator(mode="after")
    def _engine_takes_its_options(self) -> "Execution":
        if self.deepspeed is not None and self.engine != "DeepSpeed":
            raise ValueError("deepspeed has no effect without engine: DeepSpeed; set it or leave deepspeed out")
        if self.engine == "DeepSpeed" and self.compile:
            raise ValueError("compile is for engine: Torch; leave it out with DeepSpeed")
        return self
