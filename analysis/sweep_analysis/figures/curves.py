"""Learning curves: training loss over tokens, one line a run, named where it ends.

Owns the picture and the thinning that keeps it light. Reads no files.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep_analysis.figures.series import Floats, LearningCurve
from sweep_analysis.figures.style import (
    INK,
    MANY,
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
    spread,
)

BINS = 72
"""Even steps of log tokens over the whole width, in each of which a curve is averaged."""
_TRUSTED = 0.1
"""Share of a run's tokens before which its loss only tells the initialisation; left out of the vertical scale."""


def curves_figure(curves: Sequence[LearningCurve], *, target: str = "target", layout: Layout = PAPER) -> Figure:
    """Training loss over training tokens, both logarithmic; the points are validation losses of the records.

    Curves are averaged in even steps of log tokens. The rung named `target` is drawn in ink, the others lighter. Raises
    ValueError when no curve holds a point.
    """
    drawn = [curve for curve in curves if any(len(tokens) for tokens, _ in curve.pieces)]
    if not drawn:
        raise ValueError("nothing to draw: no learning curve holds a point")
    figure, axes = new_figure(
        layout, 19 if layout.narrow else 23, left=2.4, right=room_for([c.rung for c in drawn]), top=2.2, bottom=3.2
    )
    all_tokens = np.concatenate([tokens for curve in drawn for tokens, _ in curve.pieces])
    step = max(math.log(all_tokens.max() / max(all_tokens.min(), 1.0)) / BINS, 1e-9)
    thinned = {id(curve): _thinned(curve, step) for curve in drawn}
    _scale(axes, layout, drawn, thinned)
    many = sum(len(curve.measured) for curve in drawn) > MANY
    for curve in drawn:
        ink = curve.rung == target
        for tokens, loss in thinned[id(curve)]:
            axes.plot(
                tokens, loss, color=INK if ink else MUTED, linewidth=1.3 if ink else 0.9, alpha=1 if ink else 0.75,
                zorder=3 if ink else 2, gid=f"{TIP}{curve.rung}: {curve.run}",
            )  # fmt: skip
        for points in [curve.measured] if many else [(point,) for point in curve.measured]:
            axes.plot(
                [tokens for tokens, _ in points], [loss for _, loss in points], linestyle="none", marker="o",
                markersize=layout.text * 0.46, color=OBSERVED, markeredgecolor=PAPER_WHITE, markeredgewidth=0.6,
                zorder=4, gid=None if many else f"{TIP}{curve.rung}: {points[0][1]:.4f} nats/token on validation text",
            )  # fmt: skip
    _name_ends(axes, layout, drawn, thinned)
    name_axes(axes, layout, x="Training tokens", y="Training loss, nats per token")
    return figure


def thin(tokens: Floats, loss: Floats, step: float) -> tuple[Floats, Floats]:
    """The mean loss in even steps of log tokens, `step` wide; both ends stay where they are."""
    x = np.log(np.maximum(tokens, 1.0))
    at = ((x - x[0]) / step).astype(np.intp)
    count = np.bincount(at)
    kept = count > 0
    mean_x = np.bincount(at, weights=x)[kept] / count[kept]
    mean_loss = np.bincount(at, weights=loss)[kept] / count[kept]
    mean_x[0], mean_x[-1] = x[0], x[-1]
    return np.exp(mean_x), mean_loss


def _thinned(curve: LearningCurve, step: float) -> list[tuple[Floats, Floats]]:
    """The pieces, thinned; a branch begins on its trunk as drawn."""
    pieces = [thin(tokens, loss, step) for tokens, loss in curve.pieces if len(tokens)]
    trunk_tokens, trunk_loss = pieces[0]
    for tokens, loss in pieces[1:]:
        if trunk_tokens[0] <= tokens[0] <= trunk_tokens[-1]:
            loss[0] = np.interp(tokens[0], trunk_tokens, trunk_loss)
    return pieces


def _scale(
    axes: Axes, layout: Layout, curves: Sequence[LearningCurve], thinned: dict[int, list[tuple[Floats, Floats]]]
) -> None:
    pieces = [(curve, t, loss) for curve in curves for t, loss in thinned[id(curve)]]
    ends = [float(t[-1]) for _, t, _ in pieces]
    last = {id(curve): max(float(t[-1]) for t, _ in thinned[id(curve)]) for curve in curves}
    low, high = min(float(t[0]) for _, t, _ in pieces), max(ends)
    low = max(low, min(last.values()) * _TRUSTED / 10)
    trusted = [
        float(value)
        for curve, t, loss in pieces
        for value in loss[t >= _TRUSTED * last[id(curve)]]
    ] + [value for curve in curves for _, value in curve.measured]  # fmt: skip
    log_axis(axes, "x", low, high * 1.15, 4 if layout.narrow else 7)
    margin = max(math.log(max(trusted) / min(trusted)) * 0.05, 0.01)
    loss_axis(axes, min(trusted) * math.exp(-margin), max(trusted) * math.exp(margin))


def _name_ends(
    axes: Axes, layout: Layout, curves: Sequence[LearningCurve], thinned: dict[int, list[tuple[Floats, Floats]]]
) -> None:
    """A rung's name at the right, at the height where its lowest curve ends."""
    bottom, top = axes.get_ylim()
    points = axes.get_window_extent().height / math.log(top / bottom)
    ends: dict[str, float] = {}
    for curve in curves:
        _, loss = max(thinned[id(curve)], key=lambda piece: float(piece[0][-1]))
        ends[curve.rung] = min(ends.get(curve.rung, math.inf), float(loss[-1]))
    heights = [math.log(min(max(end, bottom), top) / bottom) * points for end in ends.values()]
    for rung, place in zip(ends, spread(heights, layout.text * 1.25), strict=True):
        axes.annotate(
            rung, (1, 0), (4, place), xycoords="axes fraction", textcoords="offset points", color=INK,
            fontsize=layout.text * 0.92, ha="left", va="center", annotation_clip=False,
        )  # fmt: skip
