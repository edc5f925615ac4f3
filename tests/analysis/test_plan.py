"""The plan: the design beats even spacing, prices and memory follow published arithmetic, and answers are sound."""

import math
from itertools import pairwise

import numpy as np
import pytest

from sweep_analysis import memory, split
from sweep_analysis.flops import six_nd
from sweep_analysis.forecast import NoForecast
from sweep_analysis.plan import devices, labels, needs
from sweep_analysis.plan.following import Next, propose
from sweep_analysis.plan.ladder import (
    LARGEST_SHARE,
    LEAST_GROWTH,
    Step,
    TooLittleError,
    best_ladder,
    criterion,
    even,
)
from sweep_analysis.plan.prior import MAIN, PUBLISHED, assume, posterior, range_of
from sweep_analysis.plan.rehearsal import records, rehearse
from sweep_analysis.shape import Model, shape_for

TARGET = (7e9, 1.4e11)
LAW = assume().expected


@pytest.fixture(scope="module")
def design():
    return best_ladder(TARGET, 0.02 * six_nd(*TARGET), LAW)


# --- the ladder ------------------------------------------------------------------------------------------------------


def test_a_design_spends_what_it_was_given_and_no_run_is_nearly_the_target(design):
    assert design.flops == pytest.approx(0.02 * six_nd(*TARGET), rel=1e-6)
    assert design.largest <= LARGEST_SHARE * six_nd(*TARGET)


def test_every_rung_is_larger_than_the_one_before_and_costs_at_least_twice_the_compute(design):
    for before, after in pairwise(design.steps):
        assert after.parameters >= LEAST_GROWTH * before.parameters * 0.999
        assert after.largest >= 2 * before.largest * 0.999


def test_a_design_has_two_ratios_and_enough_rungs_to_judge_two(design):
    assert len({ratio for step in design.steps for ratio in step.ratios}) >= 2
    assert len(design.steps) >= 5


@pytest.mark.parametrize(("form", "least"), [({"step": 10.0}, 1.03), ({"step": 4.0}, 1.05)])
def test_simulated_climbs_are_narrower_than_even_spacing_at_the_same_cost(design, form, least):
    other = even(TARGET, design.flops, **form)
    assert other.flops == pytest.approx(design.flops, rel=1e-6)
    mine, theirs = (rehearse(each, TARGET, climbs=24) for each in (design, other))
    assert theirs.half_width / mine.half_width > least
    assert mine.coverage >= 0.85


def test_the_criterion_is_near_what_the_forecaster_says_of_simulated_climbs(design):
    told = rehearse(design, TARGET, climbs=24)
    assert math.expm1(criterion(design.steps, TARGET, LAW)) == pytest.approx(told.half_width, rel=0.35)
    assert criterion(design.steps, TARGET, LAW) == pytest.approx(design.half_width, rel=1e-6)


def test_more_money_never_widens_the_forecast():
    widths = [best_ladder(TARGET, share * six_nd(*TARGET), LAW).half_width for share in (0.003, 0.03, 0.3)]
    assert widths == sorted(widths, reverse=True)


def test_money_that_narrows_nothing_is_not_spent():
    target = (30e6, 3e9)
    assert best_ladder(target, 20 * six_nd(*target), LAW).flops < 2 * six_nd(*target)


def test_a_longer_least_step_is_kept():
    design = best_ladder(TARGET, 0.02 * six_nd(*TARGET), LAW, least_step=4.0)
    sizes = [step.largest for step in design.steps]
    assert all(after / before >= 3.99 for before, after in pairwise(sizes))


def test_a_budget_too_small_for_three_rungs_names_the_least():
    with pytest.raises(TooLittleError, match="would be the least") as refused:
        best_ladder(TARGET, 1e10, LAW, smallest=1e6)
    enough = best_ladder(TARGET, 2 * refused.value.least, LAW, smallest=1e6)
    assert len(enough.steps) >= 3


def test_a_branch_costs_its_decay_and_a_seed_costs_a_run():
    assert Step(100.0, (20.0,)).flops == 6 * 100**2 * 20
    assert Step(100.0, (10.0, 20.0)).flops == pytest.approx(6 * 100**2 * (20 + 0.3 * 10))
    assert Step(100.0, (20.0,), 3).flops == 3 * Step(100.0, (20.0,)).flops


def test_a_rehearsal_is_the_same_every_time(design):
    assert rehearse(design, TARGET, climbs=4) == rehearse(design, TARGET, climbs=4)


