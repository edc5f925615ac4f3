"""What the cluster benchmarks share: sweeps at a chosen moment of their life, put into a real API server, and trainers.

Owns how a thousand sweeps come to stand there within a minute: one ladder is climbed in memory, and its objects are
written under other names, as the operator itself would have left them.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from urllib3.exceptions import HTTPError

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from control_plane import ControlPlane, free_port  # noqa: E402, F401 - found by the line above; for the benchmark
from simulated_cluster import Killed, SimulatedCluster, climb, healthy  # noqa: E402 - as above

from sweep_analysis.flops import six_nd  # noqa: E402 - as above
from sweep_analysis.rung import Run  # noqa: E402 - as above
from sweep_operator.acceptance import Accepted, accept  # noqa: E402 - as above
from sweep_operator.api import RungStatus, ScalingRun, ScalingSweep  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes import roles  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes.client import Api  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes.errors import ApiError  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes.jobs import Images, job_document  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes.ownership import run_document  # noqa: E402 - as above
from sweep_operator.clusters.kubernetes.resources import JOBS, RUNS, SWEEPS  # noqa: E402 - as above
from sweep_operator.conditions import timestamp  # noqa: E402 - as above
from sweep_operator.ladder import scaling_run  # noqa: E402 - as above
from sweep_operator.names import run_name  # noqa: E402 - as above
from sweep_operator.policy import Policy  # noqa: E402 - as above

JSON = dict[str, Any]
SIZES = {"a": "20K", "b": "27K", "c": "46K", "d": "67K", "e": "96K"}
NAMESPACE = "benchmark"
WRITERS = 8


def manifest(name: str, seeds: int, rungs: dict[str, str] = SIZES, **spec: Any) -> JSON:
    """A ladder of laptop size; its runs would each take one GPU."""
    ladder = [
        {"name": rung, "runs": [{"parameters": size, "tokensPerParameter": [10, 20], "seeds": list(range(seeds))}]}
        for rung, size in rungs.items()
    ]
    body = {
        "target": {"parameters": "163K", "tokens": "3.3M", "launch": "Never"},
        "ladder": {"rungs": ladder},
        "gate": {"warmupRungs": 3},
        "training": {"data": {"corpus": "Classics"}, "model": {"layers": 3}, "batchTokens": 2048},
        "limits": {"parallelism": 1024},
    }
    return {
        "apiVersion": SWEEPS.group_version,
        "kind": SWEEPS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**body, **spec},
    }


def simulated(run_seconds: int) -> dict[str, str]:
    """Annotations of a pod by which it ends well after so long."""
    return {"simulated/outcome": "Succeeded", "simulated/after": f"{run_seconds}s"}


def bare_jobs(document: JSON) -> list[JSON]:
    """The Jobs of a sweep's first rung as somebody without an operator would create them: owned by nobody."""
    sweep = ScalingSweep.model_validate({**document, "metadata": {**document["metadata"], "uid": "u-1"}})
    accepted = accept(sweep, Policy())
    assert isinstance(accepted, Accepted), accepted
    first = accepted.rungs[0]
    jobs = []
    for run in first.runs:
        job = job_document(sweep, scaling_run(sweep, RungStatus(name=first.name, runs=first.runs), run), 1, Images())
        del job["metadata"]["ownerReferences"]
        job["spec"]["template"]["spec"]["serviceAccountName"] = "default"
        jobs.append(job)
    return jobs


@dataclass(frozen=True)
class Moment:
    """A sweep and its runs at one moment."""

    sweep: ScalingSweep
    runs: tuple[ScalingRun, ...]


def climbed(seeds: int = 2) -> Moment:
    """Finished: every rung promoted."""
    cluster = _simulated(seeds)
    climb(cluster)
    return Moment(cluster.stored, tuple(cluster.runs(cluster.stored)))


def begun(rung: str, seeds: int = 3) -> Moment:
    """The rung's runs have just been created; all before it are done."""
    rehearsal = _simulated(seeds)
    climb(rehearsal)
    created = [n for n, write in enumerate(rehearsal.writes, 1) if write.startswith(f"create demo-{rung}-")]
    cluster = _simulated(seeds)
    cluster.writes_left = created[seeds - 1]
    try:
        climb(cluster)
    except Killed:
        return Moment(cluster.stored, tuple(cluster.runs(cluster.stored)))
    raise AssertionError("the ladder ended before the rung began")


def _simulated(seeds: int) -> SimulatedCluster:
    document = manifest("demo", seeds)
    document["metadata"] = {"name": "demo", "uid": "u-1"}
    return SimulatedCluster(ScalingSweep.model_validate(document))


