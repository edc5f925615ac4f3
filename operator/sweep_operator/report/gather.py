"""All that a report tells of, read once: the sweep, its runs, and their learning curves.

Owns the reading. What is missing or damaged becomes a sentence in `notices`, never an exception; only a folder without
a readable sweep is refused, by the store.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sweep_analysis.figures.curves import thin
from sweep_analysis.figures.series import Floats
from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose
from sweep_operator.api import TARGET, RungState, RungStatus, ScalingRun, ScalingSweep
from sweep_operator.clusters.local.store import Store
from sweep_operator.imports import records_of
from sweep_operator.judgement import runs_of
from sweep_operator.names import run_name

MOST_CURVES = 60
"""More could not be told apart, and would make the page heavy."""
RESOLUTION = 0.002
"""Steps of log tokens in which a long curve is averaged when it is read; finer than any figure."""
LONG = 5000

Pieces = tuple[tuple[Floats, Floats], ...]
"""(tokens, loss) of a trunk and its branches."""


@dataclass(frozen=True)
class Ladder:
    """A sweep with all that hangs on it."""

    sweep: ScalingSweep
    runs: tuple[ScalingRun, ...]
    curves: dict[str, Pieces]
    """By run name, of planned runs with a readable point; of a ladder with very many, the first runs of each rung."""
    curves_left_out: int = 0
    """Runs whose curve was not read because there are too many."""
    notices: tuple[str, ...] = ()
    """One sentence for each thing that could not be read."""

    @property
    def rungs(self) -> tuple[RungStatus, ...]:
        """The ladder's rungs and revisions in order, the target left out."""
        return tuple(r for r in self.sweep.status.rungs if r.name != TARGET)

    @property
    def target(self) -> RungStatus | None:
        """The target's own entry; None where the operator may not launch it, or has not come to it."""
        return next((r for r in self.sweep.status.rungs if r.name == TARGET), None)

    @cached_property
    def records(self) -> dict[tuple[str, int], tuple[Record, ...]]:
        """Accepted records of each rung's planned runs, by (rung, revision)."""
        return {
            (rung.name, rung.revision): tuple(
                record for run in runs_of(self.sweep, rung, self.runs) for record in run.status.accepted
            )
            for rung in self.sweep.status.rungs
        }

    @cached_property
    def losses(self) -> dict[tuple[str, int, str], dict[int, float]]:
        """Accepted losses by token count, of each planned run, by (rung, revision, digest of the run)."""
        by_name = {run.metadata.name: run for run in self.runs}
        found = {}
        for rung in self.sweep.status.rungs:
            for run in rung.runs:
                child = by_name.get(run_name(self.sweep, rung.name, rung.revision, run))
                accepted = child.status.accepted if child else ()
                found[rung.name, rung.revision, run.content_digest] = {r.tokens: r.loss for r in accepted}
        return found

    def history(self) -> list[tuple[Record, ...]]:
        """The records that the law rests on: imported ones, then those of promoted rungs, the target left out."""
        own = [self.records[r.name, r.revision] for r in self.rungs if r.state is RungState.PROMOTED]
        imported = records_of(self.sweep.status.imports)
        return [imported, *own] if imported else own

    @property
    def last_time(self) -> str:
        """The newest time that anything in the ladder bears; empty when nothing has happened."""
        times = [c.last_transition_time for c in self.sweep.status.conditions]
        times += [t for r in self.sweep.status.rungs for t in (r.started_at, r.finished_at) if t]
        times += [t for run in self.runs for a in run.status.attempts for t in (a.started_at, a.ended_at) if t]
        times += [run.status.progress.last_updated for run in self.runs if run.status.progress]
        return max(times, default="")


class NoSweepError(Exception):
    """The folder holds no sweep; the text is one sentence."""


def gather(workdir: Path) -> Ladder:
    """Read a ladder's folder. Raises NoSweepError, or the store's DamagedError when the sweep itself is unreadable."""
    notices: list[str] = []
    store = Store(workdir, notices.append)
    sweep = store.sweep()
    if sweep is None:
        raise NoSweepError(f"{workdir} holds no sweep; name the folder that `scalingsweep run` was given as --workdir")
    runs = tuple(store.runs())
    files = {run.metadata.name: store.folder(run.metadata.name) / "storage" / "curve.jsonl" for run in runs}
    planned = [run for run in _planned(sweep, runs) if files[run.metadata.name].exists()]
    chosen = _first_of_each_rung(planned)
    curves = {}
    for run in chosen:
        pieces, notice = read_curve(files[run.metadata.name])
        if pieces:
            curves[run.metadata.name] = pieces
        if notice:
            notices.append(f"{run.metadata.name}: {notice}")
    return Ladder(sweep, runs, curves, len(planned) - len(chosen), tuple(notices))


def _planned(sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> list[ScalingRun]:
    """The planned runs of each rung's newest revision; diagnosis and what was rerun are left out."""
    revisions = {rung.name: rung.revision for rung in sweep.status.rungs}
    return [
        run
        for run in runs
        if run.spec.run.purpose is not Purpose.DIAGNOSIS and run.spec.revision == revisions.get(run.spec.rung)
    ]


def _first_of_each_rung(runs: Sequence[ScalingRun]) -> list[ScalingRun]:
    if len(runs) <= MOST_CURVES:
        return list(runs)
    each = max(1, MOST_CURVES // len({run.spec.rung for run in runs}))
    seen: Counter[str] = Counter()
    chosen = []
    for run in sorted(runs, key=lambda run: (run.spec.run.parameters, run.spec.run.seed)):
        seen[run.spec.rung] += 1
        if seen[run.spec.rung] <= each:
            chosen.append(run)
    return chosen


def read_curve(path: Path) -> tuple[Pieces, str]:
    """A learning curve in pieces, and a sentence about the lines that could not be read (empty when all could).

    A line is a JSON object with `tokens` and `loss`, and in a decay branch `branch`. The trunk is one piece and every
    branch another, begun where it leaves the trunk; tokens that step back without a branch begin a new piece too.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"the learning curve could not be read: {error.strerror or error}"
    trunk: list[_Point] = []
    pieces: list[list[_Point]] = [trunk]
    branch, bad = None, 0
    for line in lines:
        point = _point(line)
        if point is None:
            bad += 1
            continue
        if point.branch is None:
            if trunk and point.tokens <= trunk[-1].tokens:
                trunk = []
                pieces.append(trunk)
            trunk.append(point)
        elif point.branch == branch:
            pieces[-1].append(point)
        else:
            pieces.append([*trunk[-1:], point])
        branch = point.branch
    notice = f"{bad} of {len(lines)} lines of the learning curve are damaged; the others are drawn" if bad else ""
    return tuple(_arrays(piece) for piece in pieces if piece), notice


@dataclass(frozen=True, slots=True)
class _Point:
    tokens: float
    loss: float
    branch: float | None


def _arrays(points: Sequence[_Point]) -> tuple[Floats, Floats]:
    tokens, loss = np.array([p.tokens for p in points]), np.array([p.loss for p in points])
    return (tokens, loss) if len(points) <= LONG else thin(tokens, loss, RESOLUTION)


def _point(line: str) -> _Point | None:
    try:
        value = json.loads(line)
        tokens, loss, branch = float(value["tokens"]), float(value["loss"]), value.get("branch")
        point = _Point(tokens, loss, None if branch is None else float(branch))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return point if math.isfinite(tokens + loss) and tokens > 0 and loss > 0 else None
