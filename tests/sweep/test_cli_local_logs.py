"""`scalingsweep logs` in a local ladder's folder."""

import subprocess

import pytest
from local_ladder import Folder, until

from sweep_operator.cli import main


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """A finished ladder, with three lines in the log of its first run."""
    folder = Folder(tmp_path_factory.mktemp("climbed"))
    assert folder.run().returncode == 0
    (folder.workdir / "runs" / first(folder) / "log").write_text("one\ntwo\nthree\n")
    return folder


def first(folder):
    return sorted(path.name for path in (folder.workdir / "runs").iterdir())[0]


@pytest.fixture
def called(monkeypatch, capfdbinary, climbed):
    def call(*arguments):
        monkeypatch.chdir(climbed.path)
        status = main(["logs", *arguments, "--workdir", "tiny"])
        done = capfdbinary.readouterr()
        return status, done.out.decode(), done.err.decode()

    return call


def test_a_runs_log_is_shown_with_or_without_the_sweeps_name(climbed, called):
    run = first(climbed)
    assert called(run) == (0, "one\ntwo\nthree\n", "")
    assert called("tiny", run) == (0, "one\ntwo\nthree\n", "")
    assert called(run, "--tail", "2") == (0, "two\nthree\n", "")
    assert called(run, "--tail", "0") == (0, "", "")


def test_following_the_log_of_a_run_that_has_ended_ends(climbed, called):
    assert called(first(climbed), "-f", "--tail", "1") == (0, "three\n", "")


def test_which_run_is_asked_and_an_unknown_one_is_named(called):
    status, _, errors = called("tiny")
    assert status == 2
    assert errors.startswith("scalingsweep logs: name the run: tiny-a-")
    assert errors.count("(Succeeded)") == 5
    assert called("70b")[2].startswith("scalingsweep logs: there is no run 70b: tiny-a-")


def test_following_shows_everything_that_a_running_trainer_prints(tmp_path):
    folder = Folder(tmp_path)
    driver = folder.begin()
    until(lambda: list(folder.workdir.glob("runs/*/log")))
    run = sorted(folder.workdir.glob("runs/*/log"))[0].parent.name
    call = folder.command("logs", run, "-f", "--workdir", "tiny")
    shown = subprocess.run(call, cwd=folder.path, env=folder.environment(), capture_output=True, text=True, timeout=60)
    driver.wait(60)
    assert shown.returncode == 0
    assert shown.stdout == (folder.workdir / "runs" / run / "log").read_text()
