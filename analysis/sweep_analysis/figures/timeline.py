"""The ladder's timeline: every attempt at every run as a bar, and when each forecast and each verdict was made.

Owns the picture. That forecasts stand left of the runs they are about is the ladder's promise; here one can see it.
"""

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
    """Attempts as bars over time, runs of a rung together, first rung at the top.

    A hollow diamond is a forecast, a filled one a verdict. Attempts that did not succeed are drawn as an outline.
    Raises ValueError when nothing happened yet.
    """
    if not bars and not marks:
        raise ValueError("nothing to draw: no run was started and no forecast was made")
    rows = _rows(bars, marks)
    lanes = sum(len(runs) for runs in rows.values())
    lane = 1.0 if lanes <= 24 else max(0.25, 24 / lanes)  # lines of text a lane takes; a tall ladder is drawn thinner
    height = lanes * lane + len(rows) * 0.9
    figure, axes = new_figure(layout, height + 4.2, left=room_for(list(rows)), right=1.0, top=0.6, bottom=3.2)
    axes.set_ylim(height, 0)
    last = max([bar.end for bar in bars] + [mark.at for mark in marks] + [1e-3])
    size, unit = next((each for each in reversed(_UNITS) if last / each[0] >= 2), _UNITS[0])
    axes.set_xlim(0, last / size * 1.02)
    axes.locator_params(axis="x", nbins=4 if layout.narrow else 8)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks([])
    top = 0.0
    for rung, runs in rows.items():
        bottom = top + len(runs) * lane + 0.9
        middle = (top + bottom) / 2
        axes.annotate(
            rung, (0, middle), (-0.6 * layout.text, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=INK, fontsize=layout.text, ha="right", va="center", annotation_clip=False,
        )  # fmt: skip
        for bar in (b for b in bars if b.rung == rung):
            tip = f"{TIP}{rung}, {bar.run}: {bar.outcome}, {bar.start / size:.1f} to {bar.end / size:.1f} {unit}"
            y = top + 0.45 + runs.index(bar.run) * lane
            _draw_bar(axes, bar, y, lane, size, tip if len(bars) <= MANY else None)
        for mark in (m for m in marks if m.rung == rung):
            _draw_mark(axes, layout, mark, middle, size, unit)
        top = bottom
    name_axes(axes, layout, x=f"{unit.capitalize()} since the sweep began", y="")
    return figure


def _rows(bars: Sequence[Bar], marks: Sequence[Mark]) -> dict[str, list[str]]:
    """Rungs in the order given, each with its runs."""
    rows: dict[str, list[str]] = {}
    for rung in [*(m.rung for m in sorted(marks, key=lambda m: m.at)), *(b.rung for b in bars)]:
        rows.setdefault(rung, [])
    for bar in bars:
        if bar.run not in rows[bar.rung]:
            rows[bar.rung].append(bar.run)
    return rows


def _draw_bar(axes: Axes, bar: Bar, y: float, lane: float, size: float, tip: str | None) -> None:
    whole = bar.outcome in _WHOLE
    drawn = axes.barh(
        y + lane / 2, (bar.end - bar.start) / size, left=bar.start / size, height=0.72 * lane,
        color=MUTED if whole else "none", alpha=0.55 if whole else 1, edgecolor="none" if whole else MUTED,
        linewidth=0 if whole else 0.8, hatch=None if whole else "////", zorder=2,
    )  # fmt: skip
    drawn[0].set_gid(tip)


def _draw_mark(axes: Axes, layout: Layout, mark: Mark, y: float, size: float, unit: str) -> None:
    forecast = mark.kind == "Forecast"
    axes.plot(
        [mark.at / size], [y], linestyle="none", marker="D", markersize=layout.text * 0.6, zorder=4, clip_on=False,
        color=PAPER_WHITE if forecast else OBSERVED, markeredgecolor=FORECAST if forecast else PAPER_WHITE,
        markeredgewidth=1.5 if forecast else 0.8,
        gid=f"{TIP}{mark.rung}: {mark.kind.lower()} after {mark.at / size:.1f} {unit}. {mark.words}",
    )  # fmt: skip
