"""What is known of the cluster: one store a resource, filled by its watch and by the answers to our own writes.

Owns projections, indexes, and the rule that knowledge never goes back in time: an older version of an object is
ignored, and so is any version of one that was seen deleted. A store holds small values, not documents; those of our own
two kinds are kept as JSON and read on demand.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.clusters.kubernetes.views import Identity, JobView, PodView, identity_of, job_view, pod_view
from sweep_operator.manifest import wrong_spec

_TOMBSTONES = 4096
"""Deleted objects remembered with the version of their end, so that a late answer does not bring one back."""
SWEEPS_KEPT, RUNS_KEPT = 128, 1024
"""Readings kept: a finished five-rung sweep takes 180 kB as a model and 24 kB as JSON, a run of it 30 kB and 4 kB."""


class Projection(Protocol):
    """What a store holds of an object."""

    @property
    def identity(self) -> Identity:
        """Which object, and which version of it."""


P = TypeVar("P", bound=Projection)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Change(Generic[P]):
    """What a store learnt: `old` is None for a new object, `new` is None for one that is gone."""

    old: P | None
    new: P | None

    @property
    def identity(self) -> Identity:
        """Of the object that changed."""
        known = self.new or self.old
        assert known is not None, "a change is of something"
        return known.identity


class Store(Generic[P]):
    """All objects of one resource that the operator watches, indexed by name, owner and run. Thread-safe."""

    def __init__(self, project: Callable[[dict[str, Any]], P]) -> None:
        self._project = project
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str], P] = {}
        self._index: dict[Hashable, set[tuple[str, str]]] = {}
        self._buried: OrderedDict[str, int] = OrderedDict()
        self._listeners: list[Callable[[Change[P]], None]] = []

    def listen(self, listener: Callable[[Change[P]], None]) -> None:
        """Be told of every change on the thread that learnt it, which must not take long; it must not raise.

        Changes of one object by two threads may be told in either order. No lock is held: a listener may ask any store.
        """
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> P | None:
        """The object, as far as is known."""
        return self._objects.get((namespace, name))

    def owned_by(self, uid: str) -> Sequence[P]:
        """The objects whose controlling owner has that UID, by name."""
        with self._lock:
            return [self._objects[key] for key in sorted(self._index.get(("owner", uid), ()))]

    def by_uid(self, uid: str) -> P | None:
        """The object with that UID."""
        with self._lock:
            return next((self._objects[key] for key in self._index.get(("uid", uid), ())), None)

    def of_run(self, namespace: str, run: str) -> Sequence[P]:
        """The objects labelled with that run's name, by name."""
        with self._lock:
            return [self._objects[key] for key in sorted(self._index.get(("run", namespace, run), ()))]

    def all(self) -> Sequence[P]:
        """Everything."""
        with self._lock:
            return list(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, document: dict[str, Any]) -> None:
        """Learn a version of an object: from a watch, or from the answer to a write of ours."""
        metadata = document["metadata"]
        known = self._objects.get((metadata.get("namespace", ""), metadata.get("name", "")))
        if known is not None and _is_version(known.identity, metadata):
            return  # most often our own write, which its answer has told already
        new = self._project(document)
        identity = new.identity
        key = (identity.namespace, identity.name)
        with self._lock:
            old = self._objects.get(key)
            if self._buried.get(identity.uid, -1) >= identity.resource_version:
                return
            if old is not None and old.identity.resource_version >= identity.resource_version:
                return
            changes = []
            if old is not None and old.identity.uid != identity.uid:
                self._drop(key, old)
                changes.append(Change(old, None))
                old = None
            elif old is not None:
                self._unindex(key, old.identity)
            self._objects[key] = new
            for entry in _entries(identity):
                self._index.setdefault(entry, set()).add(key)
            changes.append(Change(old, new))
        self._tell(*changes)

    def remove(self, document: dict[str, Any]) -> None:
        """Learn that an object is gone, or no longer ours to watch."""
        identity = identity_of(document)
        key = (identity.namespace, identity.name)
        with self._lock:
            old = self._objects.get(key)
            self._bury(identity.uid, identity.resource_version)
            known = old is not None and old.identity.uid == identity.uid
            if old is not None and known:
                self._drop(key, old)
        if known:
            self._tell(Change(old, None))

    def keep_only(self, seen: set[str], resource_version: int, namespace: str | None) -> None:
        """After a list: what it did not hold (by UID) is gone, unless it was learnt of later than the list."""
        with self._lock:
            gone = [
                (key, known)
                for key, known in self._objects.items()
                if known.identity.uid not in seen
                and known.identity.resource_version <= resource_version
                and namespace in (None, known.identity.namespace)
            ]
            for key, known in gone:
                self._bury(known.identity.uid, resource_version)
                self._drop(key, known)
        self._tell(*(Change(known, None) for _, known in gone))

    def _tell(self, *changes: Change[P]) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change)

    def _bury(self, uid: str, resource_version: int) -> None:
        self._buried[uid] = resource_version
        while len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)

    def _drop(self, key: tuple[str, str], known: P) -> None:
        del self._objects[key]
        self._unindex(key, known.identity)

    def _unindex(self, key: tuple[str, str], identity: Identity) -> None:
        for entry in _entries(identity):
            self._index[entry].discard(key)
            if not self._index[entry]:
                del self._index[entry]


