"""The operator as a process on a real API server: it waits its turn, says how it is, ends in order, hands over."""

import json
import os
import re
import time
import urllib.error
import urllib.request

import pytest
from control_plane import free_port
from live_operator import OperatorProcess, Place, install_resources, manifest, until
from partition import Partition

from sweep_operator.clusters.kubernetes.client import Api, Patience
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.watch import WatchTimes
from sweep_operator.controller.operator import Operator, Settings
from sweep_operator.policy import Policy


@pytest.fixture(scope="module")
def plane(control_plane):
    install_resources(control_plane)
    return control_plane


@pytest.fixture
def place(plane, namespace):
    return Place(plane, namespace)


@pytest.fixture
def begin(place, tmp_path):
    """Start operators over the namespace; each has ports of its own."""
    begun = []

    def start(*arguments, server=None):
        folder = tmp_path / f"operator-{len(begun)}"
        folder.mkdir()
        port = free_port()
        one = OperatorProcess(
            place.plane,
            folder,
            place.namespace,
            arguments=("--health-port", str(port), "--metrics-port", str(port), "--lease-seconds", "3", *arguments),
            server=server,
        )
        one.port = port
        begun.append(one.start())
        return one

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.kill()


def asked(operator, path):
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def sample(operator, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", asked(operator, "/metrics")[1], re.M)[1])


def leads(operator):
    return "leading" in operator.log.read_text()


def holder(place):
    lease = place.plane.get("lease", "scalingsweep-operator", "-n", place.namespace)
    return lease["spec"].get("holderIdentity", "")


def test_sigterm_ends_it_in_order_and_gives_the_lease_back(begin, place):
    operator = begin()
    until(lambda: leads(operator))
    assert holder(place) != ""
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 10
    assert holder(place) == ""
    assert "Lease released" in operator.log.read_text()


@pytest.mark.parametrize("moment", ["before the stores are filled", "while it leads"])
def test_sigterm_ends_it_in_time_though_the_api_server_hangs(begin, plane, place, moment):
    network = Partition(plane.url)
    if moment.startswith("before"):
        network.hang()
    operator = begin("--lease-seconds", "60", server=network.url)
    if moment.startswith("before"):
        until(lambda: asked(operator, "/healthz")[0] == 200)
    else:
        until(lambda: leads(operator))
        place.apply(manifest())
        network.hang()
        place.patch({"suspend": True})
    time.sleep(0.5)
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 10
    network.close()


def test_a_second_version_is_ready_while_it_waits_and_takes_over_when_the_first_ends(begin, place):
    first = begin()
    until(lambda: leads(first))
    place.apply(manifest(suspend=True))
    place.until_phase("Suspended")
    second = begin()
    until(lambda: asked(second, "/readyz") == (200, "ok\n"))
    assert not leads(second)
    assert (sample(first, "scalingsweep_leader"), sample(second, "scalingsweep_leader")) == (1.0, 0.0)
    version = place.sweep()["metadata"]["resourceVersion"]
    assert first.stop() == 0
    until(lambda: leads(second))
    until(lambda: "caught up" in second.log.read_text())
    assert place.sweep()["metadata"]["resourceVersion"] == version, "taking over writes nothing by itself"
    place.patch({"suspend": False})
    until(place.runs)


def test_health_and_readiness_are_pages_and_unknown_pages_are_not(begin):
    operator = begin()
    until(lambda: asked(operator, "/readyz")[0] == 200)
    assert asked(operator, "/healthz") == (200, "ok\n")
    assert asked(operator, "/metrics")[0] == 200
    assert asked(operator, "/secrets")[0] == 404


def test_logs_are_lines_of_json_that_name_sweep_rung_run_and_attempt(begin, place):
    operator = begin("--log-format", "json")
    until(lambda: leads(operator))
    place.apply(manifest())
    until(place.runs)
    operator.stop()
    entries = [json.loads(line) for line in operator.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    about_runs = [entry for entry in entries if {"sweep", "rung", "run", "attempt"} <= entry.keys()]
    assert about_runs, entries


def test_only_the_named_namespaces_are_watched(begin, plane, place):
    other, foreign = f"{place.namespace[:50]}-b", f"{place.namespace[:50]}-c"
    for name in (other, foreign):
        plane.kubectl("create", "namespace", name)
    operator = begin("--namespace", other)
    until(lambda: leads(operator))
    for name in (foreign, other, place.namespace):
        Place(plane, name).apply(manifest(suspend=True))
    place.until_phase("Suspended")
    Place(plane, other).until_phase("Suspended")
    assert "status" not in Place(plane, foreign).sweep()


def test_a_silent_api_server_makes_it_unready_not_unhealthy_and_ready_again_when_it_speaks(plane, place):
    network = Partition(plane.url)
    path = plane.kubeconfig("admin", place.namespace, server=network.url)
    times = WatchTimes(server_seconds=(60.0, 60.0), silence_seconds=0.5, longest_pause_seconds=0.5)
    settings = Settings((place.namespace,), lease_namespace=place.namespace, watch=times)
    patience = Patience(0.5, 0.5, 0.5, 0.5)
    operator = Operator(
        Api.connect(path, patience=patience),
        Api.connect(path, patience=Patience(5.0, 5.0, 5.0, 0.0)),
        Policy(),
        settings,
        KubernetesCluster,
        lambda reason: None,
    )
    operator.start()
    until(lambda: operator.election.leading)
    until(lambda: not operator.unready())
    network.hang()
    until(operator.unready)
    assert set(operator.unready()) <= {f"watch-{kind}-{place.namespace}" for kind in KINDS}
    assert re.match("silent for .* s: ", next(iter(operator.unready().values())))
    assert operator.unhealthy() == {}
    network.heal()
    until(lambda: not operator.unready())
    operator.stop()
    assert operator.unready() == {"stopping": "the process is ending"}
    network.close()


KINDS = ("scalingsweeps", "scalingruns", "jobs", "pods")


def test_it_is_not_ready_before_every_store_was_filled(plane, place):
    path = plane.kubeconfig("stranger", place.namespace)
    api = Api.connect(path)
    operator = Operator(api, api, Policy(), Settings((place.namespace,)), KubernetesCluster, lambda reason: None)
    for watch in operator._watches:
        watch.start()
    until(lambda: all("403" in why for why in operator.unready().values()))
    assert len(operator.unready()) == 4
    assert operator.unhealthy() == {}
    operator.stop()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--workers", "0"), "--workers is 0; at least one is needed"),
        (("--lease-seconds", "0"), "--lease-seconds is 0; choose between 1 and 3600"),
        (("--kubeconfig", "/nowhere"), "no API server is known: /nowhere does not exist"),
        (("--policy", "/nowhere"), "/nowhere"),
        (("--health-port", "70000"), "port 70000 cannot be listened on"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(plane, arguments, sentence, capsys):
    from sweep_operator.cli import main

    assert main(["operator", "--kubeconfig", str(plane.kubeconfig()), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_it_ends_when_another_takes_the_lease(begin, place):
    operator = begin()
    until(lambda: leads(operator))
    place.kubectl(
        "patch", "lease", "scalingsweep-operator", "--type=merge", "-p", '{"spec": {"holderIdentity": "somebody"}}'
    )
    assert operator.process.wait(10) == 1
    assert os.linesep in operator.log.read_text()
    assert "no longer the leader: the Lease is held by somebody; ending" in operator.log.read_text()
