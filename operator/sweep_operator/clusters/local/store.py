"""A ladder's folder: where every document lies, who writes it, and how it is read back.

    WORKDIR/
      sweep.json            metadata and spec; written by user commands only (run, approve, suspend …)
      status.json           the sweep's status; written by the driver only
      data.json             the prepared data's digests and sizes, as they were when the ladder began
      driver.lock           locked by the driver; says which process, on which machine, since when
      report.html           written at the end and by `scalingsweep report`
      runs/<run>/
        run.json            metadata and spec of a ScalingRun; written once
        status.json         the operator's part of its status; written by the driver only
        order.json          what the trainer was told last
        attempts/<n>.json   one attempt: process, start, end, exit status; written by the driver only
        report/             progress.json, records-<n>.json, failure-<n>.json; written by the trainer
        storage/            checkpoints, learning curve, final weights; the trainer's own
        log                 what the trainer printed

Owns these paths and the rule for a damaged file: a run's own file costs that run's redo, the sweep's is refused with
the remedy. `generation` grows when the spec changes; `resourceVersion` names what was read, so that a write against
something older is a `Conflict`.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sweep_analysis.document import Document, digest_of
from sweep_analysis.record import Failure, Progress, RecordSet
from sweep_operator.api import RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.clusters import Conflict
from sweep_operator.clusters.local.attempts import AttemptFile
from sweep_operator.clusters.local.files import (
    DamagedError,
    folder_lock,
    read_object,
    remove_leftovers,
    signature,
    write_atomically,
)
from sweep_operator.conditions import timestamp

KNOWN = {"sweep.json", "status.json", "data.json", "driver.lock", "report.html", "runs"}
"""Names that a ladder's folder may hold; anything else in a folder without sweep.json is somebody else's."""

_SWEEP_REMEDY = "remove it and run the same manifest again: finished runs are kept, approvals must be given anew"
_STATUS_REMEDY = (
    "restore it from a copy, or remove it: the same command then judges the ladder anew from the runs' records"
)
_RUN_REMEDY = "it is set aside and what it said is found out anew"

D = TypeVar("D", bound=Document)


def sweep_uid(namespace: str, name: str) -> str:
    """The UID of a sweep on this machine: a function of its name, so that a rerun elsewhere names its runs alike."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://scalingsweep.dev/{namespace}/{name}"))


