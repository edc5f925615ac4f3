"""Each alert fires where it should and is silent where it should not: promtool, on the rules that the chart renders."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import MONITORING, ROOT, Helm, only

SWEEP = '{namespace="lab",sweep="web",instance="a"}'
OPERATOR = '{job="sweeps",instance="a"}'

Series = dict[str, str]
"""A series and its values, one a minute, in promtool's notation."""


@dataclass(frozen=True)
class Case:
    """Two worlds, looked at after `minutes`: the alert fires in the first with these labels and not in the second."""

    minutes: int
    fires: Series
    labels: dict[str, str]
    silent: Series = field(default_factory=dict)


def of(name: str, series: str, **labels: str) -> str:
    """A series' name with more labels."""
    more = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f"scalingsweep_{name}{series[:-1]}{more}}}"


def condition(kind: str, reason: str) -> str:
    return of("sweep_condition", SWEEP, condition=kind, reason=reason)


def rung(name: str, **labels: str) -> str:
    return of(name, SWEEP, rung="1b", revision="1", **labels)


WEB = {"namespace": "lab", "sweep": "web"}
RUNG = WEB | {"rung": "1b"}
CASES = {
    "ScalingSweepForecastBroken": Case(
        10,
        {condition("Consistent", "LossAbovePrediction"): "0x600", condition("Finished", "Inconsistent"): "1x600"},
        WEB | {"reason": "LossAbovePrediction"},
        {condition("Consistent", "Consistent"): "1x600", condition("Finished", "Succeeded"): "1x600"},
    ),
    "ScalingSweepAwaitingApproval": Case(
        20,
        {of("sweep_awaiting_approval", SWEEP, rung="1b", reason="ForecastTooWide"): "1x60"},
        RUNG | {"reason": "ForecastTooWide"},
        {of("sweep_awaiting_approval", SWEEP, rung="1b", reason="ForecastTooWide"): "1x5 _x55"},  # soon decided
    ),
    "ScalingSweepRungNotProgressing": Case(
        150,
        {rung("rung_progress_timestamp_seconds"): "0x200"},
        RUNG,
        {rung("rung_progress_timestamp_seconds"): "0+60x200"},
    ),
    "ScalingSweepRunsPending": Case(
        400,
        {rung("rung_waiting_since_timestamp_seconds"): "0x500", rung("rung_runs", state="Queued"): "2x500"},
        RUNG,
        {rung("rung_waiting_since_timestamp_seconds"): "0x500", rung("rung_runs", state="Running"): "1x500"},
    ),
    "ScalingSweepRunsRestarting": Case(
        90,
        {of("run_restarts_total", SWEEP): "0+0.1x200", of("flops_total", SWEEP): "1e18x200"},
        WEB,
        {of("run_restarts_total", SWEEP): "0+0.1x200", of("flops_total", SWEEP): "1e18+1e15x200"},  # they do get on
    ),
    "ScalingSweepBudgetNearlySpent": Case(
        5,
        {
            of("budget_spent_ratio", SWEEP, resource="gpu_seconds"): "0.95x10",
            of("budget_spent_ratio", SWEEP, resource="flops"): "0.5x10",
            condition("Finished", "Climbing"): "0x10",
        },
        WEB | {"resource": "gpu_seconds"},
        {
            of("budget_spent_ratio", SWEEP, resource="gpu_seconds"): "0.95x10",
            condition("Finished", "Succeeded"): "1x10",  # it was enough
        },
    ),
    "ScalingSweepTargetForecastMoved": Case(
        120,
        {
            of("target_forecast_loss_nats", SWEEP): "2.0x60 2.2x60",
            of("target_forecast_loss_low_nats", SWEEP): "1.9x60 2.1x60",
            of("target_forecast_loss_high_nats", SWEEP): "2.1x60 2.3x60",
        },
        WEB,
        {
            of("target_forecast_loss_nats", SWEEP): "2.0x60 2.05x60",
            of("target_forecast_loss_low_nats", SWEEP): "1.9x60 2.0x60",
            of("target_forecast_loss_high_nats", SWEEP): "2.1x60 2.1x60",
        },
    ),
    "ScalingSweepPreemptionStorm": Case(
        90,
        {of("run_preemptions_total", SWEEP): "0+0.3x120"},
        WEB,
        {of("run_preemptions_total", SWEEP): "0+0.05x120"},
    ),
    "ScalingSweepOperatorDown": Case(
        10, {"up" + OPERATOR: "0x20"}, {}, {of("build_info", OPERATOR, version="0.1.0"): "1x20"}
    ),
    "ScalingSweepOperatorNotLeading": Case(
        10,
        {of("leader", OPERATOR): "0x20", of("leader", OPERATOR.replace('"a"', '"b"')): "0x20"},
        {"job": "sweeps"},
        {of("leader", OPERATOR): "0x20", 'scalingsweep_leader{job="sweeps",instance="b"}': "1x20"},
    ),
    "ScalingSweepOperatorLagging": Case(
        20,
        {of("queue_oldest_seconds", OPERATOR): "0+60x30"},
        {"job": "sweeps"},
        {of("queue_oldest_seconds", OPERATOR): "2x30"},
    ),
    "ScalingSweepReconcileSlow": Case(
        60,
        {
            of("reconcile_duration_seconds_bucket", OPERATOR, kind="ScalingSweep", le="5.0"): "0x90",
            of("reconcile_duration_seconds_bucket", OPERATOR, kind="ScalingSweep", le="10.0"): "0+10x90",
            of("reconcile_duration_seconds_bucket", OPERATOR, kind="ScalingSweep", le="+Inf"): "0+10x90",
        },
        {"job": "sweeps", "kind": "ScalingSweep"},
        {
            of("reconcile_duration_seconds_bucket", OPERATOR, kind="ScalingSweep", le="5.0"): "0+10x90",
            of("reconcile_duration_seconds_bucket", OPERATOR, kind="ScalingSweep", le="+Inf"): "0+10x90",
        },
    ),
    "ScalingSweepReconcileFailing": Case(
        60,
        {
            of("reconciles_total", OPERATOR, kind="ScalingRun", outcome="Changed"): "0+5x90",
            of("reconciles_total", OPERATOR, kind="ScalingRun", outcome="Api403"): "0+5x90",
        },
        {"job": "sweeps", "kind": "ScalingRun"},
        {
            of("reconciles_total", OPERATOR, kind="ScalingRun", outcome="Changed"): "0+5x90",
            of("reconciles_total", OPERATOR, kind="ScalingRun", outcome="Conflict"): "0+5x90",  # a quiet retry
        },
    ),
    "ScalingSweepWritesFailing": Case(
        60,
        {
            of("api_calls_total", OPERATOR, verb="patch", resource="scalingsweeps", code="200"): "0+5x90",
            of("api_calls_total", OPERATOR, verb="create", resource="jobs", code="500"): "0+5x90",
        },
        {"job": "sweeps"},
        {
            of("api_calls_total", OPERATOR, verb="patch", resource="scalingsweeps", code="200"): "0+5x90",
            of("api_calls_total", OPERATOR, verb="patch", resource="scalingsweeps", code="409"): "0+5x90",
            of("api_calls_total", OPERATOR, verb="list", resource="jobs", code="500"): "0+5x90",  # no write
        },
    ),
    "ScalingSweepRejected": Case(
        60,
        {of("api_calls_total", OPERATOR, verb="create", resource="jobs", code="403"): "0+1x90"},
        {"job": "sweeps", "verb": "create", "resource": "jobs", "code": "403"},
        {of("api_calls_total", OPERATOR, verb="create", resource="jobs", code="409"): "0+1x90"},
    ),
    "ScalingSweepWatchStale": Case(
        20,
        {of("watch_stale_seconds", OPERATOR, resource="jobs"): "0+60x30"},
        {"job": "sweeps", "resource": "jobs"},
        {of("watch_stale_seconds", OPERATOR, resource="jobs"): "40x30"},
    ),
    "ScalingSweepSeriesLate": Case(
        60,
        {of("series_late_seconds", OPERATOR): "0+60x90"},
        {"job": "sweeps"},
        {of("series_late_seconds", OPERATOR): "20x90"},
    ),
}

