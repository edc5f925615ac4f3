"""The gate in worlds whose truth is known: a seeded sample of what benchmarks/error_rates.py counts in thousands."""

import json
from pathlib import Path

import pytest

from sweep_analysis.gate import Outcome, Reason
from sweep_analysis.simulate import SOUND, World, climb, draw

SEEDS = range(8)


def ends(world, noise=1.0, seeds=SEEDS):
    return [climb(draw(world, seed, noise=noise)) for seed in seeds]


@pytest.mark.parametrize("noise", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("world", SOUND)
def test_sound_ladders_are_climbed_to_their_end(world, noise):
    assert [c.held_at for c in ends(world, noise)] == [None] * len(SEEDS)


@pytest.mark.parametrize("noise", [1.0, 10.0])
def test_a_bend_of_three_percent_is_caught_most_of_the_time(noise):
    caught = [c.held_at == c.truth.broken for c in ends(World.BEND, noise, range(15))]
    assert sum(caught) >= 0.7 * len(caught)


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World.PLATEAU, Reason.LOSS_ABOVE_PREDICTION),
        (World.DATA_EXHAUSTED, Reason.OUT_OF_DATA),
        (World.BAD_RUN, Reason.ONE_RUN_OFF),
        (World.MISSING, Reason.RECORDS_MISSING),
        (World.DUPLICATED, Reason.RECORDS_DUPLICATED),
    ],
)
def test_a_broken_rung_is_held_for_its_own_reason(world, reason):
    for climbed in ends(world, seeds=range(4)):
        assert climbed.held_at == climbed.truth.broken
        assert climbed.verdicts[-1][1].reason is reason


def test_a_slow_ladder_is_stopped():
    assert all(c.held_at is not None for c in ends(World.SLOW, seeds=range(4)))


@pytest.mark.parametrize(("world", "factor"), [(World.BAD_RUNG, 0.0625), (World.DIVERGED, 0.25)])
def test_a_wrongly_tuned_rung_is_retuned_rerun_whole_and_passes(world, factor):
    for climbed in ends(world, seeds=range(4)):
        retuned = [verdict.retune for _, verdict in climbed.verdicts if verdict.retune is not None]
        assert retuned == [factor]
        assert climbed.held_at is None


def test_diagnosis_costs_are_counted():
    sound, retuned = climb(draw(World.HEALTHY, 1)), climb(draw(World.BAD_RUNG, 1))
    broken = retuned.truth.broken
    planned = sum(run.flops for run in retuned.truth.design.rung(broken)) / 4e14 / 3600
    assert retuned.gpu_hours[broken] > 2 * planned
    assert len(sound.gpu_hours) == len(sound.truth.design.sizes)


def test_the_same_seed_gives_the_same_verdicts():
    first, second = (climb(draw(World.ROUGH, 3)) for _ in range(2))
    assert [v.digest for _, v in first.verdicts] == [v.digest for _, v in second.verdicts]


def test_first_rungs_are_promoted_without_being_called_consistent():
    climbed = climb(draw(World.HEALTHY, 0))
    assert [v.outcome for number, v in climbed.verdicts if number < 3] == [Outcome.NOT_JUDGED] * 3


ROOT = Path(__file__).parents[2]


def test_the_page_of_the_gate_says_what_was_counted():
    kept = json.loads((ROOT / "benchmarks/results/error_rates.json").read_text())
    page = (ROOT / "docs/gate.md").read_text(encoding="utf-8").partition("<!-- error rates -->")[2]
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    rows = {first: rest for first, *rest in reversed(lines)}
    assert kept["ladders"] >= 1000
    for world, ended in kept["ended"].items():
        total = sum(ended.values())
        most = sorted(ended.items(), key=lambda item: -item[1])[:4]
        assert rows[world][0] == str(total) == str(kept["ladders"]), world
        assert rows[world][3].partition(";")[0] == ", ".join(f"{end} {n / total:.1%}" for end, n in most), world
    sound = [name for name in kept["ended"] if name.startswith(("Healthy", "Rough"))]
    assert len(sound) == 7
    assert all(kept["ended"][name]["climbed"] >= 0.95 * kept["ladders"] for name in sound)
    caught = [kept["ended"][f"Bend, noise {n}x"]["at Fail/LossAbovePrediction"] for n in (1, 3, 10)]
    assert min(caught) >= 0.8 * kept["ladders"]
