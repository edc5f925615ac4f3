"""Whole climbs on a real API server with something going wrong on the way. Prints the table and writes JSON.

    python benchmarks/chaos.py                       every disturbance (about half an hour on two cores)
    python benchmarks/chaos.py --only 409 --only etcd

A violation is a run begun twice, a rung promoted twice, a forecast rewritten or younger than its runs, a record lost,
or a final status other than that of a climb that nothing disturbed (times, spend and digests of UIDs aside). The
operator runs as a process that is started again when it ends; recovery includes that start and the Lease of the one
before.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from control_plane import ControlPlane
from disturbances import MOMENTS, STORMS, Arena, Disturb, Told, described, measured, undisturbed
from live_operator import install_resources

RESULTS = Path(__file__).parent / "results" / "chaos.json"
LINE = "{:<72} {:>7} {:>11} {:>9} {:>9}"


def main() -> int:
    """Climb once undisturbed, then once for each disturbance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="disturbances with TEXT in the name"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="default: %(default)s")
    options = parser.parse_args()
    chosen = {
        name: disturb
        for name, disturb in (STORMS | MOMENTS).items()
        if not options.only or any(text in name for text in options.only)
    }
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder) / "plane").start()
        try:
            plane.run_workloads()
            plane.add_nodes(2)
            install_resources(plane)
            rows = table(plane, Path(folder), chosen)
        finally:
            plane.stop()
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["violations"] for row in rows) else 0


def table(plane: ControlPlane, folder: Path, chosen: dict[str, Disturb]) -> list[dict[str, Any]]:
    """One row a disturbance, printed as it is known."""
    print(LINE.format("disturbance", "faults", "violations", "climb, s", "back, s"), flush=True)
    rows: list[dict[str, Any]] = []
    expected: Any = None
    for number, (name, disturb) in enumerate({"none": undisturbed, **chosen}.items()):
        try:
            told = measured(Arena(plane, f"chaos-{number}", folder), disturb, name)
        except AssertionError as stuck:
            rows.append({"disturbance": name, "violations": [f"it did not end: {stuck}"]})
            print(f"{name}: it did not end: {stuck}", flush=True)
            continue
        expected = told.status if expected is None else expected
        found = described(told, expected)
        rows.append(row(told, found))
        back = "-" if told.recovery_seconds is None else f"{told.recovery_seconds:.1f}"
        print(LINE.format(name, told.faults, len(found), f"{told.seconds:.1f}", back), flush=True)
        for violation in found:
            print(f"    {violation}", flush=True)
    return rows


def row(told: Told, violations: list[str]) -> dict[str, Any]:
    """The same for a machine."""
    return {
        "disturbance": told.disturbance,
        "faults": told.faults,
        "violations": violations,
        "seconds": round(told.seconds, 1),
        "recoverySeconds": None if told.recovery_seconds is None else round(told.recovery_seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
