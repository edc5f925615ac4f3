"""`scalingsweep run` on a stand-in trainer: the whole ladder, its exit statuses, disturbances, and what it refuses."""

import json
import os
import re
import signal
import time

import pytest
from local_ladder import MANIFEST, Folder, lasting, losses, until

EVENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]\w+ \S+( .*)?$")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A ladder that nothing has disturbed."""
    folder = Folder(tmp_path_factory.mktemp("undisturbed"))
    done = folder.run()
    assert done.returncode == 0, done.stderr
    return folder


def same_as(folder, undisturbed):
    assert losses(folder.workdir) == losses(undisturbed.workdir)
    assert lasting(folder.status()) == lasting(undisturbed.status())
    return True


# --- the whole ladder ----------------------------------------------------------------------------------------------


def test_a_ladder_is_climbed_to_its_end_with_one_line_an_event(undisturbed, folder):
    folder.write(MANIFEST.replace("name: tiny", "name: other"))
    done = folder.run()
    assert done.returncode == 0
    events, _, rest = done.stdout.partition("\n\n")
    assert all(EVENT.match(line) for line in events.splitlines())
    words = [line.split()[1] for line in events.splitlines()]
    assert words[0] == "Forecast"
    assert words[-1] == "Succeeded"
    assert words.count("RunSucceeded") == 5
    assert "\x1b" not in done.stdout
    assert "other: Succeeded: every rung was judged" in rest
    assert re.search(
        r"^d +Promoted +1/1 +\d\.\d{4} +\d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\] +[+-]\d\.\d\d % +\w+", rest, re.M
    )
    assert re.search(r"^law +Chinchilla, 10 records, Scaling, alone Converged: E .* \[", rest, re.M)
    assert re.search(r"^target +forecast \d\.\d{4} \[.*\] nats/token, at [\d.]+ times the largest compute", rest, re.M)
    assert re.search(r"^spent +[\d.]+e\d+ FLOPs \(6ND\), .* in training steps, .* evaluation and the rest", rest, re.M)
    assert re.search(r"^report +", rest, re.M)


def test_the_same_command_on_a_finished_ladder_starts_nothing(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.workdir.glob("runs/**/*") if p.is_file()}
    done = undisturbed.run()
    assert done.returncode == 0
    assert {p: p.stat().st_mtime_ns for p in undisturbed.workdir.glob("runs/**/*") if p.is_file()} == before


def test_a_forecast_was_written_before_the_first_run_of_its_rung(undisturbed):
    forecasts = {rung["name"]: rung["forecast"]["time"] for rung in undisturbed.status()["rungs"]}
    for file in undisturbed.workdir.glob("runs/*/run.json"):
        run = json.loads(file.read_text())
        assert forecasts[run["spec"]["rung"]] <= run["metadata"]["creationTimestamp"]


def test_a_rerun_elsewhere_gives_the_same_names_losses_and_status(undisturbed, folder):
    assert folder.run("--workdir", "tiny").returncode == 0
    assert same_as(folder, undisturbed)


def test_a_ladder_that_stops_by_its_own_rules_ends_with_3_and_says_what_to_do_next(folder):
    folder.script["bend"] = {"110592": 1.25, "109772": 1.25}
    done = folder.run()
    assert done.returncode == 3
    assert "scalingsweep approve d --workdir tiny" in done.stdout
    accepted = folder.call("approve", "d", "--workdir", "tiny")
    assert accepted.returncode == 0
    assert re.search(r"accepted for d: LossAbovePrediction: .* \(sha256:", accepted.stdout)
    assert f"go on with: scalingsweep run {folder.manifest} --workdir tiny" in accepted.stdout
    assert folder.run().returncode == 0


def test_too_many_failed_runs_end_with_1_and_a_retry_takes_them_up_again(folder):
    folder.edit("gate:", "retry: {limit: 0, maxFailedRuns: 0}\n  gate:")
    folder.script["failures"] = {"27048": ["Crashed"]}
    done = folder.run()
    assert done.returncode == 1
    assert "try again with: scalingsweep retry --workdir tiny" in done.stdout
    assert folder.call("retry", "--workdir", "tiny").returncode == 0
    assert folder.run().returncode == 0


@pytest.mark.slow
def test_a_failure_is_retried_after_a_moment_and_the_ladder_goes_on(folder, undisturbed):
    folder.script["crash"] = [1]
    assert folder.run().returncode == 0
    assert losses(folder.workdir) == losses(undisturbed.workdir)
    assert {a["attempt"] for a in folder.attempts()} == {1, 2}


def test_a_budget_that_is_too_small_stops_the_ladder_with_3(folder):
    folder.edit("gate:", "budget: {flops: 1e12}\n  gate:")
    done = folder.run()
    assert done.returncode == 3
    assert "OverBudget" in done.stdout
    folder.edit("1e12", "1e13")
    assert folder.run().returncode == 0


