"""What a run waits for, when that is told, when it is given up, and what its conditions say; pure."""

from dataclasses import replace
from datetime import timedelta

import pytest
from local_ladder import a_run, accepted
from simulated_cluster import START, record_of

from sweep_analysis.record import FailureReason, Progress, RecordSet
from sweep_operator.api import Attempt, RunState, RunStatus, WorkloadReference
from sweep_operator.clusters import ABSENT, Ending, Workload, WorkloadState
from sweep_operator.conditions import timestamp
from sweep_operator.run import LAST_WORDS_SECONDS, RUNNING_SECONDS, UNJUDGED_SECONDS, Do, decide

JOB = WorkloadReference(kind="Job", name="j", uid="j-1")


@pytest.fixture
def opened(manifest):
    """A sweep and a run of it whose first attempt was opened at the start."""

    def of(state=RunState.QUEUED, *, status=None, **spec):
        sweep = accepted(manifest(**spec))
        run = a_run(sweep)
        attempt = Attempt(attempt=1, started_at=timestamp(START))
        fields = {"attempt": 1, "attempts": (attempt,), "state": state, **(status or {})}
        return sweep, run.changed(status=run.status.changed(**fields))

    return of


def pending(waiting="Unschedulable", message="0/8 nodes are available", reason=None, reference=JOB):
    return Workload(WorkloadState.PENDING, reason=reason, message=message, waiting=waiting, reference=reference)


def after(seconds):
    return START + timedelta(seconds=seconds)


def conditions(status):
    return {c.type: (c.status, c.reason) for c in status.conditions}


def test_a_short_wait_is_not_worth_a_write_and_a_long_one_is_told_once(opened):
    sweep, run = opened()
    assert decide(sweep, run, pending(), after(30)).status is None
    told = decide(sweep, run, pending(), after(61)).status
    assert conditions(told)["Queued"] == ("True", "Unschedulable")
    assert told.workload == JOB
    again = decide(sweep, run.changed(status=told), pending(message="0/9 nodes are available"), after(90))
    assert again.status is None


def test_an_obstacle_without_any_workload_is_told_at_once_and_borne_for_ever(opened):
    sweep, run = opened()
    full = pending("QuotaExceeded", "exceeded quota", reference=None)
    told = decide(sweep, run, full, after(0)).status
    assert conditions(told)["Queued"] == ("True", "QuotaExceeded")
    assert decide(sweep, run.changed(status=told), full, after(10**6)).do is Do.NOTHING


def test_a_run_that_no_node_takes_for_too_long_is_ended_as_unschedulable(opened):
    sweep, run = opened(limits={"pendingSeconds": 100})
    decision = decide(sweep, run, pending(), after(101))
    assert decision.do is Do.STOP
    assert decision.cause.reason is FailureReason.UNSCHEDULABLE
    assert "0/8 nodes are available" in decision.cause.message


def test_an_attempt_that_waited_for_its_spec_has_the_whole_of_pending_seconds_once_it_is_created(opened):
    sweep, run = opened(limits={"pendingSeconds": 100})
    late = replace(pending(), created_at=timestamp(after(3600)))
    decision = decide(sweep, run, late, after(3602))
    assert decision.do is Do.NOTHING
    assert decision.requeue_seconds < 100
    assert decide(sweep, run, late, after(3701)).do is Do.STOP


def test_what_can_never_start_is_ended_at_once_for_its_own_reason(opened):
    sweep, run = opened()
    decision = decide(sweep, run, pending(reason=FailureReason.IMAGE_UNAVAILABLE, message="no such image"), after(1))
    assert (decision.do, decision.cause.reason) == (Do.STOP, FailureReason.IMAGE_UNAVAILABLE)


def test_a_place_that_has_a_queue_of_its_own_may_let_a_run_wait_for_days(opened):
    sweep, run = opened(limits={"pendingSeconds": 100})
    assert decide(sweep, run, Workload(WorkloadState.PENDING), after(10**6)).do is Do.NOTHING


def running(**fields):
    return Workload(WorkloadState.RUNNING, started_at=timestamp(START), reference=JOB, node="gpu-0", **fields)


