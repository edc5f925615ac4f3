"""Phases and patterns, read from ladders whose truth is known."""

import pytest

from sweep_analysis.forecast import Point, points_of
from sweep_analysis.phases import Pattern, Phase, pattern_of, phase_of, read
from sweep_analysis.simulate import World, draw


def seen(world, seed, rungs=None):
    truth = draw(world, seed)
    last = min(truth.broken, len(truth.design.sizes) - 1) + 1 if rungs is None else rungs
    return [points_of(record for run in truth.design.rung(i) for record in truth.results(run, i)) for i in range(last)]


SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_ladder_scales_and_is_ordinal(seed):
    ladder = seen(World.HEALTHY, seed)
    assert (phase_of(ladder), pattern_of(ladder)) == (Phase.SCALING, Pattern.ORDINAL)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ladder_that_speeds_up_from_its_start_is_cold(seed):
    assert phase_of(seen(World.COLD_START, seed, rungs=3)) is Phase.COLD_START


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cold_start_ends_when_the_law_takes_over(seed):
    assert phase_of(seen(World.COLD_START, seed)) is Phase.SCALING


@pytest.mark.parametrize("seed", SEEDS)
def test_compute_that_buys_nothing_is_a_plateau(seed):
    assert phase_of(seen(World.PLATEAU, seed)) is Phase.PLATEAU


@pytest.mark.parametrize(
    ("world", "pattern"),
    [
        (World.EMERGENT, Pattern.EMERGENT),
        (World.DATA_EXHAUSTED, Pattern.OUT_OF_DATA),
        (World.SLOW, Pattern.SLOW),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_story_is_told_by_its_name(world, pattern, seed):
    assert pattern_of(seen(world, seed)) is pattern


def test_a_budget_that_does_not_carry_the_next_rung_is_out_of_compute():
    assert pattern_of(seen(World.HEALTHY, 0), affordable=False) is Pattern.OUT_OF_COMPUTE


def test_the_numbers_behind_the_words_are_given():
    reading = read(seen(World.HEALTHY, 0))
    assert reading.exponent_low < reading.exponent < reading.exponent_high
    assert reading.gain > reading.noise > 0


def test_one_rung_is_read_without_claims():
    reading = read([[Point(1e7, 2e8, 3.5, "a")]])
    assert (reading.phase, reading.pattern, reading.exponent) == (Phase.SCALING, Pattern.ORDINAL, 0.0)


def test_a_ladder_without_records_has_no_phase():
    with pytest.raises(ValueError, match="without records"):
        read([[]])
