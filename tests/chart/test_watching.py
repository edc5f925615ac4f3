"""A live Prometheus over the operator while ladders climb: every panel and every alert's selector finds its series."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import ControlPlane
from helm_chart import MONITORING, Helm, only
from live_operator import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from watched_sweeps import NAMESPACE, RELEASE, VALUES, WatchedSweeps

from sweep_chart.dashboards import DASHBOARDS
from sweep_operator.metrics.families import FAMILIES

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("watching"),  # one world for all of them
]
VARIABLES = {
    'namespace="$namespace"': 'namespace=~".+"',
    'sweep="$sweep"': 'sweep=~".+"',
    "$namespace": ".+",
    "$job": ".+",
    "$__rate_interval": "1m",
    " or vector(0)": "",  # a zero is shown where there is nothing; here there must be something
}
PANELS = {
    f"{board.name}: {panel.title}: {query.legend}": query.expr
    for board in DASHBOARDS
    for panel in board.panels
    for query in panel.queries
}

PICKED = {f"{board.name}: {variable.name}": variable for board in DASHBOARDS for variable in board.variables}


def filled(expression: str) -> str:
    """An expression with the dashboard's variables chosen."""
    for variable, chosen in VARIABLES.items():
        expression = expression.replace(variable, chosen)
    return expression


@pytest.fixture(scope="module")
def watched(helm: Helm, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSweeps]:
    """The world, lived in."""
    world = WatchedSweeps(plane, helm.on(plane.kubeconfig()), tmp_path_factory.mktemp("watched"))
    try:
        world.start().let_them_live()
        yield world
    finally:
        world.stop()


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_finds_its_series(watched: WatchedSweeps, panel: str) -> None:
    assert watched.prometheus.query(filled(PANELS[panel])), PANELS[panel]


@pytest.mark.parametrize("variable", PICKED)
def test_a_variable_finds_what_the_reader_picks_from(watched: WatchedSweeps, variable: str) -> None:
    query = re.fullmatch(r"label_values\((.+), (\w+)\)", PICKED[variable].query)
    assert query
    found = watched.prometheus.label_values(filled(query[1]), query[2])
    expected = {"namespace": {NAMESPACE}, "job": {RELEASE}, "sweep": set(watched.fates)}
    assert expected[PICKED[variable].name] <= set(found)