def test_a_design_that_cannot_be_forecast_from_is_refused_in_words():
    with pytest.raises(ValueError, match="3 sizes at 2 ratios"):
        rehearse(even(TARGET, 1e20, rungs=2), TARGET, climbs=2)


# --- the next rung ---------------------------------------------------------------------------------------------------


def test_each_proposal_narrows_more_than_every_cheaper_one(design):
    answer = propose(records(design, LAW, seed=1), TARGET)
    assert isinstance(answer, Next)
    assert all(p.half_width < answer.half_width for p in answer.proposals)
    assert [p.flops for p in answer.proposals] == sorted(p.flops for p in answer.proposals)
    assert [p.half_width for p in answer.proposals] == sorted((p.half_width for p in answer.proposals), reverse=True)


def test_proposals_keep_within_the_money_that_is_left(design):
    history = records(design, LAW, seed=1)
    answer = propose(history, TARGET, most_flops=3 * design.largest)
    assert all(p.flops <= 3 * design.largest for p in answer.proposals)
    assert propose(history, TARGET, most_flops=1.0).proposals == ()


def test_nothing_is_proposed_before_anything_can_be_forecast(design):
    assert isinstance(propose(records(design, LAW, seed=1)[:1], TARGET), NoForecast)


# --- prices ----------------------------------------------------------------------------------------------------------


def test_gpu_hours_are_flops_over_the_rate_and_buy_them_back():
    fleet = devices.Fleet(devices.device_of("H100"), mfu=(0.4, 0.4), price=2.0)
    hours = fleet.hours(six_nd(*TARGET))
    assert hours.value == pytest.approx(5.88e21 / (989.4e12 * 0.4) / 3600)
    assert fleet.flops(hours.value) == pytest.approx(six_nd(*TARGET))
    assert fleet.cost(hours).value == pytest.approx(2 * hours.value)


def test_the_interval_of_a_price_is_that_of_the_mfu():
    hours = devices.Fleet(devices.device_of("a100"), mfu=(0.2, 0.4)).hours(1e20)
    assert hours.high / hours.low == pytest.approx(2)
    assert hours.low < hours.value < hours.high


def test_an_unknown_gpu_is_answered_with_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"no GPU called 'h1000' is known; did you mean h100\?"):
        devices.device_of("h1000")


def test_a_device_without_a_known_price_has_none_until_it_is_given():
    device = devices.device_of("b200")
    hours = devices.Fleet(device).hours(1e20)
    assert devices.Fleet(device).cost(hours) is None
    assert devices.Fleet(device, price=4.0).cost(hours).value == pytest.approx(4 * hours.value)


def test_every_assumption_has_a_source():
    assert all(entry["source"] for entry in devices.Fleet(devices.device_of("h200")).assumptions().values())
    assert all(device.source for device in devices.DEVICES.values())


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_model_state_is_that_of_zeros_figure_1(stage, gigabytes):
    assert memory.state_bytes(7.5e9, stage, 64) / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_checkpointing_keeps_far_less_and_a_higher_stage_less_still():
    shape = shape_for(7 * 10**9, 256, Model())
    kept, dropped = (memory.activation_bytes(shape, 2048, checkpointing=c) for c in (False, True))
    assert dropped < 0.15 * kept
    totals = [memory.memory_of(shape, 2048, 64, stage, checkpointing=False).state_bytes for stage in (0, 1, 2, 3)]
    assert totals == sorted(totals, reverse=True)


