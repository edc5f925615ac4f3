"""The operator on a real API server: at rest, promoting, and against bare Jobs. Prints tables and writes JSON.

    python benchmarks/cluster.py rest --sweeps 1000            memory, CPU, calls at rest; time to catch up
    python benchmarks/cluster.py promotions --sweeps 1000      last record → the next rung's children exist
    python benchmarks/cluster.py throughput --runs 600         runs through sweeps against the same bare Jobs
    python benchmarks/cluster.py all                           each of them, and growth at 100, 1,000 and 3,000 sweeps

What `all` gives is kept in benchmarks/results/cluster.json, and what one of them gives with --write.

etcd, the API server, the operator and this program share one machine; the operator has the rights that the chart gives
it and no others. In `promotions` no Job controller runs: this program plays it, so that the figure is the operator's
own latency and not that of Kubernetes' batching.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster_world as world
import psutil
from cluster_world import NAMESPACE, free_port

from sweep_operator.clusters.kubernetes import resources
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import JOBS, RUN_LABEL, RUNS, SWEEPS

RESULTS = Path(__file__).parent / "results" / "cluster.json"


@dataclass
class OperatorProcess:
    """A real `scalingsweep operator`."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    calls_before: Counter[tuple[str, str]] = field(default_factory=Counter)

    def entry(self, pattern: str, seconds: float = 180.0) -> re.Match[str]:
        """The first log entry that matches, waiting for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.log.read_text()):
                return found
            if self.process.poll() is not None:
                raise SystemExit(f"the operator ended:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        raise SystemExit(f"no log entry matches {pattern}:\n{self.log.read_text()[-2000:]}")

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def calls(self) -> Counter[tuple[str, str]]:
        """Requests so far by verb and resource, the Lease's and watches left out."""
        total: Counter[tuple[str, str]] = Counter()
        for line in self.scrape().splitlines():
            if line.startswith("scalingsweep_api_calls_total{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if labels["resource"] != "leases" and labels["verb"] != "watch":
                    total[labels["verb"], labels["resource"]] += int(float(line.rsplit(" ", 1)[1]))
        return total

    def refused(self) -> list[str]:
        """What its Role did not allow it, as its own metrics count it."""
        lines = self.scrape().splitlines()
        return [line for line in lines if line.startswith("scalingsweep_api_calls_total{") and 'code="403"' in line]

    def megabytes(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def operator(plane: Any, folder: Path) -> Iterator[OperatorProcess]:
    """Start it as its own account, and end it with SIGTERM."""
    port = free_port()
    log = folder / "operator.log"
    kubeconfig = world.operators_kubeconfig(plane)
    arguments = ("--kubeconfig", kubeconfig, "--metrics-port", port, "--lease-namespace", NAMESPACE)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep_operator.cli", "operator", *map(str, arguments)],
            stderr=stream,
        )
    try:
        running = OperatorProcess(process, log, port)
        yield running
        if refused := running.refused():
            raise SystemExit("the operator's Role is too small for its work:\n" + "\n".join(refused))
    finally:
        process.terminate()
        process.wait(15)


def rest(sweeps: int, seconds: float = 60.0) -> dict[str, Any]:
    """Every sweep finished, ten runs each: what it costs to know of them."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as (plane, api):
        moment = world.climbed(seeds=2)
        world.put(api, moment, list(world.names(sweeps)))
        began = time.monotonic()
        with operator(plane, Path(name)) as process:
            caught_up = float(process.entry(r"caught up ([\d.]+) s after")[1])
            until_ready, cpu_until = time.monotonic() - began, process.cpu_seconds()
            writes = process.calls()
            first_scrape = time.monotonic()
            page = process.scrape()
            first_scrape = time.monotonic() - first_scrape
            time.sleep(5)
            cpu, calls = process.cpu_seconds(), process.calls()
            time.sleep(seconds)
            quiet = (process.cpu_seconds() - cpu) / seconds
            cpu = process.cpu_seconds()
            for _ in range(4):
                time.sleep(seconds / 4)
                process.scrape()
            scraped = (process.cpu_seconds() - cpu) / seconds
            return {
                "sweeps": sweeps,
                "runs": sweeps * len(moment.runs),
                "startToCaughtUpSeconds": round(until_ready, 1),
                "leaseToCaughtUpSeconds": caught_up,
                "cpuSecondsToCatchUp": round(cpu_until, 1),
                "callsToCatchUp": _readable(writes),
                "megabytes": round(process.megabytes()),
                "coresAtRest": round(quiet, 3),
                "coresAtRestScrapedFourTimesAMinute": round(scraped, 3),
                "callsAtRest": _readable(process.calls() - calls),
                "pageMegabytes": round(len(page) / 1e6, 2),
            }


def promotions(sweeps: int, seconds: float = 60.0, per_second: float = 2.0) -> dict[str, Any]:
    """A rung of three runs ends twice a second, each time in another sweep, while all others go on."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as (plane, api):
        names = list(world.names(sweeps))
        world.put(api, world.begun("d", seeds=3), names)
        runs: dict[str, Any] = {}
        children: dict[str, dict[str, float]] = {}
        started: set[str] = set()
        controller = world.JobController(api, started=started.add)
        pool = ThreadPoolExecutor(8)

        def learn_run(kind: str, run: Any) -> None:
            runs[run["metadata"]["name"]] = run
            if run["spec"]["rung"] == "e":
                children.setdefault(run["spec"]["sweep"], {}).setdefault(run["metadata"]["name"], time.monotonic())

        def learn_job(kind: str, job: Any) -> None:
            if kind == "ADDED" and not job.get("status"):
                pool.submit(controller.run, job)

        world.Follower(api, RUNS.path(NAMESPACE), learn_run)
        world.Follower(api, JOBS.path(NAMESPACE), learn_job)
        with operator(plane, Path(name)) as process:
            patience = max(600.0, 0.6 * sweeps)  # every sweep's three Jobs are created first
            waited = time.monotonic()
            process.entry(r"caught up ([\d.]+) s after", patience)
            _until(lambda: len(started) == 3 * sweeps, patience)
            all_started = time.monotonic() - waited
            time.sleep(10)
            before, cpu, megabytes = process.calls(), process.cpu_seconds(), process.megabytes()
            due: dict[str, list[str]] = {}
            for name_, run in list(runs.items()):
                if run["spec"]["rung"] == "d":
                    due.setdefault(run["spec"]["sweep"], []).append(name_)
            ended: dict[str, float] = {}

            def end_rung(sweep: str) -> None:
                for run in due[sweep]:
                    ended[sweep] = time.monotonic()
                    world.report(api, runs[run], 1)
                    controller.complete(controller.jobs[run])

            promoted = names[: int(seconds * per_second)]
            start = time.monotonic()
            for number, sweep in enumerate(promoted):
                time.sleep(max(0.0, start + number / per_second - time.monotonic()))
                pool.submit(end_rung, sweep)
            _until(lambda: all(len(children.get(sweep, ())) == 3 for sweep in promoted), 120)
            took = time.monotonic() - start
            latencies = sorted(max(children[sweep].values()) - ended[sweep] for sweep in promoted)
            time.sleep(3)
            return {
                "sweeps": sweeps,
                "runs": len(runs),
                "promotions": len(promoted),
                "perSecond": per_second,
                "secondsUntilAllStarted": round(all_started, 1),
                "latencySeconds": {q: round(_quantile(latencies, q), 3) for q in (0.5, 0.9, 0.99, 1.0)},
                "callsPerPromotedRun": _per_run(process.calls() - before, 3 * len(promoted)),
                "cores": round((process.cpu_seconds() - cpu) / took, 3),
                "megabytes": round(max(megabytes, process.megabytes())),
            }


def throughput(runs: int, run_seconds: int = 3) -> dict[str, Any]:
    """One-GPU runs as bare Jobs (the very ones that a sweep makes), then through sweeps, on simulated nodes."""
    with tempfile.TemporaryDirectory() as name, running(Path(name), workloads=True) as (plane, api):
        per_sweep = 60
        sizes = ("20K", "27K", "46K", "67K")
        first = [{"parameters": s, "tokensPerParameter": [10, 20], "seeds": list(range(15))} for s in sizes]
        rungs = [{"name": "a", "runs": first}, *world.manifest("", 1)["spec"]["ladder"]["rungs"][4:]]
        template = {"metadata": {"annotations": world.simulated(run_seconds)}}
        documents = [
            world.manifest(
                sweep,
                1,
                ladder={"rungs": rungs},
                gate={"warmupRungs": 1, "promotion": "Manual"},
                runtime={"podTemplate": template},
            )
            for sweep in world.names(runs // per_sweep)
        ]
        at_first = _api_server_seconds()
        bare = _bare(api, [job for document in documents for job in world.bare_jobs(document)])
        between = _api_server_seconds()
        known: dict[str, Any] = {}
        reported: set[str] = set()
        succeeded: dict[str, float] = {}
        pool = ThreadPoolExecutor(8)

        def learn_run(kind: str, run: Any) -> None:
            run_name = run["metadata"]["name"]
            known[run_name] = run
            if run.get("status", {}).get("state") == "Succeeded":
                succeeded.setdefault(run_name, time.monotonic())

        def learn_job(kind: str, job: Any) -> None:
            run_name = job["metadata"]["labels"][RUN_LABEL]
            if run_name not in reported and job.get("status", {}).get("ready"):  # it runs: its record is due
                reported.add(run_name)
                pool.submit(world.report, api, known[run_name], 1)

        with operator(plane, Path(name)) as process:
            process.entry(r"caught up")
            world.Follower(api, RUNS.path(NAMESPACE), learn_run)
            world.Follower(api, JOBS.path(NAMESPACE), learn_job)
            before, cpu = process.calls(), process.cpu_seconds()
            began = time.monotonic()
            for document in documents:
                api.create(SWEEPS.path(NAMESPACE), document)
            _until(lambda: len(succeeded) == runs, 300)
            through, cpu = max(succeeded.values()) - began, process.cpu_seconds() - cpu
            at_last = _api_server_seconds()
            time.sleep(2)
            calls = process.calls() - before
        return {
            "runs": runs,
            "runSeconds": run_seconds,
            "bareSeconds": round(bare, 1),
            "throughSweepsSeconds": round(through, 1),
            "ratio": round(through / bare, 2),
            "barePerSecond": round(runs / bare, 1),
            "operatorCpuMillisecondsPerRun": round(1000 * cpu / runs, 1),
            "apiServerCpuMillisecondsPerRun": {
                "bareAndDeleted": round(1000 * (between - at_first) / runs, 1),
                "throughSweeps": round(1000 * (at_last - between) / runs, 1),
            },
            "callsPerRun": _per_run(calls, runs),
        }


def _bare(api: Api, jobs: list[dict[str, Any]]) -> float:
    """Seconds from the first creation to the last Job's completion; the Jobs and what is left of them are removed."""
    done: set[str] = set()

    def learn(kind: str, job: Any) -> None:
        if any(c["type"] == "Complete" for c in job.get("status", {}).get("conditions", ())):
            done.add(job["metadata"]["name"])

    follower = world.Follower(api, JOBS.path(NAMESPACE), learn)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: api.create(JOBS.path(NAMESPACE), job), jobs))
    _until(lambda: len(done) == len(jobs), 300)
    took = time.monotonic() - began
    follower.stop()
    with ThreadPoolExecutor(8) as pool:
        paths = (JOBS.path(NAMESPACE, job["metadata"]["name"]) for job in jobs)
        list(pool.map(lambda path: api.delete(path), paths))
    pods = resources.PODS.path(NAMESPACE)
    _until(lambda: not any(page["items"] for page in api.pages(pods)), 300)
    return took