def test_silence_ends_a_run_as_no_progress(opened):
    sweep, run = opened(RunState.RUNNING, limits={"progressSeconds": 600})
    decision = decide(sweep, run, running(), after(601))
    assert (decision.do, decision.cause.reason) == (Do.STOP, FailureReason.NO_PROGRESS)


def test_a_clock_that_goes_wrong_silences_nobody_who_is_heard(opened):
    """The trainer's node is two hours behind, or we are two hours ahead: what we hear ourselves decides."""
    progress = Progress(attempt=1, step=5, steps=10, tokens=5, last_updated=timestamp(START))
    sweep, run = opened(RunState.RUNNING, status={"progress": progress}, limits={"progressSeconds": 600})
    heard = decide(sweep, run, running(quiet_seconds=5.0), after(7200))
    assert heard.do is Do.NOTHING
    assert decide(sweep, run, running(quiet_seconds=121.0), after(7200)).do is Do.STOP


def test_a_trainers_clock_that_is_ahead_hides_no_silence(opened):
    progress = Progress(attempt=1, step=5, steps=10, tokens=5, last_updated=timestamp(after(5 * 3600)))
    sweep, run = opened(RunState.RUNNING, status={"progress": progress}, limits={"progressSeconds": 600})
    waits = decide(sweep, run, running(quiet_seconds=599.0), after(700))
    assert waits.do is Do.NOTHING
    assert decide(sweep, run, running(quiet_seconds=601.0), after(702)).do is Do.STOP


def test_a_back_off_that_a_wrong_clock_wrote_holds_nobody_up(opened):
    """The operator before was five hours ahead, and its pauses are minutes."""
    ended = Attempt(attempt=1, started_at=timestamp(START), ended_at=timestamp(START), outcome="Crashed")

    def until_there_is(seconds):
        fields = {"attempts": (ended,), "not_before": timestamp(after(seconds))}
        sweep, run = opened(RunState.WAITING, status=fields)
        return decide(sweep, run, ABSENT, after(0))

    assert until_there_is(299).status is None
    assert until_there_is(299).requeue_seconds == pytest.approx(299)
    assert until_there_is(5 * 3600).status.attempt == 2


def test_that_it_runs_is_written_once_with_what_carries_it(opened):
    sweep, run = opened()
    status = decide(sweep, run, running(), after(5)).status
    assert (status.state, status.workload) == (RunState.RUNNING, JOB)
    assert conditions(status)["Running"] == ("True", "Running")
    assert conditions(status)["Queued"] == ("False", "Running")
    assert decide(sweep, run.changed(status=status), running(), after(6)).status is None


@pytest.fixture
def created(manifest):
    """A sweep and a run of it of which nothing has been written since it was created."""

    def of(**spec):
        sweep = accepted(manifest(**spec))
        run = a_run(sweep)
        return sweep, run.changed(metadata=run.metadata.changed(uid="r-1"))

    return of


def test_the_first_attempt_starts_without_a_write_and_is_written_with_the_first_news(created):
    sweep, run = created()
    first = decide(sweep, run, ABSENT, after(0))
    assert (first.do, first.status) == (Do.START, None)
    asked = timestamp(after(1))
    placed = Workload(WorkloadState.PENDING, waiting="NoPod", created_at=asked, reference=JOB)
    assert decide(sweep, run, placed, after(2)).status is None
    over = Workload(WorkloadState.ENDED, Ending.PREEMPTED, created_at=asked, reference=JOB)
    status = decide(sweep, run, over, after(9)).status
    assert (status.attempt, status.state, status.workload) == (1, RunState.WAITING, JOB)
    assert [(a.started_at, a.outcome) for a in status.attempts] == [(asked, "Preempted")]
    again = decide(sweep, run.changed(status=status), ABSENT, after(10))
    assert (again.do, again.status.attempt) == (Do.NOTHING, 2), "a later attempt is written down before it starts"


