"""The configuration that DeepSpeed receives.

Owns its derivation from the recipe, as a pure function that needs neither torch nor DeepSpeed: `sweep_trainer
deepspeed ORDER.json` prints what a run will be given. `training.deepspeed.config` is laid over it; keys that the
recipe says already are refused where the recipe is read.
"""

from typing import Any

from sweep_analysis.execution import BUCKET, DeepSpeed
from sweep_analysis.pieces import pieces_of
from sweep_analysis.recipe import Hyperparameters, Training


def fewer(training: Training, hyper: Hyperparameters, world: int) -> int | None:
    """Sequences at a time after memory ran out: at most half as many; None where it is one or one pair already."""
    now, _ = pieces_of(training, hyper, world)
    least = 2 if hyper.shape.scalar_head else 1
    if now == least:
        return None
    half = training.changed(micro_batch=now // 2 // least * least or least)
    return pieces_of(half, hyper, world)[0]


def deepspeed_config(training: Training, hyper: Hyperparameters, world: int) -> dict[str, Any]:
    """What `deepspeed.initialize` is given for a run on `world` processes.

    Raises ValueError as `pieces_of` does, and for 16 bits at stage 0: DeepSpeed 0.19 has an optimizer of its own there,
    whose second loss was off by 0.09 nats in the parity test (4.500 against 4.593) where all others agreed to 0.007.
    """
    asked = training.deepspeed or DeepSpeed()
    if asked.zero_stage == 0 and hyper.precision != "fp32":
        raise ValueError(
            f"DeepSpeed at zeroStage 0 takes other steps in {hyper.precision} than every other engine;"
            " set zeroStage 1, or engine: Torch"
        )
    micro, pieces = pieces_of(training, hyper, world)
    generated: dict[str, Any] = {
        "train_batch_size": micro * pieces * world,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": pieces,
        "gradient_clipping": hyper.optimizer.clip_norm,
        "zero_optimization": _zero(asked),
        "zero_allow_untested_optimizer": True,  # ours is torch's AdamW: DeepSpeed's own compiles for minutes
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    if hyper.precision == "bf16":
        generated["bf16"] = {"enabled": True}
    if hyper.precision == "fp16":
        generated["fp16"] = {"enabled": True, "initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1}
    return _laid_over(generated, asked.config)


def _zero(asked: DeepSpeed) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": asked.zero_stage, "reduce_bucket_size": BUCKET}
    if asked.zero_stage in (1, 2):
        zero |= {"allgather_bucket_size": BUCKET, "contiguous_gradients": True, "overlap_comm": False}
    if asked.zero_stage == 3:
        zero |= {"stage3_prefetch_bucket_size": BUCKET}
    places = (("offload_optimizer", asked.offload_optimizer), ("offload_param", asked.offload_parameters))
    for key, place in places:
        if place is not None:
            zero[key] = {"device": place.lower(), "pin_memory": True}
            if place == "Nvme":
                zero[key]["nvme_path"] = asked.nvme_path
    return zero


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`; objects are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
