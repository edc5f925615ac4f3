"""Budgets end to end on a real API server: the climb stops within them, says what is short, and goes on when raised."""

import time

import pytest
from life import NEVER, only_once, rung_runs
from live_operator import until
from standin_trainers import Play

from sweep_operator.clusters.kubernetes.resources import JOBS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_budget_of_gpu_hours_stops_before_the_rung_that_does_not_fit_and_a_raised_one_goes_on(climb, trainers):
    trainers.play = lambda run, attempt: Play(seconds=2.0)
    place = climb(budget={"gpuHours": 0.01})
    status = place.until_phase("OverBudget")
    told = place.condition("Finished")
    assert (told["status"], told["reason"]) == ("True", "OverBudget")
    assert "needs up to" in told["message"]
    assert "raise budget.gpuHours to go on" in told["message"]
    assert 0 < status["spent"]["gpuSeconds"] <= 36
    assert status["spent"]["gpuSeconds"] == sum(
        attempt["gpuSeconds"] for run in place.runs() for attempt in run["status"]["attempts"]
    )
    begun = {name for name, state in place.rungs().items() if state == "Promoted"}
    assert begun
    assert set(place.rungs().values()) == {"Promoted", "Pending"}
    time.sleep(2.0)
    assert {run["spec"]["rung"] for run in place.runs()} == begun, "nothing is created beyond the budget"
    assert len(place.items(JOBS)) == len(begun)
    place.patch({"budget": {"gpuHours": 1}})
    status = place.until_phase("Succeeded")
    assert {run["status"]["attempt"] for run in place.runs()} == {1}, "what was paid for is not trained again"
    assert "OverBudget" in place.events()


def test_a_run_that_uses_the_budget_up_is_checkpointed_and_goes_on_when_it_is_raised(climb, trainers):
    rung_runs(trainers, "b", NEVER)
    place = climb(budget={"gpuHours": 0.004})
    place.until_phase("OverBudget")
    until(lambda: not place.pods("b"))
    until(lambda: place.state("b") == "Waiting")
    assert (
        "GPU-hours were used, and the budget is 0.004; raise budget.gpuHours to go on"
        in place.condition("Finished")["message"]
    )
    first = place.run("b")["status"]["attempts"][0]
    assert first["outcome"] == "Interrupted"
    assert first["gpuSeconds"] > 0
    trainers.play = lambda run, attempt: Play()
    place.patch({"budget": {"gpuHours": 1}})
    place.until_phase("Succeeded")
    status = place.run("b")["status"]
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Interrupted", "Succeeded"]
    assert status["attempts"][0]["gpuSeconds"] == first["gpuSeconds"], "what was spent stays spent"
    assert not status.get("failures")
    assert only_once(trainers)
