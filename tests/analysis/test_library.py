"""What a user sees of the analysis library: the choice of a law, frontiers, comparisons, compounding, and its page."""

import math
from pathlib import Path

import numpy as np
import pytest

import sweep_analysis as sa
from sweep_analysis.fit import Estimate
from sweep_analysis.laws import LAWS
from sweep_analysis.laws.__main__ import page
from sweep_analysis.split import exponents
from sweep_analysis.table import TableError

TRUTH = {"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def _loss(N, D, constants=TRUTH, noise=0.0, seed=0):
    loss = LAWS["Chinchilla"].predict(constants, parameters=N, tokens=D)
    return loss * np.exp(noise * np.random.default_rng(seed).standard_normal(np.shape(loss)))


def _ladder(constants=TRUTH, noise=2e-3, seed=0, sizes=9, ratios=(5.0, 20.0, 80.0)):
    N, r = (v.ravel() for v in np.meshgrid(np.geomspace(3e7, 8e9, sizes), ratios))
    return {"parameters": N, "tokens": N * r, "loss": _loss(N, N * r, constants, noise, seed)}


def test_the_page_of_laws_is_what_the_command_writes():
    assert (Path(__file__).parents[2] / "docs/laws.md").read_text(encoding="utf-8") == page()


def test_the_law_that_made_the_data_is_chosen():
    steep = {"E": 1.9, "A": 4e4, "B": 600.0, "alpha": 0.6, "beta": 0.28}
    choice = sa.choose(_ladder(steep, noise=1e-3))
    assert choice.law == "Chinchilla"
    assert choice.candidates[0].chosen
    assert choice.fit.status == "Converged"


def test_every_law_ruled_out_has_its_reason():
    choice = sa.choose(_ladder())
    assert {c.law for c in choice.candidates} >= {"Chinchilla", "SaturatingCompute", "OverTraining", "KaplanCompute"}
    assert sum(c.chosen for c in choice.candidates) == 1
    for candidate in choice.candidates:
        assert candidate.reason.startswith("chosen" if candidate.chosen else "ruled out")
    assert "held out" in str(choice)


def test_the_choice_is_not_by_in_sample_error():
    N = np.geomspace(1e7, 1e10, 12)
    data = {"parameters": N, "tokens": 20 * N, "loss": _loss(N, 20 * N, noise=1e-2, seed=4)}
    choice = sa.choose(data, ["SaturatingCompute", "BrokenPower", "KaplanCompute"])
    inside = {c.law: c.in_sample for c in choice.candidates}
    assert inside["BrokenPower"] <= min(inside.values()) * 1.02
    assert choice.law != "BrokenPower"


def test_below_seven_rungs_no_law_without_a_floor_is_chosen():
    for seed in range(4):
        N = np.geomspace(1e8, 4e9, 6)
        data = {"parameters": N, "tokens": 20 * N, "loss": _loss(N, 20 * N, noise=5e-3, seed=seed)}
        choice = sa.choose(data, ["SaturatingCompute", "KaplanCompute"])
        assert choice.law == "SaturatingCompute"


def test_one_ratio_rules_the_surface_out_with_the_remedy():
    N = np.geomspace(1e8, 4e9, 9)
    choice = sa.choose({"parameters": N, "tokens": 20 * N, "loss": _loss(N, 20 * N, noise=1e-3)})
    reason = next(c.reason for c in choice.candidates if c.law == "Chinchilla")
    assert "Unidentified" in reason
    assert "add a second ratio" in reason


def test_a_law_of_a_further_column_is_a_candidate_where_the_column_varies():
    N, experts = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), [1.0, 2.0, 8.0, 32.0, 128.0, 512.0]))
    truth = {"a": -0.08, "b": -0.1, "c": 0.004, "d": 2.4, "E_start": 2.0, "E_max": 300.0}
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(N)))
    routed = {"parameters": N, "experts": experts}
    routed["loss"] = LAWS["RoutedExperts"].predict(truth, **routed) * noise
    assert sa.choose(routed).law == "RoutedExperts"
    assert sa.choose({**routed, "tokens": np.full(len(N), 1.3e11)}).law == "RoutedExperts"
    s = np.geomspace(512, 32768, 7)
    assert sa.choose({"context": s, "loss": 1.8 + 2 * s**-0.3}).law == "ContextLength"


def test_a_further_column_with_gaps_costs_its_own_law_alone():
    data = _ladder()
    steps = np.where(np.arange(len(data["loss"])) == 3, np.nan, data["tokens"] / 1e6)
    choice = sa.choose({**data, "steps": steps, "context": np.full(len(steps), 2048.0)})
    reasons = {c.law: c.reason for c in choice.candidates}
    assert "not every row has steps" in reasons["KaplanParametersSteps"]
    assert "ContextLength" not in reasons
    assert choice.fit.constants == sa.choose(data).fit.constants


