"""The two formats of a scrape: which one is served, and that OpenMetrics' own parser takes every line of its page."""

import math
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from simulated_cluster import Outcome, SimulatedCluster, World, climb

from sweep_analysis.record import FailureReason
from sweep_operator.clusters import Ending
from sweep_operator.metrics import Exposition, Latency, Observed, SweepPage, asked_for, exemplar_of, serve
from sweep_operator.metrics.exposition import line
from sweep_operator.traces import spans_of

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.fixture(scope="module")
def troubled(manifest):
    """A ladder whose every run is preempted once and crashes once before it succeeds."""
    endings = {1: Outcome(Ending.PREEMPTED, share=0.1), 2: Outcome(Ending.FAILED, FailureReason.CRASHED, "boom")}
    cluster = SimulatedCluster(manifest(), World(outcome=lambda run, attempt: endings.get(attempt, Outcome())))
    climb(cluster)
    return Observed(cluster.stored, cluster.runs(cluster.stored))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS_2, Exposition.OPEN_METRICS),
        (PROMETHEUS_3, Exposition.OPEN_METRICS),
        ("application/openmetrics-text", Exposition.OPEN_METRICS),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", Exposition.PROMETHEUS),
        ("application/openmetrics-text;version=2.0.0", Exposition.PROMETHEUS),  # one that we do not speak
        ("application/openmetrics-text;q=0", Exposition.PROMETHEUS),
        ("application/openmetrics-text;q=high,text/plain", Exposition.PROMETHEUS),
        ("text/html,*/*;q=0.8", Exposition.PROMETHEUS),
        ("", Exposition.PROMETHEUS),
    ],
)
def test_open_metrics_is_served_to_who_ranks_it_first(accept, expected):
    assert asked_for(accept) is expected


def test_both_formats_tell_the_same_numbers_under_the_same_names(troubled):
    page = SweepPage(lambda: [troubled], of_runs=True)

    def samples(exposition, parse):
        text = exposition.page(page.text(exposition), CollectorRegistry()).decode()
        found = {(s.name, *sorted(s.labels.items())): s.value for family in parse(text) for s in family.samples}
        return {key: value for key, value in found.items() if not key[0].startswith("scalingsweep_series_late")}

    plain = samples(Exposition.PROMETHEUS, prometheus)
    assert len(plain) > 100
    assert samples(Exposition.OPEN_METRICS, open_metrics) == plain


def test_open_metrics_is_told_kinds_and_units(troubled):
    text = SweepPage(lambda: [troubled]).text(Exposition.OPEN_METRICS) + "# EOF\n"
    families = {family.name: family for family in open_metrics(text)}
    assert families["scalingsweep_gpu_seconds"].type == "counter"
    assert families["scalingsweep_gpu_seconds"].unit == "seconds"
    assert families["scalingsweep_rung_loss_nats"].unit == "nats"
    assert families["scalingsweep_build"].type == families["scalingsweep_law"].type == "info"
    assert families["scalingsweep_sweep_phase"].unit == ""


def test_a_failures_exemplar_is_the_newest_attempt_that_failed_so_and_its_span(troubled):
    page = SweepPage(lambda: [troubled], traced=True)
    families = {family.name: family for family in open_metrics(page.text(Exposition.OPEN_METRICS) + "# EOF\n")}
    told = {s.labels["reason"]: s for s in families["scalingsweep_run_failures"].samples}
    exemplar = told["Crashed"].exemplar
    (run,) = [run for run in troubled.runs if run.metadata.name == exemplar.labels["run"]]
    assert run.status.attempts[1].outcome == "Crashed"
    spans = {span.identity: span for span in spans_of(troubled.sweep, troubled.runs)}
    assert spans[exemplar.labels["span_id"]].trace == exemplar.labels["trace_id"]
    assert spans[exemplar.labels["span_id"]].attributes["scalingsweep.attempt"] == 2
    assert spans[exemplar.labels["span_id"]].ended.timestamp() == pytest.approx(float(exemplar.timestamp))
    (preempted,) = families["scalingsweep_run_preemptions"].samples
    assert spans[preempted.exemplar.labels["span_id"]].attributes["scalingsweep.attempt"] == 1


def test_without_traces_an_exemplar_names_the_run_alone_and_plain_text_has_none(troubled):
    page = SweepPage(lambda: [troubled])
    told = [text for text in page.text(Exposition.OPEN_METRICS).splitlines() if " # " in text]
    assert len(told) == 2
    assert all('# {run="' in text for text in told)
    assert " # {" not in page.text()


def test_an_exemplar_keeps_to_128_characters_and_leaves_out_what_does_not_fit():
    exemplar = exemplar_of({"trace_id": "0" * 32, "sweep": "s" * 84, "namespace": "lab"}, 1.0, 2.0)
    assert exemplar.labels == {"trace_id": "0" * 32, "namespace": "lab"}
    text = line("x_total", {}, 1.0, exemplar_of({"run": "r" * 125}, 1.0, 2.0))
    (family,) = open_metrics(f"# TYPE x counter\n{text}# EOF\n")
    assert family.samples[0].exemplar.labels == {"run": "r" * 125}


def test_labels_are_escaped():
    said = {"reason": 'say "no"\\\n'}
    text = line("x", said, math.inf, exemplar_of({"run": said["reason"]}, 1.0, 2.0))
    (plain,) = prometheus("# TYPE x gauge\n" + line("x", said, math.inf))
    assert (plain.samples[0].labels, plain.samples[0].value) == (said, math.inf)
    (family,) = open_metrics("# TYPE x counter\n" + text.replace("x{", "x_total{").replace("inf", "1.0") + "# EOF\n")
    assert family.samples[0].exemplar.labels == {"run": said["reason"]}


def test_a_local_ladders_page_is_served_as_it_was_asked_for(troubled):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = serve(SweepPage(lambda: [troubled]), port, lambda: Latency((1.0, 10.0), (3, 1, 0), 4.5))
    try:
        for exposition, accept, parse in (
            (Exposition.OPEN_METRICS, PROMETHEUS_2, open_metrics),
            (Exposition.PROMETHEUS, "", prometheus),
        ):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.headers["Content-Type"] == exposition
                names = {family.name for family in parse(answer.read().decode())}
            assert {"scalingsweep_pass_duration_seconds", "scalingsweep_run_preemptions"} <= names
    finally:
        stop()
