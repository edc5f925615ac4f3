"""A sweep on a cluster as the commands see it, as the person whose kubeconfig it is: read, and its wish patched.

Owns the sentences for what is not there, and the retry when two people change one sweep at once. All of it is plain
`kubectl get` and `kubectl patch`; docs/cluster.md has them side by side.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import urllib3
from pydantic import ValidationError

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.place import Wish
from sweep_operator.clusters.kubernetes.client import Api, ConnectError
from sweep_operator.clusters.kubernetes.errors import ApiError, ConflictError, NotFound, TransportError
from sweep_operator.clusters.kubernetes.jobs import TRAINER
from sweep_operator.clusters.kubernetes.resources import PODS, RUN_LABEL, RUNS, SWEEP_LABEL, SWEEPS
from sweep_operator.live.summary import Whereabouts
from sweep_operator.names import label_value

_TRIES = 10
_SILENCE_SECONDS = 86_400.0
"""A trainer may print nothing for so long and is followed still."""


def connected(options: argparse.Namespace) -> Api:
    """The API server that the options name. Raises InputError when they name none."""
    try:
        return Api.connect(options.kubeconfig, options.context)
    except ConnectError as error:
        raise InputError(f"{error}; name a local ladder's folder with --workdir") from None


def answered(execute: Callable[[argparse.Namespace], Exit]) -> Callable[[argparse.Namespace], Exit]:
    """Let a command that the API server refuses or does not answer end with its sentence and status 1."""

    @functools.wraps(execute)
    def with_sentence(options: argparse.Namespace) -> Exit:
        try:
            return execute(options)
        except ApiError as error:
            print(f"scalingsweep {options.command}: {error.message or error}", file=sys.stderr)
        except TransportError as error:
            print(f"scalingsweep {options.command}: the API server does not answer: {error}", file=sys.stderr)
        return Exit.FAILED

    return with_sentence


def sweeps_in(api: Api, namespace: str | None) -> list[dict[str, Any]]:
    """All sweeps of a namespace, or of the whole cluster, as they are stored."""
    found = []
    for page in api.pages(SWEEPS.path(namespace)):
        found += [_tidy(item, SWEEPS.group_version, SWEEPS.kind) for item in page["items"]]
    return found


class ClusterPlace:
    """One sweep of a namespace."""

    watch_seconds = 2.0

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts.on_cluster(self._namespace, self._name)

    def sweep(self) -> ScalingSweep:
        return understood(self.document())

    def document(self) -> dict[str, Any]:
        try:
            return _tidy(self._api.get(self._path))
        except NotFound as error:
            if error.details.get("kind") != SWEEPS.plural:
                raise InputError("this cluster has no ScalingSweeps: the project's CRDs are not installed") from None
            names = ", ".join(sweep["metadata"]["name"] for sweep in sweeps_in(self._api, self._namespace))
            there = f"there are: {names}" if names else "there is none"
            raise InputError(f"there is no sweep {self._name} in namespace {self._namespace} ({there})") from None

    def runs(self) -> Sequence[ScalingRun]:
        uid = self.document()["metadata"]["uid"]
        selector = f"{SWEEP_LABEL}={label_value(self._name)}"
        pages = self._api.pages(RUNS.path(self._namespace), selector)
        mine = (item for page in pages for item in page["items"] if item["spec"]["sweepUid"] == uid)
        return [ScalingRun.model_validate(_tidy(item, RUNS.group_version, RUNS.kind)) for item in mine]

    def log(self, run: ScalingRun, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        name = run.metadata.name
        pages = self._api.pages(PODS.path(self._namespace), f"{RUN_LABEL}={name}")
        pods = [pod for page in pages for pod in page["items"]]
        if not pods:
            kept = "pods go with their Jobs (limits.ttlSecondsAfterFinished) and with their nodes"
            raise InputError(f"run {name} is {run.status.state} and has no pod whose log could be read; {kept}")
        newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
        query: dict[str, str | int] = {"container": TRAINER}
        if follow:
            query["follow"] = "true"
        if tail is not None:
            query["tailLines"] = tail
        path = PODS.path(self._namespace, newest["metadata"]["name"], "log")
        with self._api.stream(path, _SILENCE_SECONDS, **query) as response:
            try:
                while piece := response.read1():
                    yield piece
            except urllib3.exceptions.HTTPError as error:
                raise TransportError(f"the log of {newest['metadata']['name']} broke off: {error}") from None

    def change(self, wish: Wish) -> ScalingSweep:
        for _ in range(_TRIES):
            standing = self.sweep()
            version = {"resourceVersion": standing.metadata.resource_version}
            try:
                return understood(self._api.patch(self._path, {"metadata": version, "spec": wish(standing)}))
            except ConflictError:
                continue
        raise InputError(f"others keep changing the sweep {self._name}; try again")

    def going_on(self) -> str:
        return "the operator takes it from here"

    @property
    def _path(self) -> str:
        return SWEEPS.path(self._namespace, self._name)


def understood(document: dict[str, Any]) -> ScalingSweep:
    """The sweep, or InputError for one that another version of this program has written."""
    try:
        return ScalingSweep.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(
            f"the sweep {document['metadata']['name']} was written by another version of this program"
            f" ({where}: {fault['msg']}); use -o yaml, or that version"
        ) from None


def _tidy(document: dict[str, Any], api_version: str = "", kind: str = "") -> dict[str, Any]:
    """Without the bookkeeping of field managers; an item of a list says its kind."""
    document["metadata"].pop("managedFields", None)
    return {"apiVersion": api_version, "kind": kind, **document} if kind else document
