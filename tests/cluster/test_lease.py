"""One writer at a time: elections between real processes over a real API server, parted, paused and misled."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from partition import Partition

from sweep_operator.clusters.kubernetes.client import Api, Patience
from sweep_operator.clusters.kubernetes.errors import ConflictError, NotFound
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS, LEASES

SECONDS = 2.0
"""How long a Lease lasts here; the program's own lasts fifteen."""


@dataclass
class Race:
    """Contenders for one Lease."""

    folder: Path
    namespace: str
    kubeconfig: Path
    api: Api
    running: dict[str, subprocess.Popen] = field(default_factory=dict)

    def enter(self, identity: str, kubeconfig: Path | None = None, skew: float = 0.0) -> None:
        arguments = [kubeconfig or self.kubeconfig, self.namespace, identity, self.log(identity), SECONDS, skew]
        self.running[identity] = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "contender.py"), *map(str, arguments)],
            stderr=(self.folder / f"{identity}.err").open("a"),
        )

    def log(self, identity: str) -> Path:
        return self.folder / f"{identity}.log"

    def writes(self, identity: str) -> list[tuple[float, float]]:
        """When its writes began and ended; those of unknown fate count, refused ones do not."""
        path = self.log(identity)
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(float(began), float(ended)) for began, ended, fate in lines if fate != "refused"]

    def wait_writing(self, identity: str, since: float | None = None, seconds: float = 30.0) -> float:
        """Wait until it has written after `since` (now, by default); returns when that write began."""
        since = time.monotonic() if since is None else since
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            later = [began for began, _ in self.writes(identity) if began > since]
            if later:
                return later[0]
            time.sleep(0.05)
        raise AssertionError(f"{identity} does not write: {(self.folder / f'{identity}.err').read_text()[-500:]}")

    def stored(self, identity: str) -> int:
        """How many of its writes the API server has."""
        return len(self.api.get(CONFIG_MAPS.path(self.namespace), labelSelector=f"writer={identity}")["items"])

    def written(self, identity: str) -> int:
        return sum(line.endswith(" written") for line in self.log(identity).read_text().splitlines())

    def holder(self) -> str:
        return self.api.get(LEASES.path(self.namespace, "contended"))["spec"]["holderIdentity"]

    def delete_lease(self) -> None:
        with contextlib.suppress(NotFound):
            self.api.delete(LEASES.path(self.namespace, "contended"))

    def assert_one_writer_at_a_time(self) -> None:
        """Spells of writing, one contender's after another's, never overlap."""
        spells = sorted((began, ended, identity) for identity in self.running for began, ended in self.writes(identity))
        for (_, ended, first), (began, _, second) in itertools.pairwise(spells):
            assert first == second or began > ended, f"{second} wrote at {began} before {first} had ended at {ended}"


@pytest.fixture
def race(control_plane, namespace, tmp_path):
    race = Race(tmp_path, namespace, control_plane.kubeconfig(), Api.connect(control_plane.kubeconfig()))
    yield race
    for process in race.running.values():
        process.kill()
        process.wait()


def test_the_second_waits_and_takes_over_at_once_when_the_first_releases_on_sigterm(race):
    race.enter("first")
    race.wait_writing("first")
    race.enter("second")
    time.sleep(2 * SECONDS)
    assert race.writes("second") == []
    race.running["first"].terminate()
    assert race.running["first"].wait(10) == 0
    released = time.monotonic()
    assert race.wait_writing("second") - released < SECONDS
    race.assert_one_writer_at_a_time()
    assert race.api.get(LEASES.path(race.namespace, "contended"))["spec"]["leaseTransitions"] == 2


def test_a_killed_leader_is_followed_after_the_lease_has_run_out(race):
    race.enter("first")
    race.wait_writing("first")
    race.enter("second")
    time.sleep(SECONDS / 2)
    race.running["first"].kill()
    killed = time.monotonic()
    assert race.wait_writing("second") - killed > SECONDS / 2
    race.assert_one_writer_at_a_time()


