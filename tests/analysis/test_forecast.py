"""Forecasts: what they promise, what they refuse, and that nothing but the evidence moves them."""

import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sweep_analysis import surface
from sweep_analysis.forecast import (
    Forecast,
    NoForecast,
    Point,
    evidence_digest,
    evidence_of,
    forecast,
    planned_records,
)
from sweep_analysis.predictive import History, Settings
from sweep_analysis.rung import Run


def law(N, D):
    return 1.7 + 400 / N**0.34 + 400 / D**0.28


def ladder(rungs=4, ratios=(10, 20, 40), noise=0.0007, seeds=1, first=3e7, growth=2, seed=0):
    rng = np.random.default_rng(seed)
    return [
        [
            Point(N, N * r, law(N, N * r) * math.exp(noise * rng.standard_normal()), f"{N:g}-{s}")
            for s in range(seeds)
            for r in ratios
        ]
        for N in (first * growth**i for i in range(rungs))
    ]


def told(history, at=((4.8e8, 4.8e9), (4.8e8, 1.92e10)), **options):
    result = forecast(history, list(at), **options)
    assert isinstance(result, Forecast)
    return result


def test_a_known_law_is_forecast_within_its_interval():
    for prediction in told(ladder()).predictions:
        assert prediction.low < law(prediction.parameters, prediction.tokens) < prediction.high


def test_nine_in_ten_noisy_ladders_are_covered_at_a_stated_95_percent():
    inside = []
    for seed in range(60):
        rungs = ladder(5, noise=0.004, seed=seed)
        at = [(p.parameters, p.tokens) for p in rungs[4]]
        for prediction, seen in zip(told(rungs[:4], at).predictions, rungs[4], strict=True):
            inside.append(prediction.low <= seen.loss <= prediction.high)
    assert np.mean(inside) > 0.9


def test_the_order_of_records_changes_no_bit():
    rungs = ladder()
    shuffled = [random.Random(7).sample(rung, len(rung)) for rung in rungs]
    assert told(rungs) == told(shuffled)
    assert evidence_digest(rungs) == evidence_digest(shuffled)


def test_another_loss_is_another_evidence():
    rungs = ladder()
    changed = [[*rungs[0][1:], Point(*[rungs[0][0].parameters, rungs[0][0].tokens], 4.0, rungs[0][0].run)], *rungs[1:]]
    assert evidence_digest(rungs) != evidence_digest(changed)


def test_a_longer_jump_is_less_certain():
    near, far = (told(ladder(), [(N, 20 * N)]) for N in (4.8e8, 1e10))
    assert far.half_width > 2 * near.half_width
    assert far.jump > near.jump > 1


def test_four_records_are_enough_and_say_how_little_they_know():
    few = [
        [Point(1e7, 1e8, 4.2, "a"), Point(1e7, 4e8, 3.9, "a")],
        [Point(2e7, 4e8, 3.7, "b")],
        [Point(4e7, 8e8, 3.45, "c")],
    ]
    assert told(few).half_width > told(ladder()).half_width


def test_four_hundred_records_are_answered_too():
    many = ladder(8, ratios=tuple(range(5, 55)))
    assert told(many, [(1e10, 2e11)]).records == 400


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([], "TooFewRecords"),
        (ladder(2), "TooFewRecords"),
        (ladder(5, ratios=(20,)), "UnidentifiedLaw"),
        ([[Point(1e7 * (1 + 0.01 * i), 2e8, 3.5, str(i)) for i in range(9)]], "TooFewRecords"),
    ],
)
def test_a_design_that_identifies_nothing_is_not_forecast(history, reason):
    result = forecast(history, [(1e9, 2e10)])
    assert isinstance(result, NoForecast)
    assert result.reason == reason
    assert result.message


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_a_loss_that_no_run_can_have_is_refused_with_its_place(loss):
    with pytest.raises(ValueError, match=r"loss = .* at N = 1e\+07"):
        forecast([[Point(1e7, 1e8, loss, "a")]], [(1e9, 2e10)])


def test_an_uncalibrated_law_does_not_forecast():
    with pytest.raises(ValueError, match="no calibrated interval"):
        forecast(ladder(), [(1e9, 2e10)], law="Kaplan")


def test_one_freak_record_moves_the_forecast_less_than_its_interval():
    clean = ladder(5)
    broken = [list(rung) for rung in clean]
    freak = broken[2][1]
    broken[2][1] = Point(freak.parameters, freak.tokens, 1.2 * freak.loss, freak.run)
    at = [(9.6e8, 1.92e10)]
    before, after = told(clean, at).predictions[0], told(broken, at).predictions[0]
    assert before.low < after.loss < before.high


def test_replicates_that_disagree_widen_the_forecast():
    quiet = ladder(4, seeds=3, noise=1e-5)
    loud = ladder(4, seeds=3, noise=0.02)
    assert told(loud).half_width > told(quiet).half_width


def test_branches_of_one_run_are_no_independent_evidence_of_the_rung():
    at = [(4.8e8, 4.8e9), (4.8e8, 9.6e9), (4.8e8, 1.92e10)]
    joined, apart = (told(ladder(), at, runs=runs).deviation.scale for runs in (("a",) * 3, tuple("abc")))
    assert joined > apart