@pytest.mark.parametrize(
    ("wish", "state"), [({"suspend": True}, RunState.WAITING), ({"abort": True}, RunState.ABORTED)]
)
def test_no_attempt_is_implied_where_none_is_wanted(created, wish, state):
    sweep, run = created(**wish)
    decision = decide(sweep, run, ABSENT, after(0))
    assert (decision.do, decision.status.state, decision.status.attempt) == (Do.NOTHING, state, 0)
    told = run.changed(status=decision.status)
    assert decide(sweep, told, ABSENT, after(1)).status is None, "which is written once"
    for known in (run, told):
        here = decide(sweep, known, running(quiet_seconds=0.0), after(1))
        assert here.do is Do.STOP, "but one that is there is told to end"


def test_a_run_that_was_paused_before_it_began_starts_as_a_later_attempt_does(created, manifest):
    sweep, run = created(suspend=True)
    paused = run.changed(status=decide(sweep, run, ABSENT, after(0)).status)
    resumed = accepted(manifest())
    opened = decide(resumed, paused, ABSENT, after(1))
    assert (opened.do, opened.status.state, opened.status.attempt) == (Do.NOTHING, RunState.QUEUED, 1)
    assert decide(resumed, paused.changed(status=opened.status), ABSENT, after(2)).do is Do.START


def test_no_attempt_starts_under_a_spec_that_was_not_accepted(created, opened):
    for sweep, run in (created(), opened()):
        assert decide(sweep, run, ABSENT, after(1)).do is Do.START
        edited = sweep.changed(metadata=sweep.metadata.changed(generation=2))
        waits = decide(edited, run, ABSENT, after(1))
        assert (waits.do, waits.status) == (Do.NOTHING, None)
        assert waits.requeue_seconds == UNJUDGED_SECONDS, "the sweep's own pass is about to look at it"
        (valid,) = sweep.status.conditions
        refused = edited.status.changed(
            observed_generation=2, conditions=(valid.changed(status="False", reason="PolicyViolation"),)
        )
        answer = decide(edited.changed(status=refused), run, ABSENT, after(1))
        assert (answer.do, answer.status, answer.requeue_seconds) == (Do.NOTHING, None, None)
        goes_on = decide(edited.changed(status=refused), run, running(quiet_seconds=0.0), after(1))
        assert goes_on.do is Do.NOTHING, "what runs goes on"


def test_a_retry_token_that_is_set_before_anything_was_written_of_a_run_is_answered_once_it_fails(created):
    sweep, run = created(retry={"limit": 0})
    asked = sweep.changed(spec=sweep.spec.changed(retry_token="again"))
    broken = Workload(WorkloadState.ENDED, Ending.FAILED, FailureReason.CRASHED, "boom", reference=JOB)
    failed = run.changed(status=decide(asked, run, broken, after(9)).status)
    assert (failed.status.state, failed.status.retry_token) == (RunState.FAILED, "")
    revived = run.changed(status=decide(asked, failed, ABSENT, after(10)).status)
    assert (revived.status.state, revived.status.retry_token) == (RunState.WAITING, "again")


def test_a_retry_token_that_was_set_before_a_run_began_asks_nothing_of_it(created):
    sweep, run = created(retry={"limit": 0}, retryToken="again")
    opened = decide(sweep, run, ABSENT, after(0))
    assert (opened.do, opened.status.attempt, opened.status.state) == (Do.NOTHING, 1, RunState.QUEUED)
    run = run.changed(status=opened.status)
    assert decide(sweep, run, ABSENT, after(1)).do is Do.START
    broken = Workload(WorkloadState.ENDED, Ending.FAILED, FailureReason.CRASHED, "boom", reference=JOB)
    failed = run.changed(status=decide(sweep, run, broken, after(9)).status)
    assert failed.status.state is RunState.FAILED
    assert decide(sweep, failed, ABSENT, after(10)).status is None


def test_an_attempt_that_ended_before_anything_was_written_began_before_it_ended(created):
    sweep, run = created()
    over = Workload(WorkloadState.ENDED, Ending.PREEMPTED, started_at=timestamp(START), ended_at=timestamp(after(3)))
    attempt = decide(sweep, run, over, after(9)).status.attempts[0]
    assert (attempt.started_at, attempt.ended_at) == (timestamp(START), timestamp(after(3)))


