"""The ladder of a sweep as one pure decision: given what is wished, known and seen, what is next?

Owns the states of a rung and the order of their transitions. It reads frozen inputs (`now` among them) and returns
either one new status or children to create, never both; it touches no cluster and does no statistics of its own.

    Pending ── forecast written ──▶ Forecast ── first child exists ──▶ Running ── all runs ended ──▶ (judged)
    (judged)  Pass, or NotJudged inside the warm-up ───────────────▶ Promoted      Manual promotion: Held first
              experiments asked ──▶ Diagnosing ── all ended ──▶ (judged)
              another learning rate found ──▶ Superseded, and the next revision of the rung is Pending
              Inconclusive ──▶ Held ── a person accepts the verdict ──▶ Promoted
              Fail ──▶ Stopped ── a person accepts the verdict ──▶ Promoted
    Running ── more runs failed than may ──▶ Failed ── retryToken ──▶ Running
    target: Pending ── forecast and launch rule ──▶ Forecast, or Held until a person accepts; once judged, Promoted

A rung that does not fit the budget stays Pending: raising the budget is all it takes to go on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sweep_analysis.gate import Outcome, Verdict
from sweep_analysis.record import FailureReason
from sweep_analysis.rung import Run
from sweep_operator import budget, judgement
from sweep_operator.acceptance import Accepted, Refused, accept
from sweep_operator.api import (
    TARGET,
    Imports,
    Metadata,
    RungForecast,
    RungProgress,
    RungState,
    RungStatus,
    RunSpec,
    RunState,
    ScalingRun,
    ScalingSweep,
    Spent,
    SweepStatus,
)
from sweep_operator.clusters import Event
from sweep_operator.conditions import timestamp
from sweep_operator.evidence import observed
from sweep_operator.launch import Launch, launch_verdict
from sweep_operator.names import config_digest, run_name
from sweep_operator.outlook import Obstacle, may_wait, progress_of, summarise
from sweep_operator.policy import Policy

MAX_REVISIONS = 3
"""A rung is retuned at most twice; then a person looks."""

RECORDS_SECONDS = 60.0
"""How soon is asked again for earlier records that could not be read."""

DONE = (RungState.PROMOTED, RungState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Decision:
    """One new status, or children to create, or neither."""

    status: SweepStatus | None = None
    create: tuple[ScalingRun, ...] = ()
    requeue_seconds: float | None = None
    """When to look again for the sake of what was not worth a write now."""
    events: tuple[Event, ...] = ()
    wants_imports: bool = False
    """The first forecast is due, and what spec.records names must be read for it: decide again with it."""


@dataclass(frozen=True, slots=True)
class _View:
    """What a decision looks at, gathered once."""

    sweep: ScalingSweep
    children: tuple[ScalingRun, ...]
    now: datetime
    by_name: dict[str, ScalingRun] = field(default_factory=dict)

    def child(self, rung: RungStatus, run: Run) -> ScalingRun | None:
        return self.by_name.get(run_name(self.sweep, rung.name, rung.revision, run))

    def ended(self, rung: RungStatus, runs: tuple[Run, ...]) -> bool:
        """Whether every one of these runs exists and will do nothing more."""
        return all((child := self.child(rung, run)) is not None and child.status.finished for run in runs)


def decide(
    sweep: ScalingSweep,
    children: tuple[ScalingRun, ...],
    policy: Policy,
    now: datetime,
    obstacle: Obstacle | None = None,
    imports: Imports | Refused | None = None,
) -> Decision:
    """The next step of a sweep: a status to write, or children to create, or nothing.

    `obstacle` is what the last creation of a child met, and is shown; creation is asked for again nevertheless.
    `imports` is what spec.records came to, where that was wanted.
    """
    accepted = accept(sweep, policy)
    view = _View(sweep, children, now, {child.metadata.name: child for child in children})
    if isinstance(accepted, Refused):
        return _refuse(view, accepted)
    settled = _settle(view, accepted)
    objection = _objection(view, settled)
    told: tuple[Event, ...] = ()
    if not (sweep.spec.suspend or sweep.spec.abort or objection):
        if sweep.spec.records and not sweep.status.frozen:
            if imports is None:
                return Decision(wants_imports=True)
            if isinstance(imports, Refused):
                return _refuse(view, imports, RECORDS_SECONDS)
            settled = settled.changed(imports=imports)
        settled, told = _advance(view, settled, accepted)
        objection = _objection(view, settled)
        opened = _current(settled)
        # A verdict that promotes is written with the forecast of the rung it opens: no pass lies between them.
        if told and not objection and opened is not None and opened.state is RungState.PENDING:
            settled, foretold = _advance(view, settled, accepted)
            told = (*told, *foretold)
    status, events = summarise(sweep, settled, children, now, over_budget=objection, obstacle=obstacle)
    wait = None
    if status != sweep.status:
        wait = may_wait(sweep.status, status, now)
        if wait is None:
            return Decision(status=status, events=(*told, *events))
    stands = sweep.spec.suspend or sweep.spec.abort or objection
    return Decision(create=() if stands else _missing(view), requeue_seconds=wait)


def _refuse(view: _View, refused: Refused, again_seconds: float | None = None) -> Decision:
    """Say why nothing (more) is started, once."""
    before = view.sweep.status
    _, spent = _spent(view, before.rungs)
    status, events = summarise(view.sweep, before.changed(spent=spent), view.children, view.now, refused=refused)
    if status != before:
        return Decision(status=status, events=events)
    return Decision(requeue_seconds=again_seconds)


def _current(status: SweepStatus) -> RungStatus | None:
    return next((rung for rung in status.rungs if rung.state not in DONE), None)


def _settle(view: _View, accepted: Accepted) -> SweepStatus:
    """The status with its rungs as the spec now lists them; what has started stays as it is."""
    old = view.sweep.status
    started = {r.name for r in old.rungs if r.state is not RungState.PENDING or r.revision > 1}
    rungs: list[RungStatus] = []
    for rung in accepted.rungs:
        if rung.name in started:
            rungs.extend(r for r in old.rungs if r.name == rung.name)
        else:
            rungs.append(RungStatus(name=rung.name, runs=rung.runs))
    if TARGET in started:
        rungs.extend(r for r in old.rungs if r.name == TARGET)
    elif view.sweep.spec.target.launch != "Never":
        rungs.append(RungStatus(name=TARGET, runs=(accepted.target,)))
    by_rung, spent = _spent(view, rungs)
    counted = tuple(r.changed(spent=by_rung[r.name, r.revision], progress=_progress(view, r)) for r in rungs)
    return old.changed(rungs=counted, spent=spent)


def _spent(view: _View, rungs: Iterable[RungStatus]) -> tuple[dict[tuple[str, int], Spent], Spent]:
    """What each revision of a rung has used, and all of them; of a finished one also what deleted runs had used."""
    children: dict[tuple[str, int], list[ScalingRun]] = {}
    for child in view.children:
        children.setdefault((child.spec.rung, child.spec.revision), []).append(child)
    by_rung, total = {}, budget.spent_on(view.children)
    for rung in rungs:
        key = rung.name, rung.revision
        standing = children.get(key, [])
        by_rung[key] = budget.spent_on(standing)
        if rung.state in DONE and len(standing) < len(rung.runs) + len(rung.experiments):
            total = budget.added(total, budget.vanished(rung.spent, by_rung[key]))
            by_rung[key] = budget.at_least(rung.spent, by_rung[key])
    return by_rung, total


def _progress(view: _View, rung: RungStatus) -> RungProgress | None:
    if rung.state not in (RungState.FORECAST, RungState.RUNNING, RungState.DIAGNOSING):
        return rung.progress
    children = [view.child(rung, run) for run in (*rung.runs, *rung.experiments)]
    return progress_of(rung, children, view.now) if any(children) else rung.progress


def _objection(view: _View, status: SweepStatus) -> str | None:
    """Why the budget forbids going on, or None."""
    spec = view.sweep.spec
    overdrawn = budget.overdrawn(spec.budget, status.spent)
    rung = _current(status)
    if overdrawn or rung is None or rung.state is not RungState.PENDING:
        return overdrawn if rung is not None else None
    cost = budget.cost_of(spec.training, rung.runs, view.children)
    if rung.name == TARGET:
        return None  # the launch rule asks, and tells a person
    return budget.objection(spec.budget, status.spent, cost, f"rung {rung.name!r}")


def _advance(view: _View, status: SweepStatus, accepted: Accepted) -> tuple[SweepStatus, tuple[Event, ...]]:
    """At most one transition of the current rung."""
    rung = _current(status)
    if rung is None:
        return status, ()
    if rung.state is RungState.PENDING:
        return _foretell(view, status, rung, accepted)
    if rung.state is RungState.FORECAST:
        if any(view.child(rung, run) for run in rung.runs):
            return _replace(status, rung.changed(state=RungState.RUNNING, started_at=timestamp(view.now))), ()
        return status, ()
    if rung.state in (RungState.HELD, RungState.STOPPED, RungState.FAILED):
        return _reconsider(view, status, rung, accepted)
    due = (*rung.runs, *rung.experiments) if rung.state is RungState.DIAGNOSING else rung.runs
    if not view.ended(rung, due):
        return status, ()
    if failed := _too_many_failed(view, rung):
        why = failed[0].status.failures[-1].message
        message = f"{len(failed)} runs failed, {view.sweep.spec.retry.max_failed_runs} may: {why}"
        event = Event("RunsFailed", message, rung.name, warning=True)
        return _replace(status, rung.changed(state=RungState.FAILED)), (event,)
    return _judge(view, status, rung, accepted)


def _too_many_failed(view: _View, rung: RungStatus) -> list[ScalingRun]:
    """The runs that failed, where they are more than may."""
    failed = [child for run in rung.runs if (child := view.child(rung, run)) and _failed(child)]
    return failed if len(failed) > view.sweep.spec.retry.max_failed_runs else []


def _failed(child: ScalingRun) -> bool:
    """Failed for a reason that says nothing about the law; a run that diverged is evidence, and the gate's to judge."""
    if child.status.state is not RunState.FAILED or not child.status.failures:
        return False
    return child.status.failures[-1].reason is not FailureReason.DIVERGED


