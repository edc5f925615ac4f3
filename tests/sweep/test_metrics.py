"""The series of a sweep: computed from its status, named by Prometheus' rules, served on loopback."""

import re
import urllib.request

import pytest
from local_ladder import Folder, until
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from simulated_cluster import SimulatedCluster, climb, settle

from sweep_operator.metrics import HELP, Latency, Observed, PortTakenError, SweepCollector, serve


def collector(cluster):
    return SweepCollector(
        lambda: [Observed(cluster.stored, cluster.runs(cluster.stored))], lambda: Latency((0.01, 0.1), (3, 2, 1), 0.5)
    )


def series(cluster):
    """Samples by name and labels (without namespace and sweep)."""
    registry = CollectorRegistry()
    registry.register(collector(cluster))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (
            s.name.removeprefix("scalingsweep_"),
            *sorted(v for k, v in s.labels.items() if k not in ("namespace", "sweep")),
        ): s
        for family in families
        for s in family.samples
    }


@pytest.fixture
def climbed(manifest):
    cluster = SimulatedCluster(manifest(budget={"flops": "1e15", "gpuHours": 500}))
    climb(cluster)
    return cluster


def test_every_number_of_a_climbed_ladder_has_its_series(climbed):
    samples = series(climbed)
    value = {key: sample.value for key, sample in samples.items()}
    status = climbed.stored.status
    assert value["sweep_phase", "Succeeded"] == 1
    assert value["sweep_phase", "Running"] == 0
    assert value["sweep_condition", "Consistent"] == 1
    numbers = {c.name: c.numbers for c in status.rungs[3].verdict.checks}["ObservedAsPredicted"]
    assert value["rung_loss_nats", "1", "d"] == pytest.approx(numbers["observed"])
    assert value["rung_forecast_loss_low_nats", "1", "d"] == pytest.approx(numbers["low"])
    assert value["rung_forecast_loss_high_nats", "1", "d"] == pytest.approx(numbers["high"])
    assert value["rung_deviation_ratio", "1", "d"] == pytest.approx(numbers["observed"] / numbers["predicted"] - 1)
    assert value["rung_state", "1", "Promoted", "d"] == 1
    assert value["rung_runs", "1", "Succeeded", "d"] == 2
    assert value["law_parameter", "Chinchilla", "E"] == pytest.approx(status.law.parameters["E"].value)
    assert value["law_records", "Chinchilla"] == 20
    assert value["target_loss_nats",] == pytest.approx(status.target.observed)
    assert value["flops_total",] == pytest.approx(status.spent.flops)
    assert value["gpu_seconds_total",] == pytest.approx(status.spent.gpu_seconds)
    assert value["budget_left_flops",] == pytest.approx(1e15 - status.spent.flops)
    assert value["budget_left_gpu_seconds",] == pytest.approx(500 * 3600 - status.spent.gpu_seconds)
    assert sum(v for key, v in value.items() if key[0] == "verdicts") == len(status.rungs)
    assert value["pass_duration_seconds_bucket", "0.1"] == 5
    assert value["pass_duration_seconds_bucket", "+Inf"] == 6
    assert value["pass_duration_seconds_count",] == 6
    assert [key for key in value if key[0] == "build_info"]


def test_a_ladder_that_runs_shows_its_progress(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    value = {key: sample.value for key, sample in series(cluster).items()}
    assert value["sweep_phase", "Running"] == 1
    assert value["rung_state", "1", "Running", "a"] == 1
    assert 0 < value["rung_progress_ratio", "1", "a"] < 1
    assert ("rung_eta_seconds", "1", "e") not in value  # nothing was measured yet
    assert ("target_forecast_loss_nats",) not in value


def test_names_units_and_help_keep_prometheus_rules(climbed):
    registry = CollectorRegistry()
    registry.register(collector(climbed))
    text = generate_latest(registry).decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"scalingsweep(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith(".")
        assert not re.search(r"_(milliseconds|minutes|hours|percent|total_total)", family.name)
        assert (family.type == "counter") == any(s.name.endswith("_total") for s in family.samples)


def test_every_documented_series_exists(climbed, manifest):
    running = SimulatedCluster(manifest())
    settle(running)
    names = {key[0].removesuffix("_total") for key in (*series(climbed), *series(running))}
    rare = {"rung_eta_seconds", "run_failures"}
    assert set(HELP) - rare <= names


def test_no_sweep_no_series_and_no_error():
    registry = CollectorRegistry()
    registry.register(SweepCollector(list))
    assert "scalingsweep_sweep" not in generate_latest(registry).decode()


def test_a_port_that_is_taken_is_said_and_a_stopped_server_frees_it(climbed):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = serve(collector(climbed), port)
    with pytest.raises(PortTakenError, match=f"metrics cannot be served on 127.0.0.1:{port}: Address already in use"):
        serve(collector(climbed), port)
    stop()
    serve(collector(climbed), port)()
    with pytest.raises(PortTakenError, match="70000 is no port"):
        serve(collector(climbed), 70_000)


def test_a_running_ladder_is_scraped(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Folder(tmp_path, {"seconds": 1.5})
    driver = folder.begin("--metrics-port", port)
    until(lambda: folder.workdir.exists() and folder.running())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'scalingsweep_sweep_phase{namespace="default",phase="Running",sweep="tiny"} 1.0' in text
    assert re.search(r"scalingsweep_pass_duration_seconds_count [1-9]", text)
    driver.terminate()
    driver.communicate()
