"""What a pod says last, on a real API server: records in a termination message, a damaged one, and very long words."""

import json

import pytest
from life import only_once
from live_operator import until
from simulated_cluster import healthy
from standin_trainers import Play

from sweep_operator.api import ScalingRun
from sweep_operator.clusters.kubernetes.resources import EVENTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

BY_MESSAGE = {"image": "own/trainer", "command": ["train"], "report": "TerminationMessage"}
LONG = "größer als der Speicher: " * 400
"""Ten kilobytes in one line, two bytes for some letters."""


def document(run: ScalingRun) -> str:
    """What an own trainer writes: the loss at each of its token counts."""
    what = run.spec.run
    return json.dumps({"records": [{"tokens": tokens, "loss": healthy(what, tokens)} for tokens in what.tokens]})


def test_records_in_termination_messages_are_a_whole_climb(climb, trainers):
    trainers.play = lambda run, attempt: Play(records=False, message=document(run))
    place = climb(runtime=BY_MESSAGE)
    status = place.until_phase("Succeeded")
    assert status["law"]["records"] == 10
    for run in place.runs():
        assert not run["status"].get("records"), "nobody but the kubelet has said anything"
        assert [record["tokens"] for record in run["status"]["accepted"]] == run["spec"]["run"]["tokens"]
    assert only_once(trainers)


def test_a_termination_message_that_was_cut_off_is_refused_counted_and_shown(climb, trainers):
    trainers.play = lambda run, attempt: Play(records=False, message=document(run)[:40])
    place = climb(runtime=BY_MESSAGE, retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    status = place.run("a")["status"]
    assert status["refusedRecords"] == 1
    assert "not JSON" in status["refusal"]
    assert not status.get("accepted")
    (failure,) = status["failures"]
    assert failure["reason"] == "RecordRefused"
    assert "1 were refused, the last because" in failure["message"]


def test_ten_kilobytes_of_a_kubelets_words_are_cut_to_what_each_place_takes(climb):
    said = {"simulated/waiting": "InvalidImageName", "simulated/message": LONG}
    place = climb(runtime={"podTemplate": {"metadata": {"annotations": said}}}, retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    status = place.run("a")["status"]
    (failure,) = status["failures"]
    assert failure["reason"] == "ImageUnavailable"
    assert failure["message"].startswith("InvalidImageName: größer als der Speicher")
    assert len(failure["message"]) <= 1024
    assert all(len(condition["message"]) <= 2048 for condition in status["conditions"])
    told = until(lambda: [e for e in place.items(EVENTS) if e["reason"] == "ImageUnavailable" and "note" in e])
    assert 900 < len(told[0]["note"].encode()) <= 1024


def test_ten_kilobytes_of_a_trainers_words_are_cut_to_its_last_line(climb, trainers):
    words = f"{LONG}\nRuntimeError: Übertragungsfehler, {LONG}"
    trainers.play = lambda run, attempt: Play("Failed", exit_code=3, message=words)
    place = climb(retry={"limit": 0, "maxFailedRuns": 0})
    place.until_phase("Failed")
    (failure,) = place.run("a")["status"]["failures"]
    assert failure["message"].startswith("exit status 3: RuntimeError: Übertragungsfehler")
    assert "Crashed" in until(lambda: "Crashed" in place.events() and place.events())