def test_the_lightest_setting_fits_and_without_a_number_of_gpus_is_the_fewest():
    shape = shape_for(7 * 10**9, 256, Model())
    fit = memory.lightest(shape, 2048, 80e9)
    assert fit.memory.total_bytes <= memory.USABLE * 80e9
    assert memory.lightest(shape, 2048, 80e9, fit.memory.gpus // 2).memory is None


def test_what_does_not_fit_says_how_many_gpus_would():
    assert "2 would carry it" in memory.lightest(shape_for(7 * 10**9, 256, Model()), 2048, 80e9, 1).message


# --- needs -----------------------------------------------------------------------------------------------------------


def test_splits_agree_with_the_closed_form_and_inference_makes_the_model_smaller():
    law = assume()
    told = needs.splits(law, *TARGET, inference_tokens=2e12)
    N, _ = split.optimum(law.constants[:1], six_nd(*TARGET))
    assert told.optimal_parameters.value == pytest.approx(float(N[0]))
    assert told.optimal_parameters.low < told.optimal_parameters.value < told.optimal_parameters.high
    assert told.served_parameters.value < told.optimal_parameters.value
    served = float(law.loss(told.served_parameters.value, told.served_tokens.value)[0])
    assert served == pytest.approx(float(law.loss(*TARGET)[0]), rel=1e-6)
    assert 0 < told.served_saving < 1


def test_a_plateau_takes_longer_steps_the_further_up_the_ladder_stands():
    law = assume()
    small, large = (needs.plateau(law, N, 20 * N) for N in (1e8, 1e12))
    assert small.per_doubling > large.per_doubling
    assert small.step < large.step
    assert needs.plateau(law, 1e8, 2e9, half_width=0.05).step > small.step


def test_where_no_step_shows_a_plateau_there_is_none():
    assert needs.plateau(assume(), 1e16, 1e18).step is None


def test_an_exponent_error_grows_with_the_jump_and_costs_nothing_without_one():
    law = assume()
    near, far = (needs.exponent_error(law, *TARGET, jump=jump) for jump in (1.0, 100.0))
    assert near.split == pytest.approx(0, abs=1e-12)
    assert near.loss == pytest.approx(0, abs=1e-12)
    assert 0 < far.flops < 0.01 < far.split
    assert far.loss > 0


def test_a_corpus_read_once_costs_nothing_and_four_epochs_next_to_nothing():
    law = assume()
    once, four, forty = (needs.repetition(law, *TARGET, TARGET[1] / epochs) for epochs in (0.5, 4, 40))
    assert (once.missing, once.excess_loss.value) == (0, pytest.approx(0))
    assert 0 < four.excess_loss.value < 0.005 < forty.excess_loss.value
    assert four.effective_tokens.value > 0.9 * TARGET[1]
    assert forty.effective_tokens.value < 17 * TARGET[1] / 40


def test_the_assumed_law_is_a_published_one_and_its_doubt_covers_the_others():
    law = assume()
    assert tuple(law.expected) == PUBLISHED[MAIN]
    told = range_of(law.loss(*TARGET))
    for E, A, B, alpha, beta in PUBLISHED.values():
        assert told.low < E + A * TARGET[0] ** -alpha + B * TARGET[1] ** -beta < told.high


def test_a_ladders_own_law_replaces_the_assumed_one(design):
    law = posterior(records(design, LAW, seed=2))
    assert "this ladder's own" in law.source
    told = range_of(law.loss(*TARGET))
    truth = float(assume().loss(*TARGET)[0])
    assert told.low < truth < told.high


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_to_measure_a_share_follow_the_binomial():
    assert labels.measured_by(0.5, 0.01) == pytest.approx(9600, rel=0.001)
    assert labels.measured_by(0.9, 0.02) == pytest.approx(1.96**2 * 0.09 / 0.02**2, rel=0.02)


@pytest.mark.parametrize("text", ["accuracy=0.9±0.02", "accuracy=90%±2%", "accuracy = 0.9 +- 0.02"])
def test_a_metric_is_read_in_the_forms_people_write(text):
    metric = labels.parse_metric(text)
    assert (metric.name, metric.value, metric.half_width) == ("accuracy", pytest.approx(0.9), pytest.approx(0.02))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("accuracy", "accuracy=0.9 or accuracy=0.9±0.02 would be right"),
        ("acuracy=0.9", "did you mean accuracy?"),
        ("accuracy=9", "a share lies between 0 and 1"),
        ("accuracy=0.9±0.9", "is not between 0 and 0.5"),
    ],
)
def test_a_metric_that_cannot_be_read_is_answered_in_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        labels.parse_metric(text)


def test_a_pilot_tells_the_labels_that_reach_a_value(tmp_path):
    rng = np.random.default_rng(0)
    counts = [100, 200, 400, 800, 1600, 3200, 6400]
    rows = [f"{n},{1 - (0.05 + 2 * n**-0.5) * (1 + 0.01 * rng.standard_normal())}" for n in counts]
    pilot = tmp_path / "pilot.csv"
    pilot.write_text("labels,accuracy\n" + "\n".join(rows) + "\n")
    told = labels.labels_for(labels.parse_metric("accuracy=0.93"), pilot)
    assert told.reached_by.low <= 10_000 <= told.reached_by.high
    assert told.reached_by.value == pytest.approx(10_000, rel=0.3)
    beyond = labels.labels_for(labels.parse_metric("accuracy=0.99"), pilot)
    assert beyond.reached_by is None
    assert "beyond what the pilot's law ever reaches" in beyond.message
