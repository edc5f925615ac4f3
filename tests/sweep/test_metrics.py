"""The series of a sweep: computed from its status, named by Prometheus' rules, served on loopback."""

import re
import urllib.request
from datetime import datetime, timedelta

import pytest
from local_ladder import Folder, until
from prometheus_client.parser import text_string_to_metric_families
from simulated_cluster import Outcome, SimulatedCluster, World, climb, settle

from sweep_analysis.record import FailureReason
from sweep_operator.api import Attempt
from sweep_operator.clusters import Ending
from sweep_operator.conditions import timestamp
from sweep_operator.metrics import Known, Observed, PortTakenError, SweepPage, serve
from sweep_operator.metrics.families import FAMILIES, RUN_FAMILIES


def page(cluster, **options):
    return SweepPage(lambda: [Observed(cluster.stored, cluster.runs(cluster.stored))], **options)


def series(cluster, **options):
    """Samples by name and labels (without namespace and sweep)."""
    return {
        (
            s.name.removeprefix("scalingsweep_"),
            *sorted(v for k, v in s.labels.items() if k not in ("namespace", "sweep")),
        ): s
        for family in text_string_to_metric_families(page(cluster, **options).text())
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
    assert ("sweep_phase", "Running") not in value  # a state is there while it lasts
    assert value["sweep_condition", "Consistent", "Consistent"] == 1
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
    law = status.law
    assert value["law_info", *sorted((law.name, law.fit_status, law.phase, law.pattern))] == 1
    assert value["rung_compute_flops", "1", "d"] == max(6 * r.parameters * max(r.tokens) for r in status.rungs[3].runs)
    assert value["remaining_flops",] == 0
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
    for family in text_string_to_metric_families(page(climbed, of_runs=True).text()):
        assert re.fullmatch(r"scalingsweep(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith(".")
        assert not re.search(r"_(milliseconds|minutes|hours|percent|total_total)", family.name)
        assert (family.type == "counter") == any(s.name.endswith("_total") for s in family.samples)


def test_every_documented_series_exists(climbed, manifest):
    running = SimulatedCluster(manifest())
    settle(running)
    names = {key[0].removesuffix("_total") for key in (*series(climbed, of_runs=True), *series(running, of_runs=True))}
    rare = {
        "sweep_awaiting_approval",  # of ladders that do not go as they should
        *("rung_mfu_ratio", "run_mfu_ratio"),  # no peak is known of a CPU
        *(
            "run_training_loss_nats",
            "rung_training_loss_nats",
            "run_eta_seconds",
            "rung_eta_seconds",
        ),  # simulated trainers tell none
        *("queue_wait_seconds", "rung_waiting_since_timestamp_seconds"),  # nothing waits here
        *("sweep_created_timestamp_seconds", "target_max_loss_nats"),
    }
    assert set(FAMILIES) - names <= rare


def test_on_a_cluster_runs_without_a_limit_go_on_at_once(manifest):
    from sweep_operator.metrics import slots_of_a_cluster

    assert slots_of_a_cluster(manifest(limits={"parallelism": 3})) == 3
    assert slots_of_a_cluster(manifest()) == 64


def test_single_runs_have_series_only_when_they_are_asked_for_and_until_they_end(climbed, manifest):
    running = SimulatedCluster(manifest())
    settle(running)
    of_runs = {family.name for family in RUN_FAMILIES}
    assert not of_runs & {key[0] for key in series(running)}
    assert "run_state" in {key[0] for key in series(running, of_runs=True)}
    assert not of_runs & {key[0] for key in series(climbed, of_runs=True)}


def test_the_queue_wait_is_from_opened_to_scheduled_over_newest_attempts_ended_ones_too(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    first, second = list(cluster.children.values())[:2]
    assert ("queue_wait_seconds",) not in series(cluster)

    def waited(run, *seconds, ended=False):
        opened = datetime.fromisoformat(run.status.attempts[-1].started_at)
        attempts = tuple(
            Attempt(
                attempt=number,
                started_at=timestamp(opened),
                scheduled_at=timestamp(opened + timedelta(seconds=wait)),
                ended_at=timestamp(opened + timedelta(seconds=900)) if ended else None,
            )
            for number, wait in enumerate(seconds, 1)
        )
        return run.changed(status=run.status.changed(attempts=attempts))

    cluster.children[first.metadata.name] = waited(first, 500, 10)  # an earlier attempt does not count
    cluster.children[second.metadata.name] = waited(second, 30, ended=True)
    assert series(cluster)["queue_wait_seconds",].value == 20


def test_a_sweep_that_waits_for_a_person_says_where_and_why(manifest):
    cluster = SimulatedCluster(manifest(gate={"warmupRungs": 3, "promotion": "Manual"}))
    climb(cluster)
    waiting = [key for key in series(cluster) if key[0] == "sweep_awaiting_approval"]
    rung = next(r for r in cluster.stored.status.rungs if r.state == "Held")
    assert waiting == [("sweep_awaiting_approval", *sorted((rung.name, rung.verdict.reason)))]


def test_preemptions_and_failures_are_counted_from_zero_and_never_fall(manifest):
    def outcome(run, attempt):
        if attempt <= 25:
            return Outcome(Ending.PREEMPTED, share=0.05)
        return Outcome() if attempt > 27 else Outcome(Ending.FAILED, FailureReason.CRASHED, "boom", share=0.01)

    cluster = SimulatedCluster(manifest(limits={"parallelism": 1}), World(outcome=outcome))
    before: dict[tuple[str, ...], float] = {}
    firsts: dict[tuple[str, ...], float] = {}
    while not any(child.status.finished for child in cluster.children.values()):
        cluster.now += timedelta(seconds=settle(cluster))
        now = {key: sample.value for key, sample in series(cluster).items() if sample.name.endswith("_total")}
        assert {key: value for key, value in now.items() if value < before.get(key, 0)} == {}
        firsts, before = now | firsts, now
    assert firsts["run_failures_total", "Crashed"] == firsts["run_preemptions_total",] == 0
    assert before["run_preemptions_total",] == 25  # more than a status lists
    assert before["run_failures_total", "Crashed"] == 2
    assert before["run_failures_total", "OutOfMemory"] == 0


def test_a_run_that_somebody_deletes_takes_nothing_off_a_counter(climbed):
    runs = list(climbed.runs(climbed.stored))
    pages = SweepPage(lambda: [Observed(climbed.stored, runs)])

    def counters():
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(pages.text())
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    before = counters()
    assert before["scalingsweep_run_attempts_total", "default", "demo"] == len(runs)
    del runs[3:]
    assert counters() == before


def test_the_number_of_series_is_bounded_as_the_docs_say(climbed, manifest):
    running = SimulatedCluster(manifest(budget={"flops": "1e15", "gpuHours": 500}))
    settle(running)
    for cluster in (climbed, running):
        unfinished = [run for run in cluster.runs(cluster.stored) if not run.status.finished]
        own = [key for key in series(cluster) if not key[0].startswith(("build", "series"))]
        of_rungs = [key for key in own if key[0].startswith("rung_")]
        assert len(of_rungs) <= 18 * len(cluster.stored.status.rungs)
        assert len(own) - len(of_rungs) <= 75
        assert len(series(cluster, of_runs=True)) - len(series(cluster)) <= 8 * len(unfinished)


def test_no_sweep_no_series_and_no_error():
    assert "scalingsweep_sweep" not in SweepPage(list).text()


class Store:
    """Sweeps by name, each read through a counter."""

    def __init__(self, sweeps):
        self.sweeps = sweeps
        self.versions = dict.fromkeys(sweeps, 1)
        self.reads = []
        self.now = 0.0

    def known(self):
        return [Known(name, self.versions[name], lambda name=name: self._read(name)) for name in self.sweeps]

    def _read(self, name):
        self.reads.append(name)
        self.now += 1.0
        return self.sweeps[name]


def named(cluster, name):
    sweep = cluster.stored
    return Observed(sweep.changed(metadata=sweep.metadata.changed(name=name)), cluster.runs(sweep))


def test_a_sweep_that_rests_is_not_read_again(climbed):
    store = Store({name: named(climbed, name) for name in ("a", "b")})
    pages = SweepPage(store.known)
    first = pages.text()
    store.versions["b"] = 2
    assert pages.text() == first
    assert store.reads == ["a", "b", "b"]


def test_series_of_a_deleted_sweep_disappear(climbed):
    store = Store({name: named(climbed, name) for name in ("a", "b")})
    pages = SweepPage(store.known)
    assert 'sweep="b"' in pages.text()
    del store.sweeps["b"]
    text = pages.text()
    assert 'sweep="b"' not in text
    assert 'sweep="a"' in text


def test_a_scrape_that_has_too_much_to_read_serves_the_rest_as_it_was_and_says_so(climbed):
    store = Store({name: named(climbed, name) for name in "abcd"})
    pages = SweepPage(store.known, budget_seconds=1.5, clock=lambda: store.now)  # a read takes a second
    assert "scalingsweep_series_late 2.0" in pages.text()
    assert "scalingsweep_series_late 0.0" in pages.text()
    assert store.reads == list("abcd")
    store.now += 10
    store.versions = dict.fromkeys(store.sweeps, 2)
    text = pages.text()
    assert store.reads[4:] == ["a", "b"]  # the longest unseen first
    assert 'sweep="d"' in text
    assert "scalingsweep_series_late_seconds 11.0" in text


def test_a_sweep_that_cannot_be_read_costs_no_other_its_series(climbed):
    store = Store({"a": None, "b": named(climbed, "b")})
    text = SweepPage(store.known).text()
    assert 'sweep="b"' in text
    assert "scalingsweep_series_late 0.0" in text


def test_a_sweep_whose_series_cannot_be_computed_is_logged_and_the_others_are_served(climbed, caplog):
    store = Store({"a": named(climbed, "a").sweep, "b": named(climbed, "b")})  # the first is not what it should be
    text = SweepPage(store.known).text()
    assert 'sweep="b"' in text
    assert "the series of sweep a could not be computed" in caplog.text


def test_a_port_that_is_taken_is_said_and_a_stopped_server_frees_it(climbed):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = serve(page(climbed), port)
    with pytest.raises(PortTakenError, match=f"metrics cannot be served on 127.0.0.1:{port}: Address already in use"):
        serve(page(climbed), port)
    stop()
    serve(page(climbed), port)()
    with pytest.raises(PortTakenError, match="70000 is no port"):
        serve(page(climbed), 70_000)


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
    assert 'scalingsweep_sweep_phase{namespace="default",sweep="tiny",phase="Running"} 1.0' in text
    assert re.search(r"scalingsweep_pass_duration_seconds_count [1-9]", text)
    driver.terminate()
    driver.communicate()