# --- disturbances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.2])
def test_a_driver_that_is_killed_at_any_moment_goes_on_with_the_same_command(folder, undisturbed, moment):
    folder.script["seconds"] = 0.4
    driver = folder.begin()
    until(folder.workdir.exists)
    time.sleep(moment)
    driver.kill()
    driver.communicate()
    done = folder.run()
    assert done.returncode == 0, done.stderr
    assert same_as(folder, undisturbed)
    assert folder.running() == []


@pytest.mark.slow
def test_drivers_that_are_killed_again_and_again_get_there_in_the_end(folder, undisturbed):
    folder.script["seconds"] = 0.4
    for lifetime in (1.5, 1.7, 1.9, 2.1, 2.3):
        driver = folder.begin()
        time.sleep(lifetime)
        driver.kill()
        driver.communicate()
    assert folder.run().returncode == 0
    assert same_as(folder, undisturbed)


@pytest.mark.slow
def test_trainers_that_are_killed_cost_a_retry_and_nothing_else(folder, undisturbed):
    folder.script["seconds"] = 1.0
    driver = folder.begin()
    killed = set()
    while driver.poll() is None and len(killed) < 3:
        if folder.workdir.exists():
            for pid in set(folder.running()) - killed:
                time.sleep(0.2)
                killed.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    killed.discard(pid)
        time.sleep(0.05)
    driver.communicate()
    assert driver.returncode == 0
    assert len(killed) == 3
    assert losses(folder.workdir) == losses(undisturbed.workdir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_checkpoints_every_trainer_and_says_how_to_go_on(folder, undisturbed, number):
    folder.script["seconds"] = 2.0
    driver = folder.begin("--workdir", "tiny")
    until(lambda: folder.workdir.exists() and len(folder.running()) == 2)
    time.sleep(0.3)
    driver.send_signal(number)
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert said.strip() == "interrupted; continue with: scalingsweep run sweep.yaml --workdir tiny"
    assert folder.running() == []
    assert {a["ending"] for a in folder.attempts()} == {"Preempted"}
    folder.script["seconds"] = 0.1
    assert folder.run().returncode == 0
    assert same_as(folder, undisturbed)


def test_a_second_interruption_kills_at_once(folder):
    folder.script |= {"seconds": 30.0, "silent": True}
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and len(folder.running()) == 2)
    time.sleep(0.3)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert driver.poll() is None
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=4)
    assert driver.returncode == 130
    assert {a["exitStatus"] for a in folder.attempts()} == {-signal.SIGKILL}


def test_a_second_driver_is_told_who_holds_the_ladder(folder):
    folder.script["seconds"] = 2.0
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and folder.running())
    second = folder.run()
    assert second.returncode == 2
    assert re.search(rf"is being climbed already by process {driver.pid} on \S+, running since \d{{4}}-", second.stderr)
    driver.send_signal(signal.SIGINT)
    driver.communicate()


def test_commands_work_beside_a_running_ladder(folder):
    folder.script["seconds"] = 1.5
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and folder.running())
    seen = json.loads(folder.call("get", "--workdir", "tiny", "-o", "json").stdout)
    assert seen["status"]["phase"] == "Running"
    assert "running runs checkpoint and stop" in folder.call("suspend", "--workdir", "tiny").stdout
    out, _ = driver.communicate(timeout=30)
    assert driver.returncode == 3
    assert "go on with: scalingsweep resume --workdir tiny" in out
    assert folder.call("suspend", "--workdir", "tiny").returncode == 2
    assert folder.run().returncode == 3
    assert folder.call("resume", "--workdir", "tiny").returncode == 0
    folder.script["seconds"] = 0.1
    assert folder.run().returncode == 0


def test_an_aborted_ladder_stops_for_good(folder):
    folder.script["seconds"] = 1.5
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and folder.running())
    assert folder.call("abort", "--workdir", "tiny").returncode == 0
    driver.communicate(timeout=30)
    assert driver.returncode == 3
    assert folder.status()["phase"] == "Aborted"
    assert folder.run().returncode == 3
    assert "that is for good" in folder.call("resume", "--workdir", "tiny").stderr


@pytest.mark.parametrize("name", ["status.json", "run.json", "attempts/1.json", "report/records-1.json"])
def test_a_damaged_file_of_a_run_costs_at_most_that_run(folder, undisturbed, name):
    folder.script["seconds"] = 0.4
    driver = folder.begin()
    until(lambda: folder.workdir.exists() and list(folder.workdir.glob("runs/*-b-*/attempts/1.json")))
    driver.kill()
    driver.communicate()
    (damaged,) = (next(iter(folder.workdir.glob("runs/*-a-*"))),)
    (damaged / name).write_text('{"half')
    done = folder.run()
    assert done.returncode == 0, done.stderr
    assert same_as(folder, undisturbed)
    if name != "report/records-1.json" or "FileSetAside" in done.stdout:
        assert re.search(rf"FileSetAside - .*{name} is damaged \(not JSON\); it is set aside", done.stdout)


