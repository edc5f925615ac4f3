"""The ladder's timeline: every attempt at every run as a bar, and when each forecast and each verdict was made.

Owns the picture. That forecasts stand left of the runs they are about is the ladder's promise; here one can see it.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep_analysis.figures.series import Bar, Mark
from sweep_analysis.figures.style import (
    FORECAST,
    GRID,
    INK,
    MANY,
    MUTED,
    OBSERVED,
    PAPER,
    PAPER_WHITE,
    TIP,
    Layout,
    name_axes,
    new_figure,
    room_for,
)

_UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))
_WHOLE = ("Succeeded", "Running")


def timeline_figure(bars: Sequence[Bar], marks: Sequence[Mark] = (), *, layout: Layout = PAPER) -> Figure:
    """Attempts as bars over time, those of a rung together, first rung at the top.

    A hollow diamond is a forecast, a filled one a verdict. Diagnosis is paler, and what did not succeed is hatched.
    Raises ValueError when nothing happened yet.
    """
    if not bars and not marks:
        raise ValueError("nothing to draw: no run was started and no forecast was made")
    rows = {rung: _lanes([bar for bar in bars if bar.rung == rung]) for rung in _rungs(bars, marks)}
    depths = {rung: max((lane for _, lane in packed), default=0) + 1 for rung, packed in rows.items()}
    lane = 1.0 if sum(depths.values()) <= 24 else max(0.03, 24 / sum(depths.values()))  # lines of text a lane takes
    height = sum(depths.values()) * lane + len(rows) * 0.9
    figure, axes = new_figure(layout, height + 4.2, left=room_for(list(rows)), right=1.0, top=0.6, bottom=3.2)
    axes.set_ylim(height, 0)
    last = max([bar.end for bar in bars] + [mark.at for mark in marks] + [1e-3])
    size, unit = next((each for each in reversed(_UNITS) if last / each[0] >= 2), _UNITS[0])
    axes.set_xlim(0, last / size * 1.02)
    axes.locator_params(axis="x", nbins=4 if layout.narrow else 8)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks([])
    top = 0.0
    for rung, packed in rows.items():
        bottom = top + depths[rung] * lane + 0.9
        middle = (top + bottom) / 2
        axes.annotate(
            rung, (0, middle), (-0.6 * layout.text, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=INK, fontsize=layout.text, ha="right", va="center", annotation_clip=False,
        )  # fmt: skip
        placed = [(bar, top + 0.45 + (place + 0.5) * lane) for bar, place in packed]
        if len(bars) > MANY:
            _draw_many(axes, placed, 0.72 * lane * layout.text * 1.35, size)
        else:
            for bar, y in placed:
                tip = f"{TIP}{rung}, {bar.run}: {bar.outcome}, {bar.start / size:.1f} to {bar.end / size:.1f} {unit}"
                _draw_bar(axes, bar, y, 0.72 * lane, size, tip)
        for mark in (m for m in marks if m.rung == rung):
            _draw_mark(axes, layout, mark, middle, size, unit)
        top = bottom
    name_axes(axes, layout, x=f"{unit.capitalize()} since the sweep began", y="")
    return figure


def _rungs(bars: Sequence[Bar], marks: Sequence[Mark]) -> list[str]:
    """Rungs in the order in which anything is known of them."""
    known = [(mark.at, mark.rung) for mark in marks] + [(bar.start, bar.rung) for bar in bars]
    return list(dict.fromkeys(rung for _, rung in sorted(known, key=lambda each: each[0])))


def _lanes(bars: Sequence[Bar]) -> list[tuple[Bar, int]]:
    """Each bar with the first lane that is free when it begins: as many lanes as ran at once."""
    free: list[float] = []
    packed = []
    for bar in sorted(bars, key=lambda bar: (bar.start, -bar.end)):
        lane = next((i for i, end in enumerate(free) if end <= bar.start), len(free))
        free[lane:] = [bar.end, *free[lane + 1 :]]
        packed.append((bar, lane))
    return packed


def _draw_bar(axes: Axes, bar: Bar, y: float, height: float, size: float, tip: str) -> None:
    whole = bar.outcome in _WHOLE
    alpha = 1.0 if not whole else 0.28 if bar.diagnosis else 0.6
    drawn = axes.barh(
        y, (bar.end - bar.start) / size, left=bar.start / size, height=height,
        color=MUTED if whole else "none", alpha=alpha, edgecolor="none" if whole else MUTED,
        linewidth=0 if whole else 0.8, hatch=None if whole else "////", zorder=2,
    )  # fmt: skip
    drawn[0].set_gid(tip)


def _draw_many(axes: Axes, placed: Sequence[tuple[Bar, float]], points: float, size: float) -> None:
    """All bars of a rung as one line a kind, broken between them: a tenth of the weight, and no sentence each."""
    for bars, alpha in (
        ([(b, y) for b, y in placed if b.outcome in _WHOLE and not b.diagnosis], 0.6),
        ([(b, y) for b, y in placed if b.outcome not in _WHOLE or b.diagnosis], 0.28),
    ):
        x = [value for bar, _ in bars for value in (bar.start / size, bar.end / size, math.nan)]
        heights = [value for _, y in bars for value in (y, y, math.nan)]
        axes.plot(x, heights, color=MUTED, alpha=alpha, linewidth=points, solid_capstyle="butt", zorder=2)


def _draw_mark(axes: Axes, layout: Layout, mark: Mark, y: float, size: float, unit: str) -> None:
    forecast = mark.kind == "Forecast"
    axes.plot(
        [mark.at / size], [y], linestyle="none", marker="D", markersize=layout.text * 0.6, zorder=4, clip_on=False,
        color=PAPER_WHITE if forecast else OBSERVED, markeredgecolor=FORECAST if forecast else PAPER_WHITE,
        markeredgewidth=1.5 if forecast else 0.8,
        gid=f"{TIP}{mark.rung}: {mark.kind.lower()} after {mark.at / size:.1f} {unit}. {mark.words}",
    )  # fmt: skip
