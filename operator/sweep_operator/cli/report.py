"""`scalingsweep report`: write the report of a ladder: anew into its folder, or of a sweep on a cluster into a file.

Owns the call and the sentences when it cannot be written.
"""

import argparse
from pathlib import Path

from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.place import Place
from sweep_operator.cli.placing import add_place, is_local, place_of

NO_CURVES = "learning curves lie in the sweep's storage; a report of a sweep on a cluster is drawn without them"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="the sweep's name; may be left out with --workdir")
    parser.add_argument("--to", metavar="FILE", type=Path, help="of a sweep on a cluster; default: NAME.html")
    add_place(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Write it and say where it lies."""
    if is_local(options):
        if options.to:
            raise InputError("a local ladder's report lies in its folder; --to is for sweeps on a cluster")
        place_of(options)
        print(write(options.workdir))
        return Exit.DONE
    from sweep_operator.cli.cluster import answered

    return answered(_of_cluster)(options)


def _of_cluster(options: argparse.Namespace) -> Exit:
    target = options.to or Path(f"{options.name}.html")
    text = _page(place_of(options))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None
    print(target)
    return Exit.DONE


def _page(place: Place) -> str:
    try:
        from sweep_operator.report.gather import Ladder
        from sweep_operator.report.page import page
    except ImportError as error:
        raise _missing(error) from None
    return page(Ladder(place.sweep(), tuple(place.runs()), curves={}, notices=(NO_CURVES,)))


def write(workdir: Path) -> Path:
    """The report's path. Raises InputError when it cannot be drawn here, OSError when it cannot be written."""
    try:
        from sweep_operator.report import write_report
    except ImportError as error:
        raise _missing(error) from None
    return write_report(workdir)


def _missing(error: ImportError) -> InputError:
    return InputError(f"the report needs {error.name}; install scalingsweep[report]")
