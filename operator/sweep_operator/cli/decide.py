"""`approve`, `suspend`, `resume`, `abort`, `retry`: a person's decisions, written into the sweep's spec.

Owns the digest that an approval carries and the sentences for a decision that would have no effect. A running ladder
and an operator notice by themselves; a local ladder that stands still goes on with the next `run`.
"""

import argparse
from datetime import UTC, datetime
from typing import Any

from sweep_operator.api import RungState, RungStatus, RunState, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.place import Place
from sweep_operator.cli.placing import add_place, is_local, place_of
from sweep_operator.conditions import timestamp

WAITING = (RungState.HELD, RungState.STOPPED)


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="the sweep's name; may be left out with --workdir")
    if name == "approve":
        parser.add_argument("rung", help="the rung whose verdict is accepted, or `target` for the launch")
    add_place(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Decide, where the sweep stands."""
    decide = _DECISIONS[options.command]
    if is_local(options):
        return decide(place_of(options), options)
    from sweep_operator.cli.cluster import answered

    return answered(lambda options: decide(place_of(options), options))(options)


def _approve(place: Place, options: argparse.Namespace) -> Exit:
    held = _held(place, options.rung)
    verdict = held.verdict
    assert verdict is not None, "only rungs with a verdict wait"

    def with_approval(standing: ScalingSweep) -> dict[str, Any]:
        others = [a.to_json() for a in standing.spec.approvals if a.rung != held.name]
        return {"approvals": [*others, {"rung": held.name, "verdict": verdict.digest}]}

    place.change(with_approval)
    print(f"accepted for {held.name}: {verdict.reason}: {verdict.message} ({verdict.digest[:19]}…)")
    print(place.going_on())
    return Exit.DONE


def _held(place: Place, name: str) -> RungStatus:
    """The newest revision of the rung, waiting. Raises InputError when it does not wait."""
    sweep = place.sweep()
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
        raise InputError(f"this verdict on {name} is accepted already; {place.going_on()}")
    return rung


def _suspend(place: Place, options: argparse.Namespace) -> Exit:
    if _unfinished(place).spec.suspend:
        raise InputError("the sweep is suspended already; resume takes it up again")
    place.change(lambda _: {"suspend": True})
    print("suspended: running runs checkpoint and stop, nothing new starts; resume takes it up again")
    return Exit.DONE


def _resume(place: Place, options: argparse.Namespace) -> Exit:
    if not _unfinished(place).spec.suspend:
        raise InputError("the sweep is not suspended")
    place.change(lambda _: {"suspend": False})
    print(place.going_on())
    return Exit.DONE


def _abort(place: Place, options: argparse.Namespace) -> Exit:
    _unfinished(place)
    place.change(lambda _: {"abort": True})
    print("aborted for good: running runs stop, results stay")
    return Exit.DONE


def _retry(place: Place, options: argparse.Namespace) -> Exit:
    failed = [run for run in place.runs() if run.status.state is RunState.FAILED]
    if not failed:
        raise InputError("no run of this sweep has failed; there is nothing to retry")
    place.change(lambda _: {"retryToken": timestamp(datetime.now(UTC))})
    print(f"{len(failed)} failed runs will be tried once more")
    print(place.going_on())
    return Exit.DONE


def _unfinished(place: Place) -> ScalingSweep:
    sweep = place.sweep()
    if sweep.spec.abort:
        raise InputError("the sweep was aborted, and that is for good; its results stay")
    if sweep.status.is_true("Succeeded"):
        raise InputError("the sweep has succeeded; nothing is left to decide")
    return sweep


_DECISIONS = {"approve": _approve, "suspend": _suspend, "resume": _resume, "abort": _abort, "retry": _retry}
