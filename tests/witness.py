"""Who watches a sweep on a cluster from the first version to the last, and notes what must never happen.

No run twice, no rung promoted twice, no forecast rewritten or written after the runs it is about, no record lost. It
watches the API server itself, past whatever stands before the operator.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from standin_trainers import StandinTrainers

from sweep_operator.clusters.kubernetes.cache import Change, Document, document_of
from sweep_operator.clusters.kubernetes.cache import Store as AnyStore
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.resources import RUNS, SWEEPS
from sweep_operator.clusters.kubernetes.watch import Watch

OVER = ("Promoted", "Superseded")
TIMES = {"time", "startedAt", "finishedAt", "lastTransitionTime", "lastUpdated"}
SPEND = {"spent", "gpuHours", "observedGeneration"}
IDENTITIES = {"evidence", "uids", "nodeSelector"}
"""UIDs of runs, which no two sweeps share, a digest of records with them, and the nodes that are a sweep's own."""


def lasting(value: Any) -> Any:
    """A status without times, without what disturbances cost, and without what follows from UIDs."""
    if isinstance(value, dict):
        return {k: lasting(v) for k, v in value.items() if k not in TIMES | SPEND | IDENTITIES}
    return [lasting(v) for v in value] if isinstance(value, list) else value


@dataclass
class Witness:
    """Of one namespace, from `start` to `stop`."""

    api: Api
    namespace: str
    trainers: StandinTrainers
    clocks_agree: bool = True
    """Whether the time that the operator writes into a forecast can be held against the API server's."""
    violations: list[str] = field(default_factory=list)
    _forecasts: dict[tuple[str, str, int], str] = field(default_factory=dict)
    _promoted: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """By sweep, rung and revision: the verdict that it was promoted on."""
    _created: dict[tuple[str, str, int, str], str] = field(default_factory=dict)
    """By sweep, rung, revision and planned run: the UID of the one run that was made of it."""

    def start(self) -> "Witness":
        """Begin to look."""
        sweeps: AnyStore[Document] = AnyStore(document_of)
        runs: AnyStore[Document] = AnyStore(document_of)
        sweeps.listen(self._sweep_changed)
        runs.listen(self._run_changed)
        self._watches = [Watch(self.api, SWEEPS, sweeps, self.namespace), Watch(self.api, RUNS, runs, self.namespace)]
        for watch in self._watches:
            watch.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        for watch in self._watches:
            watch.stop()

    def verdict(self) -> list[str]:
        """Everything that was seen and must not have been, with what the end itself shows."""
        found = list(self.violations)
        for (run, attempt), pods in self.trainers.begun.items():
            if len(pods) > 1:
                found.append(f"attempt {attempt} of {run} was begun {len(pods)} times")
        kept = {run["metadata"]["name"]: run for run in self._runs()}
        for run, attempts in self.trainers.told.items():
            accepted = {r["tokens"] for r in kept.get(run, {}).get("status", {}).get("accepted", ())}
            lost = {tokens for told in attempts.values() for tokens in told} - accepted
            if lost:
                found.append(f"records of {run} at {sorted(lost)} tokens were lost")
        planned = [(r["spec"]["rung"], r["spec"]["revision"], json.dumps(r["spec"]["run"])) for r in kept.values()]
        if len(set(planned)) < len(planned):
            found.append("one planned run was created twice")
        return found

    def _runs(self) -> list[dict[str, Any]]:
        return [item for page in self.api.pages(RUNS.path(self.namespace)) for item in page["items"]]

    def _sweep_changed(self, change: Change[Document]) -> None:
        if change.new is None:
            return
        status = json.loads(change.new.body).get("status", {})
        running = [r for r in status.get("rungs", ()) if r["state"] in ("Forecast", "Running", "Diagnosing")]
        if len(running) > 1:
            self.violations.append(f"{len(running)} rungs at once")
        for rung in status.get("rungs", ()):
            key = (change.new.identity.uid, rung["name"], rung["revision"])
            if "forecast" in rung:
                written = json.dumps(rung["forecast"], sort_keys=True)
                if self._forecasts.setdefault(key, written) != written:
                    self.violations.append(f"the forecast of rung {rung['name']} was rewritten")
            if rung["state"] in OVER:
                if "verdict" not in rung:
                    self.violations.append(f"rung {rung['name']} was promoted without a verdict")
                verdict = json.dumps(rung.get("verdict"), sort_keys=True)
                if self._promoted.setdefault(key, verdict) != verdict:
                    self.violations.append(f"rung {rung['name']} was judged again after it was promoted")
            elif key in self._promoted:
                self.violations.append(f"rung {rung['name']} is {rung['state']} after it was promoted")

    def _run_changed(self, change: Change[Document]) -> None:
        if change.old is None and change.new is not None:
            body = json.loads(change.new.body)
            spec, created = body["spec"], body["metadata"]["creationTimestamp"]
            planned = spec["sweepUid"], spec["rung"], spec["revision"], json.dumps(spec["run"], sort_keys=True)
            uid = body["metadata"]["uid"]
            if self._created.setdefault(planned, uid) != uid:
                self.violations.append(f"run {body['metadata']['name']} was created twice")
            written = self._forecasts.get((spec["sweepUid"], spec["rung"], spec["revision"]))
            if self.clocks_agree and written is not None and json.loads(written)["time"][:19] > created[:19]:
                self.violations.append(f"the forecast of rung {spec['rung']} is younger than its run")
