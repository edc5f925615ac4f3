"""A local ladder as the commands see it: opened for reading, or its wish changed under the folder's lock.

Owns the sentences for a folder that holds no ladder, and the retry when two commands change one sweep at once.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.cli.errors import InputError
from sweep_operator.cli.place import Wish
from sweep_operator.clusters import Conflict
from sweep_operator.clusters.local.apply import with_spec
from sweep_operator.clusters.local.files import DamagedError, holder_of, in_words
from sweep_operator.clusters.local.store import Store
from sweep_operator.live.summary import Whereabouts


class LocalPlace:
    """The ladder of one folder."""

    watch_seconds = 0.5

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._store, _ = open_ladder(workdir)

    @property
    def whereabouts(self) -> Whereabouts:
        report = self._store.workdir / "report.html"
        return Whereabouts.on_this_machine(str(self._workdir), report if report.exists() else None)

    def sweep(self) -> ScalingSweep:
        sweep = _read(self._store)
        if sweep is None:
            raise InputError(f"{self._workdir} holds no ladder any more")
        return sweep

    def document(self) -> dict[str, Any]:
        return self.sweep().to_json()

    def runs(self) -> Sequence[ScalingRun]:
        return self._store.runs()

    def log(self, run: ScalingRun, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        name = run.metadata.name
        path = self._store.folder(name) / "log"
        if not path.exists():
            raise InputError(f"run {name} is {run.status.state} and has printed nothing yet")
        with path.open("rb") as stream:
            yield b"".join(stream.readlines() if tail is None else deque(stream, tail))
            while follow:
                goes_on = self._goes_on(name)
                while piece := stream.read(1 << 16):
                    yield piece
                if not goes_on:
                    return
                time.sleep(self.watch_seconds)

    def _goes_on(self, name: str) -> bool:
        """Whether the run may still print something by itself."""
        run = self._store.run(name)
        driven = holder_of(self._store.workdir / "driver.lock") is not None
        return driven and run is not None and not run.status.finished

    def change(self, wish: Wish) -> ScalingSweep:
        for _ in range(10):
            sweep = self.sweep()
            changed = with_spec(sweep, {**sweep.spec.to_json(), **wish(sweep)})
            if changed is sweep:
                return sweep
            try:
                self._store.write_sweep(changed)
            except Conflict:
                continue
            except OSError as error:
                raise InputError(in_words(error)) from None
            return changed
        raise InputError(f"{self._workdir}: other commands keep changing the sweep; try again")

    def going_on(self) -> str:
        holder = holder_of(self._store.workdir / "driver.lock")
        if holder:
            return f"the ladder goes on by itself ({holder})"
        manifest = (self._store.data() or {}).get("manifest", "SWEEP.yaml")
        return f"go on with: scalingsweep run {manifest} --workdir {self._workdir}"


def open_ladder(workdir: Path) -> tuple[Store, ScalingSweep]:
    """The folder's documents and its sweep. Raises InputError when there is none."""
    store = Store(workdir.resolve())
    sweep = _read(store)
    if sweep is None:
        raise InputError(f"{workdir} holds no ladder; begin one with: scalingsweep run SWEEP.yaml --workdir {workdir}")
    return store, sweep


def _read(store: Store) -> ScalingSweep | None:
    try:
        return store.sweep()
    except DamagedError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(in_words(error)) from None