def test_a_later_checkpoint_keeps_what_was_special_of_its_run():
    rungs = [list(rung) for rung in ladder(5)]
    odd = [Point(3e8, D, 1.03 * law(3e8, D), "shallow") for D in (3e9, 4e9)]
    rungs[3] += odd
    (alone,), (known,) = (told(rungs, [(3e8, 5e9)], runs=[name]).predictions for name in ("new", "shallow"))
    truth = 1.03 * law(3e8, 5e9)
    assert abs(math.log(known.loss / truth)) < abs(math.log(alone.loss / truth))


def test_some_of_what_runs_of_one_ratio_had_of_their_own_is_expected_of_the_next_of_that_ratio():
    rungs = [
        [replace(p, loss=p.loss * (1.01 if p.tokens < 4 * p.parameters else 1.0)) for p in rung]
        for rung in ladder(7, ratios=(3, 10, 20, 40), noise=0.003)
    ]
    short = min(rungs[6], key=lambda p: p.tokens)
    at = np.log([short.parameters]), np.log([short.tokens])
    knowing, forgetful = (
        History(evidence_of(rungs[:6]), settings).predict(6, *at, ["new"]).mean[0]
        for settings in (Settings(), Settings(kernel=None))
    )
    assert abs(math.log(short.loss) - knowing) < 0.9 * abs(math.log(short.loss) - forgetful)


def test_four_hundred_records_give_the_same_bits_on_one_and_two_blas_threads():
    program = (
        "from sweep_analysis.forecast import Point, forecast\n"
        "law = lambda N, D: 1.7 + 400 / N**0.34 + 400 / D**0.28\n"
        "sizes, ratios = [3e7 * 1.5**i for i in range(8)], range(5, 55)\n"
        "past = [[Point(N, N * r, law(N, N * r) * (1 + 1e-3 * (r % 7)), f'{N}-{r}') for r in ratios] for N in sizes]\n"
        "print(repr(forecast(past, [(2e9, 2e9 * r) for r in range(2, 122)])))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"OPENBLAS_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(answers) == 1


def test_planned_records_name_the_run_that_owes_them():
    at, owed = planned_records([Run(parameters=10, tokens=(100, 200)), Run(parameters=20, tokens=(200,))])
    assert at == [(10, 100), (10, 200), (20, 200)]
    assert owed[0] == owed[1] != owed[2]


def test_every_past_of_a_ladder_is_fitted_in_one_batch_of_three_passes(monkeypatch):
    rungs = ladder(5, ratios=(5, 10, 20, 40))
    calls = []
    fit = surface.fit
    monkeypatch.setattr(surface, "fit", lambda *a, **k: calls.append(1) or fit(*a, **k))
    told(rungs)
    assert len(calls) == 3


def test_the_jacobian_is_the_derivative_by_complex_step():
    rng = np.random.default_rng(1)
    theta = rng.normal(0, 0.5, (4, 5))
    u, v = rng.normal(0, 2, (2, 4, 6))
    exact = surface.jacobian(theta, u, v)
    for i in range(5):
        stepped = theta.astype(complex)
        stepped[:, i] += 1e-30j
        np.testing.assert_allclose(exact[..., i], surface.log_loss(stepped, u, v).imag / 1e-30, rtol=1e-12, atol=1e-15)


def test_the_optimum_is_the_lowest_loss_of_its_compute():
    theta = np.log([[1.7, 0.8, 0.9, 0.34, 0.37]])
    splits = np.linspace(-4, 4, 20001)[None]
    best = surface.log_loss(theta, splits, 1.5 - splits).min()
    assert surface.optimum(theta, np.array([[1.5]]))[0, 0] == pytest.approx(best, abs=1e-8)


def test_the_fit_recovers_a_law_that_its_records_pin_down():
    rng = np.random.default_rng(3)
    truth = np.log([[1.8, 0.7, 0.9, 0.33, 0.37]])
    u, v = rng.uniform(-4, 3, (2, 1, 200))
    y = surface.log_loss(truth, u, v)
    fits = surface.fit(u, v, y, np.full_like(u, 1e10), truth + 0.3, np.full((1, 5), 1.0))
    assert fits.converged.all()
    np.testing.assert_allclose(fits.theta, truth, atol=1e-4)


def test_a_past_is_fitted_without_a_look_at_later_rungs():
    rungs = ladder(6, noise=0.004)
    whole, part = History(evidence_of(rungs)), History(evidence_of(rungs[:4]))
    at = np.log([4.8e8]), np.log([9.6e9])
    assert whole.predict(4, *at, ["x"]).mean == pytest.approx(part.predict(4, *at, ["x"]).mean, abs=1e-9)
    assert whole.own_scale(4) == pytest.approx(part.own_scale(4))


def test_priors_stay_sane_far_from_the_scales_they_were_learnt_on():
    for compute in (1e9, 1e13, 1e25):
        history = History(evidence_of([[Point((compute / 120) ** 0.5, 20 * (compute / 120) ** 0.5, 2.0, "a")]]))
        E = math.exp(history.fits.theta[0, 0])
        assert 0.2 < E / 2.0 < 0.9
