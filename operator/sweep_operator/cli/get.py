"""`scalingsweep get`: show a sweep: rungs, forecasts, verdicts; once, or whenever it changes. Without a name, all.

Owns the forms of showing. It only reads, so it works beside a running driver or operator.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sweep_operator.api import ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.output import add_output, write
from sweep_operator.cli.place import Place
from sweep_operator.cli.placing import add_place, is_local, place_of
from sweep_operator.clusters.local.driver import stands_still
from sweep_operator.live.picture import picture_of, slots_of
from sweep_operator.live.summary import HEADER, cells, next_step, summary
from sweep_operator.live.table import duration, table

LIST_SECONDS = 2.0
COLUMNS = ("RUNG", "RUNS", "LOSS", "FORECAST", "VERDICT", "TARGET", "GPU-H", "PHASE", "AGE")
"""Of a list, as `kubectl get` prints them."""

Line = tuple[str, str]
"""What it says, by which it is known again; and how it is printed."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="the sweep's name; without one, all sweeps of the namespace are listed")
    parser.add_argument("-w", "--watch", action="store_true", help="go on showing what changes, until nothing will")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="list the sweeps of the whole cluster")
    add_output(parser)
    add_place(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Show it, or them."""
    if is_local(options):
        return _one(options)
    from sweep_operator.cli.cluster import answered

    if options.name and options.all_namespaces:
        raise InputError("-A lists all sweeps; leave the name out, or say its namespace with -n")
    return answered(_one if options.name else _all)(options)


# --- one sweep ---------------------------------------------------------------------------------------------------


def _one(options: argparse.Namespace) -> Exit:
    place = place_of(options)
    if options.watch:
        return _watch(place, options.output)
    if options.output != "table":
        write(place.document(), options.output)
        return Exit.DONE
    sweep = place.sweep()
    print(f"{sweep.metadata.name}  {sweep.status.phase}\n")
    where = place.whereabouts
    print(summary(sweep, picture_of(sweep, place.runs(), slots_of(sweep)), where.report))
    if step := next_step(sweep, where):
        print(step)
    return Exit.DONE


def _watch(place: Place, form: str) -> Exit:
    if form == "table" and sys.stdout.isatty():
        from sweep_operator.live import open_view

        view = open_view()
        try:
            while True:
                sweep = place.sweep()
                view.show(sweep, place.runs())
                if stands_still(sweep):
                    return Exit.DONE
                time.sleep(place.watch_seconds)
        finally:
            view.close()

    def look() -> tuple[list[Line], bool]:
        sweep = place.sweep()
        return [(line, line) for line in _lines(place, sweep, form)], stands_still(sweep)

    return _whenever_it_changes(look, place.watch_seconds)


def _lines(place: Place, sweep: ScalingSweep, form: str) -> list[str]:
    """One line a rung, header first; or the whole object on one line (YAML: a document)."""
    if form != "table":
        return [_on_a_line(place.document(), form)]
    rows = picture_of(sweep, place.runs(), slots_of(sweep)).rows
    return table(HEADER, [cells(row) for row in rows], right=(2, 3, 5, 7)).splitlines()


# --- all sweeps --------------------------------------------------------------------------------------------------


def _all(options: argparse.Namespace) -> Exit:
    from sweep_operator.cli.cluster import connected, sweeps_in

    api = connected(options)
    namespace = None if options.all_namespaces else options.namespace or api.namespace

    def look() -> list[dict[str, Any]]:
        return sweeps_in(api, namespace)

    def lines() -> tuple[list[Line], bool]:
        sweeps = look()
        versions = [f"{sweep['metadata']['uid']}/{sweep['metadata']['resourceVersion']}" for sweep in sweeps]
        if options.output != "table":
            shown = [_on_a_line(sweep, options.output) for sweep in sweeps]
            return list(zip(versions, shown, strict=True)), False
        # a line whose age alone has changed says nothing new
        return list(zip(["header", *versions], _listed(sweeps, namespace).splitlines(), strict=True)), False

    if options.watch:
        return _whenever_it_changes(lines, LIST_SECONDS)
    if options.output != "table":
        write({"apiVersion": "v1", "kind": "List", "items": look()}, options.output)
        return Exit.DONE
    sweeps = look()
    print(_listed(sweeps, namespace) if sweeps else f"no sweeps in {namespace or 'this cluster'}")
    return Exit.DONE


def _listed(sweeps: Sequence[dict[str, Any]], namespace: str | None) -> str:
    """The columns of `kubectl get`, from the fields that they are printed from."""
    rows = []
    for sweep in sweeps:
        metadata, status = sweep["metadata"], sweep.get("status", {})
        printed = status.get("printed", {})
        fields = ("rung", "runs", "loss", "forecast", "verdict", "target", "gpuHours")
        age = datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])
        names = (metadata["name"],) if namespace else (metadata["namespace"], metadata["name"])
        shown = (printed.get(name) or "-" for name in fields)
        rows.append((*names, *shown, status.get("phase", "-"), duration(age.total_seconds())))
    return table(("NAME", *COLUMNS) if namespace else ("NAMESPACE", "NAME", *COLUMNS), rows)


# --- showing -----------------------------------------------------------------------------------------------------


def _whenever_it_changes(look: Callable[[], tuple[list[Line], bool]], seconds: float) -> Exit:
    """Print each line that says what was not said before, until `look` says that it was the last time."""
    seen: set[str] = set()
    while True:
        lines, last = look()
        for said, line in lines:
            if said not in seen:
                seen.add(said)
                print(line, flush=True)
        if last:
            return Exit.DONE
        time.sleep(seconds)


def _on_a_line(document: dict[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(document, ensure_ascii=False)
    return "---\n" + json.dumps(document, ensure_ascii=False, indent=1)  # JSON is YAML
