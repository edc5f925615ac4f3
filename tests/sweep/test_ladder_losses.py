"""What is lost or comes late: runs of finished rungs deleted by hand, records of attempts that were given up."""

import pytest
from simulated_cluster import Killed, Outcome, SimulatedCluster, World, climb, record_of, settle

from sweep_analysis.forecast import Forecast
from sweep_analysis.record import FailureReason, RecordSet
from sweep_operator.api import RungState, RunState
from sweep_operator.clusters import Ending

TARGET = {"parameters": "163K", "tokens": "3.3M"}
"""It is not launched."""


def climbed_to(cluster, rung):
    """Stopped right after the rung's first run was created."""
    rehearsal = SimulatedCluster(cluster.stored, cluster.world)
    climb(rehearsal)
    cluster.writes_left = next(
        n for n, write in enumerate(rehearsal.writes, 1) if write.startswith(f"create demo-{rung}-")
    )
    with pytest.raises(Killed):
        climb(cluster)
    return cluster


def delete_runs(cluster, *rungs):
    for name in [name for name, child in cluster.children.items() if child.spec.rung in rungs]:
        delete_run(cluster, name)


def delete_run(cluster, name):
    """And its Jobs with it."""
    del cluster.children[name]
    for key in [key for key in cluster.workloads if key[0] == name]:
        del cluster.workloads[key]


@pytest.mark.parametrize("rungs", ["a", "ab", "abc"])
def test_runs_of_promoted_rungs_deleted_by_hand_are_not_trained_again_and_change_no_forecast(manifest, rungs):
    undisturbed = SimulatedCluster(manifest())
    expected = climb(undisturbed)
    cluster = climbed_to(SimulatedCluster(manifest()), "d")
    started = list(cluster.started)
    delete_runs(cluster, *rungs)
    status = climb(cluster)
    assert not {name.split("-")[1] for name, _ in cluster.started[len(started) :]} & set(rungs)
    assert [r.forecast.outcome for r in status.rungs] == [r.forecast.outcome for r in expected.rungs]
    assert isinstance(status.rungs[-1].forecast.outcome, Forecast)
    assert [r.verdict for r in status.rungs] == [r.verdict for r in expected.rungs]
    assert (status.law, status.target.prediction) == (expected.law, expected.target.prediction)
    spent, due = status.spent.to_json(), expected.spent.to_json()
    assert spent == pytest.approx(due), "a deleted run does not give its budget back"


def test_one_deleted_run_leaves_the_order_of_the_evidence_as_it_was(manifest):
    expected = climb(SimulatedCluster(manifest()))
    cluster = climbed_to(SimulatedCluster(manifest()), "e")
    first = next(name for name, child in cluster.children.items() if child.spec.rung == "b")
    delete_run(cluster, first)
    status = climb(cluster)
    assert status.rungs[-1].forecast.outcome == expected.rungs[-1].forecast.outcome
    assert first not in cluster.children


def test_a_deleted_run_of_the_rung_that_is_being_climbed_is_made_again(manifest):
    cluster = climbed_to(SimulatedCluster(manifest()), "d")
    delete_runs(cluster, "d")
    assert climb(cluster).phase == "Succeeded"
    assert sum(child.spec.rung == "d" for child in cluster.children.values()) == 2


class Late(SimulatedCluster):
    """The trainer of a failed attempt hands its records in after all, once `arrived`."""

    arrived = False

    def _with_report(self, run):
        told = super()._with_report(run)
        if not self.arrived or run.status.state is not RunState.FAILED:
            return told
        losses = {tokens: self.world.loss(run.spec.run, tokens) for tokens in run.spec.run.tokens}
        records = tuple(record_of(run, 1, *measured, self.now) for measured in losses.items())
        return told.changed(status=told.status.changed(records=(RecordSet(attempt=1, records=records),)))


def failing(rung, seed=1):
    """A world in which the attempts at one run fail."""
    failed = Outcome(Ending.FAILED, FailureReason.CRASHED, "lost its storage", share=0.9)
    return World(outcome=lambda run, _: failed if (run.spec.rung, run.spec.run.seed) == (rung, seed) else Outcome())


def test_a_failed_run_whose_records_come_late_has_succeeded_and_its_rung_goes_on(manifest):
    cluster = Late(manifest(retry={"limit": 0, "maxFailedRuns": 0}), failing("b"))
    assert climb(cluster).phase == "Failed"
    cluster.arrived = True
    status = climb(cluster)
    assert status.phase == "Succeeded"
    late = next(c for c in cluster.children.values() if c.spec.rung == "b" and c.spec.run.seed == 1)
    assert late.status.state is RunState.SUCCEEDED
    assert late.status.attempt == 1, "nothing is trained again"
    assert late.status.failures[0].reason is FailureReason.CRASHED, "that it failed first stays known"
    assert [c.status for c in late.status.conditions if c.type == "Succeeded"] == ["True"]
    assert status.law.records == 20
    assert "RunSucceeded" in [event.reason for event in cluster.events if event.run == late.metadata.name]


def test_a_rung_that_was_held_without_a_record_is_judged_again_when_it_comes(manifest):
    cluster = Late(manifest(retry={"limit": 0, "maxFailedRuns": 1}), failing("d"))
    assert climb(cluster).phase == "AwaitingApproval"
    held = cluster.stored.status.rungs[3]
    assert held.verdict.reason == "RecordsMissing"
    cluster.arrived = True
    status = climb(cluster)
    assert status.phase == "Succeeded"
    judged = status.rungs[3]
    assert judged.verdict.reason == "Consistent"
    assert judged.forecast == held.forecast, "a forecast is never rewritten"


def test_a_record_that_comes_after_its_rung_was_promoted_changes_no_verdict_and_counts_from_then_on(manifest):
    cluster = Late(manifest(target=TARGET, retry={"limit": 0, "maxFailedRuns": 1}), failing("d"))
    held = climb(cluster).rungs[3]
    approval = {"rung": "d", "verdict": held.verdict.digest}
    metadata = cluster.stored.metadata.changed(generation=2)
    cluster.stored = cluster.stored.changed(metadata=metadata, spec=cluster.stored.spec.changed(approvals=(approval,)))
    settle(cluster)
    promoted = cluster.stored.status.rungs[3]
    assert promoted.state is RungState.PROMOTED
    cluster.arrived = True
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert (status.rungs[3].verdict, status.rungs[3].observed) == (held.verdict, held.observed)
    assert status.law.records == 20


def test_a_late_record_does_not_bring_an_aborted_run_back(manifest):
    cluster = climbed_to(Late(manifest()), "b")
    spec = cluster.stored.spec.changed(abort=True)
    cluster.stored = cluster.stored.changed(spec=spec)
    climb(cluster)
    cluster.arrived = True
    assert climb(cluster).phase == "Aborted"
    assert {c.status.state for c in cluster.children.values() if c.spec.rung == "b"} == {RunState.ABORTED}
