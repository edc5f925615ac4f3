"""`scalingsweep run`: climb a whole ladder on this machine; the same command again continues it.

Owns the order of things: everything that can be wrong with the input is found before the first byte is written. The
folder's layout is in `clusters/local/store.py`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweep_operator.acceptance import Refused, accept
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.clusters import Unavailable
from sweep_operator.clusters.local import LocalCluster
from sweep_operator.clusters.local.apply import applied
from sweep_operator.clusters.local.data import DataError, Prepared, as_kept, cache_folder, changed_since, prepare
from sweep_operator.clusters.local.driver import PassTimes, drive, listening
from sweep_operator.clusters.local.earlier import imported
from sweep_operator.clusters.local.files import DamagedError, HeldError, Lock, holder_of, in_words, this_host
from sweep_operator.clusters.local.processes import Nursery, NurseryError
from sweep_operator.clusters.local.store import KNOWN, Store
from sweep_operator.clusters.local.takeover import take_over
from sweep_operator.conditions import timestamp
from sweep_operator.live import open_view
from sweep_operator.live.picture import picture_of, slots_of
from sweep_operator.live.summary import Whereabouts, next_step, summary
from sweep_operator.manifest import Manifest, ManifestError, read_manifest, read_policy
from sweep_operator.policy import Policy


@dataclass(frozen=True, slots=True)
class _Climb:
    """A checked input, ready to be written."""

    store: Store
    sweep: ScalingSweep
    policy: Policy
    prepared: Prepared
    manifest: Path
    cache: Path
    nursery: Nursery | None
    """Loading the trainer already, unless nothing is left to train."""
    times: PassTimes

    @property
    def root(self) -> Path:
        """Where relative data paths start."""
        return self.manifest.parent

    @property
    def key(self) -> str:
        return f"{self.sweep.metadata.namespace}/{self.sweep.metadata.name}"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("manifest", metavar="SWEEP.yaml", type=Path, help="the ScalingSweep that kubectl would take")
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="folder of the ladder (default: ./<sweep's name>)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    parser.add_argument("--metrics-port", metavar="PORT", type=int, help="serve Prometheus metrics on 127.0.0.1:PORT")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Check, prepare, climb, report."""
    with ExitStack() as held:
        try:
            climb = _checked(options, held)
        except (ManifestError, DataError, DamagedError, Unavailable) as error:
            raise InputError(str(error)) from None
        if options.metrics_port is not None:
            held.callback(_serve_metrics(climb, options.metrics_port))
        held.callback(_lock(climb.store.workdir).release)
        try:
            final = _climb(climb)
        except (DamagedError, NurseryError) as error:
            raise InputError(str(error)) from None
        except OSError as error:
            print(f"scalingsweep run: {in_words(error)} and run the same command again", file=sys.stderr)
            return Exit.FAILED
        if final is None:
            workdir = f" --workdir {options.workdir}" if options.workdir else ""
            print(f"interrupted; continue with: scalingsweep run {options.manifest}{workdir}", file=sys.stderr)
            return Exit.INTERRUPTED
        sweep, runs = final
        return _conclude(sweep, runs, climb.store.workdir, options.workdir or Path(sweep.metadata.name))


def _checked(options: argparse.Namespace, held: ExitStack) -> _Climb:
    """Everything that can be wrong with the input, before anything is written."""
    manifest = read_manifest(options.manifest)
    policy = read_policy(options.policy)
    store = Store((options.workdir or Path(manifest.sweep.metadata.name)).resolve())
    standing = _standing(store, manifest)
    if holder := holder_of(store.workdir / "driver.lock"):
        raise InputError(f"{store.workdir} is being climbed already by {holder}")
    sweep = applied(standing, manifest, timestamp(datetime.now(UTC)))
    verdict = accept(sweep, policy)
    if isinstance(verdict, Refused):
        raise InputError(f"{options.manifest}: {verdict.reason}: {verdict.message}")
    if sweep.spec.records and not sweep.status.frozen:
        imported(sweep, options.manifest.resolve().parent)  # read for the forecast later, and refused here
    nursery = None
    if not sweep.status.is_true("Succeeded"):
        nursery = Nursery()  # it loads while the data is looked at
        held.callback(nursery.close)
    path, cache = options.manifest.resolve(), cache_folder()
    prepared = prepare(sweep.spec.training, path.parent, cache)
    for recipe in {run.recipe(sweep.spec.training) for rung in verdict.rungs for run in rung.runs}:
        if recipe != sweep.spec.training:
            prepare(recipe, path.parent, cache)  # what cannot be read at another context is refused here as well
    if standing and (kept := store.data()) and (changed := changed_since(kept, prepared)):
        raise InputError(changed)
    return _Climb(store, sweep, policy, prepared, path, cache, nursery, PassTimes())