def _is_version(identity: Identity, metadata: dict[str, Any]) -> bool:
    return (identity.uid, str(identity.resource_version)) == (metadata.get("uid"), metadata.get("resourceVersion"))


def _entries(identity: Identity) -> list[Hashable]:
    """Under what an object can be found beside its name."""
    entries: list[Hashable] = [("uid", identity.uid)]
    if identity.owner_uid:
        entries.append(("owner", identity.owner_uid))
    if identity.run:
        entries.append(("run", identity.namespace, identity.run))
    return entries


@dataclass(frozen=True, slots=True)
class Document:
    """One of our own objects, as JSON without managedFields."""

    identity: Identity
    generation: int
    body: bytes
    substance: int
    """A checksum of all but the trainer's progress and the version: two that agree differ in progress at most."""
    finished: str
    """Why it will do nothing more: the reason of a sweep's Finished, or of a run's Succeeded; empty while it may."""
    refused: str
    """Why a sweep's spec was not accepted; empty where it was, where nobody has looked yet, and of a run."""


_LAST = {"ScalingSweep": ("Finished", ("False", "Unknown")), "ScalingRun": ("Succeeded", ("Unknown",))}
"""By kind the condition that tells its end, and the values by which it has not come."""


def document_of(document: dict[str, Any]) -> Document:
    """The projection of a ScalingSweep or a ScalingRun."""
    metadata = dict(document["metadata"])
    metadata.pop("managedFields", None)
    status = dict(document.get("status") or {})
    progress = status.pop("progress", None)
    head = to_json({"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata})
    spec, rest = to_json(document.get("spec") or {}), to_json(status)
    if progress is not None:
        status["progress"] = progress
    body = b'%b,"spec":%b,"status":%b}' % (head[:-1], spec, to_json(status) if progress is not None else rest)
    described = to_json(
        [metadata.get(name) for name in ("labels", "annotations", "ownerReferences", "deletionTimestamp")]
    )
    conditions = status.get("conditions") or ()
    last, undecided = _LAST[document["kind"]]
    finished = next((c["reason"] for c in conditions if c["type"] == last and c["status"] not in undecided), "")
    refused = next((c["reason"] for c in conditions if c["type"] == "Accepted" and c["status"] == "False"), "")
    return Document(
        identity=identity_of(document),
        generation=int(metadata.get("generation") or 0),
        body=body,
        substance=zlib.crc32(described, zlib.crc32(rest, zlib.crc32(spec))),
        finished=finished,
        refused=refused,
    )


class UnreadableError(Exception):
    """An object holds what this version does not know (a newer version wrote it); it is left alone.

    `wrong_spec`: the sentence for its author where the spec itself makes no sense, which no version will read.
    """

    def __init__(self, identity: Identity, message: str, wrong_spec: str = "") -> None:
        super().__init__(message)
        self.identity = identity
        self.wrong_spec = wrong_spec


class DocumentStore(Store[Document], Generic[M]):
    """A store of one of our own kinds, read into its model on demand; the newest readings are kept."""

    def __init__(self, model: type[M], kept: int) -> None:
        super().__init__(document_of)
        self._model = model
        self._kept = kept
        self._read: OrderedDict[tuple[str, int], M] = OrderedDict()

    def read(self, known: Document) -> M:
        """The object as its model. Raises UnreadableError, in one sentence, for what this version does not know."""
        identity = known.identity
        key = (identity.uid, identity.resource_version)
        with self._lock:
            if key in self._read:
                self._read.move_to_end(key)
                return self._read[key]
        try:
            model = self._model.model_validate_json(known.body)
        except ValidationError as error:
            sentence = _sentence(self._model.__name__, identity, error)
            authors = wrong_spec(error) if self._model is ScalingSweep else ""  # no person writes a run's spec
            raise UnreadableError(identity, sentence, authors) from None
        with self._lock:
            self._read[key] = model
            while len(self._read) > self._kept:
                self._read.popitem(last=False)
        return model


def _sentence(kind: str, identity: Identity, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{kind} {identity.namespace}/{identity.name}: {where}: {first['msg']}{more}"


@dataclass(frozen=True, slots=True)
class Caches:
    """The four stores of the operator."""

    sweeps: DocumentStore[ScalingSweep]
    runs: DocumentStore[ScalingRun]
    jobs: Store[JobView]
    pods: Store[PodView]

    @classmethod
    def empty(cls) -> "Caches":
        """Stores that know nothing yet."""
        return cls(
            DocumentStore(ScalingSweep, SWEEPS_KEPT),
            DocumentStore(ScalingRun, RUNS_KEPT),
            Store(job_view),
            Store(pod_view),
        )
