"""A seconds-long ladder with the real trainer, disturbed in every way: the same losses to the last digit in the end."""

import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from local_ladder import Folder, lasting, losses, until

pytest.importorskip("torch", reason="the trainer is not installed (scalingsweep[trainer])")
pytestmark = pytest.mark.slow

MANIFEST = """\
apiVersion: scalingsweep.dev/v1alpha1
kind: ScalingSweep
metadata: {name: tiny}
spec:
  target: {parameters: 60K, tokens: 1M}
  ladder:
    rungs:
    - {name: a, runs: [{parameters: 8K, tokensPerParameter: [4, 8], seeds: [0, 1]}]}
    - {name: b, runs: [{parameters: 14K, tokensPerParameter: [4, 8]}]}
    - {name: c, runs: [{parameters: 22K, tokensPerParameter: [4, 8]}]}
  gate: {warmupRungs: 3}
  training:
    data: {files: [text.txt], validationTokens: 4096}
    batchTokens: 1024
    checkpointSeconds: 0.5
"""
LINES = (
    "the a rung run record law of loss tokens learns forecast holds and or ladder climbs model from to it is when",
    "every seed gave one digit more than before but none has ever been lost on its way up",
)
WORDS = [word for line in LINES for word in line.split()]


class RealFolder(Folder):
    """A folder whose ladder is trained by the real trainer."""

    def __post_init__(self) -> None:
        chosen = random.Random(1)
        (self.path / "text.txt").write_text(" ".join(chosen.choice(WORDS) for _ in range(120_000)))
        self.write(MANIFEST)

    def environment(self, **more: str) -> dict[str, str]:
        environment = super().environment(**more)
        paths = environment["PYTHONPATH"].split(os.pathsep)
        return environment | {"PYTHONPATH": os.pathsep.join(paths[1:])}


@pytest.fixture
def folder(tmp_path):
    return RealFolder(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same ladder, left in peace."""
    folder = RealFolder(tmp_path_factory.mktemp("undisturbed"))
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def assert_same(folder, undisturbed):
    assert losses(folder.workdir) == losses(undisturbed.workdir)
    assert lasting(folder.status()) == lasting(undisturbed.status())


@pytest.mark.parametrize("text", [None, b"", b"\x00\xff\xfe" * 1000, b"too short"])
def test_data_that_cannot_be_used_is_named_and_nothing_is_written(folder, text):
    file = folder.path / "text.txt"
    file.unlink()
    if text is not None:
        file.write_bytes(text)
    before = folder.files()
    done = folder.run()
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("scalingsweep run: ")
    assert "text.txt" in sentence or "training.data" in sentence
    assert folder.files() == before


def test_every_run_of_the_ladder_has_its_records(undisturbed):
    found = losses(undisturbed.workdir)
    assert len(found) == 4
    assert all(len(records) == 2 for records in found.values())
    assert (undisturbed.workdir / "report.html").exists()


def test_runs_of_two_context_lengths_are_trained_side_by_side_and_one_of_them_is_judged(folder, undisturbed):
    other = "{parameters: 14K, tokensPerParameter: [8], sequenceLength: 32}"
    folder.edit(
        "{parameters: 14K, tokensPerParameter: [4, 8]}", f"{{parameters: 14K, tokensPerParameter: [4, 8]}}, {other}"
    )
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    statuses = [json.loads(file.read_text()) for file in folder.workdir.glob("runs/*/status.json")]
    records = [record for status in statuses for record in status["accepted"]]
    assert {record["contextLength"]: record["purpose"] for record in records} == {128: "Ladder", 32: "Context"}
    (apart,) = (record for record in records if record["contextLength"] == 32)
    (beside,) = (
        record
        for record in records
        if record["contextLength"] == 128
        and (record["parameters"], record["tokens"]) == (apart["parameters"], apart["tokens"])
    )
    assert apart["validationDigest"] != beside["validationDigest"]
    assert apart["flops"]["detailed"] < beside["flops"]["detailed"]
    assert apart["loss"] != beside["loss"]
    ours, alone = folder.status(), undisturbed.status()
    assert [rung["forecast"]["outcome"] for rung in ours["rungs"]] == [r["forecast"]["outcome"] for r in alone["rungs"]]
    assert [rung["loss"] for rung in ours["rungs"]] == [rung["loss"] for rung in alone["rungs"]]


def busy_or_over(folder, driver):
    return driver.poll() is not None or (folder.workdir.exists() and folder.running())


@pytest.mark.parametrize("seed", range(3))
def test_kills_of_drivers_and_trainers_at_random_moments_change_no_digit(folder, undisturbed, seed):
    chosen = random.Random(seed)
    driver = folder.begin()
    for _ in range(6):
        until(partial(busy_or_over, folder, driver))
        time.sleep(chosen.uniform(0, 1.2))
        if driver.poll() is not None:
            break
        if chosen.random() < 0.5:
            driver.kill()
            driver.communicate()
            driver = folder.begin()
            continue
        for pid in folder.running()[:1]:
            if Path(f"/proc/{pid}").exists() and b"nursery" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    out, said = driver.communicate()
    assert driver.returncode == 0, out + said
    assert_same(folder, undisturbed)


def test_an_interruption_ends_within_five_seconds_and_loses_nothing(folder, undisturbed):
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and len(folder.running()) == 2)
    time.sleep(0.7)
    begun = time.monotonic()
    driver.send_signal(signal.SIGINT)
    driver.communicate()
    took = time.monotonic() - begun
    assert driver.returncode == 130
    assert folder.running() == []
    assert took < 15  # five seconds of grace; the rest is a machine that does other things too
    assert folder.run().returncode == 0
    assert_same(folder, undisturbed)


def removed(folder: Path) -> bool:
    """Remove a folder that a trainer, whose driver has just died, may still be writing its last checkpoint into."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


@pytest.mark.parametrize("what", ["checkpoints", "storage", "report", "curve"])
def test_what_a_person_deletes_meanwhile_costs_that_run_and_no_digit(folder, undisturbed, what):
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and folder.running())
    time.sleep(1.0)
    driver.kill()
    driver.communicate()
    for run in (folder.workdir / "runs").iterdir():
        match what:
            case "checkpoints":
                for file in (run / "storage").glob("checkpoint-*"):
                    file.unlink()
            case "storage" | "report":
                until(lambda folder=run / what: removed(folder))
            case "curve":
                (run / "storage" / "curve.jsonl").write_text('{"half')
    assert folder.run().returncode == 0
    assert_same(folder, undisturbed)


def test_the_driver_stays_below_200_mib(folder):
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc here")
    driver = folder.begin()
    peak = 0
    while driver.poll() is None:
        lines = Path(f"/proc/{driver.pid}/status").read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    driver.communicate()
    assert driver.returncode == 0
    assert 0 < peak < 200 * 1024
