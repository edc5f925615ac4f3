"""Killed between any two writes, in any world: nothing is lost, nothing happens twice."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_cluster import Killed, Outcome, SimulatedCluster, World, climb, healthy

from sweep_analysis.record import FailureReason
from sweep_analysis.rung import Run
from sweep_operator.api import RungState, ScalingRun, SweepStatus
from sweep_operator.clusters import Ending

TIMES = {"time", "startedAt", "finishedAt", "lastTransitionTime", "lastUpdated", "observedGeneration"}
SPEND = {"gpuSeconds", "diagnosisGpuSeconds", "gpuHours"}


def settled(value: Any) -> Any:
    """A status without its times and spend in seconds."""
    if isinstance(value, dict):
        return {k: settled(v) for k, v in value.items() if k not in TIMES | SPEND}
    return [settled(v) for v in value] if isinstance(value, list) else value


def climb_through_kills(cluster: SimulatedCluster) -> SweepStatus:
    """Climb, and start the process again wherever it is killed."""
    while True:
        try:
            return climb(cluster)
        except Killed:
            continue


def short(manifest: Any, **spec: Any) -> Any:
    """Three sizes in the first rung, so that the second is judged: the shortest ladder that judges."""
    rungs = [
        {"name": "a", "runs": [{"parameters": s, "tokensPerParameter": [10, 20]} for s in ("20K", "27K", "46K")]},
        {"name": "b", "runs": [{"parameters": "67K", "tokensPerParameter": [10, 20]}]},
        {"name": "c", "runs": [{"parameters": "96K", "tokensPerParameter": [10, 20]}]},
    ]
    return manifest(ladder={"rungs": rungs}, gate={"warmupRungs": 1}, **spec)


def test_killed_once_anywhere_the_sweep_ends_as_if_undisturbed(manifest):
    quick = World(flops_per_second=1e13)
    undisturbed = SimulatedCluster(short(manifest), quick)
    final = settled(climb(undisturbed).to_json())
    for k in range(1, len(undisturbed.writes) + 1, 5):
        cluster = SimulatedCluster(short(manifest), quick, writes_left=k)
        assert settled(climb_through_kills(cluster).to_json()) == final, f"killed after write {k}"
        assert sorted(cluster.children) == sorted(undisturbed.children)
        assert sorted(cluster.started) == sorted(undisturbed.started)


def test_killed_after_any_write_earlier_records_are_kept_with_the_forecast_that_rests_on_them(manifest):
    runs = [Run(parameters=N, tokens=(N * ratio,)) for N in (8000, 13_000, 19_000) for ratio in (10, 30)]
    rows = [(run.parameters, run.tokens[0], healthy(run, run.tokens[0])) for run in runs]
    text = "\n".join(["N,D,L", *(f"{N},{D},{loss!r}" for N, D, loss in rows)])

    def importing(writes_left: int | None = None) -> SimulatedCluster:
        sweep = short(manifest, records=[{"file": "earlier.csv"}])
        return SimulatedCluster(
            sweep, World(flops_per_second=1e13), writes_left=writes_left, texts={"earlier.csv": text}
        )

    final = settled(climb(importing()).to_json())
    for k in (1, 2, 3, 5, 8):
        cluster = importing(writes_left=k)
        with pytest.raises(Killed):
            climb(cluster)
        assert (cluster.stored.status.imports is None) == (not cluster.stored.status.frozen)
        cluster.texts["earlier.csv"] = "edited meanwhile"
        assert settled(climb(cluster).to_json()) == final, f"killed after write {k}"


def test_killed_after_every_write_all_the_way_through(manifest):
    undisturbed = SimulatedCluster(short(manifest))
    final = settled(climb(undisturbed).to_json())

    class Fragile(SimulatedCluster):
        def _wrote(self, what: str) -> None:
            self.writes.append(what)
            raise Killed(what)

    cluster = Fragile(short(manifest))
    assert settled(climb_through_kills(cluster).to_json()) == final


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_in_any_world_no_rung_is_climbed_twice_none_without_a_verdict_and_the_sweep_ends(manifest, data):
    kinds = st.sampled_from(["fine", "fine", "fine", "preempted", "crashed", "diverged", "interrupted"])
    script: dict[tuple[str, int], Outcome] = {}
    bends = {r: data.draw(st.sampled_from([1.0, 1.0, 1.0, 0.9, 1.08, 1.4]), label=f"bend {r}") for r in "abc"}
    budget = data.draw(st.sampled_from([None, "1e12", "4e12"]), label="budget")

    def outcome(run: ScalingRun, attempt: int) -> Outcome:
        key = (run.metadata.name, attempt)
        if key not in script:
            kind = data.draw(kinds, label=str(key)) if attempt < 4 else "fine"
            script[key] = {
                "fine": Outcome(),
                "preempted": Outcome(Ending.PREEMPTED, share=0.3),
                "interrupted": Outcome(Ending.INTERRUPTED, share=0.3),
                "crashed": Outcome(Ending.FAILED, FailureReason.CRASHED, "boom", share=0.3),
                "diverged": Outcome(Ending.FAILED, FailureReason.DIVERGED, "NaN at step 3", share=0.1),
            }[kind]
        return script[key]

    bend_at = {"20": "a", "27": "a", "46": "a", "67": "b", "95": "c"}
    world = World(
        loss=lambda run, tokens: healthy(run, tokens) * bends.get(bend_at.get(str(run.parameters)[:2], ""), 1.0),
        outcome=outcome,
    )
    sweep = short(manifest, **({"budget": {"flops": budget}} if budget else {}))
    cluster = SimulatedCluster(sweep, world)
    forecasts: dict[tuple[str, int], Any] = {}
    written = SimulatedCluster.write_sweep_status

    def watched(self: SimulatedCluster, before: Any, status: SweepStatus) -> None:
        open_rungs = [
            r for r in status.rungs if r.state in (RungState.FORECAST, RungState.RUNNING, RungState.DIAGNOSING)
        ]
        assert len(open_rungs) <= 1, "two rungs run at once"
        for rung in status.rungs:
            if rung.forecast:
                assert forecasts.setdefault((rung.name, rung.revision), rung.forecast) == rung.forecast, "rewritten"
            if rung.state is RungState.PROMOTED:
                assert rung.verdict is not None, "promoted without a verdict"
        written(self, before, status)

    cluster.write_sweep_status = watched.__get__(cluster)  # type: ignore[method-assign] # the test listens in
    status = climb(cluster)
    assert status.phase in (
        "Succeeded",
        "Inconsistent",
        "AwaitingApproval",
        "OverBudget",
        "NotWorthIt",
        "Failed",
    )
    assert len(
        {c.spec.run.content_digest + c.spec.rung + str(c.spec.revision) for c in cluster.children.values()}
    ) == len(cluster.children)
    if budget:
        assert status.spent.flops <= float(budget) * 1.0001
    for child in cluster.children.values():
        assert child.status.finished or status.phase == "OverBudget"
