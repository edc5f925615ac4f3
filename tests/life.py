"""What tests of a sweep's life say again and again."""

from live_operator import Place, until
from standin_trainers import Play, StandinTrainers

NEVER = Play("Runs")
"""A trainer that runs until somebody ends it."""


def rung_runs(trainers: StandinTrainers, rung: str, play: Play) -> None:
    """The trainers of one rung do this, the others succeed."""
    trainers.play = lambda run, attempt: play if run.spec.rung == rung else Play()


def only_once(trainers: StandinTrainers) -> bool:
    """Whether no attempt had more than one pod."""
    return all(len(pods) == 1 for pods in trainers.begun.values())


def preempted_once(place: Place, rung: str) -> dict:
    """The status of a run that lost its first attempt, has none counted as failed, and goes on with the second."""
    status = until(lambda: (s := place.run(rung)["status"]) and s["attempt"] == 2 and s)
    assert status["attempts"][0]["outcome"] == "Preempted"
    assert not status.get("failures")
    assert not status.get("countedFailures")
    return status
