"""A fit of any law, and a compute-optimal frontier: the records, and the law through them.

Owns the picture of a law's response over one of its axes, a line for each level of the others, and of N* over compute.
Fits nothing; a run that is asked about is forecast by the fit itself.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweep_analysis.figures.series import Floats, Measured, Misfit
from sweep_analysis.figures.style import (
    FORECAST,
    GRID,
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
    room_for,
    sample,
    spread,
)
from sweep_analysis.fit import Fit, Outlook
from sweep_analysis.frontier import Frontier
from sweep_analysis.laws.base import Axis
from sweep_analysis.present import number
from sweep_analysis.scale import format_scale

LINES = 5
"""Lines of a law that a figure draws; of more levels so many are chosen evenly."""
WIDE = 20.0
"""Largest over smallest response above which its axis has powers of ten."""


def misfits_of(fit: Fit) -> tuple[Misfit, ...]:
    """Each record of a fit of N and D against the law, for `residuals_figure`. Raises ValueError on any other fit."""
    table = fit.table
    if fit.form.response != "loss" or not {"parameters", "tokens"} <= table.columns.keys():
        raise ValueError(f"{fit.law} is no law of loss over parameters and tokens; its residuals have no compute")
    fitted = fit.predict(**{a.name: table[a.name] for a in fit.form.axes})
    runs = table.labels.get("run") or ("",) * len(table)
    rungs = table.labels.get("rung") or ("records",) * len(table)
    rows = zip(rungs, table["parameters"], table["tokens"], table["loss"], runs, fitted, strict=True)
    return tuple(Misfit(Measured(g, float(n), float(d), float(v), r), float(f)) for g, n, d, v, r, f in rows)


def fit_figure(
    fit: Fit, *, over: str | None = None, at: Mapping[str, float] | None = None, layout: Layout = PAPER
) -> Figure:
    """The law and its records over one axis, a line for each level of the others.

    over: the axis of the abscissa; the one of most levels when None. at: a run not trained yet, drawn as its forecast
    with the interval. Raises ValueError on a fit that was refused and on an axis that the law has not.
    """
    if not fit.usable:
        raise ValueError(f"{fit.law} was not fitted: {fit.message}")
    axis = _abscissa(fit, over)
    others = [a for a in fit.form.axes if a is not axis]
    told = _told(fit, at)
    x, y = fit.table[axis.name], fit.table[fit.form.response]
    levels, level_of = _levels(fit, others)
    ends = np.array([*x, float(at[axis.name])] if at and told else x)
    grid = np.geomspace(ends.min(), ends.max(), 120) if axis.logarithmic else np.linspace(ends.min(), ends.max(), 120)
    drawn = list(dict.fromkeys(levels[i] for i in np.linspace(0, len(levels) - 1, min(LINES, len(levels))).astype(int)))
    if at and told and others:
        asked = tuple(float(at[a.name]) for a in others)
        drawn = list(dict.fromkeys([*drawn, asked]))
    beside = [dict(zip((a.name for a in others), level, strict=True)) for level in drawn]
    lines = [fit.predict(**{axis.name: grid, **level}) for level in beside]
    names = [", ".join(f"{a.symbol} = {_short(v)}" for a, v in zip(others, level, strict=True)) for level in drawn]
    right = room_for(names) if others else 0.4
    figure, axes = new_figure(layout, 21 if layout.narrow else 26, left=3.2, right=right, top=2.2, bottom=3.2)
    shown = np.array([*y, told.loss.low, told.loss.high] if told else y)
    _x_axis(axes, axis, ends, layout)
    _y_axis(axes, shown, relative=fit.goal.relative, below=2.2 if told else 1.0)
    for line in lines:
        axes.plot(grid, line, color=FORECAST, linewidth=1.2, zorder=2)
    _name_ends(axes, layout, names, [float(line[-1]) for line in lines])
    _records(axes, fit, axis, x, y, level_of, layout)
    if told and at:
        _outlook(axes, float(at[axis.name]), told, layout)
    response = fit.form.response
    name_axes(
        axes,
        layout,
        x=f"{axis.symbol}, {axis.name.replace('_', ' ') if axis.unit == '1' else axis.unit}",
        y=f"{response.replace('_', ' ').capitalize()}, {fit.form.response_unit}",
    )
    return figure


def frontier_figure(frontier: Frontier, *, layout: Layout = PAPER) -> Figure:
    """N* over compute: the power law, and the valleys it runs through, each with two standard deviations either way."""
    figure, axes = new_figure(layout, 21 if layout.narrow else 24, left=3.2, right=0.4, top=2.2, bottom=3.2)
    C = np.geomspace(frontier.lowest_flops, frontier.highest_flops, 60)
    N = np.array([frontier.parameters(c) for c in C])
    valleys = frontier.valleys
    low = min([*N, *(v.parameters * np.exp(-2 * v.deviation) for v in valleys)])
    high = max([*N, *(v.parameters * np.exp(2 * v.deviation) for v in valleys)])
    pad = (C[-1] / C[0]) ** 0.06
    log_axis(axes, "x", C[0] / pad, C[-1] * pad, 4 if layout.narrow else 7)
    log_axis(axes, "y", low / 1.4, high * 1.4, 6)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.plot(C, N, color=FORECAST, linewidth=1.6, zorder=2)
    for v in valleys:
        ends = [v.parameters * np.exp(sign * 2 * v.deviation) for sign in (-1, 1)]
        axes.plot([v.flops, v.flops], ends, color=OBSERVED, linewidth=1.0, zorder=3)
        axes.plot(
            [v.flops], [v.parameters], linestyle="none", marker="o", markersize=layout.text * 0.56, color=OBSERVED,
            markeredgecolor=PAPER_WHITE, markeredgewidth=0.7, zorder=4,
            gid=f"{TIP}{v.flops:.3g} FLOPs: {format_scale(v.parameters)} parameters, loss {v.loss:.4f}",
        )  # fmt: skip
    a = frontier.parameters_exponent
    axes.annotate(
        f"N* ~ C^{a.value:.3f} [{a.low:.3f}, {a.high:.3f}]", (0, 1), (4, -4), xycoords="axes fraction",
        textcoords="offset points", color=FORECAST, fontsize=layout.text, ha="left", va="top",
    )  # fmt: skip
    name_axes(axes, layout, x="Training compute 6·N·D, FLOPs", y="Compute-optimal size N*, parameters")
    return figure


def _abscissa(fit: Fit, over: str | None) -> Axis:
    axes = {a.name: a for a in fit.form.axes}
    if over is None:
        return max(fit.form.axes, key=lambda a: len(np.unique(fit.table[a.name])))
    if over not in axes:
        raise ValueError(f"{fit.law} is a law of {', '.join(axes)}; over={over!r} is none of them")
    return axes[over]


def _told(fit: Fit, at: Mapping[str, float] | None) -> Outlook | None:
    if at is None:
        return None
    told = fit.forecast(**at)
    if not isinstance(told, Outlook):
        raise ValueError(f"no forecast ({told.reason}): {told.message}")
    return told


def _levels(fit: Fit, others: Sequence[Axis]) -> tuple[list[tuple[float, ...]], list[int]]:
    """The distinct places along the other axes, ascending, and which of them each record has."""
    rows = list(zip(*(fit.table[a.name].tolist() for a in others), strict=True)) or [()] * len(fit.table)
    levels = sorted(set(rows))
    index = {level: i for i, level in enumerate(levels)}
    return levels, [index[row] for row in rows]


def _x_axis(axes: Axes, axis: Axis, values: Floats, layout: Layout) -> None:
    low, high = float(values.min()), float(values.max())
    if axis.logarithmic:
        pad = max((high / low) ** 0.06, 1.05)
        log_axis(axes, "x", low / pad, high * pad, 4 if layout.narrow else 7)
    else:
        margin = 0.06 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(4 if layout.narrow else 7))


def _y_axis(axes: Axes, values: Floats, *, relative: bool, below: float) -> None:
    """`below`: room under the lowest value, in margins."""
    low, high = float(values.min()), float(values.max())
    if relative and high / low > WIDE:
        log_axis(axes, "y", low / 1.3, high * 1.3, 6)
    elif relative:
        pad = max((high / low) ** 0.08, 1.002)
        loss_axis(axes, low / pad**below, high * pad)
    else:
        margin = 0.1 * (high - low) or 0.1
        axes.set_ylim(low - below * margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def _records(axes: Axes, fit: Fit, axis: Axis, x: Floats, y: Floats, level_of: Sequence[int], layout: Layout) -> None:
    marks = sample(range(len(x)))
    few = len(set(level_of)) <= len(MARKERS)
    groups = [[i] for i in marks]
    if len(x) > MANY:
        groups = [[i for i in marks if level_of[i] == level] for level in sorted(set(level_of))] if few else [marks]
    for group in groups:
        i = group[0]
        place = ", ".join(f"{a.symbol} = {_short(float(fit.table[a.name][i]))}" for a in fit.form.axes)
        axes.plot(
            x[group], y[group], linestyle="none", marker=MARKERS[level_of[i]] if few else MARKERS[0],
            markersize=layout.text * 0.52, color=OBSERVED, markeredgecolor=PAPER_WHITE, markeredgewidth=0.6, zorder=4,
            gid=f"{TIP}{place}: {number(float(y[i]))}" if len(group) == 1 else None,
        )  # fmt: skip


def _name_ends(axes: Axes, layout: Layout, names: Sequence[str], ends: Sequence[float]) -> None:
    """Each line's name at its right end, moved apart where they would touch."""
    if not names or not names[0]:
        return
    to_pixels = axes.transData.transform
    right = axes.get_xlim()[1]
    at = [float(to_pixels((right, end))[1]) for end in ends]
    for name, place in zip(names, spread(at, layout.text * 1.25), strict=True):
        height = float(axes.transAxes.inverted().transform((0, place))[1])
        axes.annotate(
            name, (1, height), (3, 0), xycoords="axes fraction", textcoords="offset points", color=MUTED,
            fontsize=layout.text * 0.92, ha="left", va="center", annotation_clip=False,
        )  # fmt: skip


def _outlook(axes: Axes, x: float, told: Outlook, layout: Layout) -> None:
    loss = told.loss
    axes.plot([x, x], [loss.low, loss.high], color=FORECAST, linewidth=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(
        [x], [loss.value], linestyle="none", marker="o", markersize=layout.text * 0.62, color=PAPER_WHITE,
        markeredgecolor=FORECAST, markeredgewidth=1.6, zorder=5,
        gid=f"{TIP}forecast: {number(loss.value)}, {number(loss.low)} to {number(loss.high)}",
    )  # fmt: skip
    axes.annotate(
        f"forecast {number(loss.value)}", (x, loss.low), (0, -layout.text * 0.3), textcoords="offset points",
        color=FORECAST, fontsize=layout.text, ha="right", va="top", zorder=6,
    )  # fmt: skip


def _short(value: float) -> str:
    return format_scale(value) if value >= 1000 else f"{value:.4g}"
