"""What must stand before a sweep's first pod: the account of its trainers, what they may write, and the claim.

Owns the ensuring of these documents (`roles.py` and `storage.py` say what they are) and the memory of what was ensured,
so that it costs a sweep four calls and a run none. Everything here is safe to repeat; after a restart it is.
"""

import threading
from collections import OrderedDict

from sweep_operator.api import ScalingSweep
from sweep_operator.clusters import NameTaken
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import AlreadyExists
from sweep_operator.clusters.kubernetes.ownership import JSON, SWEEP_UID, controller_of
from sweep_operator.clusters.kubernetes.resources import CLAIMS, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from sweep_operator.clusters.kubernetes.roles import Account, trainer_access
from sweep_operator.clusters.kubernetes.storage import claim_document
from sweep_operator.names import run_name

FIELD_MANAGER = "scalingsweep-operator"
_KINDS = {kind.kind: kind for kind in (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS)}
_REMEMBERED = 4096
_AT_ONCE = 64
"""Locks over which sweeps are spread. A single one made a thousand sweeps that start at once wait for each other: the
API server looks through all bindings of a namespace before it takes another."""


class Access:
    """Ensures what a sweep's pods need."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ensured: OrderedDict[str, tuple[str, str | None, frozenset[str]]] = OrderedDict()
        """By the sweep's UID: the version whose plan was looked at, its trainers' account where it is one of the
        user's own, and the runs that they may write to."""
        self._remembering = threading.Lock()
        self._one_at_a_time = tuple(threading.Lock() for _ in range(_AT_ONCE))
        """For each sweep one: the runs of a rung start at once, and the first of them ensures for all."""

    def ensure(self, sweep: ScalingSweep, run: str) -> None:
        """Account, role, binding and claim, for every run that the sweep plans. Raises NameTaken and ApiError."""
        if not self._is_ensured(sweep, run):
            with self._one_at_a_time[hash(sweep.metadata.uid) % _AT_ONCE]:
                if not self._is_ensured(sweep, run):
                    self._ensure_all(sweep, frozenset((*planned_runs(sweep), run)))

    def _is_ensured(self, sweep: ScalingSweep, run: str) -> bool:
        """Whether this very version of the sweep was looked at, or one that plans the same runs."""
        version, uid = sweep.metadata.resource_version, sweep.metadata.uid
        own = sweep.spec.runtime.service_account_name
        seen, account, ensured = self._ensured.get(uid, ("", None, frozenset()))
        if seen == version and version:
            return run in ensured
        if account != own or ensured != {*planned_runs(sweep), run}:
            return False
        self._remember(uid, (version, account, ensured))
        return True

    def _ensure_all(self, sweep: ScalingSweep, planned: frozenset[str]) -> None:
        uid = sweep.metadata.uid
        own = sweep.spec.runtime.service_account_name
        account = Account(sweep.metadata.namespace, own) if own else None
        for document in trainer_access(sweep, planned, account):
            self._ensure(document)
        claim = claim_document(sweep)
        if claim is not None and uid not in self._ensured:
            self._ensure_claim(claim)
        self._remember(uid, (sweep.metadata.resource_version, own, planned))

    def _remember(self, uid: str, ensured: tuple[str, str | None, frozenset[str]]) -> None:
        with self._remembering:
            self._ensured[uid] = ensured
            self._ensured.move_to_end(uid)
            while len(self._ensured) > _REMEMBERED:
                self._ensured.popitem(last=False)

    def _ensure(self, document: JSON) -> None:
        """Create it, or bring what stands there up to date; nothing is written where nothing is to be changed."""
        kind, metadata = _KINDS[document["kind"]], document["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            self._api.create(kind.path(namespace), document)
        except AlreadyExists:
            path = kind.path(namespace, name)
            found = self._api.get(path)
            owner = controller_of(found)
            if owner is None or owner["uid"] != metadata["ownerReferences"][0]["uid"]:
                raise NameTaken(
                    f"{kind.kind} {name} is not this sweep's (it is not owned by it); kubectl delete"
                    f" {kind.kind.lower()} {name} -n {namespace}, then the sweep goes on"
                ) from None
            if any(found.get(field) != document.get(field) for field in ("rules", "subjects", "roleRef")):
                self._api.patch(path, document, kind="apply", field_manager=FIELD_MANAGER, force=True)

    def _ensure_claim(self, document: JSON) -> None:
        metadata = document["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            self._api.create(CLAIMS.path(namespace), document)
        except AlreadyExists:
            found = self._api.get(CLAIMS.path(namespace, name))["metadata"]
            if (found.get("annotations") or {}).get(SWEEP_UID) != metadata["annotations"][SWEEP_UID]:
                raise NameTaken(
                    f"PersistentVolumeClaim {name} is not this sweep's (no annotation {SWEEP_UID} of its UID);"
                    " rename or delete it, or name it in storage.uri"
                ) from None


def planned_runs(sweep: ScalingSweep) -> list[str]:
    """The names of all runs that the sweep's rungs list, diagnosis included; they are known before the runs exist."""
    return [
        run_name(sweep, rung.name, rung.revision, run)
        for rung in sweep.status.rungs
        for run in (*rung.runs, *rung.experiments)
    ]
