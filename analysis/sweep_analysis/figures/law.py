"""The law over compute: what was measured, the band in which the next losses are expected, and the target.

Owns the picture of L against log C. Fits and forecasts nothing; `series.band_along` makes the band.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep_analysis.figures.series import Band, Foretold, Measured
from sweep_analysis.figures.style import (
    FORECAST,
    MANY,
    MARKERS,
    MUTED,
    OBSERVED,
    PAPER,
    PAPER_WHITE,
    TIP,
    Layout,
    log_axis,
    loss_axis,
    name_axes,
    new_figure,
    sample,
)
from sweep_analysis.scale import format_scale


def law_figure(
    measured: Sequence[Measured],
    *,
    band: Band | None = None,
    lines: Sequence[Band] = (),
    target: Foretold | None = None,
    layout: Layout = PAPER,
) -> Figure:
    """Loss over training compute C = 6·N·D, both logarithmic.

    `band`: the law along the target's token/parameter ratio, with its interval. `lines`: the law along further ratios,
    drawn without theirs. `target`: its forecast as an interval, and what came as a point. Raises ValueError when there
    is nothing to draw.
    """
    if not measured and band is None and target is None:
        raise ValueError("nothing to draw: no records, no band and no target")
    figure, axes = new_figure(layout, 21 if layout.narrow else 26, left=2.4, right=0.4, top=2.2, bottom=3.2)
    _scale(axes, layout, measured, band, target)
    for line in lines:
        axes.plot(line.compute, line.loss, color=FORECAST, linewidth=0.8, zorder=2)
    if band is not None:
        axes.fill_between(band.compute, band.low, band.high, color=FORECAST, alpha=0.13, linewidth=0, zorder=1)
        axes.plot(band.compute, band.loss, color=FORECAST, linewidth=1.6, zorder=2)
    _name_lines(axes, layout, [*lines, *([band] if band else [])])
    _draw_measured(axes, layout, measured)
    _name_rungs(axes, layout, measured, target)
    if target is not None:
        _draw_target(axes, layout, target, band)
    name_axes(axes, layout, x="Training compute 6·N·D, FLOPs", y="Loss, nats per token")
    return figure


def _scale(
    axes: Axes, layout: Layout, measured: Sequence[Measured], band: Band | None, target: Foretold | None
) -> None:
    """Limits that hold every record and the target, and of the band what lies between them."""
    compute = [m.compute for m in measured]
    losses = [m.loss for m in measured]
    if target is not None:
        compute.append(target.compute)
        losses += [target.low, target.high, *target.observed]
    if not compute and band is not None:
        compute = [float(band.compute[0]), float(band.compute[-1])]
    span = max(math.log10(max(compute) / min(compute)), 0.5)
    begin, end = min(compute) * 10 ** (-0.08 * span), max(compute) * 10 ** (0.08 * span)
    log_axis(axes, "x", begin, end, 4 if layout.narrow else 7)
    if band is not None:
        shown = (band.compute >= begin) & (band.compute <= end)
        losses += [float(x) for x in (*band.low[shown], *band.high[shown])]
    height = math.log(max(losses) / min(losses))
    points = axes.get_window_extent().height
    # In points, above the highest: a line's name; below the lowest: what the target reached, and the rungs' names.
    over, under = 0.6 * layout.text, (4.0 if target and target.observed else 2.2) * layout.text
    unit = max(height, 0.02) / (points - over - under)
    loss_axis(axes, min(losses) * math.exp(-under * unit), max(losses) * math.exp(over * unit))


def _name_lines(axes: Axes, layout: Layout, lines: Sequence[Band]) -> None:
    """Each line's ratio above its left end, where the lines are furthest apart; close neighbours share one name."""
    left = axes.get_xlim()[0]
    bottom, top = axes.get_ylim()
    points = axes.get_window_extent().height / math.log(top / bottom)
    ends = sorted(
        ((float(np.exp(np.interp(math.log(left), np.log(each.compute), np.log(each.loss)))), each) for each in lines),
        key=lambda pair: -pair[0],
    )
    groups: list[tuple[float, list[float]]] = []
    for end, each in ends:
        if groups and points * math.log(groups[-1][0] / end) < layout.text * 1.4:
            groups[-1][1].append(each.ratio)
        else:
            groups.append((end, [each.ratio]))
    for end, ratios in groups:
        axes.annotate(
            f"{' and '.join(f'{ratio:g}' for ratio in ratios)} tokens per parameter", (left, end),
            (2, layout.text * 0.3), textcoords="offset points", color=FORECAST, fontsize=layout.text * 0.92,
            ha="left", va="bottom", zorder=6,
        )  # fmt: skip


