"""The rules by which benchmarks/calibration.py chooses constants without the origin that is scored."""

import importlib
import json
import math
from dataclasses import astuple, is_dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def choosing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("choosing")


TRIED = (
    *("entropy_at", "entropy_slope", "prior_mean", "prior_deviation", "fit_floor", "fit_off_optimum", "oversized"),
    *("fit_adapts", "fit_adapts_from", "recency", "outlier", "below_data", "few_records", "widening", "kernel"),
)
"""What was set by hand; the other constants are tuned, or not in use."""


def numbers(settings, names=None):
    values = [getattr(settings, name) for name in names or settings.__dataclass_fields__]
    return np.hstack([np.ravel(astuple(v) if is_dataclass(v) else v) for v in values])


@pytest.mark.parametrize("name", TRIED)
def test_every_constant_that_was_set_by_hand_is_tried_higher_and_lower(choosing, name):
    tried = np.array([numbers(s, [name]) for s in choosing.VARIANTS.values() if s.kernel])
    default = numbers(choosing.NEUTRAL, [name])
    assert (tried.min(axis=0) < default).all()
    assert (tried.max(axis=0) > default).all()


def test_the_average_is_the_likeliest_where_one_is_far_likelier(choosing):
    seen = dict.fromkeys(choosing.VARIANTS, 0.0) | {"higher floor": -1.0}
    assert choosing.likeliest(seen) == "higher floor"
    assert numbers(choosing.averaged(seen, 100)) == pytest.approx(numbers(choosing.VARIANTS["higher floor"]))


def test_weights_are_likelihoods_to_the_number_of_ladders(choosing):
    seen = {"as shipped": 0.0, "higher floor": math.log(2.0) / 10}
    for rule in (choosing.averaged, choosing.averaged_one_by_one):
        assert rule(seen, 10).fit_floor == pytest.approx(0.0022 ** (2 / 3) * 0.0032 ** (1 / 3))


def test_constants_averaged_on_their_own_all_move_at_once(choosing):
    seen = dict.fromkeys(choosing.VARIANTS, 0.0) | {"higher floor": -1.0, "more recency": -1.0}
    alone, together = choosing.averaged_one_by_one(seen, 100), choosing.averaged(seen, 100)
    assert (alone.fit_floor, alone.recency) == pytest.approx((0.0032, 2.1))
    assert (together.fit_floor, together.recency) == pytest.approx((math.sqrt(0.0022 * 0.0032), math.sqrt(1.7 * 2.1)))


def test_a_variant_without_kernel_has_no_constants_to_average(choosing):
    seen = dict.fromkeys(choosing.VARIANTS, 0.0) | {"nothing carried from the past": -9.0}
    assert choosing.averaged(seen, 100) == choosing.averaged(dict.fromkeys(choosing.VARIANTS, 0.0), 100)


def test_the_shipped_constants_are_what_averaging_gives_on_all_origins_rounded(choosing):
    kept = json.loads((ROOT / "benchmarks" / "results" / "calibration.json").read_text())["averaged"]
    for name in TRIED:
        value = getattr(choosing.NEUTRAL, name)
        rounded = numbers(choosing.NEUTRAL, [name])
        mean = list(kept[name].values()) if is_dataclass(value) else np.ravel(kept[name])
        assert mean == pytest.approx(rounded, rel=0.05), name
