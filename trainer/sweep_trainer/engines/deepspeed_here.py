"""What DeepSpeed can do on this machine, asked before it is built around a model.

Owns its import, without the operators that it would compile for minutes, and the sentences for what it would refuse
here: some of it minutes later and with a traceback. Builds nothing.
"""

import os
from typing import Any

import torch

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Hyperparameters, Training


def imported() -> Any:
    """DeepSpeed, on the CPU told so, and kept from compiling its shared-memory operator: over gloo the losses are the
    same to the last digit."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as compiled

    compiled["deepspeed_shm_comm"] = False
    return deepspeed


def check(training: Training, hyper: Hyperparameters) -> None:
    """Raises ValueError with the remedy where this machine lacks what the recipe asks of DeepSpeed."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder import AsyncIOBuilder

    device = get_accelerator()
    supported = {"fp32": True, "bf16": device.is_bf16_supported(), "fp16": device.is_fp16_supported()}
    if not supported[hyper.precision]:
        others = " or ".join(precision for precision, there in supported.items() if there)
        raise ValueError(
            f"DeepSpeed does not compute in {hyper.precision} on this {device.device_name()};"
            f" set training.precision to {others}, or engine: Torch"
        )
    asked = training.deepspeed or DeepSpeed()
    if asked.nvme_path is None or "Nvme" not in (asked.offload_optimizer, asked.offload_parameters):
        return
    if not installed_ops.get("async_io") and not AsyncIOBuilder().is_compatible(verbose=False):
        raise ValueError(
            "offloading to Nvme needs libaio with its headers and a C++ compiler, and one is missing here;"
            " install them (Debian: libaio-dev, g++), or offload to Cpu"
        )
    if not os.access(asked.nvme_path, os.W_OK | os.X_OK):
        raise ValueError(f"nvmePath {asked.nvme_path} is no folder that can be written here; make it, or name another")
