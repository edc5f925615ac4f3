"""Whether runs fit the devices that they are put on: their batches by number, and memory as far as a sweep says it.

Owns the questions, which acceptance and `plan` ask alike. How a batch is shared out is `sweep_analysis.pieces`' to say,
the prediction of memory and the remedy are `sweep_analysis.memory`'s.
Looks at no node: what a selector matches changes, and reading it would take a right over the whole cluster.
"""

from sweep_analysis.memory import least_setting, peak, refusal
from sweep_analysis.pieces import pieces_of
from sweep_analysis.rung import Run
from sweep_operator.api import Placement, ScalingSweep


def capacity_of(sweep: ScalingSweep, placement: Placement) -> float | None:
    """Bytes of one device, or None where nothing can be judged.

    That is: no `gpuMemory`, no GPU, or a command of the user's own, whose memory nobody here can predict.
    """
    own = sweep.spec.runtime.command or sweep.spec.runtime.args
    return None if own else placement.gpu_memory_bytes


def needed_bytes(sweep: ScalingSweep, rung: str, run: Run) -> float:
    """Predicted peak on each device of the rung (or of the target, by its name), bytes."""
    training, gpus = sweep.spec.training, max(1, sweep.spec.placement_of(rung).gpus_per_node)
    hyper = run.resolved(training)
    return peak(hyper.shape, hyper.sequence_length, least_setting(training, hyper, gpus)).total_bytes


def misfit(sweep: ScalingSweep, rung: str, run: Run) -> str | None:
    """Why a run of the rung (or of the target, by its name) cannot fit, with the smallest remedy; None otherwise."""
    placement = sweep.spec.placement_of(rung)
    capacity = capacity_of(sweep, placement)
    if capacity is None:
        return None
    training = sweep.spec.training
    hyper = run.resolved(training)
    return refusal(training, hyper, max(1, placement.gpus_per_node), capacity)


def undivided(sweep: ScalingSweep, rung: str, run: Run) -> str | None:
    """Why the devices of the rung (or of the target, by its name) cannot share a run's batch evenly; None otherwise.

    A command of the user's own shares out as it likes.
    """
    if sweep.spec.runtime.command or sweep.spec.runtime.args:
        return None
    training = sweep.spec.training
    try:
        pieces_of(training, run.resolved(training), max(1, sweep.spec.placement_of(rung).gpus_per_node))
    except ValueError as error:
        return str(error)
    return None