def _foretell(
    view: _View, status: SweepStatus, rung: RungStatus, accepted: Accepted
) -> tuple[SweepStatus, tuple[Event, ...]]:
    """Write the forecast down before the first run exists; for the target, decide on its launch as well."""
    spec = view.sweep.spec
    sweep = view.sweep.changed(status=status)
    expected = judgement.forecast_of(sweep, judgement.history_of(sweep, view.children), rung.judged)
    thresholds = judgement.thresholds_of(spec, len(accepted.rungs))
    written = rung.changed(
        state=RungState.FORECAST,
        placement=spec.placement_of(rung.name),
        forecast=RungForecast(time=timestamp(view.now), outcome=expected, thresholds=thresholds),
    )
    events = [Event("Forecast", judgement.forecast_sentence(expected), rung.name)]
    status = status.changed(frozen=status.frozen or spec.frozen_part)
    if rung.name == TARGET:
        cost = budget.cost_of(spec.training, rung.runs, view.children)
        verdict = launch_verdict(Launch(view.sweep.changed(status=status), written, cost))
        state = RungState.FORECAST if verdict.outcome is Outcome.PASS else RungState.HELD
        written = written.changed(verdict=verdict, state=state)
        events.append(Event(verdict.reason, verdict.message, rung.name, warning=state is RungState.HELD))
    return _replace(status, written), tuple(events)


