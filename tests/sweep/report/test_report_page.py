"""What the page says in each of the ladder's stories, and what it does with what is missing, damaged or hostile."""

import errno
import functools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sweep_operator.clusters.local.files import DamagedError
from sweep_operator.report import write_report
from sweep_operator.report.gather import NoSweepError, gather, read_curve
from sweep_operator.report.markup import Markup, join, tag
from sweep_operator.report.words import headline, outcome_word

Story = Callable[[str], Path]
SECTIONS = (
    "The law and its target", "Forecasts against what came", "Verdicts", "The law’s constants", "Residuals",
    "Learning curves", "Timeline", "Cost", "Manifest",
)  # fmt: skip
STORIES = ("finished", "held", "stopped", "retuned", "asked", "foretold", "contexts", "fresh")
VOID = {"br", "col", "hr", "link", "meta", "wbr"}


class Outline(HTMLParser):
    """Tags as opened and closed, attributes that could fetch something, ids, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        for key, value in attributes:
            if key in ("src", "href", "srcset", "data", "action"):
                self.links.append(value or "")
            if key == "id":
                self.ids.append(value or "")
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(name, attributes)
        self.open.pop()

    def handle_endtag(self, name: str) -> None:
        if not self.open or self.open.pop() != name:
            self.misnested.append(name)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@functools.cache
def text_of(workdir: Path) -> str:
    """Of a folder that no longer changes; written once."""
    return write_report(workdir).read_text(encoding="utf-8")


def words_of(workdir: Path) -> str:
    return re.sub(r"\s+", " ", "".join(Outline(text_of(workdir)).words))


@pytest.fixture
def copy(story: Story, tmp_path: Path) -> Callable[[str], Path]:
    """A story's folder that a test may spoil."""
    return lambda name: Path(shutil.copytree(story(name), tmp_path / name))


@pytest.mark.parametrize("name", STORIES)
def test_the_page_is_whole_and_holds_every_section(story: Story, name: str) -> None:
    outline = Outline(text_of(story(name)))
    assert (outline.open, outline.misnested) == ([], [])
    words = "".join(outline.words)
    assert all(section in words for section in SECTIONS)


def test_losses_at_other_contexts_stand_apart_beside_those_at_the_targets(story: Story) -> None:
    assert "Other context lengths" not in words_of(story("finished"))
    ladder = gather(story("contexts"))
    assert {record.context_length for records in ladder.records.values() for record in records} == {128}
    section = text_of(story("contexts")).split("Other context lengths</h2>")[1].split("</section>")[0]
    cells = r"<td>(32|2,048)</td><td><span class=\"observed\">([0-9.]+)</span></td><td>([0-9.]+)</td>"
    rows = re.findall(cells, section)
    assert [context for context, _, _ in rows] == ["32", "2,048"] * 2 * 5
    for context, loss, usual in rows:
        assert float(loss) / float(usual) == pytest.approx({"32": 1.3, "2,048": 0.9}[context], rel=0.02)


@pytest.mark.parametrize("name", STORIES)
def test_nothing_in_the_page_points_out_of_it(story: Story, name: str) -> None:
    text = text_of(story(name))
    outline = Outline(text)
    assert [link for link in outline.links if not link.startswith("#")] == []
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert len(text) < 1_500_000


def test_ids_are_unique_and_every_reference_within_the_page_has_its_target(story: Story) -> None:
    text = text_of(story("retuned"))
    outline = Outline(text)
    assert len(set(outline.ids)) == len(outline.ids)
    wanted = {link[1:] for link in outline.links} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(outline.ids)


def test_the_same_ladder_gives_the_same_bytes(story: Story) -> None:
    first = write_report(story("finished")).read_bytes()
    assert write_report(story("finished")).read_bytes() == first