@pytest.mark.parametrize("name", ["status.json", "sweep.json"])
def test_a_damaged_sweep_is_refused_and_its_remedy_works(folder, undisturbed, name):
    assert folder.run().returncode == 0
    (folder.workdir / name).write_text('{"half')
    done = folder.run()
    assert done.returncode == 2
    assert re.search(rf"{name} is damaged \(not JSON\); .*remove it", done.stderr)
    (folder.workdir / name).unlink()
    assert folder.run().returncode == 0
    assert losses(folder.workdir) == losses(undisturbed.workdir)


def test_a_full_disk_is_named_and_the_same_command_goes_on(folder, undisturbed):
    """A file system of a few hundred KB, where one may be mounted; the ladder outgrows it."""
    small = folder.path / "small"
    small.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=120k tmpfs {small} 2>/dev/null"):
        pytest.skip("no small file system can be mounted here (it takes root)")
    try:
        done = folder.run("--workdir", "small/ladder")
        assert done.returncode == 1
        assert re.search(r"no space is left for .*; free some and run the same command again", done.stderr)
        os.system(f"mount -o remount,size=8m {small}")
        assert folder.run("--workdir", "small/ladder").returncode == 0
        assert losses(small / "ladder") == losses(undisturbed.workdir)
    finally:
        os.system(f"umount -l {small}")


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(folder, *arguments):
    """The sentence of a refused call, which must have written nothing."""
    before = folder.files()
    done = folder.run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert folder.files() == before
    assert done.stdout == ""
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("scalingsweep run: ")
    return sentence.removeprefix("scalingsweep run: ")


def test_a_wrong_manifest_writes_nothing(folder):
    folder.edit("27K", "30 K")
    assert refused(folder) == (
        "sweep.yaml: spec.ladder.rungs[0].runs[0].parameters: '30 K' is not a size: did you mean 30K?"
    )


def test_a_target_below_the_ladder_writes_nothing(folder):
    folder.edit("parameters: 170K, tokens: 3.4M", "parameters: 20K, tokens: 200K")
    assert "TargetBelowLadder: the target (20K parameters on 200K tokens) costs no more than" in refused(folder)


def test_a_ladder_that_cannot_identify_its_law_writes_nothing(folder):
    folder.write(MANIFEST.replace("[10, 20]", "[20]"))
    assert "DesignCannotIdentify" in refused(folder)


def test_a_policy_that_is_broken_writes_nothing(folder):
    (folder.path / "policy.yaml").write_text("maxTolerance: 0.01\n")
    assert "PolicyViolation: gate.tolerance is 0.03" in refused(folder, "--policy", "policy.yaml")


def test_a_missing_data_file_writes_nothing(folder):
    (folder.path / "text.txt").unlink()
    assert "text.txt: there is no such file" in refused(folder)


def test_the_folder_of_another_sweep_is_left_alone(folder):
    assert folder.run().returncode == 0
    folder.edit("name: tiny", "name: other")
    assert "holds the sweep default/tiny, the manifest is default/other; name another --workdir" in refused(
        folder, "--workdir", "tiny"
    )


def test_somebody_elses_folder_is_left_alone(folder):
    folder.workdir.mkdir()
    (folder.workdir / "thesis.tex").write_text("")
    assert "holds other things (thesis.tex …) and no sweep; name another --workdir" in refused(folder)


def test_a_file_for_a_folder_is_refused(folder):
    folder.workdir.write_text("")
    assert "is not a folder; name another --workdir" in refused(folder)


def test_a_frozen_field_that_was_edited_writes_nothing(folder):
    assert folder.run().returncode == 0
    folder.edit("tolerance: 0.03", "tolerance: 0.05")
    assert "spec.gate.tolerance may not change once a forecast has been written" in refused(folder)


def test_a_rung_that_has_started_may_not_be_edited(folder):
    assert folder.run().returncode == 0
    folder.edit("parameters: 27K", "parameters: 20K")
    assert "RungStarted: rung 'a' has started and can no longer be edited" in refused(folder)


def test_data_that_changed_since_writes_nothing(folder):
    assert folder.run().returncode == 0
    (folder.path / "text.txt").write_text("another text\n")
    assert "the data's text has changed since the ladder began" in refused(folder)


def test_a_folder_that_may_not_be_written_is_named(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = folder.path / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot be written (Permission denied); make it writable" in refused(folder, "--workdir", "locked/tiny")


def test_a_port_that_is_taken_writes_nothing(folder):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(folder, "--metrics-port", port) == (
            f"metrics cannot be served on 127.0.0.1:{port}: Address already in use"
        )