def test_every_selector_in_an_alert_finds_its_series(watched: WatchedSweeps, helm: Helm) -> None:
    rules = [
        rule
        for group in only(helm.documents(*MONITORING, values=VALUES), "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
    ]
    selectors = {
        (rule["alert"], s) for rule in rules for s in re.findall(r"scalingsweep_\w+(?:{[^}]*})?", rule["expr"])
    }
    assert len(selectors) > len(rules)
    empty = [selector for selector in sorted(selectors) if not watched.prometheus.query(selector[1])]
    assert empty == []


def test_the_alerts_that_fire_are_those_whose_sweeps_are_in_trouble(watched: WatchedSweeps) -> None:
    def firing() -> set[tuple[str, str]]:
        alerts = watched.prometheus.query('ALERTS{alertstate="firing"}')
        return {(a["metric"]["alertname"], a["metric"].get("sweep", "")) for a in alerts}

    expected = {("ScalingSweepAwaitingApproval", "held"), ("ScalingSweepForecastBroken", "broken")}
    until(lambda: expected <= firing(), 30, firing)
    assert not {sweep for _, sweep in firing()} & {"climb", "running", "queued"}


@pytest.mark.parametrize(("sweep", "condition"), [("broken", "Consistent"), ("held", "AwaitingApproval")])
def test_condition_metric_event_and_log_tell_the_same_reason(
    watched: WatchedSweeps, sweep: str, condition: str
) -> None:
    reason = watched.place.condition(condition, sweep)["reason"]
    (series,) = watched.prometheus.query(f'scalingsweep_sweep_condition{{sweep="{sweep}",condition="{condition}"}}')
    assert series["metric"]["reason"] == reason
    log = [json.loads(line) for line in (watched.folder / "operator.log").read_text().splitlines()]
    assert [entry for entry in log if entry.get("sweep") == sweep and entry["message"].startswith(f"{reason}: ")]
    events = watched.plane.get("events.events.k8s.io", "-n", "research")["items"]
    assert reason in {event["reason"] for event in events if event["regarding"]["name"] == sweep}


def test_the_climb_is_traced_from_the_sweep_down_to_its_attempts(watched: WatchedSweeps) -> None:
    def of(kind: str, **named: str) -> list[dict[str, Any]]:
        wanted = {"scalingsweep.sweep": "climb", **named}
        return [
            span
            for span in watched.traces.spans
            if span["name"].startswith(kind)
            and wanted.items() <= {a["key"]: a["value"].get("stringValue", "") for a in span["attributes"]}.items()
        ]

    until(lambda: of("sweep"), 30)
    (root,) = of("sweep")
    rungs = watched.place.sweep("climb")["status"]["rungs"]
    assert sorted(span["name"] for span in of("rung")) == sorted(f"rung {rung['name']}" for rung in rungs)
    assert {span["parentSpanId"] for span in of("rung")} == {root["spanId"]}
    assert {span["parentSpanId"] for span in of("run ")} <= {span["spanId"] for span in of("rung")}
    assert len(of("attempt")) >= len(of("run ")) == len(rungs)


def test_every_series_that_is_documented_is_there(watched: WatchedSweeps) -> None:
    names = {s["metric"]["__name__"] for s in watched.prometheus.query('{__name__=~"scalingsweep_.*"}')}
    assert {family.sample for family in FAMILIES.values()} - names == set()


@pytest.mark.parametrize(
    "selector",
    [
        'scalingsweep_reconcile_duration_seconds_bucket{kind="ScalingSweep"}',
        "scalingsweep_refit_duration_seconds_bucket",
        'scalingsweep_reconciles_total{kind="ScalingSweep"}',
    ],
)
def test_prometheus_gives_exemplars_that_lead_to_the_traces_of_sweeps(watched: WatchedSweeps, selector: str) -> None:
    traces = {span["traceId"] for span in watched.traces.spans}
    found = [e["labels"] for series in watched.prometheus.exemplars(selector) for e in series["exemplars"]]
    assert {labels["namespace"] for labels in found} == {"research"}
    assert {labels["trace_id"] for labels in found if labels["sweep"] == "climb"} & traces


def test_the_exemplar_of_a_failure_is_the_span_of_the_attempt_that_failed(watched: WatchedSweeps) -> None:
    (series,) = watched.prometheus.exemplars('scalingsweep_run_failures_total{sweep="unlucky",reason="OutOfMemory"}')
    labels = series["exemplars"][-1]["labels"]
    (span,) = [span for span in watched.traces.spans if span["spanId"] == labels["span_id"]]
    assert span["traceId"] == labels["trace_id"]
    assert span["status"]["message"].startswith("OutOfMemory")


def test_prometheus_scrapes_open_metrics_whose_own_parser_takes_the_page(watched: WatchedSweeps) -> None:
    text = page(watched, "/metrics", accept="application/openmetrics-text; version=1.0.0").decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {families[name].type for name in ("scalingsweep_reconciles", "scalingsweep_run_preemptions")} == {"counter"}
    (created,) = watched.prometheus.query("scalingsweep_refit_duration_seconds_created")
    assert 0 < time.time() - float(created["value"][1]) < 3600


def test_promtool_finds_no_fault_with_the_page(watched: WatchedSweeps) -> None:
    promtool = shutil.which("promtool")
    assert promtool
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page(watched, "/metrics"), capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def page(watched: WatchedSweeps, path: str, accept: str = "*/*") -> bytes:
    port = watched.metrics_port if path == "/metrics" else watched.health_port
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def test_the_command_of_helm_test_proves_that_the_operator_serves(watched: WatchedSweeps) -> None:
    """Pods do not run here: what the test's pod would run is run beside the operator, on the same two pages."""
    script, ready, metrics = watched.test_pod["args"]
    assert watched.test_pod["command"] == ["python", "-c"]
    assert (ready.rsplit("/", 1)[1], metrics.rsplit("/", 1)[1]) == ("readyz", "metrics")
    served = [f"http://127.0.0.1:{watched.health_port}/readyz", f"http://127.0.0.1:{watched.metrics_port}/metrics"]
    assert "200" in run(script, *served).stdout
    missing = run(script, f"http://127.0.0.1:{watched.health_port}/metrics")
    assert missing.returncode != 0


def run(script: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_series_of_a_deleted_sweep_disappear(watched: WatchedSweeps) -> None:
    assert b'sweep="refused"' in page(watched, "/metrics")
    watched.place.kubectl("delete", "scalingsweep", "refused")
    until(lambda: b'sweep="refused"' not in page(watched, "/metrics"), 30)