def test_a_short_run_is_not_told_to_run_unless_it_speaks(created):
    sweep, run = created()
    fresh = decide(sweep, run, running(quiet_seconds=2.0), after(2))
    assert fresh.status is None
    assert fresh.requeue_seconds == pytest.approx(RUNNING_SECONDS - 2.0, abs=0.1)
    assert decide(sweep, run, running(quiet_seconds=RUNNING_SECONDS), after(10)).status.state is RunState.RUNNING
    progress = Progress(attempt=1, step=5, steps=10, tokens=5, last_updated=timestamp(START))
    spoke = run.changed(status=run.status.changed(progress=progress))
    assert decide(sweep, spoke, running(quiet_seconds=0.0), after(2)).status.state is RunState.RUNNING


def test_records_of_an_attempt_that_was_never_written_down_count(created):
    sweep, run = created()
    run = reported(run, after(2))
    held_back = decide(sweep, run, running(quiet_seconds=0.5), after(3))
    assert held_back.status is None
    ended = Workload(WorkloadState.ENDED, Ending.COMPLETED, reference=JOB)
    status = decide(sweep, run, ended, after(4)).status
    assert (status.state, status.attempt, len(status.accepted)) == (RunState.SUCCEEDED, 1, 2)


def test_when_it_was_scheduled_is_written_with_that_it_runs_and_stays(opened):
    sweep, run = opened()
    scheduled = timestamp(after(3))
    status = decide(sweep, run, running(scheduled_at=scheduled), after(5)).status
    assert status.attempts[-1].scheduled_at == scheduled
    assert decide(sweep, run.changed(status=status), running(), after(6)).status is None
    over = Workload(WorkloadState.ENDED, Ending.PREEMPTED, ended_at=timestamp(after(60)), reference=JOB)
    ended = decide(sweep, run.changed(status=status), over, after(61)).status
    assert ended.attempts[-1].scheduled_at == scheduled  # although its pod is gone


def test_when_it_was_scheduled_is_no_write_of_its_own(opened):
    sweep, run = opened(RunState.RUNNING)
    assert decide(sweep, run, running(scheduled_at=timestamp(START)), after(5)).status is None


def test_an_attempt_that_ended_before_it_was_seen_running_says_when_it_was_scheduled(opened):
    sweep, run = opened()
    over = Workload(WorkloadState.ENDED, Ending.PREEMPTED, scheduled_at=timestamp(after(3)), reference=JOB)
    assert decide(sweep, run, over, after(5)).status.attempts[-1].scheduled_at == timestamp(after(3))


def test_what_a_running_attempt_uses_is_written_in_steps_that_grow_with_it(opened):
    sweep, run = opened(RunState.RUNNING)
    for used, written in ((9.0, False), (11.0, True)):
        assert (decide(sweep, run, running(gpu_seconds=used), after(20)).status is not None) == written
    counted = run.status.attempts[0].changed(gpu_seconds=1000.0)
    run = run.changed(status=run.status.changed(attempts=(counted,)))
    for used, written in ((1090.0, False), (1110.0, True)):
        assert (decide(sweep, run, running(gpu_seconds=used), after(20)).status is not None) == written


def test_a_budget_that_comes_near_its_end_is_counted_more_finely(opened):
    sweep, run = opened(RunState.RUNNING, budget={"gpuHours": 1.0})
    counted = run.status.attempts[0].changed(gpu_seconds=3000.0)
    run = run.changed(status=run.status.changed(attempts=(counted,)))
    assert decide(sweep, run, running(gpu_seconds=3040.0), after(20)).status is not None
    richer = sweep.changed(spec=sweep.spec.changed(budget=sweep.spec.budget.changed(gpu_hours=1000.0)))
    assert decide(richer, run, running(gpu_seconds=3040.0), after(20)).status is None


def reported(run, at):
    """The run with everything that is due reported at that time."""
    records = tuple(record_of(run, 1, tokens, 3.0, at) for tokens in run.spec.run.tokens)
    return run.changed(status=run.status.changed(records=(RecordSet(attempt=1, records=records),)))