def test_a_choice_names_the_row_whose_size_or_data_is_missing():
    data = _ladder()
    data["tokens"] = np.where(np.arange(len(data["loss"])) == 2, np.nan, data["tokens"])
    with pytest.raises(TableError, match="row 3 of the records: tokens is missing"):
        sa.choose(data)


def test_a_law_of_anything_but_loss_is_no_candidate():
    data = {"loss": np.linspace(2, 4, 14), "accuracy": np.linspace(0.8, 0.3, 14)}
    with pytest.raises(ValueError, match="DownstreamSigmoid is a law of accuracy; the choice is among laws of loss"):
        sa.choose(data, ["DownstreamSigmoid"])


def test_why_a_law_of_lower_error_was_ruled_out_is_said():
    lower = []
    for seed in range(6):
        best, *others = sa.choose(_ladder(sizes=5, seed=seed), ["Chinchilla", "OverTraining"]).candidates
        lower += [c for c in others if c.held_out < best.held_out]
    assert lower
    for candidate in lower:
        assert "no floor" in candidate.reason or "not a standard error below" in candidate.reason


def test_a_law_without_a_floor_that_nothing_could_be_tried_against_says_so():
    N = np.array([2e7, 6e7, 2e8, 6e8])
    chosen = sa.choose({"parameters": N, "tokens": 20 * N, "loss": _loss(N, 20 * N)}).candidates[0]
    assert chosen.law.startswith("Kaplan")  # at one ratio they are one law
    assert "no law with a floor could be tried against it" in chosen.reason


def test_nothing_to_choose_is_said():
    with pytest.raises(TableError, match="no law can be chosen"):
        sa.choose({"parameters": [1e8], "tokens": [1e9], "loss": [3.0]})
    with pytest.raises(TableError, match="no columns that a law of loss needs"):
        sa.choose({"colour": [1.0], "loss": [3.0]})


def _isoflops(noise=0.0):
    C, shift = (v.ravel() for v in np.meshgrid(np.geomspace(1e18, 1e21, 7), np.geomspace(0.2, 5.0, 9)))
    a = exponents(TRUTH)[0]
    G = (TRUTH["alpha"] * TRUTH["A"] / (TRUTH["beta"] * TRUTH["B"])) ** (1 / (TRUTH["alpha"] + TRUTH["beta"]))
    N = G * (C / 6) ** a * shift
    return {"parameters": N, "flops": C, "loss": _loss(N, C / (6 * N), noise=noise)}


def test_isoflop_valleys_return_the_exponent_of_the_surface():
    frontier = sa.isoflop_frontier(_isoflops())
    assert frontier.parameters_exponent.value == pytest.approx(exponents(TRUTH)[0], abs=2e-3)
    assert frontier.parameters_exponent.value + frontier.tokens_exponent.value == pytest.approx(1.0)
    assert frontier.flops(frontier.parameters(1e20)) == pytest.approx(1e20)
    noisy = sa.isoflop_frontier(_isoflops(2e-3)).parameters_exponent
    assert noisy.low < exponents(TRUTH)[0] < noisy.high


def test_curves_without_a_valley_are_left_out_with_the_remedy():
    data = _isoflops()
    cut = data["flops"] < 1.5e18
    N0 = np.median(data["parameters"][cut])
    keep = ~cut | (data["parameters"] > N0)
    frontier = sa.isoflop_frontier({k: v[keep] for k, v in data.items()})
    assert len(frontier.valleys) == 6
    assert "add smaller models" in frontier.left_out[0]
    with pytest.raises(TableError, match="three are needed"):
        sa.isoflop_frontier({k: v[:6] for k, v in data.items()})


def test_the_envelope_of_learning_curves_returns_the_exponent_of_the_surface():
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 25), np.geomspace(1e7, 1e12, 120)))
    frontier = sa.envelope_frontier({"parameters": N, "tokens": D, "loss": _loss(N, D), "run": [f"{n:g}" for n in N]})
    assert frontier.parameters_exponent.value == pytest.approx(exponents(TRUTH)[0], abs=0.02)
    assert frontier.parameters_exponent.low < exponents(TRUTH)[0] < frontier.parameters_exponent.high


def test_an_envelope_needs_runs():
    with pytest.raises(TableError, match="no column run"):
        sa.envelope_frontier(_ladder())


