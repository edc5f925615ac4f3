"""One run: which of its records count, and what a failure means."""

from datetime import datetime, timedelta

import pytest
from simulated_cluster import START, Outcome, SimulatedCluster, World, climb, settle

from sweep_analysis.record import FailureReason, RecordSet
from sweep_operator.clusters import Ending
from sweep_operator.run import decide, objection_to


@pytest.fixture(scope="module")
def finished(manifest):
    """A cluster whose ladder is done, and one of its runs."""
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    return cluster, next(iter(cluster.children.values()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run": {"uid": "other"}}, "its run is other"),
        ({"run": {"config_digest": "sha256:x"}}, "its configuration is sha256:x"),
        ({"purpose": "Target"}, "its purpose is Target"),
        ({"seed": 99}, "its seed is 99"),
        ({"tokens": 12345}, "no record is due at 12345 tokens"),
        ({"run": {"attempt": 7}}, "it names attempt 7 of 1"),
        ({"parameters": {"total": 5}}, "its parameter count is 5"),
    ],
)
def test_a_record_that_is_not_this_runs_is_refused_and_counted(finished, change, sentence):
    _, child = finished
    record = child.status.accepted[0]
    for field, value in change.items():
        inner = getattr(record, field)
        record = record.changed(**{field: inner.changed(**value) if isinstance(value, dict) else value})
    assert sentence in objection_to(record, 1, child)


def test_a_record_is_accepted_once_and_no_later_attempt_undoes_it(finished):
    cluster, child = finished
    forged = child.status.accepted[0].changed(loss=0.1)
    reported = child.changed(status=child.status.changed(records=(RecordSet(attempt=1, records=(forged,)),)))
    workload = cluster.workload(child, 1)
    assert decide(cluster.stored, reported, workload, cluster.now).status is None


def test_a_trainer_that_ends_well_without_its_records_has_failed(manifest):
    cluster = SimulatedCluster(manifest(retry={"limit": 0, "maxFailedRuns": 0}))
    original = SimulatedCluster._with_report

    def mute(self, run):
        reported = original(self, run)
        return reported.changed(status=reported.status.changed(records=()))

    cluster._with_report = mute.__get__(cluster)
    status = climb(cluster)
    assert status.phase == "Failed"
    failure = next(iter(cluster.children.values())).status.failures[-1]
    assert failure.reason is FailureReason.RECORD_REFUSED
    assert "201K" in failure.message


def test_a_failed_attempt_is_tried_again_after_a_back_off_that_grows(manifest):
    world = World(outcome=lambda run, attempt: Outcome(Ending.FAILED, FailureReason.CRASHED, "boom", share=0.01))
    cluster = SimulatedCluster(manifest(limits={"parallelism": 1}), world)
    climb(cluster)
    child = next(iter(cluster.children.values()))
    starts = [a.started_at for a in child.status.attempts]
    ends = [a.ended_at for a in child.status.attempts]
    waits = [
        (datetime.fromisoformat(s) - datetime.fromisoformat(e)).total_seconds()
        for s, e in zip(starts[1:], ends, strict=False)
    ]
    assert len(starts) == 4
    assert waits == sorted(waits)
    assert waits[0] >= 1.0


def test_a_run_that_diverged_is_not_tried_again(manifest):
    def outcome(run, attempt):
        return Outcome(Ending.FAILED, FailureReason.DIVERGED, "loss is NaN at step 12", share=0.1)

    cluster = SimulatedCluster(manifest(), World(outcome=outcome))
    climb(cluster)
    assert all(c.status.attempt == 1 for c in cluster.children.values())


def test_gpu_seconds_cover_every_attempt(manifest):
    def outcome(run, attempt):
        return Outcome(Ending.PREEMPTED, share=0.1) if attempt <= 30 else Outcome()

    cluster = SimulatedCluster(manifest(), World(outcome=outcome))
    for _ in range(400):
        cluster.now += timedelta(seconds=settle(cluster))
        child = next(iter(cluster.children.values()))
        if child.status.finished:
            break
    whole = sum(6.0 * child.spec.run.parameters * t for t in child.spec.run.tokens) / 1e10
    assert child.status.attempt == 31
    assert len(child.status.attempts) == 20
    assert child.status.outcomes == {"Preempted": 30, "Succeeded": 1}
    assert child.status.gpu_seconds == pytest.approx(whole * (1 + 30 * 0.1), rel=0.05)
    assert cluster.now > START