def test_the_last_record_and_the_end_are_one_write_where_the_end_follows_soon(opened):
    sweep, run = opened(RunState.RUNNING)
    run = run.changed(metadata=run.metadata.changed(uid="r-1"))
    run = reported(run, after(10))
    soon = decide(sweep, run, running(), after(11))
    assert soon.status is None
    assert 0 < soon.requeue_seconds <= LAST_WORDS_SECONDS
    late = after(11 + LAST_WORDS_SECONDS)
    assert len(decide(sweep, run, running(), late).status.accepted) == 2
    ended = decide(sweep, run, Workload(WorkloadState.ENDED, Ending.COMPLETED), after(12)).status
    assert (ended.state, len(ended.accepted)) == (RunState.SUCCEEDED, 2)
    assert conditions(ended)["Succeeded"] == ("True", "RecordsAccepted")


def test_a_lost_attempt_is_shown_as_preempted_until_the_next_one_runs(opened):
    sweep, run = opened(RunState.RUNNING)
    lost = decide(sweep, run, Workload(WorkloadState.ENDED, Ending.PREEMPTED, message="drained"), after(5)).status
    assert conditions(lost)["Preempted"] == ("True", "LostToTheMachine")
    assert not lost.failures
    again = decide(sweep, run.changed(status=lost), ABSENT, after(6)).status
    assert (again.attempt, again.workload) == (2, None)
    assert conditions(again)["Preempted"][0] == "True"
    resumed = decide(sweep, run.changed(status=again), running(), after(7)).status
    assert conditions(resumed)["Preempted"] == ("False", "Resumed")


def test_records_that_only_the_workload_holds_count_like_reported_ones(opened):
    sweep, run = opened(RunState.RUNNING)
    run = run.changed(metadata=run.metadata.changed(uid="r-1"))
    left = reported(run, after(5)).status.records
    ended = Workload(WorkloadState.ENDED, Ending.COMPLETED, left=left)
    status = decide(sweep, run, ended, after(6)).status
    assert (status.state, len(status.accepted), status.records) == (RunState.SUCCEEDED, 2, ())


def test_records_that_come_after_an_attempt_was_given_up_spare_the_next_one(opened):
    sweep, run = opened(RunState.RUNNING)
    run = run.changed(metadata=run.metadata.changed(uid="r-1"))
    lost = decide(sweep, run, Workload(WorkloadState.ENDED, Ending.PREEMPTED, message="drained"), after(5)).status
    late = reported(run.changed(status=lost), after(6))
    status = decide(sweep, late, ABSENT, after(7)).status
    assert (status.state, status.attempt, len(status.accepted)) == (RunState.SUCCEEDED, 1, 2)


def test_an_open_attempt_is_not_started_once_every_record_has_come(opened):
    sweep, run = opened(RunState.RUNNING)
    run = run.changed(metadata=run.metadata.changed(uid="r-1"))
    lost = decide(sweep, run, Workload(WorkloadState.ENDED, Ending.PREEMPTED, message="drained"), after(5)).status
    again = decide(sweep, run.changed(status=lost), ABSENT, after(6)).status
    assert (again.state, again.attempt) == (RunState.QUEUED, 2)
    decision = decide(sweep, reported(run.changed(status=again), after(7)), ABSENT, after(8))
    assert (decision.do, decision.status.state) == (Do.NOTHING, RunState.SUCCEEDED)
    assert [event.reason for event in decision.events] == ["RunSucceeded"]


@pytest.mark.parametrize(
    "emptied", [("attempts",), ("attempts", "attempt"), ("attempts", "attempt", "state"), ("attempts", "workload")]
)
def test_a_status_that_a_person_emptied_makes_no_run_train_twice(opened, emptied):
    sweep, run = opened(RunState.RUNNING, status={"workload": JOB})
    run = reported(run.changed(metadata=run.metadata.changed(uid="r-1")), after(3))
    done = decide(sweep, run, Workload(WorkloadState.ENDED, Ending.COMPLETED, reference=JOB), after(5)).status
    left = {field: value for field, value in done.to_json().items() if field not in {*emptied, "accepted"}}
    damaged = run.changed(status=RunStatus.model_validate({**left, "state": "Queued"}))
    for _ in range(3):
        decision = decide(sweep, damaged, ABSENT, after(9))
        assert decision.do is Do.NOTHING
        damaged = damaged.changed(status=decision.status or damaged.status)
    assert damaged.status.state is RunState.SUCCEEDED
    assert len(damaged.status.accepted) == 2
