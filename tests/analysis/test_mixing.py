"""The mixture by which benchmarks/calibration.py forecasts with nothing chosen, and what it may look at."""

import importlib.util
import math
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.backtest import SurfaceReplay, replay
from sweep_analysis.forecast import Point
from sweep_analysis.ladders import Ladder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tuning():
    return loaded("tuning")


@pytest.fixture(scope="module")
def mixing(tuning):
    return loaded("mixing")


def made(origin, seed, last=1.0):
    """Six rungs of two runs from one law; `last` multiplies the newest rung's losses."""
    rng = np.random.default_rng(seed)
    rungs = []
    for i in range(6):
        N = 2e7 * 2**i
        losses = [
            (1.7 + 400 / N**0.34 + 400 / (N * r) ** 0.28) * math.exp(0.004 * rng.standard_normal()) for r in (10, 20)
        ]
        rungs.append(
            tuple(
                Point(N, N * r, loss * (last if i == 5 else 1.0), f"{N:g} {r}")
                for r, loss in zip((10, 20), losses, strict=True)
            )
        )
    return Ladder(origin, f"{origin} {seed}", tuple(rungs))


LADDERS = [made("one", 0), made("two", 1)]


@pytest.fixture(scope="module")
def members(mixing, tuning):
    return [tuning.table(LADDERS, settings) for settings in mixing.drawn(8)]


def test_every_draw_lies_in_the_box_and_the_draws_fill_it(mixing):
    for box in (mixing.BOX, mixing.WIDER):
        drawn = np.array([np.hstack([s.entropy_at, s.recency, *astuple(s.kernel)]) for s in mixing.drawn(32, box)])
        spans = [box[name] for name in ("entropy_at", "recency", "alike", "ratio_reach", "compute_reach", "run_fades")]
        for column, span in zip(drawn.T, spans, strict=True):
            assert ((column >= span.low) & (column <= span.high)).all()
            shares = np.log(column) if span.evenly_in_log else column
            low, high = np.log(span[:2]) if span.evenly_in_log else span[:2]
            assert np.histogram(shares, 4, (low, high))[0].tolist() == pytest.approx([8] * 4, abs=1)


def test_no_draw_touches_the_scale(mixing):
    for settings in mixing.drawn(4):
        assert all(getattr(settings, name) == getattr(mixing.START, name) for name in mixing.SCALE)


def test_the_wider_box_holds_the_box(mixing):
    assert all(mixing.WIDER[n].low <= s.low < s.high <= mixing.WIDER[n].high for n, s in mixing.BOX.items())


def test_the_first_forecast_weighs_all_settings_alike_and_later_ones_by_what_they_said(mixing, members):
    weights = mixing.own_past(members, mixing.Weighing(), ())
    t = members[0]
    assert weights.sum(axis=0) == pytest.approx(1.0)
    assert weights[:, t.past == 1] == pytest.approx(1 / len(members))
    assert weights[:, t.past == 5].max() > 2 / len(members)


def test_weights_are_bayes_rule_over_the_ladders_earlier_rungs(mixing, tuning, members):
    t = members[0]
    task = int(np.flatnonzero((t.past == 3) & (t.far == 0) & (t.ladder == 1))[0])
    earlier = {int(e): int(a) for late, e, a in zip(t.later, t.earlier, t.age, strict=True) if late == task}
    assert sorted(earlier.values()) == [0, 1]
    surprises = [tuning.surprise(m, *tuning.scales(m, mixing.START)) for m in members]
    expected = np.array([math.exp(-sum(0.7**a * math.sqrt(2) * s[e] for e, a in earlier.items())) for s in surprises])
    assert mixing.own_past(members, mixing.Weighing(), ())[:, task] == pytest.approx(expected / expected.sum())


def test_neither_another_ladder_nor_the_scored_rung_moves_a_weight_or_a_forecast(mixing, tuning, members):
    spoilt = [LADDERS[0], made("two", 7, last=1.5)]
    newest = [made("one", 0, last=1.5), LADDERS[1]]
    settings = mixing.drawn(8)
    before = mixing.mixed(members, mixing.Weighing(), ())
    for ladders in (spoilt, newest):
        after = mixing.mixed([tuning.table(ladders, s) for s in settings], mixing.Weighing(), ())
        same = (before.ladder == 0) & (before.past < 5)
        rows = same[before.task]
        assert after.unknown[rows] == pytest.approx(before.unknown[rows])
        weights = [
            mixing.own_past(m, mixing.Weighing(), ()) for m in (members, [tuning.table(ladders, s) for s in settings])
        ]
        assert weights[1][:, before.ladder == 0] == pytest.approx(weights[0][:, before.ladder == 0])


def test_a_mixture_of_one_setting_is_that_setting(mixing, members):
    alone = mixing.mixed(members[:1], mixing.Weighing(), ())
    for name in ("residual", "unknown", "off", "below", "left"):
        assert getattr(alone, name) == pytest.approx(getattr(members[0], name))


def test_the_variance_between_settings_joins_what_the_fit_does_not_know(mixing, members):
    with_it, without = (mixing.mixed(members, mixing.Weighing(power=0.0, spread=s), ()) for s in (True, False))
    apart = np.var([m.residual for m in members], axis=0)
    assert with_it.unknown - without.unknown == pytest.approx(apart)
    assert with_it.residual == pytest.approx(np.mean([m.residual for m in members], axis=0))


def test_the_other_origins_are_looked_at_only_where_asked(mixing, members):
    usual, asked = mixing.Weighing(power=0.0), mixing.Weighing(power=0.0, others=40.0)
    assert mixing.own_past(members, usual, ("one",)) == pytest.approx(1 / len(members))
    one, two = (mixing.own_past(members, asked, (origin,)) for origin in ("one", "two"))
    assert np.abs(one - two).max() > 0.01


def test_a_tables_scores_are_the_replays(tuning):
    settings = replace(loaded("mixing").drawn(2)[0], inflation=1.1)
    t = tuning.table(LADDERS, settings)
    for ladder in LADDERS:
        replayed, _ = replay(ladder, lambda rungs: SurfaceReplay(rungs, settings))
        told = tuning.scores(t, settings, ladder.origin)
        assert [(s.past_rungs, s.far, s.runs) for s in told] == [(s.past_rungs, s.far, s.runs) for s in replayed]
        for name in ("covered", "frontier_covered", "jump", "error"):
            assert [getattr(s, name) for s in told] == pytest.approx([getattr(s, name) for s in replayed])
        for name in ("width", "interval_score"):  # a table leaves the seeds' noise out
            assert [getattr(s, name) for s in told] == pytest.approx([getattr(s, name) for s in replayed], rel=0.02)
