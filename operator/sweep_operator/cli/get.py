"""`scalingsweep get`: show a sweep: rungs, forecasts, verdicts; once, or whenever it changes.

Owns the watching of a local ladder's files. It only reads, so it works beside a running driver.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from sweep_operator.api import ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.ladder import add_workdir, open_ladder
from sweep_operator.cli.output import add_output, write
from sweep_operator.clusters.local.driver import stands_still
from sweep_operator.clusters.local.store import Store
from sweep_operator.live.picture import picture_of, slots_of
from sweep_operator.live.summary import HEADER, cells, next_step, summary
from sweep_operator.live.table import table

WATCH_SECONDS = 0.5


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="the sweep's name, where it should be checked")
    add_workdir(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="go on showing what changes, until nothing will")
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Show it."""
    store, sweep = open_ladder(options.workdir)
    if options.name and options.name != sweep.metadata.name:
        raise InputError(f"{options.workdir} holds the sweep {sweep.metadata.name}, not {options.name}")
    if options.watch:
        return _watch(store, sweep, options)
    _show(store, sweep, options.output, options.workdir)
    return Exit.DONE


def _show(store: Store, sweep: ScalingSweep, form: str, workdir: Path) -> None:
    if form != "table":
        write(sweep.to_json(), form)
        return
    print(f"{sweep.metadata.name}  {sweep.status.phase}\n")
    report = store.workdir / "report.html"
    print(summary(sweep, picture_of(sweep, store.runs(), slots_of(sweep)), report if report.exists() else None))
    if step := next_step(sweep, str(workdir)):
        print(step)


def _watch(store: Store, sweep: ScalingSweep, options: argparse.Namespace) -> Exit:
    if options.output == "table" and sys.stdout.isatty():
        from sweep_operator.live import open_view

        view = open_view()
        try:
            while True:
                view.show(sweep, store.runs())
                if stands_still(sweep):
                    return Exit.DONE
                time.sleep(WATCH_SECONDS)
                sweep = store.sweep() or sweep
        finally:
            view.close()
    seen: set[str] = set()
    while True:
        for line in _lines(store, sweep, options.output):
            if line not in seen:
                seen.add(line)
                print(line, flush=True)
        if stands_still(sweep):
            return Exit.DONE
        time.sleep(WATCH_SECONDS)
        sweep = store.sweep() or sweep


def _lines(store: Store, sweep: ScalingSweep, form: str) -> list[str]:
    """One line a rung, header first; or the whole object on one line (YAML: a document)."""
    if form == "json":
        return [json.dumps(sweep.to_json(), ensure_ascii=False)]
    if form == "yaml":
        return ["---\n" + json.dumps(sweep.to_json(), ensure_ascii=False, indent=1)]  # JSON is YAML
    rows = picture_of(sweep, store.runs(), slots_of(sweep)).rows
    return table(HEADER, [cells(row) for row in rows], right=(2, 3, 5, 7)).splitlines()
