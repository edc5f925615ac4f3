"""A local ladder as the commands see it: opened for reading, or its wish changed under the folder's lock.

Owns the sentences for a folder that holds no ladder, and the retry when two commands change one sweep at once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from sweep_operator.api import ScalingSweep
from sweep_operator.cli.errors import InputError
from sweep_operator.clusters import Conflict
from sweep_operator.clusters.local.apply import with_spec
from sweep_operator.clusters.local.files import DamagedError, in_words
from sweep_operator.clusters.local.store import Store


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """The option that names the ladder."""
    parser.add_argument("--workdir", metavar="DIR", type=Path, required=True, help="folder of the ladder")


def open_ladder(workdir: Path) -> tuple[Store, ScalingSweep]:
    """The folder's documents and its sweep. Raises InputError when there is none."""
    store = Store(workdir.resolve())
    try:
        sweep = store.sweep()
    except DamagedError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(in_words(error)) from None
    if sweep is None:
        raise InputError(f"{workdir} holds no ladder; begin one with: scalingsweep run SWEEP.yaml --workdir {workdir}")
    return store, sweep


def change(workdir: Path, wish: Callable[[ScalingSweep], dict[str, object]]) -> ScalingSweep:
    """Change fields of the spec (`wish` gives them from the sweep as it stands) and write it down."""
    for _ in range(10):
        store, sweep = open_ladder(workdir)
        changed = with_spec(sweep, {**sweep.spec.to_json(), **wish(sweep)})
        if changed is sweep:
            return sweep
        try:
            store.write_sweep(changed)
        except Conflict:
            continue
        except OSError as error:
            raise InputError(in_words(error)) from None
        return changed
    raise InputError(f"{workdir}: other commands keep changing the sweep; try again")
