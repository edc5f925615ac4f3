"""The local adapter: slots, endings told from the evidence, damaged files, and a manifest applied anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_ladder import MANIFEST, STANDIN, a_run

from sweep_analysis.record import FailureReason
from sweep_operator.api import Approval, RungStatus
from sweep_operator.clusters import Conflict, Ending, WorkloadState
from sweep_operator.clusters.local import LocalCluster, memory
from sweep_operator.clusters.local.apply import LAST_APPLIED, applied, merge, with_spec
from sweep_operator.clusters.local.attempts import AttemptFile
from sweep_operator.clusters.local.files import DamagedError, this_host
from sweep_operator.clusters.local.processes import Identity, identify
from sweep_operator.clusters.local.store import Store, sweep_uid
from sweep_operator.clusters.local.takeover import take_over
from sweep_operator.manifest import ManifestError, read_manifest


class Ladder:
    """A local cluster over a folder, with the stand-in trainer."""

    def __init__(self, folder: Path, monkeypatch, **script):
        (folder / "text.txt").write_text("some text\n")
        self.folder = folder
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("PYTHONPATH", str(STANDIN), prepend=os.pathsep)
        self.script(**script)
        self.events = []
        self.notices = []
        self.store = Store(folder / "ladder", self.notices.append)
        self.store.workdir.mkdir(exist_ok=True)
        self.store.write_sweep(applied(None, self.manifest(), "2026-01-01T00:00:00Z"))
        self.cluster = LocalCluster(self.store, folder, folder / "cache", show=self.events.append)

    def script(self, **script):
        self.monkeypatch.setenv("STANDIN", json.dumps({"seconds": 0.2, **script}))

    def manifest(self, text=MANIFEST):
        path = self.folder / "sweep.yaml"
        path.write_text(text)
        return read_manifest(path)

    @property
    def sweep(self):
        return self.store.sweep()

    def start(self, seed=0, attempt=1, **more):
        run = a_run(self.sweep, seed=seed, **more)
        self.cluster.create_run(run)
        run = self.store.run(run.metadata.name)
        self.cluster.start(self.sweep, run, attempt)
        return run

    def state(self, run, attempt=1):
        return self.cluster.workload(run, attempt).state

    def until(self, run, state, attempt=1):
        for _ in range(600):
            if self.state(run, attempt) is state:
                return self.cluster.workload(run, attempt)
            self.cluster.wait(0.1)
        raise AssertionError(f"it is {self.state(run, attempt)}")

    def until_ended(self, run, attempt=1):
        return self.until(run, WorkloadState.ENDED, attempt)

    def pid(self, run, attempt=1):
        return self.store.attempt(run.metadata.name, attempt).pid


@pytest.fixture
def ladder(tmp_path, monkeypatch):
    ladder = Ladder(tmp_path, monkeypatch)
    yield ladder
    ladder.cluster.close()


# --- slots ---------------------------------------------------------------------------------------------------------


def test_no_more_runs_go_on_at_once_than_the_sweep_allows(ladder):
    ladder.store.write_sweep(with_spec(ladder.sweep, {**ladder.sweep.spec.to_json(), "limits": {"parallelism": 2}}))
    runs = [ladder.start(seed) for seed in range(5)]
    most = 0
    while not all(ladder.state(run) is WorkloadState.ENDED for run in runs):
        most = max(most, sum(ladder.state(run) is WorkloadState.RUNNING for run in runs))
        ladder.cluster.wait(0.05)
    assert most == 2


def test_the_longest_run_goes_first(ladder):
    ladder.store.write_sweep(with_spec(ladder.sweep, {**ladder.sweep.spec.to_json(), "limits": {"parallelism": 1}}))
    runs = [ladder.start(parameters=parameters) for parameters in (20_480, 163_000, 67_160)]
    for run in runs:
        ladder.until_ended(run)
    started = {run.spec.run.parameters: ladder.cluster.workload(run, 1).started_at for run in runs}
    assert sorted(started, key=started.get) == [163_000, 67_160, 20_480]


def test_memory_lowers_how_many_run_at_once_and_an_event_says_so(ladder, monkeypatch):
    monkeypatch.setattr(memory, "run_bytes", lambda recipe: 2**30)
    ladder.cluster._memory = 2**30 * 3 // 2
    ladder.store.write_sweep(with_spec(ladder.sweep, {**ladder.sweep.spec.to_json(), "limits": {"parallelism": 4}}))
    runs = [ladder.start(seed) for seed in range(3)]
    most = 0
    while not all(ladder.state(run) is WorkloadState.ENDED for run in runs):
        most = max(most, sum(ladder.state(run) is WorkloadState.RUNNING for run in runs))
        ladder.cluster.wait(0.05)
    assert most == 1
    (event,) = ladder.events
    assert event.reason == "FewerAtOnce"
    assert event.message == "1 at a time instead of 4: a run needs about 1.0 GiB and 1.5 GiB were free"


def test_a_run_that_is_taken_back_while_it_waits_never_starts(ladder):
    ladder.store.write_sweep(with_spec(ladder.sweep, {**ladder.sweep.spec.to_json(), "limits": {"parallelism": 1}}))
    first, second = ladder.start(0), ladder.start(1)
    assert ladder.state(second) is WorkloadState.PENDING
    ladder.cluster.stop(second, 1)
    assert ladder.state(second) is WorkloadState.ABSENT
    ladder.until_ended(first)
    assert ladder.state(second) is WorkloadState.ABSENT


# --- endings -------------------------------------------------------------------------------------------------------


def test_what_was_started_is_written_down_before_anyone_is_told(ladder):
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    written = ladder.store.attempt(run.metadata.name, 1)
    assert Identity(written.pid, written.process_start).alive
    assert written.host == this_host()
    assert written.ended_at is None


def test_a_completed_attempt_counts_its_wall_seconds(ladder):
    ended = ladder.until_ended(ladder.start())
    assert ended.ending is Ending.COMPLETED
    assert 0.2 <= ended.gpu_seconds < 5


def test_a_signal_that_nobody_of_ours_sent_is_a_failure_that_names_it(ladder):
    ladder.script(seconds=30)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    os.kill(ladder.pid(run), signal.SIGKILL)
    ended = ladder.until_ended(run)
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.KILLED)
    assert "ended by SIGKILL, which this program did not send" in ended.message


def test_a_kill_while_memory_ran_out_is_told_apart(ladder, monkeypatch):
    ladder.script(seconds=30)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    monkeypatch.setattr(memory, "processes_ended_for_memory", lambda: 10**9)
    os.kill(ladder.pid(run), signal.SIGKILL)
    ended = ladder.until_ended(run)
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.OUT_OF_MEMORY)
    assert "the kernel ended it for want of memory (its peak was" in ended.message


def test_a_trainer_that_somebody_else_asks_to_stop_was_preempted(ladder):
    ladder.script(seconds=30)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    time.sleep(0.3)  # its handler must stand
    os.kill(ladder.pid(run), signal.SIGTERM)
    assert ladder.until_ended(run).ending is Ending.PREEMPTED


def test_a_trainers_own_failure_is_told_in_its_words(ladder):
    ladder.script(failures={"27048": ["Diverged"]})
    ended = ladder.until_ended(ladder.start())
    assert (ended.ending, ended.reason, ended.message) == (Ending.FAILED, FailureReason.DIVERGED, "as scripted")


def test_an_error_of_the_trainer_is_told_with_the_last_line_of_its_log(ladder):
    ladder.script(seconds="wrong")
    ended = ladder.until_ended(ladder.start())
    assert (ended.ending, ended.reason) == (Ending.FAILED, FailureReason.CRASHED)
    assert "TypeError" in ended.message
    assert "log:" in ended.message


def test_a_trainer_that_does_not_listen_is_killed_after_its_grace(ladder, monkeypatch):
    monkeypatch.setattr("sweep_operator.clusters.local.cluster.GRACE_SECONDS", 0.5)
    ladder.script(seconds=30, silent=True)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    time.sleep(0.3)
    ladder.cluster.stop(run, 1)
    assert ladder.state(run) is WorkloadState.RUNNING
    ended = ladder.until_ended(run)
    assert (ended.ending, ended.message) == (Ending.INTERRUPTED, "stopped without a last checkpoint")


def test_a_nursery_that_is_killed_costs_the_attempt_and_a_new_one_takes_over(ladder):
    ladder.script(seconds=30)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)
    trainer = identify(ladder.pid(run))
    ladder.cluster.nursery._process.kill()
    ended = ladder.until_ended(run)
    assert ended.ending is Ending.PREEMPTED
    assert not trainer.alive
    ladder.script()
    other = ladder.start(seed=1)
    assert ladder.until_ended(other).ending is Ending.COMPLETED


def test_closing_checkpoints_every_trainer_and_writes_down_how_it_ended(ladder):
    ladder.script(seconds=30)
    runs = [ladder.start(seed) for seed in range(2)]
    for run in runs:
        ladder.until(run, WorkloadState.RUNNING)
    time.sleep(0.3)
    ladder.cluster.close()
    for run in runs:
        ended = ladder.cluster.workload(run, 1)
        assert ended.ending is Ending.PREEMPTED
        assert ended.message == "checkpointed and stopped: the driver was told to leave"
        assert not identify(ladder.pid(run)).alive


def test_a_disk_that_is_full_at_the_end_keeps_no_trainer_running(ladder, monkeypatch):
    ladder.script(seconds=30)
    run = ladder.start()
    ladder.until(run, WorkloadState.RUNNING)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write_attempt", full)
    ladder.cluster.close()
    assert not identify(ladder.pid(run)).alive


# --- a driver that died --------------------------------------------------------------------------------------------


def left_behind(ladder, run, pid, started, **more):
    """An attempt as a driver that was killed leaves it."""
    file = AttemptFile(
        attempt=1, host=this_host(), pid=pid, process_start=started, started_at="2026-01-01T00:00:00.000Z", **more
    )
    ladder.store.write_attempt(run.metadata.name, file)


def test_an_attempt_of_a_dead_driver_was_preempted_and_counts_until_its_last_sign(ladder):
    run = a_run(ladder.sweep)
    ladder.cluster.create_run(run)
    left_behind(ladder, run, 2**22 + 1, 1.0)
    sign = ladder.store.folder(run.metadata.name) / "report" / "progress.json.part"
    sign.write_text("")
    os.utime(sign, (1767225600 + 90, 1767225600 + 90))  # 90 s after the start
    take_over(ladder.cluster)
    ended = ladder.cluster.workload(run, 1)
    assert (ended.state, ended.ending, ended.gpu_seconds) == (WorkloadState.ENDED, Ending.PREEMPTED, 90.0)


def test_a_process_that_merely_has_the_same_number_is_left_alone(ladder):
    run = a_run(ladder.sweep)
    ladder.cluster.create_run(run)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        left_behind(ladder, run, stranger.pid, identify(stranger.pid).started - 100)
        take_over(ladder.cluster)
        assert stranger.poll() is None
        stranger.kill()
    assert ladder.cluster.workload(run, 1).ending is Ending.PREEMPTED


def test_a_trainer_that_outlives_its_driver_is_ended(ladder):
    run = a_run(ladder.sweep)
    ladder.cluster.create_run(run)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as orphan:
        left_behind(ladder, run, orphan.pid, identify(orphan.pid).started)
        take_over(ladder.cluster, patience=0.4)
        assert orphan.wait(5) < 0
    assert ladder.cluster.workload(run, 1).ending is Ending.PREEMPTED


def test_an_attempt_whose_records_are_all_there_was_completed_whoever_saw_its_end(ladder):
    run = ladder.start()
    ladder.until_ended(run)
    written = ladder.store.attempt(run.metadata.name, 1)
    ladder.store.write_attempt(run.metadata.name, written.changed(ended_at=None, ending=None, exit_status=None))
    take_over(ladder.cluster)
    assert ladder.cluster.workload(run, 1).ending is Ending.COMPLETED


def test_an_identity_that_was_lost_is_written_anew_from_the_plan(ladder):
    run = ladder.start()
    ladder.until_ended(run)
    rung = RungStatus(name="a", runs=(run.spec.run,), state="Promoted")
    ladder.store.write_sweep_status(ladder.sweep, ladder.sweep.status.changed(rungs=(rung,)))
    before = ladder.store.run(run.metadata.name)
    (ladder.store.folder(run.metadata.name) / "run.json").write_text("{")
    take_over(ladder.cluster)
    after = ladder.store.run(run.metadata.name)
    assert after.spec == before.spec
    assert after.metadata.uid == before.metadata.uid
    assert after.status.accepted


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_status_that_was_lost_is_found_out_anew_before_the_ladder_looks(ladder, attempts):
    ladder.script(failures={"27048": ["Crashed"] * (attempts - 1)})
    for attempt in range(1, attempts + 1):
        run = ladder.start(attempt=attempt)
        ladder.until_ended(run, attempt)
    take_over(ladder.cluster)
    status = ladder.store.run(run.metadata.name).status
    assert status.state == "Succeeded"
    assert [record.tokens for record in status.accepted] == list(run.spec.run.tokens)
    assert len(status.attempts) == attempts


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "status.json", "attempts/1.json", "report/progress.json"])
def test_a_damaged_file_of_a_run_is_set_aside_and_named(ladder, name):
    run = ladder.start()
    ladder.until_ended(run)
    ladder.store.write_run_status(run, run.status)
    path = ladder.store.folder(run.metadata.name) / name
    path.write_text('{"half')
    ladder.cluster.runs(ladder.sweep)
    ladder.cluster.workload(run, 1)
    (notice,) = ladder.notices
    assert notice == f"{path} is damaged (not JSON); it is set aside and what it said is found out anew"
    assert path.with_name(path.name + ".damaged").exists()
    assert not path.exists()


def test_a_reader_sets_nothing_aside(ladder):
    run = ladder.start()
    ladder.until_ended(run)
    path = ladder.store.folder(run.metadata.name) / "report" / "progress.json"
    path.write_text("")
    (seen,) = Store(ladder.store.workdir).runs()
    assert seen.status.progress is None
    assert path.exists()


@pytest.mark.parametrize("name", ["sweep.json", "status.json"])
def test_a_damaged_sweep_is_refused_with_its_remedy(ladder, name):
    ladder.store.write_sweep_status(ladder.sweep, ladder.sweep.status)
    path = ladder.store.workdir / name
    path.write_text('{"metadata": {}, "unheard": 1}')
    with pytest.raises(DamagedError, match=r"is damaged .*; (restore it from a copy, or )?remove it"):
        ladder.store.sweep()


def test_a_name_gives_the_same_uid_everywhere_and_another_name_another(ladder):
    assert ladder.sweep.metadata.uid == sweep_uid("default", "tiny")
    assert sweep_uid("default", "other") != sweep_uid("default", "tiny") != sweep_uid("research", "tiny")


def test_two_commands_cannot_overwrite_each_others_wish(ladder):
    first, second = ladder.sweep, ladder.sweep
    ladder.store.write_sweep(with_spec(first, {**first.spec.to_json(), "suspend": True}))
    with pytest.raises(Conflict):
        ladder.store.write_sweep(with_spec(second, {**second.spec.to_json(), "abort": True}))
    assert ladder.sweep.spec.suspend


# --- a manifest applied anew ---------------------------------------------------------------------------------------


def test_applying_the_same_manifest_again_changes_nothing(ladder):
    assert applied(ladder.sweep, ladder.manifest(), "later") is ladder.sweep


def test_what_commands_have_set_and_the_manifest_never_named_stays(ladder):
    approval = Approval(rung="a", verdict="sha256:1")
    set_by_commands = {**ladder.sweep.spec.to_json(), "suspend": True, "approvals": [approval.to_json()]}
    standing = with_spec(ladder.sweep, set_by_commands)
    after = applied(standing, ladder.manifest(MANIFEST + "  limits: {parallelism: 3}\n"), "later")
    assert after.spec.suspend
    assert after.spec.approvals == (approval,)
    assert after.spec.limits.parallelism == 3
    assert after.metadata.generation == standing.metadata.generation + 1


def test_what_a_manifest_no_longer_says_goes_back_to_its_default(ladder):
    with_limit = applied(ladder.sweep, ladder.manifest(MANIFEST + "  limits: {parallelism: 3}\n"), "later")
    assert applied(with_limit, ladder.manifest(MANIFEST), "later").spec.limits.parallelism is None


def test_a_ladder_may_change_its_form_before_it_has_begun(ladder):
    rule = "generate: {from: 20K, to: 100K, rungs: 4, tokensPerParameter: [10, 20]}"
    start, end = MANIFEST.index("    rungs:"), MANIFEST.index("  gate:")
    after = applied(ladder.sweep, ladder.manifest(MANIFEST[:start] + f"    {rule}\n" + MANIFEST[end:]), "later")
    assert after.spec.ladder.rungs == ()
    assert after.spec.ladder.generate.rungs == 4


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("tolerance: 0.03", "tolerance: 0.05", "spec.gate.tolerance"),
        ("batchTokens: 2048", "batchTokens: 4096", "spec.training.batchTokens"),
        ("tokens: 3.4M", "tokens: 3.4M, maxLoss: 2", "spec.target.maxLoss"),
        ("files: [text.txt]", "files: [other.txt]", "spec.training.data.files"),
    ],
)
def test_a_frozen_field_is_named_and_may_change_until_the_first_forecast(ladder, old, new, field):
    edited = ladder.manifest(MANIFEST.replace(old, new))
    assert applied(ladder.sweep, edited, "later").metadata.generation == 2
    begun = ladder.sweep.changed(status=ladder.sweep.status.changed(frozen=ladder.sweep.spec.frozen_part))
    with pytest.raises(ManifestError, match=f"{field} may not change once a forecast has been written"):
        applied(begun, edited, "later")


def test_the_last_manifest_is_kept_for_the_next_merge(ladder):
    assert json.loads(ladder.sweep.metadata.annotations[LAST_APPLIED])["spec"]["gate"]["warmupRungs"] == 3


def test_a_merge_takes_lists_whole_and_mappings_field_by_field():
    standing = {"a": [1, 2], "b": {"mine": 1, "theirs": 2, "gone": 3}, "c": 4}
    wanted = {"a": [3], "b": {"mine": 5}}
    previous = {"a": [1, 2], "b": {"mine": 1, "gone": 3}}
    assert merge(standing, wanted, previous) == {"a": [3], "b": {"mine": 5, "theirs": 2}, "c": 4}