def _judge(
    view: _View, status: SweepStatus, rung: RungStatus, accepted: Accepted
) -> tuple[SweepStatus, tuple[Event, ...]]:
    names = [r.name for r in accepted.rungs]
    warmup = rung.name in names[: view.sweep.spec.gate.warmup_rungs]
    history = judgement.history_of(view.sweep.changed(status=status), view.children)

    def verdict_of(*, may_diagnose: bool) -> Verdict:
        return judgement.verdict_of(
            view.sweep,
            rung,
            view.children,
            history,
            warmup=warmup,
            target=accepted.target,
            may_diagnose=may_diagnose,
        )

    verdict = verdict_of(may_diagnose=rung.name != TARGET)
    asked = tuple(e.run for e in verdict.experiments)
    cost = budget.cost_of(view.sweep.spec.training, asked, view.children)
    repeated = any(run in rung.experiments for run in asked)
    if asked and (repeated or not budget.diagnosis_fits(view.sweep.spec.budget, status.spent, cost)):
        verdict = verdict_of(may_diagnose=False)
    records = [r for c in judgement.runs_of(view.sweep, rung, view.children) for r in c.status.accepted]
    judged = rung.changed(
        verdict=verdict,
        loss=min((record.loss for record in records), default=None),
        observed=observed(records),
        finished_at=timestamp(view.now),
    )
    replacement = _conclude(judged, verdict, warmup=warmup, manual=view.sweep.spec.gate.promotion == "Manual")
    event = Event(
        verdict.reason, verdict.message, rung.name, warning=verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
    )
    return _with_law(view, _replace(status, *replacement), accepted), (event,)


