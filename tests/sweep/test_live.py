"""What people see: a live picture on a terminal, plain lines in a pipe, and the numbers behind both."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from datetime import UTC, datetime, timedelta

import pytest
from local_ladder import Folder, until
from simulated_cluster import SimulatedCluster, climb, settle

from sweep_analysis.record import Progress
from sweep_operator.api import RunState
from sweep_operator.clusters import Event
from sweep_operator.live.picture import picture_of
from sweep_operator.live.plain import PlainView, line_of
from sweep_operator.live.summary import Whereabouts, next_step, rung_table, summary
from sweep_operator.live.table import duration, table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def climbed(manifest):
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    return cluster


def drawn(cluster):
    sweep = cluster.stored
    return picture_of(sweep, cluster.runs(sweep), 2)


# --- the picture ---------------------------------------------------------------------------------------------------


def test_a_rung_is_shown_by_the_statistic_that_the_gate_judged(climbed):
    for row in drawn(climbed).rows:
        if row.forecast is None:
            continue
        assert row.verdict.message.startswith(f"{row.loss:.4g} nats/token")
        assert row.deviation == pytest.approx(row.loss / row.forecast.value - 1, rel=1e-9)


def test_everything_that_was_spent_is_in_the_picture(climbed):
    picture = drawn(climbed)
    assert picture.flops == pytest.approx(sum(row.flops for row in picture.rows))
    assert picture.left_seconds == 0
    assert all(row.share == 1 for row in picture.rows)


def test_nothing_is_said_of_time_left_before_anything_was_measured(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    assert drawn(cluster).left_seconds is None


def test_time_left_is_the_trainers_own_estimate_where_runs_go_on_and_the_measured_price_elsewhere(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    while cluster.stored.status.rungs[0].state != "Promoted":
        cluster.now += timedelta(seconds=cluster.next_end())
        settle(cluster)
    sweep = cluster.stored
    running = [
        run.changed(
            status=run.status.changed(
                state=RunState.RUNNING,
                progress=Progress(
                    attempt=1, step=1, steps=4, tokens=1, eta_seconds=7.0, tokens_per_second=5.0, last_updated="now"
                ),
            )
        )
        if run.spec.rung == "b"
        else run
        for run in cluster.runs(sweep)
    ]
    rows = {row.name: row for row in picture_of(sweep, running, 2).rows}
    assert rows["b"].left_seconds == 7.0
    assert rows["b"].tokens_per_second == 10.0
    assert rows["b"].share == pytest.approx(0.25)
    assert rows["e"].left_seconds > rows["c"].left_seconds > 0


def test_the_summary_has_the_law_the_target_and_what_it_took(climbed):
    text = summary(climbed.stored, drawn(climbed))
    assert re.search(r"^law +Chinchilla, 20 records, .*: E \S+ \[\S+, \S+\]", text, re.M)
    observed = r"observed \d\.\d{4} \([+-]\d\.\d\d %, inside the interval\)"
    assert re.search(rf"^target +forecast .* nats/token, {observed}", text, re.M)
    assert re.search(r"^spent +\S+ FLOPs \(6ND\), ", text, re.M)
    assert text.splitlines()[0].startswith("RUNG")
    assert next_step(climbed.stored, Whereabouts.on_this_machine("here")) is None


def test_a_rung_that_was_rerun_is_shown_once_for_each_revision(climbed):
    first = climbed.stored.status.rungs[0]
    again = first.changed(revision=2)
    climbed.stored = climbed.stored.changed(status=climbed.stored.status.changed(rungs=(first, again)))
    assert re.search(r"^a \(revision 2\) ", rung_table(drawn(climbed)), re.M)


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0.04, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (60, "1m 00s"), (3599.9, "1h 00m"), (90_000, "1d 1h")],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, said):
    assert duration(seconds) == said


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(("A", "BB"), [("xx", "1"), ("é́", "22")], right=(1,)) == "A   BB\nxx   1\né́   22"


def test_a_line_is_one_line_whatever_its_message_holds():
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert line_of(Event("Killed", "a\nb\tc", rung="30m"), at) == "2026-01-02T03:04:05Z Killed 30m a b c"
    assert line_of(Event("Finished", ""), at) == "2026-01-02T03:04:05Z Finished -"


def test_a_reader_that_has_gone_stops_nothing():
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    PlainView(Gone()).event(Event("Something", "happened"))


# --- a terminal ----------------------------------------------------------------------------------------------------


def on_terminal(folder, columns, *arguments, after=None, **environment):
    """Call the command line on a pseudo-terminal; its exit status, and what the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        folder.command(*arguments),
        cwd=folder.path,
        env=folder.environment(**{"TERM": "xterm-256color", **environment}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        sent += data
        if after and after():
            process.send_signal(signal.SIGINT)
            after = None
    os.close(ours)
    return process.wait(30), sent.decode()


@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_shows_a_live_ladder_and_the_result_at_the_end(tmp_path, columns):
    folder = Folder(tmp_path)
    status, sent = on_terminal(folder, columns, "run", "sweep.yaml")
    assert status == 0
    assert "\x1b[1A" in sent  # redrawn in place
    text = ESCAPES.sub("", sent)
    live, _, result = text.rpartition("RUNG    STATE") if "RUNG    STATE" in text else text.rpartition("RUNG  STATE")
    assert re.search(r"a +Running +0/2", live)
    assert "spent" in live
    assert ("TOKENS/S" in text) == (columns >= 110)  # a column of the live table alone
    assert "tiny: Succeeded: every rung was judged" in result
    drawn_lines = [line for frame in live.split("tiny  ")[1:] for line in frame.splitlines()[1:]]
    assert max(len(line.rstrip()) for line in drawn_lines if line.startswith(("a ", "b ", "c ", "d "))) <= columns


def test_no_color_leaves_only_what_moves_the_cursor(tmp_path):
    folder = Folder(tmp_path)
    _, sent = on_terminal(folder, 100, "run", "sweep.yaml", NO_COLOR="1")
    colours = {code for code in re.findall(r"\x1b\[([0-9;]*)m", sent) if re.match(r"(3|4|9)\d", code)}
    assert colours == set()


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    status, sent = on_terminal(Folder(tmp_path), 80, "run", "sweep.yaml", TERM="dumb")
    assert status == 0
    assert "\x1b" not in sent


def test_ctrl_c_on_a_terminal_leaves_it_usable_and_says_how_to_go_on(tmp_path):
    folder = Folder(tmp_path, {"seconds": 20.0})

    def running():
        return folder.workdir.exists() and len(folder.running()) == 2

    begun = time.monotonic()
    due = lambda: running() and time.monotonic() - begun > 3  # noqa: E731 - a name says what is waited for
    status, sent = on_terminal(folder, 100, "run", "sweep.yaml", after=due)
    assert status == 130
    assert sent.rstrip().endswith("interrupted; continue with: scalingsweep run sweep.yaml")
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # the cursor is back
    assert folder.running() == []


def test_get_watch_follows_a_ladder_until_it_stands_still(tmp_path):
    folder = Folder(tmp_path, {"seconds": 1.0})
    driver = folder.begin()
    until(lambda: (folder.workdir / "status.json").exists())
    seen = folder.call("get", "tiny", "--workdir", "tiny", "-w")
    driver.communicate()
    assert seen.returncode == 0
    lines = seen.stdout.splitlines()
    assert lines[0].startswith("RUNG")
    assert re.search(r"^[cd] +(Running|Forecast)", seen.stdout, re.M)
    assert re.search(r"^d +Promoted +1/1", seen.stdout, re.M)