class Store:
    """The documents of one folder. Values are cached by their file's signature; writers are named above."""

    def __init__(self, workdir: Path, set_aside: Callable[[str], None] | None = None) -> None:
        """`set_aside` (the driver's) lets damaged files of runs be renamed, and is told one sentence about each."""
        self.workdir = workdir
        self.set_aside = set_aside
        self._cache: dict[Path, tuple[object, Any]] = {}

    # --- the sweep -------------------------------------------------------------------------------------------------

    @property
    def sweep_file(self) -> Path:
        return self.workdir / "sweep.json"

    @property
    def status_file(self) -> Path:
        return self.workdir / "status.json"

    @property
    def data_file(self) -> Path:
        return self.workdir / "data.json"

    def sweep(self) -> ScalingSweep | None:
        """The sweep with its status; None when the folder holds none. Raises DamagedError."""
        head, version = self._read_sweep_head()
        if head is None:
            return None
        status = self._status()
        metadata = {**head["metadata"], "resourceVersion": version}
        cached = self._cache.get(self.workdir)
        if cached and cached[0] == (version, id(status)):
            unchanged: ScalingSweep = cached[1]
            return unchanged
        try:
            sweep = ScalingSweep.model_validate({**head, "metadata": metadata, "status": status})
        except ValidationError as error:
            raise DamagedError(self.sweep_file, _first(error), _SWEEP_REMEDY) from None
        self._cache[self.workdir] = ((version, id(status)), sweep)
        return sweep

    def write_sweep(self, sweep: ScalingSweep) -> None:
        """Replace metadata and spec. Raises Conflict when they changed since `sweep` was read."""
        with folder_lock(self.workdir):
            _, version = self._read_sweep_head()
            if version != sweep.metadata.resource_version:
                raise Conflict(f"{self.sweep_file} was changed by another command at this moment")
            document = sweep.to_json()
            document.pop("status", None)
            document["metadata"].pop("resourceVersion", None)
            write_atomically(self.sweep_file, document)

    def write_sweep_status(self, sweep: ScalingSweep, status: SweepStatus) -> None:
        """Replace the status. Raises Conflict when metadata or spec changed since `sweep` was read."""
        _, version = self._read_sweep_head()
        if version != sweep.metadata.resource_version:
            raise Conflict(f"{self.sweep_file} changed since it was read")
        write_atomically(self.status_file, status.to_json())
        self._remember(self.status_file, status)

    def _read_sweep_head(self) -> tuple[dict[str, Any] | None, str]:
        """Metadata and spec as written, and the version that names them (empty when there are none)."""
        mark = signature(self.sweep_file)
        cached = self._cache.get(self.sweep_file)
        if cached and mark is not None and cached[0] == mark:
            unchanged: tuple[dict[str, Any] | None, str] = cached[1]
            return unchanged
        document = read_object(self.sweep_file, _SWEEP_REMEDY)
        if document is not None and not isinstance(document.get("metadata"), dict):
            raise DamagedError(self.sweep_file, "it has no metadata", _SWEEP_REMEDY)
        value = (document, digest_of(document)[7:23] if document is not None else "")
        self._cache[self.sweep_file] = (mark, value)
        return value

    def _status(self) -> SweepStatus:
        mark = signature(self.status_file)
        cached = self._cache.get(self.status_file)
        if cached and cached[0] == mark:
            unchanged: SweepStatus = cached[1]
            return unchanged
        document = read_object(self.status_file, _STATUS_REMEDY)
        try:
            status = SweepStatus.model_validate(document or {})
        except ValidationError as error:
            raise DamagedError(self.status_file, _first(error), _STATUS_REMEDY) from None
        self._cache[self.status_file] = (mark, status)
        return status

    def data(self) -> dict[str, Any] | None:
        """What was known of the data when the ladder began."""
        return read_object(self.data_file, "remove it: the data is then taken as it is now")

    def write_data(self, document: dict[str, Any]) -> None:
        write_atomically(self.data_file, document)

    # --- the runs --------------------------------------------------------------------------------------------------

    def folder(self, run: str) -> Path:
        """The folder of one run."""
        return self.workdir / "runs" / run

    def run_names(self) -> list[str]:
        """The runs that have a folder, sorted."""
        runs = self.workdir / "runs"
        return sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []

    def runs(self) -> list[ScalingRun]:
        """All runs, with what their trainers have reported; one whose `run.json` is damaged is left out."""
        return [run for run in map(self.run, self.run_names()) if run is not None]

    def run(self, name: str) -> ScalingRun | None:
        """One run, with what its trainer has reported; None when there is none."""
        folder = self.folder(name)
        head = self._document(folder / "run.json", ScalingRun)
        if head is None:
            return None
        status = self._document(folder / "status.json", RunStatus) or RunStatus()
        progress = self._document(folder / "report" / "progress.json", Progress)
        records = self._numbered(folder / "report", "records", RecordSet)
        if progress is None and not records:
            return head.model_copy(update={"status": status})
        status = status.model_copy(update={"progress": progress, "records": tuple(records)})
        return head.model_copy(update={"status": status})

    def create_run(self, run: ScalingRun) -> None:
        """Write a run's identity; one that stands there already is left alone."""
        folder = self.folder(run.metadata.name)
        file = folder / "run.json"
        if self._document(file, ScalingRun) is not None:
            return
        for part in ("attempts", "report", "storage"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        document = run.to_json()
        document.pop("status", None)
        identity = uuid.uuid5(uuid.UUID(run.spec.sweep_uid), run.metadata.name)
        document["metadata"].update(uid=str(identity), creationTimestamp=timestamp(datetime.now(UTC)))
        write_atomically(file, document)

    def write_run_status(self, run: ScalingRun, status: RunStatus) -> None:
        """Replace the operator's part of the status; the trainer's part stays in its own files."""
        own = status.model_copy(update={"progress": None, "records": ()})
        file = self.folder(run.metadata.name) / "status.json"
        write_atomically(file, own.to_json())
        self._remember(file, own)

    def attempt(self, run: str, attempt: int) -> AttemptFile | None:
        """What is written down of an attempt; None when it was never started."""
        return self._document(self.folder(run) / "attempts" / f"{attempt}.json", AttemptFile)

    def write_attempt(self, run: str, attempt: AttemptFile) -> None:
        file = self.folder(run) / "attempts" / f"{attempt.attempt}.json"
        write_atomically(file, attempt.to_json())
        self._remember(file, attempt)

    def attempts(self, run: str) -> list[AttemptFile]:
        """All attempts of a run, in order."""
        folder = self.folder(run) / "attempts"
        numbers = sorted(int(p.stem) for p in folder.glob("*.json") if p.stem.isdigit()) if folder.is_dir() else []
        return [a for n in numbers if (a := self.attempt(run, n)) is not None]

    def failure(self, run: str, attempt: int) -> Failure | None:
        """The trainer's own words on why that attempt failed."""
        return self._document(self.folder(run) / "report" / f"failure-{attempt}.json", Failure)

    def complete(self, run: ScalingRun) -> bool:
        """Whether some attempt has reported a record at every token count."""
        stored = self.run(run.metadata.name)
        return stored is not None and any(
            {r.tokens for r in s.records} >= set(run.spec.run.tokens) for s in stored.status.records
        )

    def remove_leftovers(self) -> int:
        """Remove half-written files of writers that died."""
        return remove_leftovers(self.workdir)

    # --- reading ---------------------------------------------------------------------------------------------------

    def _numbered(self, folder: Path, kind: str, model: type[D]) -> list[D]:
        """The documents `<kind>-<n>.json` of a folder, by number; the folder is listed only when it has changed."""
        mark = signature(folder)
        cached = self._cache.get(folder)
        if cached and cached[0] == mark:
            names = cached[1]
        else:
            names = [p.name for p in folder.iterdir()] if mark else []
            self._cache[folder] = (mark, names)
        numbers = sorted(
            int(n) for name in names if (n := name.removeprefix(f"{kind}-").removesuffix(".json")).isdigit()
        )
        found = (self._document(folder / f"{kind}-{n}.json", model) for n in numbers)
        return [document for document in found if document is not None]

    def _document(self, path: Path, model: type[D]) -> D | None:
        """A run's file; a damaged one counts as absent, and the driver sets it aside."""
        mark = signature(path)
        cached = self._cache.get(path)
        if cached and cached[0] == mark:
            unchanged: D | None = cached[1]
            return unchanged
        value: D | None = None
        if mark is not None:
            try:
                document = read_object(path, _RUN_REMEDY)
                value = None if document is None else model.model_validate(document)
            except (DamagedError, ValidationError) as error:
                fault = error if isinstance(error, DamagedError) else DamagedError(path, _first(error), _RUN_REMEDY)
                if self.set_aside:
                    path.replace(path.with_name(path.name + ".damaged"))
                    mark = None
                    self.set_aside(str(fault))
        self._cache[path] = (mark, value)
        return value

    def _remember(self, path: Path, value: Any) -> None:
        self._cache[path] = (signature(path), value)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
