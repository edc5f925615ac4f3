"""Kubernetes Events: useful, counted, bounded, and never in anybody's way."""

import time

import pytest

from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import ApiError, NotFound, NotLeading
from sweep_operator.clusters.kubernetes.events import (
    BURST,
    KEPT_BACK,
    REFILL_SECONDS,
    SERIES_SECONDS,
    EventSender,
    Subject,
)
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS
from sweep_operator.clusters.port import Event

DEMO = Subject("default", "demo", "uid-1")


class Recorded:
    """An API that remembers what was written, and fails as told."""

    def __init__(self):
        self.created, self.patched, self.failure = [], [], None

    def create(self, path, document):
        if self.failure:
            raise self.failure
        self.created.append(document)

    def patch(self, path, document):
        if self.failure:
            raise self.failure
        self.patched.append(document)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def api():
    return Recorded()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sender(api, clock):
    return EventSender(api, "pod-1", clock)


def tell(sender, *events, subject=DEMO):
    """Tell them on this thread."""
    for event in events:
        sender._tell(subject, event, "2026-01-01T00:00:00.000000Z")


def test_the_same_again_is_counted_not_told_again_and_written_now_and_then(sender, api, clock):
    for _ in range(100):
        tell(sender, Event("OOMKilled", "out of memory", "a", "demo-a-1", warning=True))
        clock.now += 1
    assert len(api.created) == 1
    assert [patch["series"]["count"] for patch in api.patched] == [31, 61, 91]
    clock.now += SERIES_SECONDS
    tell(sender, Event("OOMKilled", "out of memory", warning=True))
    assert len(api.created) == 2, "after a long silence it is news"


def test_one_talkative_sweep_is_bounded_and_silences_no_other(sender, api, clock):
    tell(sender, *(Event("Failed", f"message {number}") for number in range(100)))
    assert len(api.created) == BURST
    assert sender.dropped == 100 - BURST
    tell(sender, Event("Failed", "message"), subject=Subject("default", "other", "uid-2"))
    assert len(api.created) == BURST + 1
    clock.now += 3 * REFILL_SECONDS
    tell(sender, *(Event("Failed", f"later {number}") for number in range(100)))
    assert len(api.created) == BURST + 4


def test_runs_that_end_well_leave_room_for_the_verdict_and_for_runs_that_do_not(sender, api):
    tell(sender, *(Event("RunSucceeded", f"seed {number}: 3.1", "a", f"demo-a-{number}") for number in range(100)))
    assert len(api.created) == BURST - KEPT_BACK
    tell(sender, Event("OOMKilled", "out of memory", "a", "demo-a-7", warning=True), Event("Held", "3.4", "a"))
    assert [made["reason"] for made in api.created[-2:]] == ["OOMKilled", "Held"]


def test_an_event_whose_series_has_expired_on_the_server_is_told_anew(sender, api, clock):
    tell(sender, Event("Held", "waiting"))
    clock.now += 60
    api.failure = NotFound(404)
    tell(sender, Event("Held", "waiting"))
    api.failure = None
    tell(sender, Event("Held", "waiting"))
    assert len(api.created) == 2


@pytest.mark.parametrize("failure", [ApiError(403, "Forbidden"), OSError("cut"), ValueError("bug")])
def test_trouble_is_swallowed_and_counted(api, failure):
    sender = EventSender(api, "pod-1")
    api.failure = failure
    sender.start()
    sender.tell(DEMO, Event("Promoted", "a"))
    sender.stop(10)
    assert sender.dropped == 1
    assert not sender._thread.is_alive()


def test_nothing_is_told_by_a_process_that_does_not_lead(api):
    api.failure = NotLeading("lost")
    sender = EventSender(api, "pod-1")
    sender.start()
    sender.tell(DEMO, Event("Promoted", "a"))
    sender._thread.join(10)
    assert not sender._thread.is_alive()


def test_a_full_line_drops_instead_of_waiting(sender, monkeypatch):
    monkeypatch.setattr("sweep_operator.clusters.kubernetes.events.WAITING", 3)
    for number in range(5):
        sender.tell(DEMO, Event("Promoted", str(number)))
    assert sender.dropped == 2


def test_the_api_server_takes_them_and_kubectl_shows_them(control_plane, namespace):
    api = Api.connect(control_plane.kubeconfig())
    subject = api.create(CONFIG_MAPS.path(namespace), {"metadata": {"name": "demo"}})["metadata"]
    clock = Clock()
    sender = EventSender(api, "pod-1", clock)
    demo = Subject(namespace, "x" * 253, subject["uid"])
    long = Event(
        "LossAbovePrediction", "3.12 nats/token, predicted 2.98 " + "é" * 2000, "1b", "demo-1b-1", warning=True
    )
    sender.start()
    sender.tell(demo, long)
    deadline = time.monotonic() + 10
    while not sender._told and time.monotonic() < deadline:
        time.sleep(0.02)
    clock.now = 60.0
    sender.tell(demo, long)
    sender.stop(10)
    assert sender.dropped == 0
    [event] = control_plane.get("events.events.k8s.io", "-n", namespace)["items"]
    assert (event["reason"], event["type"], event["series"]["count"]) == ("LossAbovePrediction", "Warning", 2)
    assert (event["regarding"]["kind"], event["related"]["name"]) == ("ScalingSweep", "demo-1b-1")
    assert len(event["note"].encode()) in (1023, 1024)
    shown = control_plane.kubectl("get", "events", "-n", namespace).stdout
    assert "LossAbovePrediction" in shown
