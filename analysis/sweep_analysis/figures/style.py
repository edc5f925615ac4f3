"""How the figures look: two accents, ink and paper, direct labels, no boxes.

Owns the palette (each colour has a role; pages map roles to CSS variables), the layouts and the axes' furniture.
Knows no data.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

T = TypeVar("T")

# Forecast is blue and hollow, observation is orange and filled, everywhere. The pair keeps its difference under the
# three common colour-vision deficiencies and in grey print, and both carry 4.5:1 against the paper.
INK = "#1d1d1b"
MUTED = "#66655f"
FAINT = "#c4c3bb"
GRID = "#e9e8e2"
PAPER_WHITE = "#fefefc"
FORECAST = "#1d5fa6"
OBSERVED = "#b3470e"

ROLES = {
    INK: "ink",
    MUTED: "muted",
    FAINT: "faint",
    GRID: "grid",
    PAPER_WHITE: "paper",
    FORECAST: "forecast",
    OBSERVED: "observed",
}
"""Colour as drawn → role; a page may give each role another colour at night."""

MARKERS = "osD^v"
MARKER_NAMES = ("circles", "squares", "diamonds", "triangles", "inverted triangles")
"""One marker for each token/parameter ratio; beyond five they repeat, and the lines' names tell."""
MANY = 300
"""Marks above which a figure draws them in one piece and without a sentence each, to stay light."""
MOST = 1000
"""Marks of one kind that a figure draws; of more, so many chosen evenly and always the same."""
TIP = "tip:"
"""An artist whose gid starts so carries a sentence that a page shows when it is pointed at."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A width and a size of type, in points (1/72 inch); a page takes a point for a CSS pixel."""

    width: float
    text: float

    @property
    def narrow(self) -> bool:
        """Whether there is no room beside the plot for words."""
        return self.width < 36 * self.text


PAPER = Layout(width=468, text=8)
"""6.5 inches: the text width of a paper."""
PAGE = Layout(width=720, text=12.5)
PHONE = Layout(width=350, text=11.5)


class Shown(Figure):
    """A figure that a notebook shows as the last value of a cell, without pyplot and its global state."""

    def _repr_svg_(self) -> str:
        drawn = io.BytesIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "figure"}):
            self.savefig(drawn, format="svg", facecolor=PAPER_WHITE, metadata={"Date": None, "Creator": None})
        return drawn.getvalue().decode()


def new_figure(
    layout: Layout, height: float, *, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    """An empty figure and its axes; height and margins in lines of text."""
    line = layout.text * 1.35
    figure = Shown(figsize=(layout.width / 72, height * line / 72), dpi=72, facecolor="none")
    axes = figure.add_axes(
        (
            left * line / layout.width,
            bottom / height,
            1 - (left + right) * line / layout.width,
            1 - (top + bottom) / height,
        ),
        facecolor="none",
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(axis="both", which="both", length=0, labelsize=layout.text * 0.92, labelcolor=MUTED, pad=5)
    axes.set_axisbelow(True)
    return figure, axes


def name_axes(axes: Axes, layout: Layout, *, x: str, y: str) -> None:
    """Axis names where the eye starts: y above its axis, read without turning the head; x under its end."""
    line = layout.text * 1.35
    size = layout.text * 0.92
    axes.annotate(
        y, (0, 1), (0, 0.9 * line), xycoords=("figure fraction", "axes fraction"), textcoords="offset points",
        fontsize=size, color=MUTED, ha="left", va="bottom", annotation_clip=False,
    )  # fmt: skip
    axes.annotate(
        x, (1, 0), (0, -2.1 * line), xycoords="axes fraction", textcoords="offset points",
        fontsize=size, color=MUTED, ha="right", va="center", annotation_clip=False,
    )  # fmt: skip


def room_for(words: Sequence[str]) -> float:
    """The margin, in lines, that the longest of the words needs."""
    return 0.47 * max((len(word) for word in words), default=0) + 0.9


def log_axis(axes: Axes, which: str, low: float, high: float, most: int) -> None:
    """A logarithmic axis over [low, high] with at most `most` labelled ticks, at 1, 2, 5 times powers of ten."""
    ticks = _log_ticks(low, high, most)
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_ticklabels([power(tick) for tick in ticks])


def loss_axis(axes: Axes, low: float, high: float, most: int = 6) -> None:
    """A logarithmic axis of losses, labelled in plain decimals with hair lines behind the data."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = [t for t in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= t <= high]
    digits = next((d for d in range(6) if all(abs(round(tick, d) - tick) < 1e-9 for tick in ticks)), 6)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_ticklabels([f"{tick:.{digits}f}" for tick in ticks])
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            m * 10.0**e
            for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for m in mantissas
            if low <= m * 10.0**e <= high
        ]
        if len(ticks) <= most:
            break
    every = math.ceil(len(ticks) / most) if ticks else 1
    return ticks[::every]


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(value: float) -> str:
    """3e11 → 3×10¹¹; in Unicode, so that it is text everywhere."""
    if value <= 0:
        return "0"
    exponent = math.floor(math.log10(value) + 1e-12)
    mantissa = float(f"{value / 10.0**exponent:.2g}")
    raised = f"10{str(exponent).translate(_RAISED)}"
    return raised if mantissa == 1 else f"{mantissa:g}×{raised}"


def percent(relative: float, digits: int = 1) -> str:
    """A signed percentage with a true minus: -0.012 → −1.2%."""
    text = f"{100 * relative:+.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−") + "%"


def sample(items: Sequence[T], most: int = MOST) -> list[T]:
    """At most so many of the items, in their order, every one as likely as another; the same choice every time."""
    if len(items) <= most:
        return list(items)
    chosen = np.random.default_rng(0).choice(len(items), most, replace=False)
    return [items[i] for i in sorted(chosen)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart as little as it takes to leave `gap` between neighbours; the order is kept."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[tuple[float, int]] = []  # (centre, members), bottom to top
    for i in order:
        groups.append((positions[i], 1))
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2], groups[-1]
            if b - a >= gap * (n + m) / 2:
                break
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    placed = [0.0] * len(positions)
    members = iter(order)
    for centre, count in groups:
        for k in range(count):
            placed[next(members)] = centre + gap * (k - (count - 1) / 2)
    return placed
