"""The trainer's commands: `train [ORDER.json]`, `prepare TRAINING.json` and `deepspeed ORDER.json`.

Owns reading the input and the exit status (`record.ExitStatus`). Imports torch only when a run has something to train,
and after the signals are in place: the import takes seconds, and a SIGTERM meanwhile must be heard.
"""

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sweep_analysis.recipe import Training, resolve
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.corpus import DataError
from sweep_trainer.failure import RunError, explain
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.report import FINAL_SECONDS, LEAVING_SECONDS, Report, open_report

ORDER = "SCALINGSWEEP_ORDER"
"""Variable in which a pod is given its order, as JSON."""


def train(order_path: str | None = None) -> int:
    """Carry out the order in the file, or in the environment without one; returns the exit status. Never raises.

    May be called in a process forked from one that has imported torch, as long as that one started no threads.
    """
    begun = time.monotonic()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    try:
        order = RunOrder.model_validate_json(Path(order_path).read_bytes() if order_path else os.environ[ORDER])
    except KeyError:
        _say(f"sweep_trainer train: name the order's file, or set {ORDER} to the order itself")
        return ExitStatus.BAD_CONFIGURATION
    except (OSError, ValidationError) as error:
        _say(f"sweep_trainer train: {_one_sentence(order_path or ORDER, error)}")
        return ExitStatus.BAD_CONFIGURATION
    with Interruption() as interruption:
        interruption.nothing_to_save(True)
        try:
            report = open_report(order) if _speaks() else None
        except OSError as error:
            _say(f"sweep_trainer train: {explain(error)[1]}")
            return ExitStatus.FAILED
        status = _carried_out(order, interruption, report, begun)
        interruption.nothing_to_save(False)  # a stop that comes now waits until the end is told
        told = report is None or report.close(LEAVING_SECONDS if interruption.requested else FINAL_SECONDS)
    return status if told else ExitStatus.INTERRUPTED  # the next attempt finds the records beside the checkpoints


def _speaks() -> bool:
    """Whether this process reports: of those that a launcher started, the first alone does."""
    return os.environ.get("RANK", "0") == "0"


def _carried_out(order: RunOrder, interruption: Interruption, report: Report | None, begun: float) -> int:
    """Train; returns the exit status."""
    try:
        from sweep_trainer.launch import carry_out

        carry_out(order, interruption, report, begun=begun)
    except Interrupted:
        return ExitStatus.INTERRUPTED
    except Exception as error:  # noqa: BLE001  # whatever it is, it ends in one sentence and an exit status
        return _failed(report, error)
    return ExitStatus.DONE


def _failed(report: Report | None, error: Exception) -> int:
    reason, message = explain(error)
    if not isinstance(error, RunError | DataError):
        traceback.print_exception(error)  # for the log; these two say all there is to say
    _say(f"{reason}: {message}")
    try:
        if report is not None:
            report.failure(reason, message)
    except OSError as unwritable:
        _say(f"the failure could not be reported: {unwritable}")
    if reason is FailureReason.BAD_CONFIGURATION:
        return ExitStatus.BAD_CONFIGURATION
    return ExitStatus.CRASHED if reason is FailureReason.CRASHED else ExitStatus.FAILED


def prepare(training_path: str, root: str, cache: str) -> int:
    """Check and prepare the data of the recipe in the file; prints what came of it. Returns the exit status."""
    from sweep_trainer import data

    try:
        training = Training.model_validate_json(Path(training_path).read_bytes())
        prepared = data.prepare(training, Path(root), Path(cache))
    except (OSError, ValidationError) as error:
        _say(f"sweep_trainer prepare: {_one_sentence(training_path, error)}")
        return ExitStatus.BAD_CONFIGURATION
    except DataError as error:
        _say(f"sweep_trainer prepare: {error}")
        return ExitStatus.BAD_CONFIGURATION
    sys.stdout.write(json.dumps(prepared.summary()) + "\n")
    return ExitStatus.DONE


def show_deepspeed(order_path: str) -> int:
    """Print the configuration that DeepSpeed would receive for the order in the file. Returns the exit status."""
    from sweep_trainer.engines.deepspeed_config import deepspeed_config

    try:
        order = RunOrder.model_validate_json(Path(order_path).read_bytes())
        hyper = resolve(order.training, order.run.parameters, order.run.tokens, order.run.learning_rate_factor)
        config = deepspeed_config(order.training, hyper, order.workers)
    except (OSError, ValidationError) as error:
        _say(f"sweep_trainer deepspeed: {_one_sentence(order_path, error)}")
        return ExitStatus.BAD_CONFIGURATION
    except ValueError as error:
        _say(f"sweep_trainer deepspeed: {error}")
        return ExitStatus.BAD_CONFIGURATION
    sys.stdout.write(json.dumps(config, indent=1) + "\n")
    return ExitStatus.DONE


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


def _one_sentence(path: str, error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror}"
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the document"
    return f"{path}: {place}: {first['msg']}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="sweep_trainer", description="Turn a run order into records.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="carry out a run order")
    one.add_argument("order", metavar="ORDER.json", nargs="?", help=f"its file (default: the JSON in ${ORDER})")
    two = commands.add_parser("prepare", help="check and prepare the data of a recipe; prints JSON")
    two.add_argument("training", metavar="TRAINING.json")
    two.add_argument("--root", default=".", help="folder at which relative paths start (default: this one)")
    two.add_argument("--cache", required=True, help="folder for prepared data")
    three = commands.add_parser("deepspeed", help="print the configuration that DeepSpeed would receive")
    three.add_argument("order", metavar="ORDER.json")
    options = parser.parse_args(argv)
    if options.command == "train":
        return train(options.order)
    if options.command == "deepspeed":
        return show_deepspeed(options.order)
    return prepare(options.training, options.root, options.cache)


if __name__ == "__main__":
    sys.exit(main())
