"""What every adapter of the `Cluster` port must hold to."""

import pytest
from local_ladder import a_run

from sweep_operator.api import Attempt, RunState
from sweep_operator.clusters import Conflict, Ending, Event, Unavailable, WorkloadState


def with_open_attempt(place, number=1):
    """A run whose status promises an attempt, as the reconcilers write it before they start one."""
    sweep = place.cluster.sweep(place.key)
    place.cluster.create_run(a_run(sweep))
    (run,) = place.cluster.runs(sweep)
    attempts = (*run.status.attempts, Attempt(attempt=number, started_at="2026-01-01T00:00:00Z"))
    place.cluster.write_run_status(run, run.status.changed(attempt=number, attempts=attempts, state=RunState.RUNNING))
    (run,) = place.cluster.runs(sweep)
    return sweep, run


def workload(place, run, attempt=1):
    """As a pass sees it: of the run as it is read then, and anew where that was too old."""
    while True:
        newest = next(
            r for r in place.cluster.runs(place.cluster.sweep(place.key)) if r.metadata.uid == run.metadata.uid
        )
        try:
            return place.cluster.workload(newest, attempt)
        except Conflict:
            continue


def state(place, run, attempt=1):
    return workload(place, run, attempt).state


def test_a_sweep_is_found_by_its_key_and_by_no_other(place):
    assert place.cluster.sweep(place.key).metadata.name == "tiny"
    assert place.cluster.sweep(place.key + "-other") is None


def test_a_run_created_twice_is_there_once_and_has_a_uid(place):
    sweep = place.cluster.sweep(place.key)
    place.cluster.create_run(a_run(sweep))
    (first,) = place.cluster.runs(sweep)
    place.cluster.create_run(a_run(sweep))
    (second,) = place.cluster.runs(sweep)
    assert first.metadata.uid
    assert second.metadata.uid == first.metadata.uid
    assert second.spec == a_run(sweep).spec


def test_a_status_is_read_back_as_it_was_written(place):
    sweep = place.cluster.sweep(place.key)
    status = sweep.status.changed(phase="Running", observed_generation=1)
    place.cluster.write_sweep_status(sweep, status)
    assert place.cluster.sweep(place.key).status == status


def test_a_status_of_a_sweep_that_was_changed_meanwhile_is_a_conflict(place):
    sweep = place.cluster.sweep(place.key)
    place.change_spec()
    with pytest.raises(Conflict):
        place.cluster.write_sweep_status(sweep, sweep.status.changed(phase="Running"))
    assert place.cluster.sweep(place.key).spec.suspend


def test_a_written_run_status_keeps_what_the_trainer_reports(place):
    sweep, run = with_open_attempt(place)
    place.cluster.start(sweep, run, 1)
    place.until(lambda: state(place, run) is WorkloadState.ENDED)
    (reported,) = place.cluster.runs(sweep)
    place.cluster.write_run_status(reported, reported.status.changed(state=RunState.SUCCEEDED))
    (read,) = place.cluster.runs(sweep)
    assert read.status.records == reported.status.records
    assert read.status.state is RunState.SUCCEEDED


def test_an_attempt_that_was_never_started_is_absent(place):
    _, run = with_open_attempt(place)
    assert state(place, run) is WorkloadState.ABSENT


def test_a_started_attempt_runs_and_ends_completed_with_its_records(place):
    sweep, run = with_open_attempt(place)
    place.cluster.start(sweep, run, 1)
    assert state(place, run) in (WorkloadState.PENDING, WorkloadState.RUNNING)
    place.until(lambda: state(place, run) is WorkloadState.ENDED)
    ended = workload(place, run)
    assert ended.ending is Ending.COMPLETED
    assert ended.started_at < ended.ended_at
    assert ended.gpu_seconds > 0
    (run,) = place.cluster.runs(sweep)
    assert [r.tokens for s in run.status.records for r in s.records] == list(run.spec.run.tokens)
    assert run.status.progress.step == run.status.progress.steps


def test_starting_twice_starts_once(place):
    sweep, run = with_open_attempt(place)
    place.cluster.start(sweep, run, 1)
    place.until(lambda: state(place, run) is not WorkloadState.PENDING)
    place.cluster.start(sweep, run, 1)
    place.until(lambda: state(place, run) is WorkloadState.ENDED)
    place.cluster.start(sweep, run, 1)
    assert place.began() == 1


def test_an_attempt_that_is_stopped_ends_interrupted_however_often_it_is_told(place):
    sweep, run = with_open_attempt(place)
    place.cluster.start(sweep, run, 1)
    place.until(lambda: state(place, run) is WorkloadState.RUNNING)
    for _ in range(3):
        place.cluster.stop(run, 1)
    place.until(lambda: state(place, run) is WorkloadState.ENDED)
    assert workload(place, run).ending is Ending.INTERRUPTED


def test_a_second_attempt_may_follow_one_that_was_stopped(place):
    sweep, run = with_open_attempt(place)
    place.cluster.start(sweep, run, 1)
    place.until(lambda: state(place, run) is WorkloadState.RUNNING)
    place.cluster.stop(run, 1)
    place.until(lambda: state(place, run) is WorkloadState.ENDED)
    sweep, run = with_open_attempt(place, 2)
    place.cluster.start(sweep, run, 2)
    place.until(lambda: state(place, run, 2) is WorkloadState.ENDED)
    assert workload(place, run, 2).ending is Ending.COMPLETED
    assert workload(place, run).ending is Ending.INTERRUPTED


def test_earlier_records_are_read_from_where_the_sweep_says(place):
    imports = place.cluster.imported(place.importing("parameters,tokens,loss\n2K,40K,4.5\n1K,20K,5\n"))
    columns = zip(imports.parameters, imports.tokens, imports.loss, strict=True)
    assert sorted(columns) == [(1000, 20_000, 5.0), (2000, 40_000, 4.5)]


def test_earlier_records_that_are_not_there_or_not_in_such_a_place_are_refused(place):
    there = place.cluster.sweep(place.key)
    for source in ({"file": "nowhere.csv"}, {"configMap": "nowhere"}):
        elsewhere = there.changed(spec={**there.spec.to_json(), "records": [source]})
        with pytest.raises(Unavailable):
            place.cluster.imported(elsewhere)


def test_events_are_taken_and_never_raise(place):
    place.cluster.emit(place.cluster.sweep(place.key), Event("Something", "happened", rung="a"))