def test_a_finished_ladder_opens_with_what_was_forecast_and_what_came(story: Story) -> None:
    ladder = gather(story("finished"))
    target = ladder.target
    assert target is not None
    assert target.forecast is not None
    prediction = target.forecast.outcome.predictions[0]  # type: ignore[union-attr] # this story has a forecast
    said = headline(ladder)
    assert f"forecast to reach {prediction.loss:.3f} nats per token" in said.title
    assert f"reached {target.loss:.3f}" in said.title
    assert f"{prediction.low:.3f} to {prediction.high:.3f}" in said.lede


def test_a_held_ladder_opens_with_the_verdict_and_what_a_person_can_do(story: Story) -> None:
    ladder = gather(story("held"))
    rung = next(r for r in ladder.rungs if r.state == "Held")
    assert rung.verdict is not None
    said = headline(ladder)
    assert said.title == f"Rung {rung.name} waits for a person to decide."
    assert rung.verdict.message in said.lede
    assert f"scalingsweep approve {rung.name}" in said.lede


def test_a_stopped_ladder_opens_with_the_rung_it_stopped_at(story: Story) -> None:
    assert headline(gather(story("stopped"))).title.startswith("The ladder stopped at rung 160k")


def test_a_target_that_waits_opens_with_why_and_with_the_command(story: Story) -> None:
    said = headline(gather(story("asked")))
    assert said.title == "The target waits for a person to decide."
    assert "target.launch is Approval" in said.lede
    assert "scalingsweep approve target" in said.lede


def test_a_ladder_without_launch_opens_with_the_forecast_and_says_that_nothing_was_trained(story: Story) -> None:
    ladder = gather(story("foretold"))
    prediction = ladder.sweep.status.target.prediction
    assert prediction is not None
    said = headline(ladder)
    assert said.title == f"The target is forecast to reach {prediction.value:.3f} nats per token."
    assert "was not to be trained" in said.lede
    assert "No budget is set." in words_of(story("foretold"))


def test_a_fresh_ladder_says_that_nothing_has_finished_yet(story: Story) -> None:
    words = words_of(story("fresh"))
    assert "Rung 24k, 1 of 5, is training." in words
    assert "1 run is training, done in about 12 s." in words
    assert "No record has come in yet." in words
    assert "No law has been fitted yet" in words


def test_both_revisions_of_a_retuned_rung_are_told(story: Story) -> None:
    ladder = gather(story("retuned"))
    assert [(r.name, r.revision, outcome_word(r)) for r in ladder.rungs if r.name == "100k"] == [
        ("100k", 1, "Inconclusive"),
        ("100k", 2, "Pass"),
    ]
    words = words_of(story("retuned"))
    assert "100k rev. 2" in words
    assert "The whole rung is rerun with" in words


def test_every_check_of_every_verdict_is_shown_with_its_reason(story: Story) -> None:
    ladder = gather(story("stopped"))
    words = words_of(story("stopped"))
    for rung in ladder.rungs:
        assert rung.verdict is not None
        for check in rung.verdict.checks:
            assert check.message in words
            assert check.reason in words
        assert rung.verdict.digest in words


def test_every_planned_record_stands_in_the_table_with_forecast_and_observation(story: Story) -> None:
    ladder = gather(story("finished"))
    words = words_of(story("finished"))
    for rung in ladder.sweep.status.rungs:
        for record in ladder.records[rung.name, rung.revision]:
            assert f"{record.loss:.4f}" in words
        for prediction in getattr(rung.forecast and rung.forecast.outcome, "predictions", ()):
            assert f"{prediction.loss:.4f}" in words


