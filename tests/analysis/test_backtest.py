"""The back-test: its protocol, its arithmetic, and what it gives on the published ladders."""

import importlib
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sweep_analysis.backtest import Foretold, Score, SurfaceReplay, replay, report, row
from sweep_analysis.forecast import Forecast, Point, forecast
from sweep_analysis.ladders import Ladder, by_compute, by_size, published, thin
from sweep_operator.cli import main

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SCALINGSWEEP_SHARED", ROOT.parent / "shared")) / "data"
published_only = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published runs are not at {SHARED}")


def law(N, D):
    return 1.7 + 400 / N**0.34 + 400 / D**0.28


def ladder(rungs=6, noise=0.003, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [2e7 * 2**i for i in range(rungs)]
    return Ladder(
        "made",
        "made",
        tuple(
            tuple(Point(N, N * r, law(N, N * r) * math.exp(noise * rng.standard_normal()), f"{N:g}") for r in (10, 20))
            for N in sizes
        ),
    )


class Knowing:
    """A method that knows the law, with a fixed half-width."""

    def __init__(self, rungs, half=0.01):
        self.half = half

    def foretell(self, k, runs, confidence):
        mean = np.log([law(p.parameters, p.tokens) for p in runs])
        return Foretold(mean, np.full(len(runs), self.half), self.half)


def test_only_earlier_rungs_are_trained_on_and_three_of_them_at_least():
    scores, _ = replay(ladder())
    assert [s.past_rungs for s in scores if not s.far] == [3, 4, 5]


def test_a_far_forecast_skips_rungs_to_ten_times_the_compute():
    scores, _ = replay(ladder(8))
    far = [s for s in scores if s.far]
    assert far
    assert all(10 <= s.jump <= 300 for s in far)


def test_the_scored_forecast_is_the_one_that_would_have_been_made():
    made = ladder()
    runs = made.rungs[4]
    foretold = SurfaceReplay(made.rungs).foretell(4, runs, 0.95)
    real = forecast(made.rungs[:4], [(p.parameters, p.tokens) for p in runs], runs=[p.run for p in runs])
    assert isinstance(real, Forecast)
    np.testing.assert_allclose(np.exp(foretold.mean), [p.loss for p in real.predictions], rtol=1e-8)
    np.testing.assert_allclose(
        np.exp(foretold.mean + foretold.half_widths), [p.high for p in real.predictions], rtol=1e-8
    )


def test_later_rungs_outcomes_change_no_earlier_forecast():
    made = ladder()
    spoilt = replace(made, rungs=(*made.rungs[:5], tuple(replace(p, loss=2 * p.loss) for p in made.rungs[5])))
    first, second = (SurfaceReplay(m.rungs).foretell(4, made.rungs[4], 0.95) for m in (made, spoilt))
    np.testing.assert_allclose(first.mean, second.mean, atol=1e-9)
    np.testing.assert_allclose(first.half_widths, second.half_widths, rtol=1e-6)


def test_coverage_width_and_score_follow_from_the_misses():
    scores, _ = replay(ladder(noise=0.0), lambda rungs: Knowing(rungs, half=0.01))
    assert all(s.covered == 1.0 and s.error < 1e-12 for s in scores)
    assert all(s.width == pytest.approx(0.02) and s.interval_score == pytest.approx(0.02) for s in scores)


def test_a_miss_costs_forty_times_its_depth_at_95_percent():
    class Wrong(Knowing):
        def foretell(self, k, runs, confidence):
            told = super().foretell(k, runs, confidence)
            return replace(told, mean=told.mean + 0.03)

    scores, _ = replay(ladder(noise=0.0), Wrong)
    assert scores[0].interval_score == pytest.approx(0.02 + 40 * 0.02)
    assert scores[0].covered == 0.0


def test_declined_rungs_are_counted_and_not_scored():
    one_ratio = replace(ladder(), rungs=tuple((rung[0],) for rung in ladder().rungs))
    scores, declined = replay(one_ratio)
    assert (scores, declined) == ([], 2)
    assert report(scores, declined) is None


def test_a_ladder_and_its_thinnings_are_one_cluster():
    made = ladder(9)
    scores, _ = replay(made)
    for variant in thin(made):
        scores += replay(variant)[0]
    summary = row("all", [s for s in scores if not s.far])
    assert 0 <= summary.coverage_low <= summary.coverage <= summary.coverage_high <= 1


def scored(covered, ladder="a", past_rungs=3):
    """A forecast of which only the coverage matters."""
    return Score("made", ladder, past_rungs, 2.0, False, 4, covered, True, True, 0.02, 0.02, 0.02, 0.001)


def test_a_coverage_without_a_miss_is_as_sure_as_its_trials_are_many():
    few = row("one ladder", [scored(1.0, past_rungs=k) for k in range(3, 9)])
    assert (few.coverage_low, few.coverage_high) == pytest.approx(stats.binomtest(6, 6).proportion_ci(method="wilson"))
    thinned = row("thinned", [scored(1.0, f"a{part}", k) for part in ("", " (every 2 from 0)") for k in range(3, 9)])
    assert thinned.coverage_low == few.coverage_low
    more = row("three ladders", [scored(1.0, name, k) for name in "abc" for k in range(3, 9)])
    assert few.coverage_low < more.coverage_low < 1.0 == more.coverage_high


def test_ladders_that_miss_alike_do_not_make_the_coverage_certain():
    alike = row("alike", [scored(0.5 if k == 4 else 1.0, name, k) for name in "abc" for k in range(3, 7)])
    assert alike.coverage_low < alike.coverage - 0.05
    assert alike.coverage < alike.coverage_high < 1.0


def test_one_forecast_alone_leaves_its_coverage_open():
    alone = row("alone", [scored(1.0)])
    assert (alone.coverage_low, alone.coverage_high) == pytest.approx((0.2065, 1.0), abs=1e-4)


def test_thinning_keeps_every_second_and_third_rung_from_each_start():
    names = [variant.name for variant in thin(ladder(12))]
    assert names == [f"made (every {s} from {f})" for s in (2, 3) for f in range(s)]


def test_rungs_by_size_take_nearly_equal_models_together():
    points = [Point(N, 1e9, 3.0, str(N)) for N in (1e8, 1.05e8, 2e8)]
    assert [len(rung) for rung in by_size(points)] == [2, 1]


def test_rungs_by_compute_rise():
    points = [Point(N, D, 3.0, "") for N in (1e7, 1e8) for D in (1e9, 1e10)]
    compute = [max(p.parameters * p.tokens for p in rung) for rung in by_compute(points)]
    assert compute == sorted(compute)


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    found = []
    for whole in published(SHARED):
        for variant in (whole, *thin(whole)):
            found += replay(variant)[0]
    return found


@published_only
@pytest.mark.slow
def test_published_rungs_are_covered_as_stated(scores):
    summary = report(scores, 0)
    assert 0.93 <= summary.coverage <= 0.97
    assert all(r.coverage >= 0.90 for r in summary.by_origin)
    assert summary.by_past_rungs[0].coverage >= 0.90
    assert summary.far[0].coverage >= 0.93


@published_only
@pytest.mark.slow
def test_published_intervals_are_narrow(scores):
    summary = report(scores, 0)
    assert summary.median_width <= 0.045
    assert summary.by_jump[0].median_width <= 0.038


@published_only
@pytest.mark.slow
def test_intervals_from_one_or_two_records_a_rung_cover_nearly_what_they_state(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    few_records = importlib.import_module("few_records")
    told = few_records.coverage(few_records.drawn(published(SHARED), cases=80), SurfaceReplay)
    for low, high in few_records.COUNTS:
        covered = [share for _, records, share, _ in told if low <= records <= high]
        assert len(covered) > 100
        assert sum(covered) / len(covered) > 0.88


CALIBRATION = json.loads((ROOT / "benchmarks" / "results" / "calibration.json").read_text())
CHOSEN_ANEW = pytest.mark.parametrize("chosen_anew", ["leaveOneOriginOut", "constantsAveraged"])


@CHOSEN_ANEW
def test_the_kept_calibration_meets_its_marks_on_every_origin_that_was_left_out(chosen_anew):
    kept = CALIBRATION["four"][chosen_anew]
    assert 0.93 <= kept["coverage"] <= 0.97
    assert kept["medianWidth"] <= 0.045
    assert all(origin["coverage"] >= 0.90 for origin in kept["byOrigin"])
    assert kept["byPastRungs"][0]["coverage"] >= 0.90
    assert kept["byJump"][0]["medianWidth"] <= 0.038
    assert kept["far"][0]["coverage"] >= 0.93


@CHOSEN_ANEW
def test_so_it_does_at_next_rungs_of_the_origins_that_came_later(chosen_anew):
    kept = CALIBRATION["six"][chosen_anew]
    assert 0.93 <= kept["coverage"] <= 0.97
    assert kept["medianWidth"] <= 0.045
    assert all(origin["coverage"] >= 0.90 for origin in kept["byOrigin"] if origin["forecasts"] >= 10)
    assert kept["byJump"][0]["medianWidth"] <= 0.038


PAGE = (ROOT / "docs" / "forecasts.md").read_text(encoding="utf-8")


def _rows(part):
    """First cell → the other cells, of the first row of that name."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in reversed(lines)}


@pytest.mark.parametrize(
    ("origins", "title"), [("four", "the four origins of the marks"), ("six", "the six that came")]
)
def test_the_pages_tables_are_those_of_the_kept_calibration(origins, title):
    rows = _rows(PAGE.partition(f"**Leave one origin out, {title}")[2].partition("**…")[0])
    kept = CALIBRATION[origins]["leaveOneOriginOut"]
    named = {"next rung, all": kept}
    named |= {f"· {r['group']}": r for r in kept["byOrigin"]}
    named |= {f"· {r['group']} past rungs": r for r in kept["byPastRungs"]}
    named |= {f"· jump {r['group']}": r for r in kept["byJump"]}
    named |= {"far, all" if r["group"] == "all" else f"· far, {r['group']}": r for r in kept["far"]}
    assert set(named) <= set(rows)
    for name, r in named.items():
        cells = [str(r["forecasts"]), f"{r['coverage']:.3f} ({r['coverageLow']:.3f}–{r['coverageHigh']:.3f})"]
        assert rows[name][:2] == cells, name
        assert rows[name][4:] == [f"{r[k]:.2%}" for k in ("medianWidth", "intervalScore", "medianError")], name


def test_no_coverage_is_kept_or_printed_as_certain():
    tables = [CALIBRATION[origins][chosen] for origins in ("four", "six") for chosen in CALIBRATION["four"]]
    groups = [r for t in tables for part in ("byOrigin", "byPastRungs", "byJump", "far") for r in (t, *t[part])]
    assert len(groups) > 100
    assert all(r["coverageHigh"] - r["coverageLow"] > 0.001 for r in groups)
    assert not re.search(r"\(([01]\.\d+)–\1\)", PAGE)


def test_the_pages_first_screen_says_what_the_tables_below_it_say():
    short = _rows(PAGE.partition("## In short")[2].partition("## The method")[0])
    kept = CALIBRATION["four"]["leaveOneOriginOut"]
    near, far = ({r["group"]: r for r in kept[k]} for k in ("byJump", "far"))
    for name, r in {
        "up to 3x, the next rung": near["≤ 3x"],
        "3 to 10x, the next rung": near["≤ 10x"],
        "10 to 30x, a far target": far["≤ 30x"],
        "30 to 100x": far["≤ 100x"],
        "100 to 300x": far["≤ 300x"],
    }.items():
        half = f"±{50 * r['medianWidth']:.1f} %"
        cells = [str(r["forecasts"]), f"{100 * r['coverage']:.1f} %", half, f"{100 * r['medianError']:.2f}"]
        assert [c.replace(" of the loss", "") for c in short[name][:3]] == cells[:3], name
        assert short[name][3] == f"{cells[3]} %", name
    fresh = _rows(PAGE.partition("<!-- fresh -->")[2].partition("<!-- /fresh -->")[0])
    said = " ".join(PAGE.partition("**On ladders that nobody")[2].partition("\n* ")[0].split())
    for cell in (fresh["next rung, all"][1], fresh["far, all"][1], fresh["· Datablations"][1]):
        assert f"{100 * float(cell.split()[0]):.1f} %" in said
    assert f"±{float(fresh['next rung, all'][4].rstrip('%')) / 2:.1f} %" in said


def test_the_command_gives_the_documented_json(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    lines = [f"{p.parameters},{p.tokens},{p.loss},{i}" for i, rung in enumerate(ladder().rungs) for p in rung]
    path.write_text("\n".join(["N,D,L,R", *lines]) + "\n")
    assert main(["backtest", str(path), "--columns", "parameters=N,tokens=D,loss=L,rung=R", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"forecasts", "coverage", "medianWidth", "medianError", "abstained", "byJump"} <= told.keys()
    assert told["forecasts"] == 3


def test_the_command_prints_a_table(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    lines = [f"{p.parameters},{p.tokens},{p.loss},{i}" for i, rung in enumerate(ladder().rungs) for p in rung]
    path.write_text("\n".join(["parameters,tokens,loss,rung", *lines]) + "\n")
    assert main(["backtest", str(path)]) == 0
    assert "covered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a file of records"),
        (["missing.csv"], "missing.csv"),
        (["--published", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_call_gets_one_sentence(arguments, said, capsys):
    assert main(["backtest", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_too_short_a_ladder_is_said_to_be_so(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text("parameters,tokens,loss\n1e7,2e8,3.5\n2e7,4e8,3.3\n")
    assert main(["backtest", str(path)]) == 2
    assert "nothing to score" in capsys.readouterr().err
