"""`scalingsweep report`: write the report of a local ladder anew.

Owns nothing but the call and the sentence when the drawing library is missing.
"""

import argparse
from pathlib import Path

from sweep_operator.cli.errors import Exit, InputError


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("--workdir", metavar="DIR", type=Path, required=True, help="folder of the ladder")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Write it and say where it lies."""
    from sweep_operator.cli.ladder import open_ladder

    open_ladder(options.workdir)
    print(write(options.workdir))
    return Exit.DONE


def write(workdir: Path) -> Path:
    """The report's path. Raises InputError when it cannot be drawn here, OSError when it cannot be written."""
    try:
        from sweep_operator.report import write_report
    except ImportError as error:
        raise InputError(f"the report needs {error.name}; install scalingsweep[report]") from None
    return write_report(workdir)
