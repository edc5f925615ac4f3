"""`scalingsweep logs`: what the trainer of a run printed, on a cluster or in a local ladder's folder.

Owns the choice of the run and the sentences where there is nothing to show. On a cluster it asks as the person whose
kubeconfig it is: the operator has no right to read a log, and needs none.
"""

import argparse
import sys
from collections.abc import Sequence

from sweep_operator.api import RunState, ScalingRun
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.place import Place
from sweep_operator.cli.placing import add_place, is_local, place_of

OPEN = (RunState.QUEUED, RunState.RUNNING)


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="the sweep's name; may be left out with --workdir")
    parser.add_argument(
        "run", nargs="?", help="the run's name, or a part that no other has; may be left out where only one runs"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on showing what it prints, until it ends")
    parser.add_argument("--tail", metavar="LINES", type=int, help="only so many of the last lines; default: all")
    add_place(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Print it."""
    if options.tail is not None and options.tail < 0:
        raise InputError(f"--tail is {options.tail}; it counts lines, from 0 upwards")
    if is_local(options):
        return _of_folder(options)
    from sweep_operator.cli.cluster import answered

    return answered(_show)(options)


def _of_folder(options: argparse.Namespace) -> Exit:
    """A folder holds one sweep, so that a single name may be the run's."""
    if options.name and options.run is None:
        unnamed = argparse.Namespace(**{**vars(options), "name": None})
        if place_of(unnamed).sweep().metadata.name != options.name:
            options = argparse.Namespace(**{**vars(unnamed), "run": options.name})
    return _show(options)


def _show(options: argparse.Namespace) -> Exit:
    place = place_of(options)
    run = chosen(place, options.run)
    for piece in place.log(run, follow=options.follow, tail=options.tail):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return Exit.DONE


def chosen(place: Place, named: str | None) -> ScalingRun:
    """The run that is meant. Raises InputError, naming those there are, where that cannot be told."""
    runs = place.runs()
    if named is None:
        found = [run for run in runs if run.status.state in OPEN] or list(runs)
        question = "name the run"
    else:
        exact = [run for run in runs if run.metadata.name == named]
        found = exact or [run for run in runs if named in run.metadata.name]
        question = f"{named} may be any of these runs" if found else f"there is no run {named}"
    if len(found) == 1:
        return found[0]
    if not runs:
        raise InputError("the sweep has no runs yet")
    raise InputError(f"{question}: {_listed(found or runs)}")


def _listed(runs: Sequence[ScalingRun], most: int = 8) -> str:
    names = [f"{run.metadata.name} ({run.status.state})" for run in runs]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
