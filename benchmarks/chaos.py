"""Whole climbs on a real API server with something going wrong on the way. Prints the table and writes JSON.

    python benchmarks/chaos.py                       every disturbance, in one sitting
    python benchmarks/chaos.py --only 409 --only etcd
    python benchmarks/chaos.py --docs                only put the last sitting's table into docs/failures.md

A violation is a run begun twice, a rung promoted twice, a forecast rewritten or younger than its runs, a record lost,
or a final status other than that of a climb that nothing disturbed (times, spend and digests of UIDs aside). The
operator runs as a process that is started again when it ends; recovery includes that start and the Lease of the one
before. Climbs go on several at a time, each with an operator, a proxy and a namespace of its own; those that stop or
starve what they share go alone.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from arena import Arena, Told, described, measured
from control_plane import ControlPlane
from disturbances import MOMENTS, STORMS, Disturbance, undisturbed
from live_operator import install_resources
from mortal_operator import killed_after_every

RESULTS = Path(__file__).parent / "results" / "chaos.json"
PAGE = Path(__file__).parents[1] / "docs" / "failures.md"
LINE = "{:<72} {:>7} {:>11} {:>9} {:>9}  {}"
UNDISTURBED = "none"
MORTAL = {"operator killed after every write": 1, "operator killed after every third write": 3}

Climb = Callable[[], Told]


def main() -> int:
    """Climb once undisturbed, then once for each disturbance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="disturbances with TEXT in the name"
    )
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="climbs at a time; default: %(default)s")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--docs", action="store_true", help="only put the last sitting's table into docs/failures.md")
    options = parser.parse_args()
    if options.docs:
        put_into_page(json.loads(options.json.read_text())["climbs"])
        return 0

    def chosen(name: str) -> bool:
        return not options.only or any(text in name for text in options.only)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder) / "plane").start()
        try:
            plane.run_workloads()
            plane.add_nodes(2)
            install_resources(plane)
            together, alone = climbs(plane, Path(folder), chosen)
            rows = table(together, alone, options.at_once)
        finally:
            plane.stop()
    sitting = {
        "climbs": rows,
        "atOnce": options.at_once,
        "seconds": round(time.monotonic() - began),
        "loadAverage": round(os.getloadavg()[0], 1),
    }
    print(f"{len(rows)} climbs in {sitting['seconds']} s, {options.at_once} at a time", flush=True)
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(sitting, indent=1) + "\n")
    return 1 if any(row["violations"] for row in rows) else 0


def climbs(
    plane: ControlPlane, folder: Path, chosen: Callable[[str], bool]
) -> tuple[dict[str, Climb], dict[str, Climb]]:
    """What is to be climbed by name: together with others, and alone (the undisturbed climb first)."""
    together: dict[str, Climb] = {}
    alone: dict[str, Climb] = {UNDISTURBED: partial(climb, plane, "undisturbed", folder, Disturbance(undisturbed), "")}
    for number, (name, disturbance) in enumerate((MOMENTS | STORMS).items()):
        if chosen(name):
            into = alone if disturbance.alone else together
            into[name] = partial(climb, plane, f"chaos-{number}", folder, disturbance, name)
    for name, writes in MORTAL.items():
        if chosen(name):
            together[name] = partial(killed_after_every, plane, f"mortal-{writes}", writes)
    return together, alone


def climb(plane: ControlPlane, namespace: str, folder: Path, disturbance: Disturbance, name: str) -> Told:
    """One climb with the disturbance."""
    arena = Arena(plane, namespace, folder, disturbance.replicas, disturbance.clock_seconds)
    return measured(arena, disturbance.disturb, name)


def table(together: dict[str, Climb], alone: dict[str, Climb], at_once: int) -> list[dict[str, Any]]:
    """One row a climb, printed as it is known; the first is the one that the others are held against."""
    print(LINE.format("disturbance", "faults", "violations", "climb, s", "back, s", ""), flush=True)
    first = alone.pop(UNDISTURBED)()
    rows: list[dict[str, Any]] = []
    for name, told in itertools.chain([(UNDISTURBED, first)], _all(together, at_once), _all(alone, 1)):
        rows.append(row(name, told, first.status))
    return rows


def _all(climbs: dict[str, Climb], at_once: int) -> Iterator[tuple[str, Told | str]]:
    """Each climb's outcome in the order given; the sentence where it did not end."""
    with ThreadPoolExecutor(at_once) as pool:
        running = {name: pool.submit(climb) for name, climb in climbs.items()}
        for name, climb in running.items():
            try:
                yield name, climb.result()
            except AssertionError as stuck:
                yield name, f"it did not end: {stuck}"


def row(name: str, told: Told | str, expected: Any) -> dict[str, Any]:
    """What is kept of a climb; printed as well."""
    if isinstance(told, str):
        print(f"{name}: {told}", flush=True)
        return {"disturbance": name, "faults": None, "violations": [told], "seconds": None, "recoverySeconds": None}
    found = described(told, expected)
    back = None if told.recovery_seconds is None else round(told.recovery_seconds, 1)
    shown = "-" if back is None else f"{back:.1f}"
    print(LINE.format(name, told.faults, len(found), f"{told.seconds:.1f}", shown, told.note), flush=True)
    for violation in found:
        print(f"    {violation}", flush=True)
    return {
        "disturbance": name,
        "faults": told.faults,
        "violations": found,
        "seconds": round(told.seconds, 1),
        "recoverySeconds": back,
        **({"note": told.note} if told.note else {}),
    }


def put_into_page(rows: list[dict[str, Any]]) -> None:
    """The table of docs/failures.md, in the place of the one that stands there."""
    lines = ["| disturbance | faults | violations | climb, s | back, s |", "|---|---|---|---|---|"]
    for one in rows:
        name = f"{one['disturbance']} ({one['note']})" if "note" in one else one["disturbance"]
        back = "–" if one["recoverySeconds"] is None else one["recoverySeconds"]
        lines.append(f"| {name} | {one['faults']} | {len(one['violations'])} | {one['seconds']} | {back} |")
    before, _, rest = PAGE.read_text().partition(lines[0])
    _, _, after = rest.partition("\n\n")
    PAGE.write_text((before + "\n".join(lines) + "\n\n" + after).rstrip("\n") + "\n")


if __name__ == "__main__":
    sys.exit(main())