def test_names_and_messages_cannot_become_markup(copy: Callable[[str], Path]) -> None:
    workdir = copy("stopped")
    hostile = "</style><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
    status = json.loads((workdir / "status.json").read_text())
    for rung in status["rungs"]:
        if "verdict" in rung:
            rung["verdict"]["message"] = hostile
            rung["verdict"]["checks"][0]["message"] = hostile
    for condition in status["conditions"]:
        condition["message"] = hostile
    (workdir / "status.json").write_text(json.dumps(status))
    sweep = json.loads((workdir / "sweep.json").read_text())
    sweep["spec"]["training"]["data"] = {"files": [hostile]}
    (workdir / "sweep.json").write_text(json.dumps(sweep))
    for file in workdir.glob("runs/*/status.json"):
        run = json.loads(file.read_text())
        run["failures"] = [{"attempt": 1, "reason": "Crashed", "message": hostile}]
        file.write_text(json.dumps(run))
    text = text_of(workdir)
    outline = Outline(text)
    assert (outline.open, outline.misnested) == ([], [])
    assert not {"script", "img"} & set(outline.tags)
    assert hostile in "".join(outline.words)


def test_what_a_common_trunk_saved_against_separate_runs_stands_with_the_cost(
    story: Story, copy: Callable[[str], Path]
) -> None:
    assert "branch off one trunk" not in words_of(story("finished"))
    workdir = copy("finished")
    for file in workdir.glob("runs/*/status.json"):
        run = json.loads(file.read_text())
        for record in run["accepted"]:
            record["stepsSaved"] = 0.25
        file.write_text(json.dumps(run))
    assert re.search(r"taken .+ FLOPs; decays that branch off one trunk saved 25% of them", words_of(workdir))


def test_a_damaged_curve_is_told_in_a_sentence_and_the_rest_is_drawn(copy: Callable[[str], Path]) -> None:
    workdir = copy("finished")
    curve = sorted(workdir.glob("runs/*/storage/curve.jsonl"))[0]
    curve.write_bytes(curve.read_bytes()[:5000] + b'\xff\xfe{"step": 3, "tok\n[1]\n{"tokens": "NaN", "loss": 2}\n')
    words = words_of(workdir)
    assert "lines of the learning curve are damaged; the others are drawn" in words
    assert "Learning curves" in words


def test_missing_curves_and_runs_leave_sentences(copy: Callable[[str], Path]) -> None:
    workdir = copy("finished")
    shutil.rmtree(workdir / "runs")
    words = words_of(workdir)
    assert "No learning curve has been written yet." in words
    assert "No record has come in yet." in words


def test_a_damaged_run_file_is_named(copy: Callable[[str], Path]) -> None:
    workdir = copy("finished")
    damaged = sorted(workdir.glob("runs/*/status.json"))[0]
    damaged.write_text('{"state": "Succ')
    assert f"{damaged.parent.name}/status.json is damaged" in words_of(workdir)


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy("fresh")
    old = write_report(workdir).read_bytes()

    def full(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text.encode()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(workdir)
    assert (workdir / "report.html").read_bytes() == old
    assert not list(workdir.glob(".report*"))


def test_a_folder_without_a_sweep_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoSweepError, match="holds no sweep"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_sweep_is_refused_with_its_remedy(copy: Callable[[str], Path]) -> None:
    workdir = copy("fresh")
    (workdir / "sweep.json").write_text("{")
    with pytest.raises(DamagedError, match=r"sweep\.json is damaged"):
        write_report(workdir)


def test_a_curve_is_cut_where_a_branch_leaves_the_trunk(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    points = [(10, None), (20, None), (25, 30), (30, 30), (30, None), (45, 60), (60, 60)]
    path.write_text(
        "".join(json.dumps({"tokens": t, "loss": 5 - t / 20, **({"branch": b} if b else {})}) + "\n" for t, b in points)
    )
    pieces, notice = read_curve(path)
    assert [list(tokens) for tokens, _ in pieces] == [[10, 20, 30], [20, 25, 30], [30, 45, 60]]
    assert notice == ""


def test_markup_escapes_what_it_did_not_make_itself() -> None:
    assert tag("p", "<b>&", tag("i", "x"), title='"<') == '<p title="&quot;&lt;">&lt;b&gt;&amp;<i>x</i></p>'
    assert join(None, "a", [Markup("<br>"), "<"]) == "a<br>&lt;"
