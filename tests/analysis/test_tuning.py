"""The vectorised form of a forecast's scale, by which its constants are found, against the forecasts themselves."""

import importlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.backtest import SurfaceReplay, replay
from sweep_analysis.forecast import Point
from sweep_analysis.ladders import Ladder
from sweep_analysis.predictive import SETTINGS


def made(origin, seed):
    """Eight rungs of two runs from one law."""
    rng = np.random.default_rng(seed)
    rungs = []
    for N in 2e7 * 2.0 ** np.arange(8):
        law = [(1.7 + 400 / N**0.34 + 400 / (N * r) ** 0.28, N * r) for r in (10, 20)]
        rungs.append(tuple(Point(N, D, L * math.exp(0.004 * rng.standard_normal()), f"{N:g} {D:g}") for L, D in law))
    return Ladder(origin, f"{origin} {seed}", tuple(rungs))


LADDERS = [made("one", 0), made("two", 1)]


@pytest.fixture
def tuning(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("tuning")


@pytest.mark.parametrize("changed", [{}, {"inflation": 1.1, "drift": 0.004, "bend": 0.01, "bend_power": 1.0}])
def test_what_a_table_says_of_a_forecast_is_what_the_replay_says(tuning, changed):
    settings = replace(SETTINGS, **changed)
    t = tuning.table(LADDERS, settings)
    worth, chosen = tuning.worth(t, settings), t.scored > 0
    told = [score for ladder in LADDERS for score in replay(ladder, lambda rungs: SurfaceReplay(rungs, settings))[0]]
    assert sum(score.far for score in told) > 0
    assert t.past[chosen].tolist() == [score.past_rungs for score in told]
    assert (t.far[chosen] > 0).tolist() == [score.far for score in told]
    assert worth["covered"][chosen] == pytest.approx([score.covered for score in told])
    assert worth["width"][chosen] == pytest.approx([score.width for score in told], rel=0.02)  # it leaves seeds out


def test_origins_of_few_forecasts_teach_nothing(tuning):
    t = tuning.table([*LADDERS, Ladder("few", "few", LADDERS[0].rungs[:5])], SETTINGS)
    covered = np.ones(len(t.runs))
    assert len(tuning.by_origin(t, covered, t.origins, far=False)) == 0
    assert tuning.LEAST_FORECASTS > 5