def _standing(store: Store, manifest: Manifest) -> ScalingSweep | None:
    """The sweep that stands in the folder already. Raises InputError when it is another one's."""
    workdir, metadata = store.workdir, manifest.sweep.metadata
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir} is not a folder; name another --workdir")
    standing = store.sweep()
    if standing is None:
        names = {p.name for p in workdir.iterdir()} if workdir.is_dir() else set()
        strangers = sorted(name for name in names - KNOWN if not name.endswith(".tmp"))
        if strangers:
            raise InputError(f"{workdir} holds other things ({strangers[0]} …) and no sweep; name another --workdir")
        return None
    there = f"{standing.metadata.namespace}/{standing.metadata.name}"
    here = f"{metadata.namespace}/{metadata.name}"
    if there != here:
        raise InputError(f"{workdir} holds the sweep {there}, the manifest is {here}; name another --workdir")
    return standing


def _lock(workdir: Path) -> Lock:
    holder = {"pid": os.getpid(), "host": this_host(), "startedAt": timestamp(datetime.now(UTC))}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return Lock(workdir / "driver.lock", holder)
    except HeldError as error:
        raise InputError(f"{workdir} is being climbed already by {error}") from None
    except OSError as error:
        raise InputError(in_words(error)) from None


def _serve_metrics(climb: _Climb, port: int) -> Callable[[], None]:
    """Serve the ladder's series; returns what stops it. Raises InputError when the port cannot be had."""
    from sweep_operator.metrics import Latency, Observed, PortTakenError, SweepPage, serve

    reader = Store(climb.store.workdir)  # scrapes come on threads of their own

    def observe() -> list[Observed]:
        sweep = reader.sweep()
        return [Observed(sweep, reader.runs())] if sweep else []

    def latency() -> Latency:
        return Latency(climb.times.bounds, tuple(climb.times.counts), climb.times.total)

    try:
        return serve(SweepPage(observe, of_runs=True), port, latency)
    except PortTakenError as error:
        raise InputError(str(error)) from None


def _climb(climb: _Climb) -> tuple[ScalingSweep, Sequence[ScalingRun]] | None:
    """Drive until the ladder stands still; None when a signal ended it before, with every trainer stopped."""
    store = climb.store
    store.remove_leftovers()
    if climb.sweep is not store.sweep():
        store.write_sweep(climb.sweep)
    store.write_data(as_kept(climb.prepared, climb.manifest))
    view = open_view()
    store.set_aside = view.notice
    cluster = LocalCluster(store, climb.root, climb.cache, show=view.event, nursery=climb.nursery)
    with listening() as signals:
        try:
            take_over(cluster, signals.hurry)
            final = drive(cluster, climb.key, climb.policy, signals, view, climb.times)
        finally:
            cluster.close(signals.hurry)
            view.close()
        return None if signals.count else (final, cluster.runs(final))


def _conclude(sweep: ScalingSweep, runs: Sequence[ScalingRun], workdir: Path, named: Path) -> Exit:
    """Say what came of it and what may be done next; the exit status."""
    print("\n" + summary(sweep, picture_of(sweep, runs, slots_of(sweep))))
    _write_report(workdir)
    finished = sweep.status.condition("Finished")
    if finished and finished.status == "True":
        print(f"\n{sweep.metadata.name}: {finished.reason}: {finished.message}")
    if step := next_step(sweep, Whereabouts.on_this_machine(str(named))):
        print(step)
    if finished is None or finished.status != "True":
        return Exit.STOPPED_BY_RULE
    return {"Succeeded": Exit.DONE, "Failed": Exit.FAILED}.get(finished.reason, Exit.STOPPED_BY_RULE)


def _write_report(workdir: Path) -> None:
    """The report, if it can be drawn here; a ladder's result and exit status do not hang on it."""
    from sweep_operator.cli.report import write

    try:
        print(f"report   {write(workdir)}")
    except InputError as error:
        print(f"report   none: {error}")
    except OSError as error:
        print(f"report   none: {in_words(error)}")