HELD_FOR = {
    "operatorLagging": "ScalingSweepOperatorLagging",
    "reconcileSlow": "ScalingSweepReconcileSlow",
    "reconcileFailing": "ScalingSweepReconcileFailing",
    "writesFailing": "ScalingSweepWritesFailing",
    "rejected": "ScalingSweepRejected",
    "watchStale": "ScalingSweepWatchStale",
    "seriesLate": "ScalingSweepSeriesLate",
}
"""The alerts whose `for` is one of `alerts.durations`."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus` has it)")
    return found


@pytest.fixture(scope="module")
def groups(helm: Helm) -> list[dict[str, Any]]:
    """The rules as the chart renders them."""
    groups: list[dict[str, Any]] = only(helm.documents(*MONITORING), "PrometheusRule")["spec"]["groups"]
    return groups


def alerts_of(groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_has_a_case(groups: list[dict[str, Any]]) -> None:
    assert list(alerts_of(groups)) == list(CASES)


def test_promtool_takes_the_rules(promtool: str, groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run([promtool, "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(CASES)} rules found" in done.stdout


def run_cases(promtool: str, folder: Path, groups: list[dict[str, Any]], tests: list[dict[str, Any]]) -> str:
    """What promtool finds wrong."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run([promtool, "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def case_of(alert: str, minutes: int, series: Series, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": f"{minutes}m", "exp_alerts": expected}],
    }


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_where_it_should_and_is_silent_where_it_should_not(
    promtool: str, groups: list[dict[str, Any]], alert: str, tmp_path: Path
) -> None:
    case = CASES[alert]
    bare = [
        {"name": g["name"], "rules": [{k: v for k, v in r.items() if k != "annotations"} for r in g["rules"]]}
        for g in groups
    ]
    severity = alerts_of(groups)[alert]["labels"]
    fires = case_of(alert, case.minutes, case.fires, [{"exp_labels": case.labels | severity}])
    silent = case_of(alert, case.minutes, case.silent, [])
    assert run_cases(promtool, tmp_path, bare, [fires, silent]) == ""


