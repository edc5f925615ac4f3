"""Where the processes of a run come from.

Owns the choice: this process alone, this process as one of those that a launcher started (torchrun's variables), or
Ray's workers. Trains nothing itself.
"""

from sweep_analysis.record import FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.engines.ranks import ALONE, launched
from sweep_trainer.failure import RunError
from sweep_trainer.interruption import Interruption
from sweep_trainer.report import Report
from sweep_trainer.train import in_group


def carry_out(order: RunOrder, interruption: Interruption, report: Report | None, *, begun: float) -> None:
    """Carry out an order on as many processes as it asks for. Raises as `train.run` does.

    Of the processes that a launcher started only the first has a report.
    """
    ranks = launched()
    if order.ray or (ranks is None and order.workers > 1):
        try:
            from sweep_trainer.ray_driver import fit
        except ModuleNotFoundError as error:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"{order.workers} workers need {error.name}; install 'scalingsweep[trainer]' or use torchrun",
            ) from None
        if report is None:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                "the order asks for Ray and a launcher started several processes; one of them is enough: leave ray out,"
                " or start one process",
            )
        fit(order, interruption, report)
        return
    ranks = ranks or ALONE
    if ranks.world != order.workers:
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"the order asks for {order.workers} workers and the launcher started {ranks.world}; start as many",
        )
    in_group(order, interruption, report, ranks, begun=begun)