@contextmanager
def running(folder: Path, workloads: bool = False) -> Iterator[tuple[Any, Api]]:
    """A control plane of the benchmark's own, and an administrator's client."""
    plane = world.plane(folder / "plane", workloads)
    try:
        yield plane, Api.connect(plane.kubeconfig())
    finally:
        plane.stop()


def _api_server_seconds() -> float:
    """CPU that this benchmark's API server has used."""
    servers = [child for child in psutil.Process().children(recursive=True) if child.name() == "kube-apiserver"]
    return float(sum(server.cpu_times().user + server.cpu_times().system for server in servers))


def _until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("it did not come to that in time")
        time.sleep(0.02)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _readable(calls: Counter[tuple[str, str]]) -> dict[str, int]:
    return {f"{verb} {resource}": count for (verb, resource), count in sorted(calls.items()) if count}


def _per_run(calls: Counter[tuple[str, str]], runs: int) -> dict[str, float]:
    by_kind = {name: round(count / runs, 2) for name, count in _readable(calls).items()}
    return {"all": round(sum(calls.values()) / runs, 2), **by_kind}


def _show(title: str, result: dict[str, Any]) -> None:
    result["loadAverage"] = round(os.getloadavg()[0], 1)
    print(f"\n{title}")
    for name, value in result.items():
        print(f"  {name:36} {json.dumps(value) if isinstance(value, dict) else value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rest", "promotions", "throughput", "all"))
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--run-seconds", type=int, default=3, help="how long a simulated run takes")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is looked at")
    parser.add_argument("--write", action="store_true", help="keep what one of them gives, as `all` does")
    options = parser.parse_args()
    if options.what == "all":
        for run_seconds in (3, 30):
            _keep("throughput", throughput(options.runs, run_seconds))
        for sweeps in (1000, 100, 3000):
            _keep("promotions", promotions(sweeps, options.seconds))
            _keep("rest", rest(sweeps, options.seconds))
        return
    if options.what == "rest":
        result = rest(options.sweeps, options.seconds)
    elif options.what == "promotions":
        result = promotions(options.sweeps, options.seconds)
    else:
        result = throughput(options.runs, options.run_seconds)
    (_keep if options.write else _show)(options.what, result)


def _keep(kind: str, result: dict[str, Any]) -> None:
    """Write a figure down as it comes, in place of the one of the same size: a sitting may be cut short."""
    _show(kind, result)
    results: dict[str, list[dict[str, Any]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    size = "runSeconds" if kind == "throughput" else "sweeps"
    others = [one for one in results.get(kind, ()) if one[size] != result[size]]
    results[kind] = sorted([*others, result], key=lambda one: int(one[size]))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    main()