def test_a_broken_forecast_stops_paging_six_hours_after_its_sweep_has_ended(
    promtool: str, groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    case = CASES["ScalingSweepForecastBroken"]
    assert run_cases(promtool, tmp_path, groups, [case_of("ScalingSweepForecastBroken", 500, case.fires, [])]) == ""


def test_a_release_that_leads_does_not_hide_one_of_the_same_name_that_does_not(
    promtool: str, groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    bare = [
        {"name": g["name"], "rules": [{k: r[k] for k in r if k != "annotations"} for r in g["rules"]]} for g in groups
    ]
    series = {
        f'scalingsweep_leader{{job="sweeps",namespace="{n}"}}': f"{value}x20" for n, value in (("a", 0), ("b", 1))
    }
    labels = {"job": "sweeps", "namespace": "a", "severity": "critical"}
    case = case_of("ScalingSweepOperatorNotLeading", 10, series, [{"exp_labels": labels}])
    assert run_cases(promtool, tmp_path, bare, [case]) == ""


def test_a_release_that_is_up_does_not_hide_another_that_is_down_where_its_job_is_named(
    promtool: str, helm: Helm, tmp_path: Path
) -> None:
    def up(job: str, namespace: str) -> Series:
        return {f'scalingsweep_build_info{{job="{job}",namespace="{namespace}",version="0.1.0"}}': "1x20"}

    def wrong(values: dict[str, str], series: Series, labels: dict[str, str] | None) -> str:
        rules = only(helm.documents(*MONITORING, values={"alerts": values}), "PrometheusRule")["spec"]["groups"]
        bare = [
            {"name": g["name"], "rules": [{k: r[k] for k in r if k != "annotations"} for r in g["rules"]]}
            for g in rules
        ]
        expected = [] if labels is None else [{"exp_labels": labels | {"severity": "critical"}}]
        return run_cases(promtool, tmp_path, bare, [case_of("ScalingSweepOperatorDown", 10, series, expected)])

    mine, other, namesake = up("mine", "a"), up("other", "b"), up("mine", "b")
    assert wrong({"job": "mine"}, other, {"job": "mine"}) == ""
    assert wrong({"job": "mine"}, mine, None) == ""
    assert wrong({"job": "mine"}, mine | other, None) == ""
    both = {"job": "mine", "namespace": "a"}
    assert wrong(both, namesake, both) == ""
    assert wrong(both, mine, None) == ""
    assert wrong({}, other, None) == ""  # unnamed: any release that is up answers for all
    assert wrong({}, {"up" + OPERATOR: "0x20"}, {}) == ""


def test_who_is_paged_is_told_who_may_decide_and_how(
    promtool: str, groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    case = CASES["ScalingSweepAwaitingApproval"]
    expected = {
        "exp_labels": case.labels | {"severity": "warning"},
        "exp_annotations": {
            "summary": "Sweep lab/web waits for a person at rung 1b: ForecastTooWide.",
            "description": "Nothing new starts until somebody with the verb approve on scalingsweeps in lab decides:"
            " scalingsweep approve -n lab web, or scalingsweep abort.",
            "runbook_url": "docs/runbooks.md#scalingsweepawaitingapproval",
        },
    }
    found = run_cases(
        promtool, tmp_path, groups, [case_of("ScalingSweepAwaitingApproval", case.minutes, case.fires, [expected])]
    )
    assert found == ""


def test_thresholds_labels_and_exceptions_are_values(helm: Helm) -> None:
    values = {
        "alerts": {
            "disabled": ["ScalingSweepOperatorDown"],
            "extraLabels": {"team": "research"},
            "runbookUrl": "https://wiki.example.com/sweeps",
            "thresholds": {
                "heldFor": "1h",
                "noProgressSeconds": 111,
                "pendingSeconds": 222,
                "restarts": 33,
                "budgetShare": 0.44,
                "forecastWindow": "55m",
                "preemptions": 66,
                "downFor": "77s",
                "queueSeconds": 88,
                "reconcileSeconds": 9.9,
                "errorShare": 0.123,
                "watchSilentSeconds": 456,
                "seriesLateSeconds": 789,
            },
        }
    }
    changed = alerts_of(only(helm.documents(*MONITORING, values=values), "PrometheusRule")["spec"]["groups"])
    assert set(CASES) - set(changed) == {"ScalingSweepOperatorDown"}
    assert {rule["labels"]["team"] for rule in changed.values()} == {"research"}
    assert changed["ScalingSweepWatchStale"]["annotations"]["runbook_url"] == (
        "https://wiki.example.com/sweeps#scalingsweepwatchstale"
    )
    text = yaml.safe_dump([[rule["expr"], rule.get("for")] for rule in changed.values()], width=10_000)
    for number in ("1h", "111", "222", "33", "0.44", "55m", "66", "77s", "88", "9.9", "0.123", "456", "789"):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", text), number


def test_for_how_long_is_a_value_and_the_windows_of_rates_are_not(helm: Helm, groups: list[dict[str, Any]]) -> None:
    durations = {name: f"{minutes}m" for minutes, name in enumerate(HELD_FOR, 71)}
    values = {"alerts": {"durations": {**durations, "forecastBroken": "99h"}}}
    before = alerts_of(groups)
    changed = alerts_of(only(helm.documents(*MONITORING, values=values), "PrometheusRule")["spec"]["groups"])
    for name, alert in HELD_FOR.items():
        assert changed[alert] == before[alert] | {"for": durations[name]}
    broken = changed.pop("ScalingSweepForecastBroken")
    assert broken["expr"] == before["ScalingSweepForecastBroken"]["expr"].replace("offset 6h", "offset 99h")
    assert "offset 99h" in broken["expr"]
    of_thresholds = {rule["for"] for name, rule in changed.items() if "for" in rule and name not in HELD_FOR.values()}
    assert of_thresholds == {"15m", "5m"}  # heldFor, downFor


def test_every_alert_has_its_section_in_the_runbooks_and_no_other_has() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    assert re.findall(r"^## (ScalingSweep\w+)$", page, re.MULTILINE) == list(CASES)
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    for section in sections:
        for heading in ("**Means.**", "**Look.**", "**Do.**"):
            assert heading in section, section.splitlines()[0]