def put(api: Api, moment: Moment, names: list[str]) -> None:
    """Write that moment once under each name, with several writers at once."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda name: _put_one(api, moment, name), names):
            pass


def _put_one(api: Api, moment: Moment, name: str) -> None:
    document = moment.sweep.to_json()
    status = document.pop("status")
    document["metadata"] = {"name": name, "namespace": NAMESPACE}
    created = api.create(SWEEPS.path(NAMESPACE), document)
    status["observedGeneration"] = 1
    api.replace(SWEEPS.path(NAMESPACE, name, "status"), {**created, "status": status})
    sweep = ScalingSweep.model_validate(created)
    for run in moment.runs:
        own = run_name(sweep, run.spec.rung, run.spec.revision, run.spec.run)
        spec = run.spec.changed(sweep=name, sweep_uid=sweep.metadata.uid)
        metadata = run.metadata.changed(name=own, namespace=NAMESPACE)
        child = api.create(RUNS.path(NAMESPACE), run_document(run.changed(metadata=metadata, spec=spec)))
        uid = child["metadata"]["uid"]
        status = run.status.to_json()
        for record in (*status.get("accepted", ()), *(r for one in status.get("records", ()) for r in one["records"])):
            record["run"]["uid"] = uid
        api.replace(RUNS.path(NAMESPACE, own, "status"), {**child, "status": status})


def record_set(run: JSON, attempt: int) -> JSON:
    """All records of an attempt at a run, as its trainer would hand them in."""
    spec = run["spec"]
    what = Run.model_validate(spec["run"])
    records = []
    for tokens in what.tokens:
        flops = six_nd(what.parameters, tokens)
        records.append(
            {
                "apiVersion": "scalingsweep.dev/record-v1",
                "run": {"uid": run["metadata"]["uid"], "attempt": attempt, "configDigest": spec["configDigest"]},
                "purpose": str(what.purpose),
                "parameters": dict.fromkeys(("total", "nonEmbedding", "active"), what.parameters),
                "tokens": tokens,
                "uniqueTokens": tokens,
                "epochs": 1.0,
                "flops": {"sixND": flops, "detailed": flops},
                "seed": what.seed,
                "loss": healthy(what, tokens),
                "validationDigest": "sha256:v",
                "tokenizerDigest": "sha256:t",
                "gpuSeconds": 1.0,
                "trainerVersion": "0",
                "finishedAt": timestamp(datetime.now(UTC)),
            }
        )
    return {"attempt": attempt, "records": records}


def report(api: Api, run: JSON, attempt: int) -> None:
    """Hand the records in, by server-side apply as trainers do."""
    metadata = run["metadata"]
    document = {
        "apiVersion": RUNS.group_version,
        "kind": RUNS.kind,
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "status": {"records": [record_set(run, attempt)]},
    }
    path = RUNS.path(metadata["namespace"], metadata["name"], "status")
    api.patch(path, document, "apply", f"trainer-records-{attempt}", force=True)


@dataclass
class JobController:
    """Plays Kubernetes' Job controller, where a benchmark wants to measure the operator without its delays."""

    api: Api
    jobs: dict[str, JSON] = field(default_factory=dict)
    """By run, the newest."""
    started: Callable[[str], None] = lambda run: None

    def run(self, job: JSON) -> None:
        """Its pod is up."""
        status = {"active": 1, "ready": 1, "startTime": _now()}
        self._write(job, status)
        self.started(job["metadata"]["labels"]["scalingsweep.dev/run"])

    def complete(self, job: JSON) -> None:
        """Its pod has ended well."""
        since = job["status"].get("startTime") or _now()
        now = _now()
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now, "reason": "CompletionsReached", "message": ""}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        ended = {"startTime": since, "completionTime": now, "succeeded": 1, "conditions": conditions}
        self._write(job, {**ended, "active": 0, "ready": 0, "uncountedTerminatedPods": {}})

    def _write(self, job: JSON, status: JSON) -> None:
        metadata = job["metadata"]
        path = JOBS.path(metadata["namespace"], metadata["name"], "status")
        self.jobs[metadata["labels"]["scalingsweep.dev/run"]] = self.api.patch(path, {"status": status})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Follower:
    """Calls back for every object of a resource that is new or has changed, from a watch of the benchmark's own."""

    def __init__(self, api: Api, path: str, learn: Callable[[str, JSON], None]) -> None:
        self._api, self._path, self._learn = api, path, learn
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True

    def _follow(self) -> None:
        """List, then watch; and again when the API server ends the watch, as it does where a watcher falls behind."""
        while not self._stopping:
            with suppress(OSError, HTTPError, ApiError):
                self._watch_from(self._list())

    def _list(self) -> str:
        version = ""
        for page in self._api.pages(self._path):
            version = page["metadata"]["resourceVersion"]
            for item in page["items"]:
                self._learn("ADDED", item)
        return version

    def _watch_from(self, version: str) -> None:
        query: dict[str, str | int] = {"watch": "true", "resourceVersion": version}
        with self._api.stream(self._path, 3600.0, **query) as response:
            rest = b""
            for chunk in response.stream(1 << 16):
                if self._stopping:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = from_json(line)
                    self._learn(event["type"], event["object"])


def plane(folder: Path, workloads: bool = False) -> ControlPlane:
    """A control plane with the project's kinds and a namespace; on request with 50 nodes of 8 GPUs."""
    one = ControlPlane(folder).start()
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        one.kubectl("apply", "--server-side", "-f", str(path))
    one.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    one.kubectl("create", "namespace", NAMESPACE)
    if workloads:
        one.run_workloads()
        one.add_nodes(50)
    return one


def operators_kubeconfig(plane: ControlPlane) -> Path:
    """The operator's own account with the rights that the chart gives it cluster-wide, and no others."""
    account = roles.Account(NAMESPACE, "operator")
    head = {"apiVersion": "v1", "kind": "ServiceAccount"}
    items = [{**head, "metadata": {"name": account.name, "namespace": account.namespace}}]
    plane.apply({"apiVersion": "v1", "kind": "List", "items": [*items, *roles.operator_access(account)]})
    token = plane.service_account_token(account.namespace, account.name)
    return plane.kubeconfig_for(token, "the-operator", NAMESPACE)


def names(count: int) -> Iterator[str]:
    """Of so many sweeps."""
    return (f"sweep-{number:04d}" for number in range(count))
