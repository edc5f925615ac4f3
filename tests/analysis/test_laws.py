"""Laws: every one recovers its own synthetic truth, and every Jacobian agrees with complex-step differentiation."""

import itertools

import numpy as np
import pytest

from sweep_analysis import laws, solve
from sweep_analysis.fit import FitStatus, fit
from sweep_analysis.laws import LAWS, law_of
from sweep_analysis.laws.kaplan import overfitting, tokens_against_overfitting
from sweep_analysis.laws.transfer import Compared
from sweep_analysis.table import TableError

SIZES = np.geomspace(2e7, 6e9, 7)
RATIOS = np.array([5.0, 20.0, 80.0])


def _surface(sizes=SIZES, ratios=RATIOS):
    N, r = (v.ravel() for v in np.meshgrid(sizes, ratios))
    return {"parameters": N, "tokens": N * r}


def _product(**axes):
    grids = np.meshgrid(*axes.values())
    return {name: g.ravel() for name, g in zip(axes, grids, strict=True)}


# law: (constants of the synthetic truth, where it is observed, standard deviation of the noise in the residual)
TRUTH = {
    "Chinchilla": ({"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}, _surface(), 2e-3),
    "SaturatingCompute": ({"E": 1.7, "K": 1500.0, "gamma": 0.16}, {"flops": np.geomspace(1e16, 1e22, 20)}, 2e-3),
    "OverTraining": ({"E": 1.84, "a": 210.0, "b": 360.0, "alpha": 0.27}, _surface(), 2e-3),
    "RepeatedData": (
        {"E": 1.87, "A": 520.0, "B": 1490.0, "alpha": 0.353, "beta": 0.353, "R_D": 15.0, "R_N": 5.0},
        _product(parameters=np.geomspace(1e8, 9e9, 5), tokens=np.geomspace(2e9, 9e11, 6), unique_tokens=[1e9, 1e10]),
        1e-3,
    ),
    "KaplanParameters": ({"N_c": 8.8e13, "alpha_N": 0.076}, {"parameters": np.geomspace(1e5, 1e10, 15)}, 2e-3),
    "KaplanTokens": ({"D_c": 5.4e13, "alpha_D": 0.095}, {"tokens": np.geomspace(1e7, 1e11, 15)}, 2e-3),
    "KaplanCompute": ({"C_c": 2.7e28, "alpha_C": 0.05}, {"flops": np.geomspace(1e15, 1e21, 15)}, 2e-3),
    "KaplanParametersTokens": (
        {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        _product(parameters=np.geomspace(1e6, 1e9, 6), tokens=np.geomspace(2e7, 2e10, 6)),
        1e-3,
    ),
    "KaplanParametersSteps": (
        {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76},
        _product(parameters=np.geomspace(1e6, 1e9, 6), steps=np.geomspace(1e3, 2e5, 8)),
        1e-3,
    ),
    "FineGrainedExperts": (
        {"E": 0.5, "g": 2.1, "a": 18.0, "b": 31.0, "alpha": 0.115, "beta": 0.147, "gamma": 0.58},
        _product(parameters=np.geomspace(6e7, 6e9, 5), tokens=np.geomspace(1e9, 1e12, 5), granularity=[1, 2, 4, 8, 16]),
        1e-4,
    ),
    "RoutedExperts": (
        {"a": -0.082, "b": -0.108, "c": 0.004, "d": 2.5, "E_start": 1.85, "E_max": 314.0},
        _product(parameters=np.geomspace(1e7, 1e9, 5), experts=[1, 2, 4, 8, 32, 64, 128, 256, 512]),
        3e-4,
    ),
    "BrokenPower": (
        {"a": 1.5, "b": 40.0, "c0": 0.06, "c1": 0.2, "d": 1e19, "f": 0.5},
        {"flops": np.geomspace(1e15, 1e23, 40)},
        5e-4,
    ),
    "ContextLength": ({"E": 1.6, "K": 8.0, "gamma": 0.5}, {"context": np.geomspace(128, 131072, 14)}, 1e-3),
    "FineTuning": (
        {"E": 0.9, "A": 60.0, "alpha": 0.12, "beta": 0.09},
        _product(parameters=np.geomspace(1e9, 3e10, 4), finetuning_tokens=np.geomspace(1e4, 1e8, 7)),
        5e-4,
    ),
    "InstructionData": (
        {"E": 0.9, "A": 60.0, "alpha": 0.12, "beta": 0.09},
        _product(tokens=np.geomspace(1e10, 1e12, 4), instruction_examples=np.geomspace(1e2, 1e6, 7)),
        5e-4,
    ),
    "DownstreamSigmoid": (
        {"floor": 0.25, "rise": 0.6, "k": 6.0, "L0": 2.6},
        {"loss": np.linspace(2.0, 3.6, 40)},
        3e-3,
    ),
    "DownstreamExponential": (
        {"epsilon": 0.85, "k": 2.4, "gamma": 0.8},
        {"loss": np.linspace(2.0, 5.5, 40)},
        2e-3,
    ),
    "RewardBestOfN": ({"alpha": 0.9, "beta": 0.12}, {"kl": np.geomspace(0.1, 20, 20)}, 5e-3),
    "RewardReinforcement": ({"alpha": 0.9, "beta": 0.25}, {"kl": np.geomspace(0.1, 200, 20)}, 5e-3),
    "CriticalBatch": ({"B": 2e8, "alpha_B": 0.21}, {"loss": np.linspace(2.2, 5.0, 12)}, 3e-2),
    "BatchTradeoff": ({"S_min": 9e3, "B_crit": 7e5}, {"batch": np.geomspace(3e4, 1e7, 12)}, 1e-2),
    "StepLearningRate": ({"c": 1.79, "a": -0.713, "b": 0.307}, _surface(), 3e-2),
    "StepBatch": ({"c": 0.58, "b": 0.571}, {"tokens": np.geomspace(1e9, 1e12, 12)}, 3e-2),
    "ConstantOffset": ({"offset": 0.31}, {"loss": np.linspace(2.2, 5.0, 12)}, 1e-3),
}


def _observed(name, noise=0.0, seed=0):
    constants, axes, _ = TRUTH[name]
    law = LAWS[name]
    y = law.predict(constants, **axes)
    e = noise * np.random.default_rng(seed).standard_normal(y.shape)
    return {**axes, law.response: y * np.exp(e) if law.residual == "relative" else y + e}


def test_every_law_of_the_catalogue_has_a_synthetic_truth():
    assert set(TRUTH) == set(LAWS)


def test_every_law_declares_what_its_page_needs():
    for name, law in LAWS.items():
        assert law.equation, name
        assert law.citation, name
        assert law.use, name
        assert law.limits, name
        assert all(c.unit and c.meaning for c in law.constants), name
        assert set(law.published) <= set(law.names), name


def _jacobian_error(law, constants, axes):
    units = {a.name: float(np.exp(np.mean(np.log(axes[a.name])))) for a in law.axes if a.logarithmic}
    x = law.coordinates(axes, units)
    c = law.to_units(np.array([[constants[n] for n in law.names]]), {k: 1 / v for k, v in units.items()})
    value, jacobian = law.evaluate(c, x)
    assert np.allclose(value[0], law.predict(constants, **axes), rtol=1e-10), "units of the fit change the prediction"
    worst = 0.0
    for i in range(c.shape[1]):
        step = c.astype(complex)
        h = 1e-30
        step[0, i] += 1j * h
        exact = law.evaluate(step, x, jacobian=False)[0].imag / h
        worst = max(worst, float(np.abs(exact - jacobian[:, i]).max() / (np.abs(exact).max() + 1e-300)))
    return worst


@pytest.mark.parametrize("name", LAWS)
def test_jacobian_agrees_with_complex_step(name):
    constants, axes, _ = TRUTH[name]
    assert _jacobian_error(LAWS[name], constants, axes) < 1e-11


def test_jacobian_of_two_corpora_agrees_with_complex_step():
    constants, axes, _ = TRUTH["Chinchilla"]
    corpus = np.tile([-0.5, 0.5], len(axes["tokens"]))[: len(axes["tokens"])]
    law = Compared(LAWS["Chinchilla"])
    assert _jacobian_error(law, {**constants, "offset": 0.05, "slope": -0.01}, {**axes, "corpus": corpus}) < 1e-11


@pytest.mark.parametrize("name", LAWS)
def test_exact_data_return_the_truth(name):
    constants, _, _ = TRUTH[name]
    result = fit(_observed(name), law=name)
    assert result.status in (FitStatus.CONVERGED, FitStatus.ILL_CONDITIONED), result.message
    for key, value in constants.items():
        assert result.constants[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.parametrize("name", LAWS)
def test_noisy_data_return_predictions_within_the_noise(name):
    _, axes, noise = TRUTH[name]
    law = LAWS[name]
    truth = law.predict(TRUTH[name][0], **axes)
    result = fit(_observed(name, noise), law=name)
    error = result.predict(**axes) - truth
    error = error / truth if law.residual == "relative" else error
    assert float(np.sqrt(np.mean(error**2))) < noise * np.sqrt(len(law.constants) / len(truth)) * 2.5


@pytest.mark.parametrize("delta", [1e-3, np.inf])
@pytest.mark.parametrize(
    "name", ["Chinchilla", "SaturatingCompute", "OverTraining", "ContextLength", "StepLearningRate"]
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(name, delta):
    constants, _, noise = TRUTH[name]
    hits = []
    for seed in range(1000, 1100):
        result = fit(_observed(name, noise, seed), law=name, delta=delta)
        hits += [result.parameters[k].low <= v <= result.parameters[k].high for k, v in constants.items()]
    assert 0.88 <= np.mean(hits) <= 0.995


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(ValueError, match="did you mean SaturatingCompute"):
        law_of("saturating-compute")
    with pytest.raises(ValueError, match="known: Chinchilla"):
        law_of("Newton")


def test_repeated_data_reproduce_the_published_example():
    law = LAWS["RepeatedData"]
    loss = law.predict(law.published, parameters=6.34e9, tokens=242e9, unique_tokens=25e9)
    assert float(loss) == pytest.approx(2.2256, abs=5e-4)


def test_repeated_data_without_repetition_are_chinchilla():
    published = LAWS["RepeatedData"].published
    N, D = np.array([1e8, 1e9]), np.array([2e9, 4e10])
    surface = {k: published[k] for k in ("E", "A", "B", "alpha", "beta")}
    assert np.allclose(
        LAWS["RepeatedData"].predict(published, parameters=N, tokens=D, unique_tokens=D),
        LAWS["Chinchilla"].predict(surface, parameters=N, tokens=D),
        rtol=1e-12,
    )


def test_overfitting_rule_keeps_the_excess_below_noise():
    law = LAWS["KaplanParametersTokens"]
    for N in (1e7, 1e8, 1e9):
        assert 0.005 < overfitting(law.published, N, tokens_against_overfitting(N)) < 0.035


def test_over_training_is_the_chinchilla_surface_with_one_exponent():
    c = TRUTH["OverTraining"][0]
    axes = _surface()
    half = c["alpha"] / 2
    surface = {"E": c["E"], "A": c["a"] * 6**-half, "B": c["b"] * 6**-half, "alpha": c["alpha"], "beta": c["alpha"]}
    assert np.allclose(LAWS["OverTraining"].predict(c, **axes), LAWS["Chinchilla"].predict(surface, **axes), rtol=1e-12)


def test_starting_grid_solves_the_linear_constants_exactly():
    law = LAWS["Chinchilla"]
    axes = _surface()
    x = law.coordinates(axes, {"parameters": 1e9, "tokens": 1e10})
    truth = np.array([[1.8, 0.4, 0.5, 0.34, 0.45]])
    y = law.evaluate(truth, x, jacobian=False)[0][0]
    best = law.starts(x, y)[0]
    assert np.allclose(best, truth[0], rtol=1e-6)


def test_weights_of_two_equal_one_record_said_twice():
    law = LAWS["SaturatingCompute"]
    data = _observed("SaturatingCompute", 2e-3)
    x = law.coordinates({"flops": data["flops"]}, {"flops": 1e19})
    start = solve.coordinates_of(law, law.starts(x, data["loss"])[:1])
    goal = solve.Objective(1e-3)
    w = np.ones((1, 20))
    w[0, 3] = 2
    weighted = solve.minimise(law, x, data["loss"], start, goal, weights=w)
    twice = [np.append(x[0], x[0][3])]
    doubled = solve.minimise(law, twice, np.append(data["loss"], data["loss"][3]), start, goal)
    assert weighted.objective[0] == pytest.approx(doubled.objective[0], rel=1e-8)
    assert np.allclose(weighted.z, doubled.z, atol=1e-5)


def test_a_batch_of_fits_equals_the_same_fits_one_by_one():
    law = laws.LAWS["Chinchilla"]
    data = _observed("Chinchilla", 2e-3)
    x = law.coordinates(data, {"parameters": 1e9, "tokens": 1e10})
    start = solve.coordinates_of(law, law.starts(x, data["loss"])[:4])
    goal = solve.Objective(1e-3)
    together = solve.minimise(law, x, data["loss"], start, goal)
    for i, z in itertools.zip_longest(range(4), together.z):
        alone = solve.minimise(law, x, data["loss"], start[[i]], goal)
        assert np.allclose(alone.z[0], z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_a_fit_of_every_law_is_drawn_with_all_its_records(name):
    pytest.importorskip("matplotlib", reason="figures need the extra `report`")
    from sweep_analysis.figures import fit_figure, interactive

    found = fit(_observed(name, TRUTH[name][2]), name)
    figure = fit_figure(found)
    (axes,) = figure.axes
    tips = [line for line in axes.lines if str(line.get_gid()).startswith("tip:")]
    assert len(tips) == found.records
    curves = [line for line in axes.lines if len(line.get_xdata()) == 120]
    assert 1 <= len(curves) <= 5
    assert all(np.isfinite(line.get_ydata()).all() for line in curves)
    assert interactive(figure, name).count('class="tip"') == found.records


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if any(axis.by_ratio for axis in law.axes)])
def test_values_told_apart_by_ratio_are_above_zero(name):
    data = _observed(name, TRUTH[name][2])
    axis = next(a.name for a in LAWS[name].axes if a.by_ratio)
    with pytest.raises(TableError, match=f"{axis} is 0; it must be a finite number greater than zero"):
        fit({**data, axis: np.where(data[axis] == data[axis].min(), 0.0, data[axis])}, name)
    with pytest.raises(ValueError, match=f"{axis} is -5; a finite number greater than zero would be right"):
        fit(data, name).forecast(**{**{a.name: 1e9 for a in LAWS[name].axes}, axis: -5})