def test_two_equal_corpora_cannot_be_told_apart():
    p = [sa.compare_corpora(_ladder(seed=i), _ladder(seed=i + 50)).p_value for i in range(30)]
    assert np.mean(np.array(p) < 0.05) < 0.2
    assert "cannot be told apart" in sa.compare_corpora(_ladder(), _ladder()).message


def test_an_offset_and_a_slope_between_corpora_are_found():
    first, second = _ladder(seed=1), _ladder(seed=2)
    C = 6 * second["parameters"] * second["tokens"]
    centre = np.exp(np.mean(np.log(C)))
    second["loss"] = second["loss"] * 1.03 * (C / centre) ** -0.004
    told = sa.compare_corpora(first, second)
    assert told.offset.low < 0.03 < told.offset.high
    assert told.slope.low < -0.004 < told.slope.high
    assert told.centre == pytest.approx(centre, rel=1e-9)
    assert told.p_value < 1e-6
    back = sa.compare_corpora(second, first)
    assert math.log1p(back.offset.value) == pytest.approx(-math.log1p(told.offset.value), abs=1e-6)


def test_corpora_are_compared_along_compute_only():
    with pytest.raises(TableError, match="along compute"):
        sa.compare_corpora(_ladder(), _ladder(), "ContextLength")


def test_a_constant_offset_is_told_from_one_that_grows():
    loss = np.linspace(2.2, 4.0, 20)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(20)
    same = sa.offset_test({"loss": loss, "other_loss": loss + 0.3 + noise})
    grows = sa.offset_test({"loss": loss, "other_loss": 1.05 * loss + 0.2 + noise})
    assert same.offset.low < 0.3 < same.offset.high
    assert same.p_value > 0.01
    assert grows.p_value < 1e-6
    with pytest.raises(TableError, match="needs 4"):
        sa.offset_test({"loss": [2.0, 2.0], "other_loss": [3.0, 3.0]})


def _metric():
    loss = np.linspace(2.0, 3.4, 25)
    truth = {"floor": 0.25, "rise": 0.6, "k": 5.0, "L0": 2.6}
    accuracy = LAWS["DownstreamSigmoid"].predict(truth, loss=loss)
    noisy = accuracy + 0.01 * np.random.default_rng(0).standard_normal(25)
    return sa.fit({"loss": loss, "accuracy": noisy}, "DownstreamSigmoid")


def test_a_compounded_interval_is_wider_than_either_alone():
    metric = _metric()
    sharp = Estimate(value=2.4, low=2.3999, high=2.4001, confidence=0.95)
    loose = Estimate(value=2.4, low=2.3, high=2.5, confidence=0.95)
    narrow, wide = sa.compound(metric, sharp), sa.compound(metric, loose)

    def width(e):
        return e.high - e.low

    assert width(narrow) > 0.02
    assert width(wide) > 2 * width(narrow)
    assert narrow.value == wide.value == pytest.approx(float(metric.predict(loss=2.4)))


def test_a_fraction_stays_a_fraction():
    told = sa.compound(_metric(), Estimate(value=2.4, low=0.5, high=8.0, confidence=0.95))
    assert 0.0 <= told.low < told.high <= 1.0


def test_a_metric_is_a_law_of_loss_alone():
    with pytest.raises(TableError, match="law of loss alone"):
        sa.compound(sa.fit(_ladder()), Estimate(value=2.4, low=2.3, high=2.5, confidence=0.95))


def test_what_is_told_of_splits_frontiers_and_corpora_reads_as_one_sentence():
    fit = sa.fit(_ladder())
    frontier = sa.isoflop_frontier(_isoflops(noise=1e-3))
    split = sa.optimal_split(fit, 1e21, inference_tokens=1e12, refits=20)
    same = sa.compare_corpora(_ladder(), _ladder())
    offset = sa.offset_test({"loss": np.linspace(2, 4, 8), "other_loss": np.linspace(2.3, 4.3, 8)})
    for told, starts in (
        (frontier, "<Frontier by approach 2: N* ~ C^0.5"),
        (split, f"<Split of {split.flops:.4g} FLOPs, 1e+12 tokens served: "),
        (sa.penalty(fit, 7e9, 1e12), "<Penalty: "),
        (same, "<Comparison by Chinchilla: the corpora cannot be told apart"),
        (offset, "<OffsetTest: offset 0.3 [0.3, 0.3], slope 1 [1, 1] against 1"),
    ):
        assert repr(told) == str(told)
        assert repr(told).startswith(starts), repr(told)
        assert "\n" not in repr(told)
        assert len(repr(told)) < 250
    assert "-0.00 %" not in same.message
    assert frontier._repr_html_().count("<tr>") == 1 + len(frontier.valleys)
