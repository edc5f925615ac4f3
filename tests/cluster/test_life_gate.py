"""What a verdict leads to, on a real API server: experiments, a rung run again, a stop, the target's launch."""

import math

import pytest
from live_operator import manifest, until
from simulated_cluster import healthy

from sweep_analysis.rung import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def target(launch, **fields):
    return {**manifest()["spec"]["target"], "launch": launch, **fields}


def test_a_ladder_by_rule_is_climbed_as_it_was_resolved_at_first(climb):
    rule = {"from": "20K", "to": "96K", "rungs": 5, "tokensPerParameter": [10, 20]}
    place = climb(ladder={"generate": rule})
    status = place.until_phase("Succeeded")
    assert [rung["name"] for rung in status["rungs"]] == ["20k", "30k", "44k", "65k", "96k"]
    assert [run["spec"]["rung"] for run in place.runs()] == ["20k", "30k", "44k", "65k", "96k"]
    assert {rung["state"] for rung in status["rungs"]} == {"Promoted"}


def test_a_rung_at_a_wrong_learning_rate_is_diagnosed_by_further_runs_and_run_again_whole(climb, trainers):
    def detuned(run: Run, tokens: int) -> float:
        tuned = healthy(run.changed(learning_rate_factor=1.0), tokens)
        return tuned * (1.0 + 0.012 * math.log(run.learning_rate_factor) ** 2)

    trainers.loss = detuned
    rungs = manifest()["spec"]["ladder"]["rungs"]
    rungs[3]["runs"][0]["learningRateFactor"] = 30.0
    place = climb(ladder={"rungs": rungs})
    status = place.until_phase("Succeeded")
    first, second = (rung for rung in status["rungs"] if rung["name"] == "d")
    assert (first["state"], first["verdict"]["reason"]) == ("Superseded", "BadlyTuned")
    assert (second["state"], second["revision"]) == ("Promoted", 2)
    assert second["runs"][0]["learningRateFactor"] < 10
    made = [
        (run["spec"]["revision"], run["spec"]["run"]["purpose"]) for run in place.runs() if run["spec"]["rung"] == "d"
    ]
    assert sorted(made) == [(1, "Diagnosis")] * len(first["experiments"]) + [(1, "Ladder"), (2, "Ladder")]
    assert status["law"]["records"] == 10, "what was run to find the cause is no evidence for the law"


def test_a_law_that_breaks_stops_the_climb_and_nothing_larger_is_started(climb, trainers):
    trainers.loss = lambda run, tokens: healthy(run, tokens) * (1.15 if run.parameters > 60_000 else 1.0)
    place = climb(target=target("Automatic", maxLoss=3.0))
    status = place.until_phase("Inconsistent")
    assert [rung["state"] for rung in status["rungs"]] == [*["Promoted"] * 3, "Stopped", "Pending", "Pending"]
    assert {run["spec"]["rung"] for run in place.runs()} == set("abcd")
    assert place.condition("Succeeded")["status"] == "False"


def test_a_target_that_cannot_be_worth_its_cost_ends_the_climb(climb):
    place = climb(target=target("Automatic", maxLoss=0.7))
    place.until_phase("NotWorthIt")
    assert place.condition("Finished")["message"].endswith("worth its cost up to 0.7")
    assert {run["spec"]["rung"] for run in place.runs()} == set("abc"), "the first forecast of it is enough to tell"


def test_a_target_is_launched_by_its_rule(climb):
    place = climb(target=target("Automatic", maxLoss=3.0))
    status = place.until_phase("Succeeded")
    assert status["rungs"][-1]["name"] == "target"
    assert status["rungs"][-1]["verdict"]["outcome"] == "Pass"
    assert place.run("target")["spec"]["run"]["purpose"] == "Target"
    assert place.condition("Succeeded")["message"] == "the target was trained"


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (target("Approval", maxLoss=3.0), "target.launch is Approval"),
        (target("Automatic"), "target.maxLoss is not set"),
    ],
    ids=["it wants one", "no maxLoss"],
)
def test_a_target_that_its_rule_does_not_launch_waits_for_a_person(climb, wish, why):
    place = climb(target=wish)
    until(lambda: place.rungs().get("target") == "Held")
    waiting = place.condition("AwaitingApproval")
    assert waiting["status"] == "True"
    assert why in waiting["message"]
    assert not place.run("target"), "nothing of it exists before"
    verdict = place.sweep()["status"]["rungs"][-1]["verdict"]["digest"]
    place.patch({"approvals": [{"rung": "target", "verdict": verdict}]})
    status = place.until_phase("Succeeded")
    assert status["rungs"][-1]["approved"] == verdict
    assert place.state("target") == "Succeeded"