def _draw_measured(axes: Axes, layout: Layout, measured: Sequence[Measured]) -> None:
    ratios = sorted({m.ratio for m in measured})
    drawn = sample(measured)
    for i, ratio in enumerate(ratios):
        alike = [m for m in drawn if m.ratio == ratio]
        groups = [[m] for m in alike]
        if len(measured) > MANY:
            groups = [group for used in (True, False) if (group := [m for m in alike if m.used is used])]
        for group in groups:
            m = group[0]
            tip = (
                f"{TIP}{m.rung}: {m.loss:.4f} nats/token at {format_scale(m.parameters)} parameters,"
                f" {format_scale(m.tokens)} tokens"
            )
            axes.plot(
                [m.compute for m in group], [m.loss for m in group], linestyle="none",
                marker=MARKERS[i % len(MARKERS)], markersize=layout.text * 0.56,
                color=OBSERVED if m.used else PAPER_WHITE, markeredgecolor=PAPER_WHITE if m.used else OBSERVED,
                markeredgewidth=0.7 if m.used else 1.3, zorder=4, gid=tip if len(group) == 1 else None,
            )  # fmt: skip


def _name_rungs(axes: Axes, layout: Layout, measured: Sequence[Measured], target: Foretold | None) -> None:
    """The rungs' names in a row above the axis, each under the middle of its records; what has no room is left out."""
    at: dict[str, list[float]] = {}
    for m in measured:
        at.setdefault(m.rung, []).append(math.log(m.compute))
    if target is not None:
        at["target"] = [math.log(target.compute)]
    middles = {rung: sum(values) / len(values) for rung, values in at.items()}
    to_points = axes.get_window_extent().width / math.log(axes.get_xlim()[1] / axes.get_xlim()[0])
    edge = math.inf
    for rung, middle in sorted(middles.items(), key=lambda pair: -pair[1]):
        half = len(rung) * layout.text * 0.3 / to_points
        middle = min(middle, math.log(axes.get_xlim()[1]) - half)
        if middle + half > edge:
            continue
        edge = middle - half - layout.text * 0.4 / to_points
        axes.annotate(
            rung, (math.exp(middle), 0), (0, layout.text * 0.4), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=MUTED, fontsize=layout.text * 0.92, ha="center", va="bottom", zorder=6,
        )  # fmt: skip


def _draw_target(axes: Axes, layout: Layout, target: Foretold, band: Band | None) -> None:
    """The forecast as a bar with a hollow middle, what came as a filled point; both named, clear of the band."""
    x, right = target.compute, axes.get_xlim()[1]
    size = layout.text * 0.62
    axes.plot([x, x], [target.low, target.high], color=FORECAST, linewidth=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(
        [x], [target.loss], linestyle="none", marker="o", markersize=size, color=PAPER_WHITE,
        markeredgecolor=FORECAST, markeredgewidth=1.6, zorder=4,
        gid=f"{TIP}target, forecast: {target.loss:.4f} nats/token, {target.low:.4f} to {target.high:.4f}",
    )  # fmt: skip
    words = f"forecast {target.loss:.3f}"
    above, below = max([target.high, *target.observed]), min([target.low, *target.observed])
    if band is not None:
        to_points = axes.get_window_extent().width / math.log(right / axes.get_xlim()[0])
        begin = right * math.exp(-len(words) * 0.62 * layout.text / to_points)
        above = max(above, float(np.interp(math.log(begin), np.log(band.compute), band.high)))
        below = min(below, float(np.interp(math.log(right), np.log(band.compute), band.low)))
    axes.annotate(
        words, (right, above), (0, layout.text * 0.3),
        textcoords="offset points", color=FORECAST, fontsize=layout.text, ha="right", va="bottom", zorder=6,
    )  # fmt: skip
    if not target.observed:
        return
    for observed in target.observed:
        axes.plot(
            [x], [observed], linestyle="none", marker="o", markersize=size * 1.15, color=OBSERVED,
            markeredgecolor=PAPER_WHITE, markeredgewidth=0.9, zorder=5,
            gid=f"{TIP}target, observed: {observed:.4f} nats/token",
        )  # fmt: skip
    words = ", ".join(f"{observed:.3f}" for observed in target.observed)
    axes.annotate(
        f"observed {words}", (right, below), (0, -layout.text * 0.3),
        textcoords="offset points", color=OBSERVED, fontsize=layout.text, ha="right", va="top", zorder=6,
    )  # fmt: skip
