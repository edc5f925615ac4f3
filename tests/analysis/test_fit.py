"""Fits: exact where they must be exact, honest where they cannot, and the same whatever the order, units or threads."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import sweep_analysis as sa
from sweep_analysis import solve
from sweep_analysis.bootstrap import bootstrap, refit
from sweep_analysis.choose import choose
from sweep_analysis.fit import FitStatus, fit, identifies
from sweep_analysis.laws import LAWS
from sweep_analysis.split import exponents, optimal_split, penalty

TRUTH = {"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def _sweep(noise=3e-3, seed=0, ratios=(5.0, 20.0, 80.0), sizes=8):
    N, r = (v.ravel() for v in np.meshgrid(np.geomspace(5e7, 5e9, sizes), ratios))
    loss = LAWS["Chinchilla"].predict(TRUTH, parameters=N, tokens=N * r)
    return {
        "parameters": N,
        "tokens": N * r,
        "loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N))),
    }


SWEEP = _sweep()


def _shuffled(data, seed):
    order = np.random.default_rng(seed).permutation(len(data["loss"]))
    return {k: v[order] for k, v in data.items()}


def test_order_of_records_changes_nothing_bit_for_bit():
    first = fit(SWEEP)
    for seed in range(5):
        again = fit(_shuffled(SWEEP, seed))
        assert again.constants == first.constants
        assert (again.covariance == first.covariance).all()
        assert again.objective == first.objective
        assert (bootstrap(again, 60).samples == bootstrap(first, 60).samples).all()


def test_units_of_sizes_change_the_constants_and_nothing_else():
    here = fit(SWEEP)
    there = fit({**SWEEP, "parameters": SWEEP["parameters"] / 1e6, "tokens": SWEEP["tokens"] * 7.0})
    assert there.objective == pytest.approx(here.objective, rel=1e-9)
    assert there.constants["alpha"] == pytest.approx(here.constants["alpha"], rel=1e-6)
    assert there.constants["E"] == pytest.approx(here.constants["E"], rel=1e-6)
    assert there.constants["A"] == pytest.approx(here.constants["A"] * 1e-6 ** here.constants["alpha"], rel=1e-5)
    assert there.predict(1e9 / 1e6, 7e10 * 7.0) == pytest.approx(here.predict(1e9, 7e10), rel=1e-8)


def test_one_and_two_threads_give_the_same_refits():
    result = fit(SWEEP)
    assert (bootstrap(result, 300, threads=1).samples == bootstrap(result, 300, threads=2).samples).all()


def test_a_long_table_gives_the_same_bits_on_one_and_two_blas_threads():
    program = (
        "import numpy as np; from sweep_analysis.fit import fit; r = np.random.default_rng(1);"
        "N = 10 ** r.uniform(7, 10, 30000); D = N * 10 ** r.uniform(.5, 2, 30000);"
        "L = (1.8 + 480 / N ** .35 + 2100 / D ** .37) * np.exp(.01 * r.standard_normal(30000));"
        "print(list(fit(dict(parameters=N, tokens=D, loss=L)).constants.values()))"
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


def test_the_minimum_is_the_best_of_many_scattered_starts():
    result = fit(SWEEP)
    x = result.form.coordinates(result.table.columns, result.units)
    draw = np.random.default_rng(3)
    start = result.solution + draw.uniform(-0.7, 0.7, (200, 5))
    many = solve.minimise(result.form, x, result.table["loss"], start, result.goal)
    assert result.objective <= float(many.objective.min()) * (1 + 1e-6)


@pytest.mark.parametrize("delta", [1e-6, 1e-3, 1e-1, np.inf])
def test_gradient_vanishes_at_the_minimum(delta):
    result = fit(SWEEP, delta=delta)
    x = result.form.coordinates(result.table.columns, result.units)
    r, J = solve.residuals(result.form, result.solution[None], x, np.log(result.table["loss"]), True)
    psi = np.clip(r[0], -delta, delta)
    assert float(np.abs(J[0] @ psi).max()) < 1e-4 * float(np.linalg.norm(J[0]) * np.linalg.norm(psi)) + 1e-12


def test_huber_fit_ignores_one_wild_record():
    wild = {k: v.copy() for k, v in SWEEP.items()}
    wild["loss"][5] *= 1.5
    robust = fit(wild).predict(7e9, 1.4e11) / fit(SWEEP).predict(7e9, 1.4e11) - 1
    squares = fit(wild, delta=np.inf).predict(7e9, 1.4e11) / fit(SWEEP, delta=np.inf).predict(7e9, 1.4e11) - 1
    assert abs(robust) < 0.01 < abs(squares)


def test_asymmetric_fit_lies_below_most_records():
    result = fit(_sweep(noise=1e-2), delta=1e-6, asymmetry=10.0)
    below = np.mean(result.predict(result.table["parameters"], result.table["tokens"]) < result.table["loss"])
    assert below >= 0.7


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(n, 20 * n) for n in (1e8, 2e8, 4e8, 8e8, 2e9, 4e9)], "same token/parameter ratio"),
        ([(n, r * n) for n in (1e8, 4e8) for r in (10, 20, 40)], "3 distinct values of parameters, and there are 2"),
        ([(1e8, 1e9), (2e8, 8e9), (4e8, 8e9)], "3 distinct runs cannot determine the 5 constants"),
        ([], "there are none"),
    ],
)
def test_a_design_that_identifies_nothing_is_said_with_its_remedy(points, said):
    assert said in identifies(points)


def test_three_sizes_and_two_ratios_identify_the_surface():
    assert identifies([(n, r * n) for n in (1e8, 4e8, 2e9) for r in (10, 40)]) is None


def test_one_ratio_identifies_the_law_of_compute():
    ladder = [(n, 20 * n) for n in np.geomspace(1e8, 4e9, 5)]
    assert identifies(ladder, "SaturatingCompute") is None
    assert "cannot" in identifies(ladder, "Chinchilla")
    assert "a ladder varies parameters and tokens" in identifies(ladder, "ContextLength")


def test_nearly_one_ratio_is_seen_in_the_condition_number():
    wide, narrow = fit(_sweep(0.0)), fit(_sweep(0.0, ratios=(18.0, 20.0)))
    assert wide.condition_number < 100
    assert narrow.condition_number > 5 * wide.condition_number


def test_sizes_too_close_to_tell_apart_are_ill_conditioned():
    N, r = (v.ravel() for v in np.meshgrid([1.0e9, 1.06e9, 1.13e9], [5.0, 20.0, 80.0]))
    result = fit(
        {"parameters": N, "tokens": N * r, "loss": LAWS["Chinchilla"].predict(TRUTH, parameters=N, tokens=N * r)}
    )
    assert result.status in (FitStatus.ILL_CONDITIONED, FitStatus.AT_BOUND)
    assert "wider" in result.message or "further apart" in result.message


def test_a_constant_that_the_data_do_not_determine_is_said():
    N = np.geomspace(1e7, 1e9, 6).repeat(2)
    D = N * np.tile([10.0, 40.0], 6)
    result = fit({"parameters": N, "tokens": D, "loss": 1.8 + 500 * N**-0.3})
    assert result.status in (FitStatus.AT_BOUND, FitStatus.ILL_CONDITIONED)
    assert "fewer constants" in result.message


def test_an_accuracy_that_never_leaves_chance_determines_no_sigmoid():
    loss = np.linspace(2, 4, 12)
    noise = [0.005 * np.random.default_rng(seed).standard_normal(12) for seed in range(20)]
    flat = [fit({"loss": loss, "accuracy": 0.25 + e}, "DownstreamSigmoid") for e in noise]
    assert sum(f.status == FitStatus.CONVERGED for f in flat) <= 2  # a step may fit what is noise
    assert any("open by a factor of" in f.message for f in flat)
    risen = 0.25 + 0.6 / (1 + np.exp(4 * (loss - 3)))
    rising = [fit({"loss": loss, "accuracy": risen + e}, "DownstreamSigmoid") for e in noise]
    assert {f.status for f in rising} == {FitStatus.CONVERGED}


def test_nothing_returns_nan():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        N = 10 ** draw.uniform(6, 10, 8)
        result = fit({"parameters": N, "tokens": N * 10 ** draw.uniform(0, 2, 8), "loss": draw.uniform(1, 6, 8)})
        if result.usable:
            assert np.isfinite([*result.constants.values(), result.objective]).all()
            assert all(np.isfinite([i.low, i.high]).all() for i in result.parameters.values())


@pytest.mark.parametrize(
    ("positional", "axes", "error", "said"),
    [
        ((), {"parameters": math.nan, "tokens": 1e9}, ValueError, "parameters is nan"),
        ((), {"parameters": 1e9, "tokens": 0.0}, ValueError, "tokens is 0; a finite number greater than zero"),
        ((), {"parameters": np.array([1e9, -1e9]), "tokens": 1e9}, ValueError, "parameters is -1e\\+09"),
        ((), {"parameters": 1e9}, KeyError, "missing: tokens"),
        ((), {"parameters": 1e9, "tokens": 1e9, "epochs": 2}, KeyError, "unknown: epochs"),
        ((1e9, 1e10, 3.0), {}, TypeError, "3 values were given"),
    ],
)
def test_a_value_that_no_run_has_is_refused_and_never_becomes_nan(positional, axes, error, said):
    with pytest.raises(error, match=said):
        fit(SWEEP).predict(*positional, **axes)
    if not positional and np.ndim(axes["parameters"]) == 0:
        with pytest.raises(error, match=said):
            fit(SWEEP).forecast(**axes)


def test_bootstrap_agrees_with_the_covariance():
    result = fit(_sweep(sizes=30))
    refits = bootstrap(result, 600)
    for i, name in enumerate(result.form.names):
        spread = float(np.std(np.log(refits[name])))
        assert spread == pytest.approx(float(np.sqrt(result.covariance[i, i])), rel=0.35), name


def test_refits_with_weights_of_one_are_the_fit():
    result = fit(SWEEP)
    again = refit(result, np.ones((3, len(result.table))))
    assert np.allclose(again, list(result.constants.values()), rtol=1e-3)


def test_runs_are_drawn_whole_when_records_share_them():
    data = _sweep(sizes=30)
    runs = np.repeat([f"r{i}" for i in range(30)], 3)
    shared = {k: np.concatenate([v, v]) for k, v in data.items()}
    shared["run"] = [f"r{i}" for i in range(90)] * 2
    assert bootstrap(fit({**data, "run": runs}), 50).method == "cases"
    once, twice = bootstrap(fit(data), 400)["alpha"].std(), bootstrap(fit(shared), 400)["alpha"].std()
    assert twice == pytest.approx(once, rel=0.15), "records said twice are not more evidence"


def test_a_small_ladder_is_resampled_by_its_residuals():
    assert bootstrap(fit(_sweep(sizes=4)), 50).method == "parametric"


def test_optimal_split_balances_both_terms():
    result = fit(_sweep(0.0))
    split = optimal_split(result, 1e22, refits=100)
    N, D = split.parameters.value, split.tokens.value
    assert pytest.approx(1e22) == 6 * N * D
    c = result.constants
    assert c["alpha"] * c["A"] * N ** -c["alpha"] == pytest.approx(c["beta"] * c["B"] * D ** -c["beta"], rel=1e-9)
    a, b = exponents(c)
    assert a + b == pytest.approx(1.0)
    for factor in (0.5, 2.0):
        assert result.predict(N * factor, D / factor) > split.loss.value


def test_inference_moves_the_split_towards_smaller_models_at_the_same_loss():
    result = fit(SWEEP)
    plain, served = (
        optimal_split(result, 1e22, refits=100),
        optimal_split(result, 1e22, inference_tokens=1e13, refits=100),
    )
    assert served.parameters.value < plain.parameters.value
    assert served.tokens.value > plain.tokens.value
    assert served.loss.value == pytest.approx(plain.loss.value, rel=1e-6)
    total = 6 * plain.parameters.value * plain.tokens.value + 2 * plain.parameters.value * 1e13
    assert served.total_flops < total


def test_penalty_of_the_optimum_is_nothing_and_grows_away_from_it():
    result = fit(SWEEP)
    split = optimal_split(result, 1e22, refits=100)
    N, D = split.parameters.value, split.tokens.value
    assert penalty(result, N, D).loss == pytest.approx(0.0, abs=1e-12)
    assert penalty(result, N, D).flops == pytest.approx(1.0, rel=1e-9)
    near, far = penalty(result, N / 3, D * 3), penalty(result, N / 10, D * 10)
    assert 0 < near.loss < far.loss
    assert 1 < near.flops < far.flops


@pytest.mark.parametrize(
    ("flops", "said"), [(0.0, "flops is 0"), (float("nan"), "flops is nan"), (-1.0, "flops is -1")]
)
def test_an_impossible_budget_is_refused(flops, said):
    with pytest.raises(ValueError, match=said):
        optimal_split(fit(SWEEP), flops)


def test_a_split_of_another_law_is_refused():
    with pytest.raises(ValueError, match="needs a fitted Chinchilla surface"):
        optimal_split(fit(SWEEP, "SaturatingCompute"), 1e22)


@pytest.mark.parametrize(("option", "said"), [({"delta": 0.0}, "delta is 0"), ({"confidence": 1.0}, "confidence is 1")])
def test_an_impossible_option_is_refused(option, said):
    with pytest.raises(ValueError, match=said):
        fit(SWEEP, **option)


def test_importing_the_package_loads_no_numerical_library():
    program = (
        "import sweep_analysis, sys; print([m for m in ('numpy', 'scipy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fitting_loads_no_data_frame_plot_or_cluster_library():
    program = (
        "import sweep_analysis as sa, sys; sa.fit({'N': [1e8, 2e8, 4e8] * 3, 'D': [1e9] * 3 + [4e9] * 3 + [2e10] * 3,"
        "'loss': [3.2, 3.1, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4]}).forecast(parameters=1e9, tokens=2e10);"
        "print([m for m in ('pandas', 'pyarrow', 'matplotlib', 'torch', 'kubernetes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_verb_and_its_module_share_a_name():
    assert sa.fit(SWEEP).constants == sa.fit.fit(SWEEP).constants
    assert set(sa.__all__) <= set(dir(sa))
    for name in sa.__all__:
        assert getattr(sa, name) is not None


def test_a_fit_shows_itself_in_a_console_and_in_a_notebook():
    good, bad = fit(SWEEP), fit({k: v[:3] for k, v in SWEEP.items()})
    assert repr(good).startswith("<Fit Chinchilla: E=1.8")
    assert "TooFewPoints" in repr(bad)
    assert "alpha" in str(good)
    assert "95 % interval" in str(good)
    html = good._repr_html_()
    assert html.count("<tr>") == 6
    assert "entropy floor" in html
    assert "TooFewPoints" in bad._repr_html_()


def test_whatever_a_notebook_shows_last_fits_on_a_line_or_in_a_table():
    result, choice = fit(SWEEP), choose(SWEEP)
    assert repr(result.table) == f"<Table {len(result.table)} records of parameters, tokens, loss from the records>"
    assert repr(bootstrap(result, 10)) == "<Bootstrap 10 refits (parametric, seed 0) of E, A, B, alpha, beta>"
    assert repr(result.form) == "<Law Chinchilla: parameters, tokens → loss>"
    assert "Hoffmann" in result.form._repr_html_()
    assert repr(result.parameters["alpha"]).startswith("0.3")
    assert "95%" in repr(result.forecast(parameters=7e9, tokens=1.4e11))
    assert len(repr(choice)) < 100
    assert choice._repr_html_().count("<tr>") == 1 + len(choice.candidates)


def test_a_fit_becomes_json_without_nan():
    for result in (fit(SWEEP), fit({k: v[:3] for k, v in SWEEP.items()})):
        document = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert document["law"] == "Chinchilla"
    assert list(fit(SWEEP).to_json()) == ["law", "records", "status", "objective", "parameters"]


def test_forecast_of_a_fit_has_its_interval_and_its_jump():
    told = fit(SWEEP).forecast(parameters=7e9, tokens=1.4e11)
    assert told.loss.low < told.loss.value < told.loss.high
    assert told.jump == pytest.approx(7e9 * 1.4e11 / (5e9 * 80 * 5e9))
    assert told.evidence.startswith("sha256:")
    assert fit(_shuffled(SWEEP, 1)).forecast(parameters=7e9, tokens=1.4e11) == told


def test_a_forecast_six_orders_of_magnitude_away_is_answered_and_wide():
    result = fit(SWEEP)
    near, far = result.forecast(parameters=7e9, tokens=1.4e11), result.forecast(parameters=5e12, tokens=4e14)
    assert far.jump == pytest.approx(1e6)

    def width(told):
        return (told.loss.high - told.loss.low) / told.loss.value

    assert width(far) > 3 * width(near)


def test_other_laws_forecast_with_the_spread_of_their_refits():
    told = fit(SWEEP, "SaturatingCompute").forecast(flops=1e23)
    assert told.loss.low < told.loss.value < told.loss.high
    with pytest.raises(KeyError, match="missing: flops"):
        fit(SWEEP, "SaturatingCompute").forecast(parameters=1e9)


def test_a_refused_fit_has_no_forecast_and_says_why():
    told = fit({k: v[:4] for k, v in SWEEP.items()}).forecast(parameters=7e9, tokens=1.4e11)
    assert told.reason in ("TooFewRecords", "UnidentifiedLaw")
    assert told.message
