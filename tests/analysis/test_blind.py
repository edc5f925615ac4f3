"""The choice of every constant from wide ranges by the other origins (benchmarks/blind.py)."""

import importlib
import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.forecast import Point
from sweep_analysis.ladders import Ladder


@pytest.fixture
def blind(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    module = importlib.import_module("blind")
    monkeypatch.setattr(importlib.import_module("tuning"), "LEAST_FORECASTS", 1)
    return module


def made(origin, seed, *, raised=0.0):
    """Eight rungs of two runs from one law, the later four raised."""
    rng = np.random.default_rng(seed)
    rungs = []
    for i, N in enumerate(2e7 * 3.0 ** np.arange(8)):
        law = [(1.7 + 400 / N**0.34 + 400 / (N * r) ** 0.28, N * r) for r in (10, 20)]
        noise = 0.004 * rng.standard_normal(2) + raised * (i > 3)
        losses = [L * math.exp(e) for (L, _), e in zip(law, noise, strict=True)]
        rungs.append(tuple(Point(N, D, L, f"{N:g} {D:g}") for L, (_, D) in zip(losses, law, strict=True)))
    return Ladder(origin, f"{origin} {seed}", tuple(rungs))


def test_the_corners_of_the_cube_are_the_ends_of_the_ranges(blind):
    low, high = (blind.settings_at((u,) * len(blind.RANGES)) for u in (0.0, 1.0))
    assert (low.recency, high.recency) == pytest.approx(blind.RANGES["recency"])
    assert low.prior_deviation == pytest.approx((0.05, 0.15, 0.15, 0.1, 0.2))
    assert high.prior_mean == pytest.approx((0.60, 0.60))
    assert low.kernel is None
    assert astuple(high.kernel) == pytest.approx((0.95, 8.0, 8.0, 1.0))


def test_every_setting_begins_with_the_scale_of_s1(blind):
    for place in blind.drawn(4):
        settings = blind.settings_at(place)
        assert settings.widening == blind.NOTHING_NEW.widening
        assert settings.few_records == 0.5


def test_what_is_drawn_fills_every_range_evenly(blind):
    places = np.array(blind.drawn(64))
    assert (np.sort(places, axis=0) // (1 / 4) == np.repeat(np.arange(4), 16)[:, None]).all()


def test_the_origin_that_is_left_out_has_no_say(blind):
    others = [made("one", 0), made("two", 1)]
    place = blind.drawn(2)[1]
    said = [
        blind.Choice([*others, made("left out", 2, raised=raised)]).surprise(place, "left out") for raised in (0.0, 0.3)
    ]
    assert said[0] == said[1]


def test_what_is_drawn_anew_lies_around_a_place_and_within_the_ranges(blind):
    place = (0.1, 0.9, *(0.5,) * (len(blind.RANGES) - 2))
    low, high = (end(np.array(blind.drawn_around(place)), axis=0) for end in (np.min, np.max))
    ends = np.array([(0.0, 0.35), (0.65, 1.0), *[(0.25, 0.75)] * (len(place) - 2)])
    assert (low >= ends[:, 0]).all()
    assert (high <= ends[:, 1]).all()
    assert (high - low > 0.9 * (ends[:, 1] - ends[:, 0])).all()


def test_the_average_is_the_likeliest_where_one_is_far_likelier(blind):
    choice = blind.Choice([made("one", 0), made("two", 1)])
    far = blind.drawn()[5]
    choice.surprise = lambda place, out: -1000.0 if place == far else 0.0  # in place of likelihoods
    assert choice.averaged("two") == pytest.approx(far)
