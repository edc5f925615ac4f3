"""How long the chart takes from `helm install --wait` until the operator is ready, on simulated nodes and for real.

    python benchmarks/chart.py [--json FILE]

Two figures. The first is Helm's: templates, API calls and two replicas counted as available, by real controllers on
simulated nodes, where a pod is ready as soon as it is placed. The second is the operator's own start under the chart's
arguments and rights: from the process to /readyz answering 200, and to the Lease. Pulling the image is in neither.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "charts")]

from control_plane import ControlPlane, program  # noqa: E402 - beside the tests' own modules
from helm_chart import CHART, Helm  # noqa: E402 - after the path to the tests' own modules is set
from live_operator import KINDS  # noqa: E402 - after the path to the tests' own modules is set
from watched_sweeps import VALUES, WatchedSweeps  # noqa: E402 - after the path to the tests' own modules is set

REPEATS = 3


def answers(url: str, holding: str = "") -> bool:
    """Whether a page is there, with a text in it."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
            return holding in answer.read().decode()
    except (urllib.error.URLError, OSError):
        return False


def waited(url: str, holding: str = "") -> float:
    """Seconds until it is."""
    began = time.monotonic()
    while not answers(url, holding):
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    installs, readies, leads = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plane = ControlPlane(folder / "plane").start()
        plane.run_workloads()
        plane.add_nodes(2)
        helm = Helm(program("helm"), folder).on(plane.kubeconfig())
        plane.kubectl("create", "namespace", "research")
        plane.kubectl("create", "namespace", "ops")
        try:
            for _ in range(REPEATS):
                began = time.monotonic()
                helm("install", "sweeps", str(CHART), "-n", "ops", "--wait", "--timeout=120s", values=VALUES)
                installs.append(time.monotonic() - began)
                with WatchedSweeps(plane, helm, folder).operator_alone() as operator:
                    readies.append(waited(f"http://127.0.0.1:{operator.health_port}/readyz"))
                    page = f"http://127.0.0.1:{operator.metrics_port}/metrics"
                    leads.append(readies[-1] + waited(page, "scalingsweep_leader 1.0"))
                helm("uninstall", "sweeps", "-n", "ops", "--wait")
                plane.kubectl("delete", "crd", *KINDS)
        finally:
            plane.stop()
    figures = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "installSeconds": round(statistics.median(installs), 2),
        "readySeconds": round(statistics.median(readies), 2),
        "leadingSeconds": round(statistics.median(leads), 2),
        "repeats": REPEATS,
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
