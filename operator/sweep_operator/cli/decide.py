"""`approve`, `suspend`, `resume`, `abort`, `retry`: a person's decisions, written into the sweep's spec.

Owns the digest that an approval carries and the sentences for a decision that would have no effect. A running ladder
notices by itself; one that stands still goes on with the next `run`.
"""

import argparse
from datetime import UTC, datetime

from sweep_operator.api import RungState, RungStatus, RunState, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.ladder import add_workdir, change, open_ladder
from sweep_operator.clusters.local.files import holder_of
from sweep_operator.conditions import timestamp

WAITING = (RungState.HELD, RungState.STOPPED)


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    if name == "approve":
        parser.add_argument("rung", help="the rung whose verdict is accepted, or `target` for the launch")
    add_workdir(parser)
    parser.set_defaults(execute=_DECISIONS[name])


def _approve(options: argparse.Namespace) -> Exit:
    _, sweep = open_ladder(options.workdir)
    held = _held(sweep, options.rung)
    verdict = held.verdict
    assert verdict is not None, "only rungs with a verdict wait"

    def with_approval(standing: ScalingSweep) -> dict[str, object]:
        others = [a.to_json() for a in standing.spec.approvals if a.rung != held.name]
        return {"approvals": [*others, {"rung": held.name, "verdict": verdict.digest}]}

    change(options.workdir, with_approval)
    print(f"accepted for {held.name}: {verdict.reason}: {verdict.message} ({verdict.digest[:19]}…)")
    _how_to_go_on(options)
    return Exit.DONE


def _held(sweep: ScalingSweep, name: str) -> RungStatus:
    """The newest revision of the rung, waiting. Raises InputError when it does not wait."""
    revisions = [r for r in sweep.status.rungs if r.name == name]
    waiting = [r.name for r in sweep.status.rungs if r.state in WAITING and r.verdict]
    hint = f"{waiting[0]} is waiting" if waiting else "nothing is waiting"
    if not revisions:
        names = ", ".join(dict.fromkeys(r.name for r in sweep.status.rungs)) or "none yet"
        raise InputError(f"there is no rung {name!r} (there are: {names}); {hint}")
    rung = revisions[-1]
    if rung.state not in WAITING or rung.verdict is None:
        raise InputError(f"rung {name} is {rung.state} and waits for no approval; {hint}")
    if any(a.rung == name and a.verdict == rung.verdict.digest for a in sweep.spec.approvals):
        raise InputError(f"this verdict on {name} is accepted already; the next run goes on with it")
    return rung


def _suspend(options: argparse.Namespace) -> Exit:
    before = _open_unfinished(options)
    if before.spec.suspend:
        raise InputError("the sweep is suspended already; resume takes it up again")
    change(options.workdir, lambda _: {"suspend": True})
    print("suspended: running runs checkpoint and stop, nothing new starts; resume takes it up again")
    return Exit.DONE


def _resume(options: argparse.Namespace) -> Exit:
    before = _open_unfinished(options)
    if not before.spec.suspend:
        raise InputError("the sweep is not suspended")
    change(options.workdir, lambda _: {"suspend": False})
    _how_to_go_on(options)
    return Exit.DONE


def _abort(options: argparse.Namespace) -> Exit:
    _open_unfinished(options)
    change(options.workdir, lambda _: {"abort": True})
    print("aborted for good: running runs stop, results stay")
    return Exit.DONE


def _retry(options: argparse.Namespace) -> Exit:
    store, _ = open_ladder(options.workdir)
    failed = [run for run in store.runs() if run.status.state is RunState.FAILED]
    if not failed:
        raise InputError("no run of this sweep has failed; there is nothing to retry")
    change(options.workdir, lambda _: {"retryToken": timestamp(datetime.now(UTC))})
    print(f"{len(failed)} failed runs will be tried once more")
    _how_to_go_on(options)
    return Exit.DONE


def _open_unfinished(options: argparse.Namespace) -> ScalingSweep:
    _, sweep = open_ladder(options.workdir)
    if sweep.spec.abort:
        raise InputError("the sweep was aborted, and that is for good; its results stay")
    if sweep.status.is_true("Succeeded"):
        raise InputError("the sweep has succeeded; nothing is left to decide")
    return sweep


def _how_to_go_on(options: argparse.Namespace) -> None:
    """Whether a driver notices by itself, or what has to be started."""
    store, _ = open_ladder(options.workdir)
    holder = holder_of(store.workdir / "driver.lock")
    if holder:
        print(f"the ladder goes on by itself ({holder})")
    else:
        manifest = (store.data() or {}).get("manifest", "SWEEP.yaml")
        print(f"go on with: scalingsweep run {manifest} --workdir {options.workdir}")


_DECISIONS = {"approve": _approve, "suspend": _suspend, "resume": _resume, "abort": _abort, "retry": _retry}
