"""Spans of a sweep follow from its status, and reach a collector in OTLP's JSON form, once each."""

from datetime import UTC, datetime, timedelta

import pytest
from simulated_cluster import Outcome, SimulatedCluster, World, climb, settle
from trace_collector import TraceCollector

from sweep_analysis.record import FailureReason
from sweep_operator.clusters import Ending
from sweep_operator.controller.tracing import TraceSender, endpoint, headers
from sweep_operator.metrics import Known, Observed
from sweep_operator.traces import request_of, spans_of

CREATED = "2026-01-01T00:00:00Z"


def born(cluster):
    """The sweep as a cluster knows it: created at some time, with a UID."""
    sweep = cluster.stored
    metadata = sweep.metadata.changed(creation_timestamp=CREATED, uid="5b1f6a52-0000-4000-8000-000000000001")
    return sweep.changed(metadata=metadata)


def spans(cluster):
    return spans_of(born(cluster), cluster.runs(cluster.stored))


@pytest.fixture
def climbed(manifest):
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    return cluster


def test_a_climbed_ladder_is_a_tree_of_sweep_rungs_runs_and_attempts(climbed):
    found = spans(climbed)
    by_identity = {span.identity: span for span in found}
    assert len(by_identity) == len(found)
    assert len({span.trace for span in found}) == 1
    depth = {"": 0}
    for span in found:
        kind = span.name.split()[0]
        parent = by_identity[span.parent].name.split()[0] if span.parent else ""
        assert (parent, kind) in {("", "sweep"), ("sweep", "rung"), ("rung", "run"), ("run", "attempt")}
        depth[kind] = depth.get(kind, 0) + 1
    rungs, runs = climbed.stored.status.rungs, climbed.runs(climbed.stored)
    assert depth["sweep"] == 1
    assert depth["rung"] == len(rungs)
    assert depth["run"] == len(runs)
    assert depth["attempt"] == sum(run.status.attempt for run in runs)


def test_every_span_ends_after_it_began_and_lies_within_its_parent(climbed):
    found = {span.identity: span for span in spans(climbed)}
    for span in found.values():
        assert span.began <= span.ended, span.name
        if span.parent:
            assert found[span.parent].began <= span.began, span.name


def test_what_goes_on_has_no_span_yet(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    assert spans(cluster) == []


def test_a_failed_attempt_says_why_and_the_run_that_it_did_not_stop_is_well(manifest):
    once = lambda run, attempt: (  # noqa: E731 - a world is a formula
        Outcome(Ending.FAILED, FailureReason.OUT_OF_MEMORY, "no memory left") if attempt == 1 else Outcome()
    )
    cluster = SimulatedCluster(manifest(), World(outcome=once))
    climb(cluster)
    found = spans(cluster)
    failed = [span for span in found if span.name == "attempt 1"]
    assert failed
    assert {span.error for span in failed} == {"OutOfMemory: no memory left"}
    assert {span.error for span in found if span.name.startswith("run ")} == {""}


def test_the_same_status_gives_the_same_spans(climbed):
    assert request_of(spans(climbed)) == request_of(spans(climbed))


@pytest.fixture
def collector():
    with TraceCollector() as collector:
        yield collector


def sender(cluster, url, since=CREATED):
    observed = Observed(born(cluster), cluster.runs(cluster.stored))
    sender = TraceSender(url, lambda: [Known("uid", 1, lambda: observed)], {"x-key": "secret"})
    sender._since = datetime.fromisoformat(since)
    return sender


def test_each_span_is_sent_once_in_the_form_of_otlp(climbed, collector):
    traces = sender(climbed, collector.url)
    traces.look()
    traces.look()
    assert {span["spanId"] for span in collector.spans} == {span.identity for span in spans(climbed)}
    assert len(collector.spans) == len(spans(climbed))
    path, sent = collector.headers[0]
    assert path == "/v1/traces"
    assert (sent["x-key"], sent["content-type"]) == ("secret", "application/json")
    root = next(span for span in collector.spans if "parentSpanId" not in span)
    assert len(root["traceId"]) == 32
    assert int(root["endTimeUnixNano"]) > int(root["startTimeUnixNano"])
    assert {"key": "scalingsweep.reason", "value": {"stringValue": "Succeeded"}} in root["attributes"]


def test_what_ended_long_before_this_process_led_is_not_told_again(climbed, collector):
    sender(climbed, collector.url, (datetime.now(UTC) + timedelta(days=3650)).isoformat()).look()
    assert collector.spans == []


def test_a_collector_that_is_away_gets_everything_when_it_is_back(climbed, collector):
    traces = sender(climbed, collector.url)
    collector.answer = 503
    traces.look()
    assert collector.spans == []
    collector.answer = 200
    traces.look()
    assert len(collector.spans) == len(spans(climbed))
    assert traces.dropped == 0


def test_a_collector_that_refuses_is_not_asked_for_ever(climbed, collector):
    traces = sender(climbed, collector.url)
    collector.answer = 400
    traces.look()
    assert traces.dropped == len(spans(climbed))
    assert len(collector.headers) == 1
    traces.look()
    assert len(collector.headers) == 1


def test_the_address_and_the_headers_come_from_opentelemetrys_own_variables():
    assert endpoint({}) is None
    assert endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}) == "http://c:4318/v1/traces"
    assert (
        endpoint({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "y"})
        == "http://c/x"
    )
    assert headers({"OTEL_EXPORTER_OTLP_HEADERS": "a=b, c=d=e"}) == {"a": "b", "c": "d=e"}
