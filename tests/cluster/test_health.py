"""Pages for probes and scrapes, log entries, and the operator's own series."""

import io
import json
import logging
import re
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from sweep_operator.clusters.kubernetes.cache import Store
from sweep_operator.clusters.kubernetes.resources import JOBS
from sweep_operator.clusters.kubernetes.views import job_view
from sweep_operator.clusters.kubernetes.watch import Watch
from sweep_operator.controller import logs
from sweep_operator.controller.health import Page, PagesTakenError, Server, verdict
from sweep_operator.controller.measures import Measures, OperatorCollector
from sweep_operator.controller.queue import Key, WorkQueue


@pytest.fixture
def serve():
    servers = []

    def begin(pages, port=0):
        servers.append(Server(port, pages, "127.0.0.1"))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def get(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_finding_is_a_503_that_says_what_is_wrong(serve):
    wrong = {}
    server = serve({"/readyz": verdict(lambda: wrong)})
    assert get(server, "/readyz") == (200, "ok\n")
    assert get(server, "/readyz?verbose") == (200, "ok\n")
    wrong |= {"watch-pods": "silent for 200 s: cut", "stopping": "the process is ending"}
    assert get(server, "/readyz") == (503, "stopping: the process is ending\nwatch-pods: silent for 200 s: cut\n")
    assert get(server, "/other")[0] == 404


def test_a_slow_page_holds_up_no_probe(serve):
    release = threading.Event()

    def slow(accept):
        release.wait(10)
        return Page(200, "text/plain", b"late")

    server = serve({"/metrics": slow, "/healthz": verdict(dict)})
    scrape = threading.Thread(target=get, args=(server, "/metrics"))
    scrape.start()
    assert get(server, "/healthz") == (200, "ok\n")
    release.set()
    scrape.join(10)


def test_a_page_is_told_what_was_asked_for(serve):
    server = serve({"/metrics": lambda accept: Page(200, "text/plain", accept.encode())})
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Accept": "a/b;q=0.5"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"a/b;q=0.5"


def test_a_port_that_is_taken_is_said(serve):
    server = serve({})
    with pytest.raises(PagesTakenError, match=f"port {server.port} cannot be listened on"):
        serve({}, server.port)


def entries(form, speak):
    stream = io.StringIO()
    before = logging.root.handlers[:], logging.root.level
    logs.configure(form, stream=stream)
    try:
        speak(logging.getLogger("sweep_operator.controller.test"))
    finally:
        logging.root.handlers[:], logging.root.level = before[0], before[1]
    return stream.getvalue().splitlines()


def test_an_entry_names_what_it_is_about_and_no_more():
    def speak(log):
        with logs.about(namespace="default", sweep="demo"), logs.about(rung="a", run="demo-a-1", attempt=2):
            log.info("state %s", "Running", extra={"attempt": 3})
        log.warning("nobody's\nbusiness")

    first, second = map(json.loads, entries("json", speak))
    assert {k: v for k, v in first.items() if k != "time"} == {
        "level": "info",
        "logger": "controller.test",
        "message": "state Running",
        "namespace": "default",
        "sweep": "demo",
        "rung": "a",
        "run": "demo-a-1",
        "attempt": 3,
    }
    assert set(second) == {"time", "level", "logger", "message"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["time"])


def test_a_traceback_stays_in_its_entry_and_text_is_for_people():
    def speak(log):
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError:
            with logs.about(sweep="demo"):
                log.exception("failed")

    [line] = entries("json", speak)
    assert "ZeroDivisionError: a bug" in json.loads(line)["traceback"]
    lines = entries("text", speak)
    assert re.match(r"\S+ error   \[sweep=demo\] failed$", lines[0])
    assert lines[-1] == "ZeroDivisionError: a bug"


def test_threads_do_not_mix_up_what_they_are_about():
    def speak(log):
        with logs.about(sweep="mine"):
            other = threading.Thread(target=log.info, args=("from another thread",))
            other.start()
            other.join()

    [line] = entries("json", speak)
    assert "sweep" not in json.loads(line)


def test_the_operators_series_keep_prometheus_rules_and_say_what_happened():
    from collections import Counter
    from types import SimpleNamespace

    measures, queue = Measures(), WorkQueue()
    measures.passed(Key("ScalingRun", "default", "a"), "Changed", 0.02)
    measures.passed(Key("ScalingRun", "default", "a"), "Error", 20.0)
    queue.add(Key("ScalingRun", "default", "b"))
    queue.add_after(Key("ScalingRun", "default", "c"), 60)
    calls = Counter({("create", "jobs", "201"): 3})
    apis = [SimpleNamespace(calls=calls), SimpleNamespace(calls=calls)]
    watch = Watch(None, JOBS, Store(job_view), "default")
    registry = CollectorRegistry()
    registry.register(OperatorCollector(measures, queue, [watch], apis, lambda: True, lambda: 5))
    text = generate_latest(registry).decode()
    value = {}
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"scalingsweep(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith(".")
        for sample in family.samples:
            labels = ",".join(v for k, v in sorted(sample.labels.items()))
            value[sample.name.removeprefix("scalingsweep_"), labels] = sample.value
    assert value["reconcile_duration_seconds_bucket", "ScalingRun,0.025"] == 1
    assert value["reconcile_duration_seconds_bucket", "ScalingRun,+Inf"] == 2
    assert value["reconciles_total", "ScalingRun,Error"] == 1
    assert (value["queue_depth", ""], value["queue_delayed", ""]) == (1, 1)
    assert value["api_calls_total", "201,jobs,create"] == 6
    assert value["watch_restarts_total", "default,jobs"] == 0
    assert value["leader", ""] == 1
    assert value["events_dropped_total", ""] == 5


def test_open_metrics_learns_since_when_is_counted_and_which_pass_was_the_last_of_its_bucket():
    measures = Measures()
    slow, quick = Key("ScalingSweep", "lab", "web"), Key("ScalingRun", "lab", "web-1b-0")
    measures.passed(quick, "Changed", 0.02)
    measures.passed(Key("ScalingRun", "lab", "web-1b-1"), "Changed", 0.02)
    measures.passed(slow, "Api403", 7.0)
    measures.refits.add(7.0, slow)
    collector = OperatorCollector(
        measures, WorkQueue(), (), (), lambda: True, lambda: 5, lambda: 3, {slow: "ab" * 16}.get, created=1.5e9
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    samples = {
        (sample.name.removeprefix("scalingsweep_"), *sample.labels.values()): sample
        for family in open_metrics(generate_open_metrics(registry).decode())
        for sample in family.samples
    }

    def exemplar(*key):
        return samples[key].exemplar.labels

    traced = {"trace_id": "ab" * 16, "sweep": "web", "namespace": "lab"}
    assert exemplar("reconcile_duration_seconds_bucket", "ScalingSweep", "10.0") == traced
    assert exemplar("refit_duration_seconds_bucket", "10.0") == traced
    assert exemplar("reconciles_total", "ScalingSweep", "Api403") == traced
    newest = {"run": "web-1b-1", "namespace": "lab"}
    assert exemplar("reconcile_duration_seconds_bucket", "ScalingRun", "0.025") == newest
    assert samples["reconcile_duration_seconds_bucket", "ScalingRun", "0.025"].exemplar.value == 0.02
    assert samples["reconcile_duration_seconds_bucket", "ScalingRun", "0.05"].exemplar is None
    assert samples["spans_dropped_total",].value == 3
    for name in ("reconciles_created", "events_dropped_created", "refit_duration_seconds_created"):
        assert {sample.value for key, sample in samples.items() if key[0] == name} == {1.5e9}