def _conclude(rung: RungStatus, verdict: Verdict, *, warmup: bool, manual: bool) -> tuple[RungStatus, ...]:
    """The judged rung in its next state, followed by its next revision where there is one."""
    if rung.name == TARGET:
        return (rung.changed(state=RungState.PROMOTED),)
    if verdict.outcome is Outcome.PASS or (verdict.outcome is Outcome.NOT_JUDGED and warmup):
        return (rung.changed(state=RungState.HELD if manual else RungState.PROMOTED),)
    if verdict.retune is not None and rung.revision < MAX_REVISIONS:
        retuned = tuple(run.changed(learning_rate_factor=verdict.retune) for run in rung.runs)
        return (
            rung.changed(state=RungState.SUPERSEDED),
            RungStatus(name=rung.name, revision=rung.revision + 1, runs=retuned),
        )
    if verdict.experiments:
        asked = tuple(e.run for e in verdict.experiments)
        return (rung.changed(state=RungState.DIAGNOSING, experiments=(*rung.experiments, *asked)),)
    return (rung.changed(state=RungState.STOPPED if verdict.outcome is Outcome.FAIL else RungState.HELD),)


def _reconsider(
    view: _View, status: SweepStatus, rung: RungStatus, accepted: Accepted
) -> tuple[SweepStatus, tuple[Event, ...]]:
    """What may move a rung that waits: its failed runs were retried, records came late, or a person accepted."""
    if rung.state is RungState.FAILED and not _too_many_failed(view, rung):
        return _replace(status, rung.changed(state=RungState.RUNNING)), ()
    if _more_observed(view, rung):
        return _replace(status, rung.changed(state=RungState.RUNNING, verdict=None)), ()
    judged = rung.name != TARGET or rung.started_at is not None
    if judged and not view.ended(rung, rung.runs):
        return _replace(status, rung.changed(state=RungState.RUNNING, verdict=None)), ()
    digest = rung.verdict.digest if rung.verdict else None
    if digest is None or not any(a.rung == rung.name and a.verdict == digest for a in view.sweep.spec.approvals):
        return status, ()
    state = RungState.FORECAST if rung.name == TARGET else RungState.PROMOTED
    event = Event("Approved", f"a person accepted the verdict {digest[:19]}", rung.name)
    return _with_law(view, _replace(status, rung.changed(state=state, approved=digest)), accepted), (event,)


def _more_observed(view: _View, rung: RungStatus) -> bool:
    """Whether records came after the rung was judged without them."""
    if rung.observed is None:
        return False
    judged = judgement.runs_of(view.sweep, rung, view.children)
    return sum(len(child.status.accepted) for child in judged) > len(rung.observed.runs)


def _with_law(view: _View, status: SweepStatus, accepted: Accepted) -> SweepStatus:
    """The status with law and outlook refitted, where the set of promoted rungs has changed."""
    sweep = view.sweep.changed(status=status)
    history = judgement.history_of(sweep, view.children)
    target = next((r for r in status.rungs if r.name == TARGET), None)
    outlook = judgement.target_outlook(sweep, history, accepted.target, view.children)
    if target is not None:
        outlook = outlook.changed(observed=target.loss)
    return status.changed(law=judgement.law_of(sweep, history), target=outlook)


def _replace(status: SweepStatus, *rungs: RungStatus) -> SweepStatus:
    """The status with a rung's revision replaced; a further revision is put in right behind it."""
    first, rest = rungs[0], rungs[1:]
    new: list[RungStatus] = []
    for old in status.rungs:
        if (old.name, old.revision) == (first.name, first.revision):
            new.extend((first, *rest))
        else:
            new.append(old)
    return status.changed(rungs=tuple(new))


def _missing(view: _View) -> tuple[ScalingRun, ...]:
    """Children of the current rung that do not exist yet, dearest first, as many as may run at once."""
    rung = _current(view.sweep.status)
    if rung is None or rung.state not in (RungState.FORECAST, RungState.RUNNING, RungState.DIAGNOSING):
        return ()
    due = rung.experiments if rung.state is RungState.DIAGNOSING else rung.runs
    missing = sorted((run for run in due if view.child(rung, run) is None), key=lambda run: -run.flops)
    limit = view.sweep.spec.limits.parallelism
    if limit is not None:
        missing = missing[: max(0, limit - sum(not child.status.finished for child in view.children))]
    return tuple(scaling_run(view.sweep, rung, run) for run in missing)


def scaling_run(sweep: ScalingSweep, rung: RungStatus, run: Run) -> ScalingRun:
    return ScalingRun(
        metadata=Metadata(name=run_name(sweep, rung.name, rung.revision, run), namespace=sweep.metadata.namespace),
        spec=RunSpec(
            sweep=sweep.metadata.name,
            sweep_uid=sweep.metadata.uid,
            rung=rung.name,
            revision=rung.revision,
            run=run,
            config_digest=config_digest(sweep.spec.training, run),
            placement=rung.placement or sweep.spec.placement_of(rung.name),
        ),
    )
