"""What keeps children from being created is told once, tried again, and forgotten when it has gone; no failure."""

from datetime import timedelta

from simulated_cluster import SimulatedCluster, climb, settle

from sweep_analysis.record import FailureReason
from sweep_operator.clusters import NameTaken, NotNow, StartRefused
from sweep_operator.policy import Policy
from sweep_operator.reconcile import reconcile

KEY = "default/demo"


class Obstructed(SimulatedCluster):
    """Raises what it is told to, until it is told otherwise."""

    on_create = on_start = None

    def create_run(self, run):
        if self.on_create:
            raise self.on_create
        super().create_run(run)

    def start(self, sweep, run, attempt):
        if self.on_start:
            raise self.on_start
        super().start(sweep, run, attempt)


def passes(cluster, count=10):
    """So many passes, half a minute apart; the last one's answer."""
    for _ in range(count):
        answer = reconcile(cluster, KEY, cluster.now, Policy())
        cluster.now += timedelta(seconds=30)
    return answer


def progressing(cluster):
    condition = cluster.stored.status.condition("Progressing")
    return condition.status, condition.reason, condition.message


def test_a_name_that_is_taken_is_told_in_the_status_and_not_over_and_over(manifest):
    cluster = Obstructed(manifest())
    cluster.on_create = NameTaken("ScalingRun x is somebody else's; delete it")
    passes(cluster)
    assert progressing(cluster) == ("False", "NameTaken", "ScalingRun x is somebody else's; delete it")
    assert cluster.stored.status.phase == "NameTaken"
    writes = len(cluster.writes)
    answer = passes(cluster)
    assert len(cluster.writes) == writes
    assert not answer.changed
    assert answer.requeue_seconds == 15.0
    assert [e.reason for e in cluster.events].count("NameTaken") == 1


def test_once_the_obstacle_has_gone_the_sweep_goes_on(manifest):
    cluster = Obstructed(manifest())
    cluster.on_create = NotNow("QuotaExceeded", "exceeded quota: full")
    passes(cluster)
    assert progressing(cluster)[:2] == ("False", "QuotaExceeded")
    cluster.on_create = None
    assert climb(cluster).phase == "Succeeded"


def test_a_suspended_sweep_shows_that_it_is_suspended_and_no_old_obstacle(manifest):
    cluster = Obstructed(manifest())
    cluster.on_create = NotNow("QuotaExceeded", "exceeded quota: full")
    passes(cluster)
    cluster.stored = cluster.stored.changed(spec=cluster.stored.spec.changed(suspend=True))
    passes(cluster)
    assert cluster.stored.status.phase == "Suspended"


def test_what_a_run_meets_when_it_is_started_is_shown_on_it_and_on_its_sweep_and_never_counted(manifest):
    cluster = Obstructed(manifest())
    cluster.on_start = NotNow("QuotaExceeded", "exceeded quota: jobs")
    passes(cluster, 20)
    assert progressing(cluster)[:2] == ("False", "QuotaExceeded")
    child = next(iter(cluster.children.values()))
    assert next(c for c in child.status.conditions if c.type == "Queued").reason == "QuotaExceeded"
    writes = len(cluster.writes)
    passes(cluster, 20)
    assert len(cluster.writes) == writes
    cluster.on_start = None
    assert climb(cluster).phase == "Succeeded"
    assert not any(c.status.failures for c in cluster.children.values())
    assert all(c.status.attempt == 1 for c in cluster.children.values())


def test_an_attempt_that_the_place_will_never_take_has_failed_for_good(manifest):
    cluster = Obstructed(manifest(retry={"limit": 3, "maxFailedRuns": 0}))
    cluster.on_start = StartRefused(FailureReason.BAD_CONFIGURATION, "spec.template: bad")
    assert climb(cluster).phase == "Failed"
    assert {c.status.failures[0].message for c in cluster.children.values()} == {"spec.template: bad"}
    assert all(c.status.attempt == 1 for c in cluster.children.values())


def test_progress_alone_is_written_at_most_every_ten_seconds(manifest):
    cluster = SimulatedCluster(manifest())
    cluster.world.flops_per_second = 1e9
    for _ in range(200):
        reconcile(cluster, KEY, cluster.now, Policy())
        if any(r.state == "Running" for r in cluster.stored.status.rungs):
            break
        cluster.now += timedelta(seconds=1)
    before = cluster.writes.count("sweep status")
    for _ in range(30):
        reconcile(cluster, KEY, cluster.now, Policy())
        cluster.now += timedelta(seconds=1)
    assert cluster.writes.count("sweep status") - before <= 4


def test_every_condition_says_which_generation_of_the_spec_it_is_about(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    before = cluster.stored.status
    assert {c.observed_generation for c in before.conditions} == {1}
    edited = cluster.stored.metadata.changed(generation=2)
    cluster.stored = cluster.stored.changed(metadata=edited)
    settle(cluster)
    after = cluster.stored.status
    assert {c.observed_generation for c in after.conditions} == {2}
    times = [[c.last_transition_time for c in status.conditions] for status in (before, after)]
    assert times[0] == times[1], "nothing else has changed"
    writes = len(cluster.writes)
    settle(cluster)
    assert len(cluster.writes) == writes
