"""`scalingsweep`, also installed as `kubectl-scalingsweep`: one program, one module a command.

Owns the table of commands and the exit statuses. A command's module is imported only when it is called, so that
`--help` and `lint` answer at once and the analysis commands need no Kubernetes client.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from sweep_operator.cli.errors import Exit, InputError

# name: (module, one line for --help); the order is the order of a first day's use
COMMANDS = {
    "run": ("sweep_operator.cli.run", "climb a whole ladder on this machine; the same command again continues it"),
    "get": ("sweep_operator.cli.get", "show a sweep, or all: rungs, forecasts, verdicts"),
    "logs": ("sweep_operator.cli.logs", "show what the trainer of a run printed"),
    "approve": ("sweep_operator.cli.decide", "accept the verdict that a sweep is waiting on"),
    "suspend": ("sweep_operator.cli.decide", "checkpoint and stop the running runs; start nothing new"),
    "resume": ("sweep_operator.cli.decide", "take a suspended sweep up again"),
    "abort": ("sweep_operator.cli.decide", "stop a sweep for good; results stay"),
    "retry": ("sweep_operator.cli.decide", "try the failed runs once more"),
    "lint": ("sweep_operator.cli.lint", "check manifests offline, as the API server and the operator would"),
    "render": ("sweep_operator.cli.render", "print the Jobs that a sweep would become"),
    "plan": ("sweep_operator.cli.plan", "what a ladder will cost and how much its forecast will know"),
    "fit": ("sweep_operator.cli.analyse", "fit a scaling law to records"),
    "forecast": ("sweep_operator.cli.analyse", "forecast the loss of a run from records"),
    "backtest": ("sweep_operator.cli.backtest", "replay forecasts over ladders whose outcome is known"),
    "operator": ("sweep_operator.cli.operator", "run the controller against a cluster"),
    "report": ("sweep_operator.cli.report", "write the report of a ladder"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see `Exit`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="scalingsweep", description="Climb a ladder of training runs; forecast before each rung, judge after it."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, (module, help_line) in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, description=help_line[0].upper() + help_line[1:] + ".")
        if name == chosen:
            importlib.import_module(module).configure(command, name)
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(version("scalingsweep"))
        return Exit.DONE
    if options.command is None:
        parser.print_help()
        return Exit.BAD_INPUT
    try:
        return int(options.execute(options))
    except InputError as error:
        print(f"scalingsweep {options.command}: {error}", file=sys.stderr)
        return Exit.BAD_INPUT
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `scalingsweep get | head`
        sys.stderr.close()
        return Exit.DONE