@pytest.mark.parametrize("trouble", ["hang", "drop"])
def test_a_partitioned_leader_ends_before_another_writes(control_plane, race, trouble):
    network = Partition(control_plane.url)
    race.enter("parted", control_plane.kubeconfig(server=network.url))
    race.wait_writing("parted")
    race.enter("other")
    time.sleep(SECONDS)
    getattr(network, trouble)()
    assert race.running["parted"].wait(10) == 1, "it must end by itself"
    last_line = json.loads((race.folder / "parted.err").read_text().splitlines()[-1])
    assert last_line["message"].startswith("no longer the leader: the Lease could not be renewed")
    race.wait_writing("other")
    network.heal()
    time.sleep(SECONDS / 2)
    race.assert_one_writer_at_a_time()
    network.close()


def test_what_a_hanging_network_delivers_late_is_refused_by_its_resource_version(control_plane, race):
    network = Partition(control_plane.url)
    stale = Api.connect(control_plane.kubeconfig(server=network.url), patience=Patience(1.0, 20.0, 20.0, 0.0))
    path = CONFIG_MAPS.path(race.namespace, "shared")
    shared = race.api.create(CONFIG_MAPS.path(race.namespace), {"metadata": {"name": "shared"}, "data": {"by": "?"}})
    stale.get(path)
    network.hang()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(stale.replace, path, {**shared, "data": {"by": "stale"}})
        race.api.replace(path, {**shared, "data": {"by": "new"}})
        network.heal()
        with pytest.raises(ConflictError):
            late.result()
    assert race.api.get(path)["data"] == {"by": "new"}
    network.close()


def test_a_paused_leader_writes_nothing_when_it_wakes(race):
    race.enter("paused")
    race.wait_writing("paused")
    race.enter("other")
    time.sleep(SECONDS / 2)
    race.running["paused"].send_signal(signal.SIGSTOP)
    race.wait_writing("other")
    before = race.stored("paused")
    woken = time.monotonic()
    race.running["paused"].send_signal(signal.SIGCONT)
    assert race.running["paused"].wait(10) == 1
    assert race.stored("paused") == before
    assert [began for began, _ in race.writes("paused") if began > woken] == []
    assert race.holder() == "other"


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wall_clock_hours_off_makes_no_second_writer(race, hours):
    race.enter("skewed", skew=hours * 3600.0)
    race.wait_writing("skewed")
    race.enter("right")
    time.sleep(2 * SECONDS)
    assert race.writes("right") == []
    race.running["skewed"].kill()
    race.wait_writing("right")
    race.enter("skewed again", skew=hours * 3600.0)
    time.sleep(2 * SECONDS)
    assert not race.log("skewed again").exists() or race.writes("skewed again") == []
    race.assert_one_writer_at_a_time()


def test_a_lease_that_somebody_deletes_makes_no_second_writer(race):
    race.enter("first")
    race.wait_writing("first")
    race.enter("second")
    time.sleep(SECONDS)
    for _ in range(3):
        race.delete_lease()
        time.sleep(SECONDS / 2)
    ended = race.running["first"].poll() is not None  # kept from renewing, as a busy machine may
    race.wait_writing("second" if ended else "first")
    race.assert_one_writer_at_a_time()
    assert ended or race.writes("second") == []
    race.running["first"].kill()
    race.delete_lease()
    race.wait_writing("second")
    race.assert_one_writer_at_a_time()


def test_a_lease_taken_by_force_ends_the_leader(race):
    race.enter("first")
    race.wait_writing("first")
    path = LEASES.path(race.namespace, "contended")
    race.api.patch(path, {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}})
    assert race.running["first"].wait(10) == 1
    assert "the Lease is held by somebody" in (race.folder / "first.err").read_text()
    assert race.holder() == "somebody"
