"""Forecasts against what came: a row a rung, the judged interval around zero, the observed deviation in it.

Owns the picture of the deviations. Judges nothing; the word at a row's end is the verdict's.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep_analysis.figures.series import RungOutcome
from sweep_analysis.figures.style import (
    FAINT,
    FORECAST,
    GRID,
    INK,
    MANY,
    MOST,
    MUTED,
    OBSERVED,
    PAPER,
    PAPER_WHITE,
    TIP,
    Layout,
    name_axes,
    new_figure,
    percent,
    room_for,
    sample,
)
from sweep_analysis.scale import format_scale


def forecasts_figure(rungs: Sequence[RungOutcome], *, layout: Layout = PAPER) -> Figure:
    """Deviation of each rung from its forecast, in percent of the loss; first rung at the top.

    The bar is the interval by which the rung is judged, the filled point the mean deviation that is judged, small
    rings the single records. What lies outside the picture stands at its edge. Raises ValueError without rungs.
    """
    if not rungs:
        raise ValueError("nothing to draw: no rungs")
    row = 2.2 if len(rungs) <= 12 else 1.5
    figure, axes = new_figure(
        layout,
        len(rungs) * row + 4.8,
        left=room_for([r.rung for r in rungs]),
        right=room_for([r.word for r in rungs]) + 3.3,
        top=1.6,
        bottom=3.2,
    )
    reach = _reach(rungs)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rungs) - 0.4, -0.6)
    axes.axvline(0, color=FAINT, linewidth=1, zorder=1)
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if reach / s <= (2.6 if layout.narrow else 4.6))
    ticks = [k * step for k in range(-int(reach / step), int(reach / step) + 1)]
    axes.set_xticks(ticks, [percent(t / 100, 0 if step >= 1 else 1) for t in ticks])
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks([])
    many = sum(len(rung.records) for rung in rungs) > MANY
    for i, rung in enumerate(rungs):
        _draw_row(axes, layout, i, rung, reach, most=MOST // len(rungs), together=many)
    name_axes(axes, layout, x="Observed against forecast loss", y="")
    return figure


def _reach(rungs: Sequence[RungOutcome]) -> float:
    """Half the width of the picture in percent: the intervals set it, and a far miss may stretch it threefold."""
    widths = [100 * r.half_width for r in rungs if r.half_width is not None]
    widths += [100 * abs(math.log(e / p.loss)) for r in rungs for p in r.records for e in (p.low, p.high)]
    misses = [100 * abs(math.expm1(d)) for r in rungs for p in r.records for d in p.deviations]
    inner = max(widths, default=1.0)
    return max(1.12 * inner, min(1.12 * max(misses, default=0.0), 3 * inner), 0.5)


def _draw_row(
    axes: Axes, layout: Layout, i: int, rung: RungOutcome, reach: float, *, most: int, together: bool
) -> None:
    size = layout.text
    axes.annotate(
        rung.rung, (0, i), (-0.6 * size, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=INK, fontsize=size, ha="right", va="center", annotation_clip=False,
    )  # fmt: skip
    deviation = rung.deviation
    if rung.half_width is not None:
        low, high = 100 * math.expm1(-math.log1p(rung.half_width)), 100 * rung.half_width
        axes.plot(
            [low, high], [i, i], color=FORECAST, alpha=0.3, linewidth=size * 0.8, solid_capstyle="butt", zorder=2,
            gid=f"{TIP}{rung.rung}: forecast interval {percent(low / 100)} to {percent(high / 100)}",
        )  # fmt: skip
    elif not rung.records:
        axes.annotate("no forecast", (0, i), color=MUTED, fontsize=size * 0.92, ha="center", va="center",
                      bbox={"facecolor": PAPER_WHITE, "edgecolor": "none", "pad": 2})  # fmt: skip
    singles = [
        (100 * math.expm1(value), f"{format_scale(p.parameters)} on {format_scale(p.tokens)} tokens")
        for p in rung.records
        for value in p.deviations
    ]
    inside = sample([(x, what) for x, what in singles if abs(x) <= reach], most)
    for group in [inside] if together else [[each] for each in inside]:
        axes.plot(
            [x for x, _ in group], [i] * len(group), linestyle="none", marker="o", markersize=size * 0.36, color="none",
            markeredgecolor=OBSERVED, markeredgewidth=1, zorder=3,
            gid=f"{TIP}{rung.rung}, {group[0][1]}: {percent(group[0][0] / 100, 2)}" if len(group) == 1 else None,
        )  # fmt: skip
    if deviation is not None:
        relative = math.expm1(deviation)
        x = max(-0.985 * reach, min(0.985 * reach, 100 * relative))
        axes.plot(
            [x], [i], linestyle="none", marker="o" if abs(100 * relative) <= reach else "<" if x < 0 else ">",
            markersize=size * 0.66,
            color=OBSERVED, markeredgecolor=PAPER_WHITE, markeredgewidth=0.8, zorder=4, clip_on=False,
            gid=f"{TIP}{rung.rung}: mean deviation {percent(relative, 2)}",
        )  # fmt: skip
        axes.annotate(
            percent(relative), (1, i), (4.2 * size, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=OBSERVED, fontsize=size, ha="right", va="center", annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        rung.word, (1, i), (4.7 * size, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=INK, fontsize=size, ha="left", va="center", annotation_clip=False,
    )  # fmt: skip
