"""`scalingsweep run`: climb a whole ladder on this machine; the same command again continues it.

Owns the order of things: everything that can be wrong with the input is found before the first byte is written. The
folder's layout is in `clusters/local/store.py`.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from sweep_operator.acceptance import Refused, accept
from sweep_operator.api import ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.clusters.local import LocalCluster
from sweep_operator.clusters.local.apply import applied
from sweep_operator.clusters.local.data import DataError, Prepared, as_kept, cache_folder, changed_since, prepare
from sweep_operator.clusters.local.driver import PassTimes, drive, listening
from sweep_operator.clusters.local.files import DamagedError, HeldError, Lock, this_host
from sweep_operator.clusters.local.processes import NurseryError
from sweep_operator.clusters.local.store import KNOWN, Store
from sweep_operator.conditions import timestamp
from sweep_operator.live import View, open_view
from sweep_operator.manifest import Manifest, ManifestError, read_manifest
from sweep_operator.policy import Policy, load_policy


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("manifest", metavar="SWEEP.yaml", type=Path, help="the ScalingSweep that kubectl would take")
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="folder of the ladder (default: ./<sweep's name>)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    parser.add_argument("--metrics-port", metavar="PORT", type=int, help="serve Prometheus metrics on 127.0.0.1:PORT")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Check, prepare, climb, report."""
    try:
        manifest = read_manifest(options.manifest)
        policy = load_policy(options.policy)
        workdir = (options.workdir or Path(manifest.sweep.metadata.name)).resolve()
        store = Store(workdir)
        standing = _standing(store, manifest)
        sweep = applied(standing, manifest, timestamp(datetime.now(UTC)))
        _check(sweep, policy, options.manifest)
        root = options.manifest.resolve().parent
        cache = cache_folder()
        prepared = prepare(sweep.spec.training, root, cache)
        if standing and (kept := store.data()) and (changed := changed_since(kept, prepared)):
            raise InputError(changed)
    except (ManifestError, DataError, DamagedError) as error:
        raise InputError(str(error)) from None
    lock = _lock(workdir)
    try:
        return _climb(options, store, sweep, policy, prepared, root, cache)
    except DamagedError as error:
        raise InputError(str(error)) from None
    except NurseryError as error:
        raise InputError(str(error)) from None
    finally:
        lock.release()


def _standing(store: Store, manifest: Manifest) -> ScalingSweep | None:
    """The sweep that stands in the folder already. Raises InputError when it is another one's."""
    workdir, metadata = store.workdir, manifest.sweep.metadata
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir} is not a folder; name another --workdir")
    standing = store.sweep()
    if standing is None:
        strangers = sorted({p.name for p in workdir.iterdir()} - KNOWN) if workdir.is_dir() else []
        strangers = [name for name in strangers if not name.endswith(".tmp")]
        if strangers:
            raise InputError(f"{workdir} holds other things ({strangers[0]} …) and no sweep; name another --workdir")
        return None
    there = f"{standing.metadata.namespace}/{standing.metadata.name}"
    here = f"{metadata.namespace}/{metadata.name}"
    if there != here:
        raise InputError(f"{workdir} holds the sweep {there}, the manifest is {here}; name another --workdir")
    return standing


def _check(sweep: ScalingSweep, policy: Policy, path: Path) -> None:
    verdict = accept(sweep, policy)
    if isinstance(verdict, Refused):
        raise InputError(f"{path}: {verdict.reason}: {verdict.message}")


def _lock(workdir: Path) -> Lock:
    holder = {"pid": os.getpid(), "host": this_host(), "startedAt": timestamp(datetime.now(UTC))}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return Lock(workdir / "driver.lock", holder)
    except HeldError as error:
        raise InputError(f"{workdir} is being climbed already by {error}") from None
    except OSError as error:
        raise InputError(f"{workdir} cannot be written: {error.strerror}") from None


def _climb(
    options: argparse.Namespace,
    store: Store,
    sweep: ScalingSweep,
    policy: Policy,
    prepared: Prepared,
    root: Path,
    cache: Path,
) -> Exit:
    store.remove_leftovers()
    if sweep is not store.sweep():
        store.write_sweep(sweep)
    store.write_data(as_kept(prepared, root))
    view = open_view()
    cluster = LocalCluster(store, root, cache, show=view.event)
    key = f"{sweep.metadata.namespace}/{sweep.metadata.name}"
    with listening() as signals:
        try:
            cluster.take_over()
            final = drive(cluster, key, policy, signals, view, PassTimes())
            if signals.count:
                return _interrupted(cluster, view, options)
        except KeyboardInterrupt:
            return _interrupted(cluster, view, options, at_once=True)
        finally:
            cluster.close(at_once=signals.count > 1)
            view.close()
    return _conclude(final, options)


def _interrupted(cluster: LocalCluster, view: View, options: argparse.Namespace, *, at_once: bool = False) -> Exit:
    try:
        cluster.close(at_once=at_once)
    except KeyboardInterrupt:
        cluster.close(at_once=True)
    view.close()
    workdir = f" --workdir {options.workdir}" if options.workdir else ""
    print(f"interrupted; continue with: scalingsweep run {options.manifest}{workdir}", file=sys.stderr)
    return Exit.INTERRUPTED


def _conclude(sweep: ScalingSweep, options: argparse.Namespace) -> Exit:
    finished = sweep.status.condition("Finished")
    if finished and finished.status == "True":
        print(f"{sweep.metadata.name}: {finished.reason}: {finished.message}")
        return {"Succeeded": Exit.DONE, "Failed": Exit.FAILED}.get(finished.reason, Exit.STOPPED_BY_RULE)
    return Exit.STOPPED_BY_RULE
