"""One run, from its order to its records.

Owns what comes before the first step: the recipe resolved, the storage tried and locked, what earlier attempts left,
data, engine and evaluation made ready; and what is refused there in one sentence. The steps are `loop`'s.
"""

import contextlib
import logging
from pathlib import Path

from sweep_analysis.architectures import counted_by
from sweep_analysis.recipe import resolve
from sweep_analysis.record import FailureReason, Progress
from sweep_analysis.rung import RunOrder
from sweep_analysis.shape import Shape
from sweep_trainer.curve import folder_of, locked
from sweep_trainer.data import Prepared, open_prepared
from sweep_trainer.engines.choose import engine_for
from sweep_trainer.engines.ranks import ALONE, PATIENCE_SECONDS, Ranks, join, leave, patience
from sweep_trainer.evaluate import Evaluator
from sweep_trainer.failure import BeginAgain, RunError
from sweep_trainer.fewer import heeded, note
from sweep_trainer.interruption import Interruption
from sweep_trainer.loop import Loop
from sweep_trainer.outcome import configuration, put_configuration, told
from sweep_trainer.outlets import Outlets
from sweep_trainer.report import Report, now
from sweep_trainer.schedule import segments
from sweep_trainer.stall import StallAlarm
from sweep_trainer.storage import FORBIDDEN, is_folder, probe, storage_at

log = logging.getLogger(__name__)


def in_group(order: RunOrder, interruption: Interruption, report: Report | None, ranks: Ranks, *, begun: float) -> None:
    """One rank's part, in a process group where the run needs one. Only the first rank has a report."""
    if ranks.world > 1 or order.training.engine == "DeepSpeed":
        join(ranks, patience(order.training.stall_seconds))
    run(order, interruption, report, begun=begun, ranks=ranks)
    leave()


def run(
    order: RunOrder, interruption: Interruption, report: Report | None, *, begun: float, ranks: Ranks = ALONE
) -> None:
    """Carry out an order until all its records are reported. `begun`: `time.monotonic()` when the attempt started.

    Every rank of a run calls it; the first one alone has a report. Raises Interrupted after a checkpoint when asked to
    stop, RunError, DataError or OSError when it cannot go on.
    """
    try:
        hyper = resolve(order.training, order.run.parameters, order.run.tokens, order.run.learning_rate_factor)
    except ValueError as error:
        raise RunError(FailureReason.BAD_CONFIGURATION, str(error)) from None
    storage = storage_at(order.storage)
    if ranks.first and not is_folder(order.storage):
        probe(storage)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(folder_of(order, ranks))
        if ranks.first:
            stack.enter_context(locked(folder, order.attempt, interruption))
            if is_folder(order.storage):
                probe(storage)  # under the lock, so that nobody else removes what it wrote
        plan = segments(hyper)
        steps = plan[-1].first + plan[-1].stop - plan[-1].start
        recorded = _recorded(order, report, ranks)
        done = set(order.run.tokens) <= recorded
        if report is not None:
            report.progress(
                Progress(
                    attempt=order.attempt,
                    step=steps if done else 0,
                    steps=steps,
                    tokens=max(order.run.tokens) if done else 0,
                    phase="Done" if done else "Starting",
                    last_updated=now(),
                )
            )
        if done:
            log.info("all records were measured by earlier attempts")
            return
        outlets = Outlets(order.training.report_to if ranks.first else None, order)
        stack.callback(outlets.close)
        data = _data(order)
        fitting = heeded(storage, order.training, ranks)
        engine = engine_for(order.changed(training=fitting), hyper, ranks)
        if engine.parameters != order.run.parameters:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"the run asks for {order.run.parameters:,} parameters, its recipe builds {engine.parameters:,};"
                f" {_remedy(hyper.shape, engine.parameters)}",
            )
        evaluator = Evaluator.of(order.training, hyper, data, engine, ranks)
        log.info("%d threads; %s\n  %s", order.threads, engine.path, told(hyper, data, len(order.run.tokens)))
        if ranks.first:
            put_configuration(storage, configuration(order, hyper, data, engine, ranks.world))
        stall = order.training.stall_seconds or (PATIENCE_SECONDS if ranks.world > 1 else None)
        alarm = stack.enter_context(StallAlarm(stall))
        loop = Loop(
            order=order,
            hyper=hyper,
            plan=plan,
            steps=steps,
            data=data,
            engine=engine,
            evaluator=evaluator,
            interruption=interruption,
            report=report,
            begun=begun,
            ranks=ranks,
            storage=storage,
            folder=folder,
            recorded=recorded,
            outlets=outlets,
            alarm=alarm,
        )
        try:
            loop.run()
        except BeginAgain as again:
            note(storage, again.fewer, order.training, ranks)
            raise


def _data(order: RunOrder) -> Prepared:
    """Raises RunError where what was prepared cannot be kept, DataError where there is nothing to prepare."""
    try:
        return open_prepared(order.training, Path(order.cache))
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        raise RunError(
            FailureReason.BAD_CONFIGURATION,
            f"{error.filename or order.cache} cannot be used as the cache of prepared data ({error.strerror});"
            " check its name and permissions",
        ) from error


def _remedy(shape: Shape, built: int) -> str:
    if shape.configuration:
        return f"leave out of model.configuration what changes the size: it has {', '.join(shape.configuration)}"
    if shape.architecture:
        return f"install the version of transformers by which {shape.architecture} was counted ({counted_by()})"
    return f"plan the run with {built:,}"


def _recorded(order: RunOrder, report: Report | None, ranks: Ranks) -> set[int]:
    """Token counts whose records earlier attempts have left, as the first rank knows them."""
    if report is not None:
        report.carry_over()
    known = ranks.any(*(report is not None and tokens in report.records for tokens in order.run.tokens))
    return {tokens for tokens, there in zip(order.run.tokens, known, strict=True) if there}
