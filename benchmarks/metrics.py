"""What a scrape costs at 10, 100 and 1,000 sweeps: time, size, series, and one evaluation of the chart's rules.

    python benchmarks/metrics.py [--json benchmarks/results/metrics.json]

Each sweep has five rungs of two runs, climbed to the fourth in simulation, and is kept as the operator keeps it: JSON
in its stores, read when it is needed. A whole scrape is timed, by HTTP on loopback, in OpenMetrics as Prometheus asks
for it. "First" is the scrape after a start, "all changed" one after every sweep changed; both may leave some sweeps for
the next scrape, and the number of scrapes until none is left is told. The rules are evaluated by Prometheus where it
and helm are installed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import yaml  # noqa: E402 - beside the tests' own modules
from control_plane import free_port  # noqa: E402 - after the path to the tests' own modules is set
from simulated_cluster import SimulatedCluster, settle  # noqa: E402 - after the path to the tests' own modules is set

from sweep_operator.api import ScalingSweep  # noqa: E402 - after the path to the tests' own modules is set
from sweep_operator.clusters.kubernetes.cache import Caches, Document  # noqa: E402 - after the path to the tests' own modules is set
from sweep_operator.metrics import Exposition, Known, Observed, SweepPage, serve  # noqa: E402 - after the path to the tests' own modules is set

SIZES = (10, 100, 1000)
SWEEP: dict[str, Any] = {
    "apiVersion": "scalingsweep.dev/v1alpha1",
    "kind": "ScalingSweep",
    "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "target": {"parameters": "7B", "tokens": "140B", "launch": "Never"},
        "ladder": {"generate": {"from": "30M", "to": "1B", "rungs": 5, "tokensPerParameter": [10, 20]}},
        "gate": {"warmupRungs": 3, "tolerance": 0.03},
        "budget": {"gpuHours": 5000, "flops": "1e22"},
        "training": {"data": {"corpus": "Classics"}},
    },
}


def climbing() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A sweep in the middle of its ladder, and its runs, as documents."""
    document = json.loads(json.dumps(SWEEP))
    document["spec"]["ladder"] = {
        "rungs": [
            {"name": name, "runs": [{"parameters": size, "tokensPerParameter": [10, 20], "seeds": [0, 1]}]}
            for name, size in (("30m", "30M"), ("75m", "75M"), ("180m", "180M"), ("430m", "430M"), ("1b", "1B"))
        ]
    }
    cluster = SimulatedCluster(ScalingSweep.model_validate(document))
    cluster.world.flops_per_second = 1e14
    for _ in range(200):
        wait = settle(cluster)
        states = [rung.state for rung in cluster.stored.status.rungs]
        if len(states) > 4 and states[4] == "Running":
            break
        cluster.now += timedelta(seconds=wait)
    runs = [run.to_json() for run in cluster.runs(cluster.stored)]
    return cluster.stored.to_json(), runs


class Stores:
    """Many copies of a sweep in the operator's stores."""

    def __init__(self, count: int) -> None:
        self.caches = Caches.empty()
        self._sweep, self._runs = climbing()
        self._count = count
        self._version = 0
        self.change()

    def change(self) -> None:
        """A new version of every sweep and run."""
        for i in range(self._count):
            uid, name = f"sweep-{i}", f"web-{i}"
            self.caches.sweeps.put(self._versioned(self._sweep, uid, name))
            for run in self._runs:
                copy = self._versioned(run, f"{uid}-{run['metadata']['name']}", f"{name}-{run['metadata']['name']}")
                copy["metadata"]["ownerReferences"] = [{"uid": uid, "controller": True}]
                copy["metadata"]["name"] = run["metadata"]["name"]
                copy["metadata"]["namespace"] = f"team-{i}"
                self.caches.runs.put(copy)

    def _versioned(self, document: dict[str, Any], uid: str, name: str) -> dict[str, Any]:
        self._version += 1
        identity = {"uid": uid, "name": name, "resourceVersion": str(self._version)}
        return document | {"metadata": document["metadata"] | identity}

    def known(self) -> Iterator[Known]:
        """As the operator hands them to a scrape."""
        for sweep in self.caches.sweeps.all():
            runs = self.caches.runs.owned_by(sweep.identity.uid)
            versions = (sweep.identity.resource_version, *(run.identity.resource_version for run in runs))
            yield Known(sweep.identity.uid, versions, partial(self._read, sweep, runs))

    def _read(self, sweep: Document, runs: Sequence[Document]) -> Observed:
        return Observed(self.caches.sweeps.read(sweep), [self.caches.runs.read(run) for run in runs])


def scraped(port: int) -> tuple[float, str]:
    """Seconds, and the page."""
    began = time.perf_counter()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": Exposition.OPEN_METRICS})
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - our own page, on loopback
        text = answer.read().decode()
    return time.perf_counter() - began, text


def until_current(port: int) -> tuple[list[float], str]:
    """Times of the scrapes until none is late, and the last page."""
    times = []
    while True:
        seconds, text = scraped(port)
        times.append(seconds)
        if "scalingsweep_series_late 0.0" in text:
            return times, text


def measured(count: int) -> dict[str, Any]:
    """One size."""
    stores = Stores(count)
    port = free_port()
    stop = serve(SweepPage(stores.known), port)
    try:
        first, text = until_current(port)
        unchanged = min(scraped(port)[0] for _ in range(5))
        stores.change()
        changed, _ = until_current(port)
        rules = rules_seconds(port)
    finally:
        stop()
    return {
        "sweeps": count,
        "series": sum(not line.startswith("#") for line in text.splitlines()),
        "megabytes": len(text) / 1e6,
        "firstSeconds": max(first),
        "firstScrapes": len(first),
        "allChangedSeconds": max(changed),
        "allChangedScrapes": len(changed),
        "noneChangedSeconds": unchanged,
        "rulesSeconds": "–" if rules is None else f"{rules:.3f} s",
    }


def rules_seconds(port: int) -> float | None:
    """How long Prometheus takes for one evaluation of all the chart's rules over these series."""
    from control_plane import UnavailableError, program

    prometheus = shutil.which("prometheus")
    try:
        helm = program("helm")
    except UnavailableError:
        return None
    if prometheus is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [str(helm), "template", "sweeps", str(ROOT / "charts/scalingsweep")]
        command += ["--api-versions=monitoring.coreos.com/v1/PrometheusRule", "-s", "templates/prometheus-rule.yaml"]
        rules = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        Path(folder, "rules.yaml").write_text(yaml.safe_dump(yaml.safe_load(rules)["spec"]))
        configuration = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "sweeps", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
        }
        Path(folder, "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        own = free_port()
        arguments = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        arguments += [f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"]
        process = subprocess.Popen([prometheus, *arguments])
        try:
            time.sleep(15)
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/rules", timeout=10) as answer:
                groups = json.load(answer)["data"]["groups"]
        finally:
            process.terminate()
            process.wait(10)
    return float(sum(group["evaluationTime"] for group in groups))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    rows = []
    print("sweeps  series  MB     first scrape    all changed     none changed  rules")
    for count in SIZES:
        row = measured(count)
        rows.append(row)
        print(
            f"{row['sweeps']:6,}  {row['series']:6,}  {row['megabytes']:5.1f}"
            f"  {row['firstSeconds']:.3f} s (x{row['firstScrapes']:2})  {row['allChangedSeconds']:.3f} s"
            f" (x{row['allChangedScrapes']:2})  {row['noneChangedSeconds']:.4f} s      {row['rulesSeconds']}"
        )
    if options.json:
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
