"""The figures: what they show is where the data is, they stay light, and inside a page they are at home."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the figures need the extra `report`")

from matplotlib.figure import Figure

from sweep_analysis.figures import (
    PAPER,
    Band,
    Bar,
    Cost,
    Foretold,
    Layout,
    LearningCurve,
    Mark,
    Measured,
    Misfit,
    RungOutcome,
    band_along,
    cost_figure,
    curves_figure,
    fit_figure,
    forecasts_figure,
    frontier_figure,
    inline_svg,
    law_figure,
    misfits_of,
    residuals_figure,
    timeline_figure,
)
from sweep_analysis.figures.curves import thin
from sweep_analysis.figures.style import MARKERS, OBSERVED, PAGE, PHONE, ROLES, percent, power, sample, spread
from sweep_analysis.fit import fit
from sweep_analysis.forecast import Forecast, Point, forecast
from sweep_analysis.frontier import isoflop_frontier

SIZES = (27e3, 44e3, 70e3, 110e3, 167e3)
RATIOS = (10.0, 20.0)


def loss(N: float, D: float) -> float:
    return 1.05 + 18 / N**0.33 + 60 / D**0.36


MEASURED = [Measured(f"{N / 1e3:g}k", N, r * N, loss(N, r * N)) for N in SIZES for r in RATIOS]
HISTORY = [[Point(N, r * N, loss(N, r * N), f"{N}") for r in RATIOS] for N in SIZES]
TARGET = Foretold(300e3, 6e6, 1.55, 1.52, 1.58, (1.56,))


def some_band() -> Band:
    band = band_along(HISTORY, 20, (2e10, 2e13))
    assert band is not None
    return band


RECORDS = {name: np.array([getattr(m, name) for m in MEASURED]) for name in ("parameters", "tokens", "loss")}
CURVES = [(C, s) for C in (1e18, 1e19, 1e20, 1e21) for s in np.geomspace(0.2, 5, 7)]
ISOFLOP = {
    "parameters": np.array([0.05 * C**0.5 * s for C, s in CURVES]),
    "flops": np.array([C for C, _ in CURVES]),
    "loss": np.array([loss(0.05 * C**0.5 * s, C / (0.3 * C**0.5 * s)) for C, s in CURVES]),
}

FIGURES: dict[str, Callable[[Layout], Figure]] = {
    "law": lambda layout: law_figure(MEASURED, band=some_band(), target=TARGET, layout=layout),
    "forecasts": lambda layout: forecasts_figure(
        [
            RungOutcome("27k", (), None, "Not judged"),
            RungOutcome("110k", (Foretold(1e5, 1e6, 2.0, 1.9, 2.1, (2.01,)),), 0.02, "Pass"),
            RungOutcome("167k", (Foretold(2e5, 2e6, 1.8, 1.7, 1.9, (2.4,)),), 0.02, "Inconclusive"),
        ],
        layout=layout,
    ),
    "fit": lambda layout: fit_figure(fit(RECORDS), at={"parameters": 3e5, "tokens": 6e6}, layout=layout),
    "frontier": lambda layout: frontier_figure(isoflop_frontier(ISOFLOP), layout=layout),
    "residuals": lambda layout: residuals_figure([Misfit(m, m.loss * 1.002) for m in MEASURED], layout=layout),
    "curves": lambda layout: curves_figure(
        [LearningCurve("27k", "seed 0", ((np.geomspace(1e3, 1e6, 900), np.linspace(5, 2, 900)),), ((1e6, 2.0),))],
        layout=layout,
    ),
    "timeline": lambda layout: timeline_figure(
        [Bar("27k", "seed 0", 0, 40, "Preempted"), Bar("27k", "seed 1", 41, 100, "Succeeded")],
        [Mark("27k", 0, "Forecast"), Mark("27k", 101, "Verdict", "Pass")],
        layout=layout,
    ),
    "cost": lambda layout: cost_figure(
        [Cost("27k", 0.1), Cost("target", 0.0, (1.0, 0.8, 1.3))], budget=2.0, layout=layout
    ),
}


@pytest.mark.parametrize("layout", [PAPER, PAGE, PHONE], ids=["paper", "page", "phone"])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_the_width_it_was_asked_for(name: str, layout: Layout) -> None:
    assert FIGURES[name](layout).get_figwidth() * 72 == pytest.approx(layout.width)


@pytest.mark.parametrize("layout", [PAPER, PAGE, PHONE], ids=["paper", "page", "phone"])
@pytest.mark.parametrize("name", FIGURES)
def test_no_words_run_over_the_edge_of_a_figure(name: str, layout: Layout) -> None:
    figure = FIGURES[name](layout)
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        for text in [*axes.texts, *ticks, *axes.get_yticklabels()]:
            if text.get_visible() and text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= -1, text.get_text()
                assert box.x1 <= layout.width + 1, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_inside_a_page_a_figure_is_one_accessible_element_without_outside_needs(name: str) -> None:
    svg = inline_svg(FIGURES[name](PAGE), "key", 'What it shows, <"quoted">')
    root = ET.fromstring(svg)
    assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", 'What it shows, <"quoted">')
    assert "http" not in svg
    assert "<style" not in svg
    assert "font-family" not in svg
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(i.startswith("key-") for i in ids if i)
    assert set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", svg)) <= set(ids)


@pytest.mark.parametrize("name", FIGURES)
def test_every_colour_in_a_page_follows_the_page(name: str) -> None:
    svg = inline_svg(FIGURES[name](PAGE), "key", "title")
    assert re.findall(r"#[0-9a-fA-F]{6}", svg) == []
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(ROLES.values())


def test_a_notebook_shows_a_figure_as_the_last_value_of_a_cell() -> None:
    shown = FIGURES["law"](PAPER)
    svg = shown._repr_svg_()  # type: ignore[attr-defined]  # what a notebook asks of any value
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg == FIGURES["law"](PAPER)._repr_svg_()  # type: ignore[attr-defined]  # the same bytes each time


def test_the_names_of_all_figures_are_listed_for_completion() -> None:
    import sweep_analysis.figures as figures

    assert set(dir(figures)) == set(figures.__all__)
    assert all(callable(getattr(figures, name)) for name in dir(figures) if name.endswith("_figure"))


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert inline_svg(FIGURES["law"](PAGE), "a", "t") == inline_svg(FIGURES["law"](PAGE), "a", "t")


def test_marks_carry_a_sentence_for_whoever_points_at_them() -> None:
    svg = inline_svg(FIGURES["law"](PAGE), "a", "t")
    titles = [e.text or "" for e in ET.fromstring(svg).iter("title")]
    assert sum("nats/token at" in t for t in titles) == len(MEASURED)
    assert "target, observed: 1.5600 nats/token" in titles


def points_in(figure: Figure, colour: str, markers: str) -> set[tuple[float, float]]:
    lines = [line for line in figure.axes[0].lines if line.get_color() == colour and str(line.get_marker()) in markers]
    return {(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_every_record_stands_at_its_compute_and_loss() -> None:
    drawn = points_in(law_figure(MEASURED), OBSERVED, MARKERS)
    assert drawn == {(m.compute, m.loss) for m in MEASURED}


def test_records_that_the_law_does_not_rest_on_are_hollow() -> None:
    figure = law_figure([*MEASURED, Measured("held", 2e5, 4e6, 2.2, used=False)])
    assert (6 * 2e5 * 4e6, 2.2) not in points_in(figure, OBSERVED, MARKERS)
    assert len(figure.axes[0].lines) == len(MEASURED) + 1


def test_the_band_is_the_forecast_of_single_runs_along_the_ratio() -> None:
    band = some_band()
    C = float(band.compute[30])
    N = math.sqrt(C / 120)
    answer = forecast(HISTORY, [(N, 20 * N)])
    assert isinstance(answer, Forecast)
    p = answer.predictions[0]
    assert (band.loss[30], band.low[30], band.high[30]) == pytest.approx((p.loss, p.low, p.high), rel=1e-9)


def test_there_is_no_band_where_nothing_can_be_forecast() -> None:
    assert band_along(HISTORY[:1], 20, (1e10, 1e13)) is None


def test_a_miss_beyond_the_picture_points_out_of_it_with_its_value() -> None:
    axes = FIGURES["forecasts"](PAGE).axes[0]
    assert any(line.get_marker() == ">" for line in axes.lines)
    assert "+33.3%" in [t.get_text() for t in axes.texts]


def test_a_rungs_deviation_is_the_mean_of_its_log_deviations() -> None:
    records = (Foretold(1, 1, 2.0, 1, 3, (2.2, 2.0)), Foretold(1, 2, 1.0, 0.9, 1.1, (0.9,)))
    expected = (math.log(1.1) + 0 + math.log(0.9)) / 3
    assert RungOutcome("r", records, 0.1, "Pass").deviation == pytest.approx(expected)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: law_figure([]),
        lambda: forecasts_figure([]),
        lambda: residuals_figure([]),
        lambda: curves_figure([]),
        lambda: timeline_figure([]),
        lambda: cost_figure([]),
    ],
)
def test_nothing_to_draw_is_refused_in_words(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_ladder_of_any_height_can_be_drawn(count: int) -> None:
    some = MEASURED[:count]
    assert inline_svg(law_figure(some), "a", "t")
    assert inline_svg(residuals_figure([Misfit(m, m.loss) for m in some]), "b", "t")
    assert inline_svg(law_figure([], target=TARGET), "c", "t")


def test_ten_thousand_records_make_no_heavy_figure() -> None:
    many = [Measured(f"r{i % 30}", 1e6 * 1.1 ** (i % 30), 1e7 + i * 1e3, 2 + i / 1e5) for i in range(10_000)]
    assert len(inline_svg(law_figure(many, layout=PAGE), "a", "t")) < 150_000
    bars = [Bar(f"r{i % 30}", f"{i}", i, i + 50, "Succeeded") for i in range(2_000)]
    assert len(inline_svg(timeline_figure(bars, layout=PAGE), "a", "t")) < 150_000


def test_thinning_keeps_both_ends_and_the_mean_between() -> None:
    tokens, values = np.geomspace(1e3, 1e6, 10_000), np.linspace(5, 2, 10_000)
    x, y = thin(tokens, values, 0.1)
    assert (x[0], x[-1]) == pytest.approx((1e3, 1e6))
    assert len(x) <= 71
    assert np.interp(3e4, x, y) == pytest.approx(np.interp(3e4, tokens, values), rel=0.01)


def test_a_sample_keeps_order_and_is_always_the_same() -> None:
    chosen = sample(range(10_000), 100)
    assert len(chosen) == 100
    assert chosen == sorted(chosen)
    assert chosen == sample(range(10_000), 100)
    assert sample([1, 2], 100) == [1, 2]


def test_labels_that_would_touch_are_moved_apart_and_keep_their_order() -> None:
    placed = spread([10.0, 11.0, 50.0, 10.5], 5)
    assert sorted(placed) == [placed[0], placed[3], placed[1], placed[2]]
    gaps = np.diff(sorted(placed))
    assert (gaps >= 5 - 1e-9).all()
    assert placed[2] == 50.0


def test_numbers_are_written_as_people_read_them() -> None:
    assert (power(3e11), power(1e18), power(1.55e21)) == ("3×10¹¹", "10¹⁸", "1.6×10²¹")
    assert (percent(-0.0123), percent(0.0), percent(-0.0001)) == ("−1.2%", "0.0%", "0.0%")


def test_importing_the_figures_imports_no_drawing_library() -> None:
    code = "import sys, sweep_analysis.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_fits_figure_holds_its_records_and_the_forecast_that_was_asked_for() -> None:
    found = fit(RECORDS)
    told = found.forecast(parameters=3e5, tokens=6e6)
    (axes,) = fit_figure(found, over="tokens", at={"parameters": 3e5, "tokens": 6e6}).axes
    tips = [line for line in axes.lines if str(line.get_gid()).startswith("tip:")]
    places = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in tips}
    assert places == {(m.tokens, m.loss) for m in MEASURED} | {(6e6, told.loss.value)}
    words = {text.get_text() for text in axes.texts}
    assert words >= {"N = 27K", "N = 167K", "N = 300K", f"forecast {told.loss.value:.4f}"}


def test_what_cannot_be_drawn_of_a_fit_is_refused_in_words() -> None:
    found = fit(RECORDS)
    with pytest.raises(ValueError, match="over='flops' is none of them"):
        fit_figure(found, over="flops")
    few = fit({name: values[:3] for name, values in RECORDS.items()})
    with pytest.raises(ValueError, match="was not fitted: 3 records"):
        fit_figure(few)
    with pytest.raises(ValueError, match="no law of loss over parameters and tokens"):
        misfits_of(fit({"kl": [1.0, 4.0, 9.0, 16.0], "reward": [0.8, 1.4, 1.8, 2.1]}, "RewardBestOfN"))


def test_misfits_are_the_records_against_the_law() -> None:
    found = fit(RECORDS)
    for misfit in misfits_of(found):
        assert misfit.fitted == found.predict(misfit.measured.parameters, misfit.measured.tokens)
    assert {m.measured.loss for m in misfits_of(found)} == {m.loss for m in MEASURED}


def test_a_frontiers_figure_holds_its_valleys() -> None:
    frontier = isoflop_frontier(ISOFLOP)
    (axes,) = frontier_figure(frontier).axes
    tips = [line for line in axes.lines if str(line.get_gid()).startswith("tip:")]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in tips] == [
        (v.flops, v.parameters) for v in frontier.valleys
    ]
    assert f"C^{frontier.parameters_exponent.value:.3f}" in axes.texts[0].get_text()
