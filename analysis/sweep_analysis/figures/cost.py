"""Cost against budget: what each rung used, one after another, and where the budget ends.

Owns the picture. Prices nothing.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep_analysis.figures.series import Cost
from sweep_analysis.figures.style import (
    FAINT,
    FORECAST,
    GRID,
    INK,
    MUTED,
    OBSERVED,
    PAPER,
    TIP,
    Layout,
    name_axes,
    new_figure,
    power,
    room_for,
)


def cost_figure(
    costs: Sequence[Cost], *, unit: str = "GPU-hours", budget: float | None = None, layout: Layout = PAPER
) -> Figure:
    """A row a part, each bar beginning where the one above ended, so that the last end is the sum.

    Spent is filled; what is still expected is an outline with its interval as a line. `unit` is `GPU-hours` or `FLOPs`.
    Raises ValueError without parts.
    """
    if not costs:
        raise ValueError("nothing to draw: nothing was spent and nothing is planned")
    figure, axes = new_figure(
        layout,
        1.7 * len(costs) + 4.8,
        left=room_for([c.name for c in costs]),
        right=room_for([_words(c) for c in costs]),
        top=1.6,
        bottom=3.2,
    )
    axes.set_ylim(len(costs) - 0.4, -0.6)
    begin, furthest = 0.0, 0.0
    for i, cost in enumerate(costs):
        middle = cost.expected[0] if cost.expected else 0.0
        furthest = max(furthest, begin + cost.spent + (cost.expected[2] if cost.expected else 0.0))
        _draw_row(axes, layout, i, cost, begin, unit)
        begin += cost.spent + middle
    shown = budget if budget is not None and budget <= 4 * furthest else None
    axes.set_xlim(0, max(furthest, shown or 0.0) * 1.04 or 1.0)
    axes.locator_params(axis="x", nbins=3 if layout.narrow else 6)
    axes.set_xticks(axes.get_xticks(), [amount(max(0.0, float(t))) for t in axes.get_xticks()])
    axes.set_xlim(0, max(furthest, shown or 0.0) * 1.04 or 1.0)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    if shown is not None:
        axes.axvline(shown, color=INK, linewidth=1.2, zorder=4)
        axes.annotate(
            f"budget {amount(shown)}", (shown, 1), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=INK, fontsize=layout.text * 0.92,
            ha="right" if shown > 0.5 * axes.get_xlim()[1] else "center", va="bottom", annotation_clip=False,
        )  # fmt: skip
    elif budget is not None:
        axes.annotate(
            f"budget {amount(budget)} →", (1, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
            color=INK, fontsize=layout.text * 0.92, ha="right", va="bottom", annotation_clip=False,
        )  # fmt: skip
    name_axes(axes, layout, x=f"{unit}, summed from the top", y="")
    return figure


def amount(value: float) -> str:
    """Three significant digits, with powers of ten where plain digits would be long."""
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= value < 1e5 else power(value)


def _draw_row(axes: Axes, layout: Layout, i: int, cost: Cost, begin: float, unit: str) -> None:
    size = layout.text
    axes.annotate(
        cost.name, (0, i), (-0.6 * size, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=INK, fontsize=size, ha="right", va="center", annotation_clip=False,
    )  # fmt: skip
    if cost.spent:
        axes.barh(i, cost.spent, left=begin, height=0.5, color=OBSERVED, linewidth=0, zorder=2)[0].set_gid(
            f"{TIP}{cost.name}: {amount(cost.spent)} {unit} spent"
        )
    if cost.expected is not None:
        value, low, high = cost.expected
        at = begin + cost.spent
        axes.barh(i, value, left=at, height=0.5, color="none", edgecolor=FORECAST, linewidth=1.2, zorder=2)[0].set_gid(
            f"{TIP}{cost.name}: {amount(value)} {unit} still expected, {amount(low)} to {amount(high)}"
        )
        axes.plot([at + low, at + high], [i, i], color=FORECAST, linewidth=2, solid_capstyle="butt", zorder=3)
    if i:
        axes.plot([begin, begin], [i - 0.75, i - 0.25], color=FAINT, linewidth=0.8, zorder=1)
    axes.annotate(
        _words(cost), (1, i), (0.6 * size, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=OBSERVED if cost.expected is None else (MUTED if cost.spent else FORECAST), fontsize=size, ha="left",
        va="center", annotation_clip=False,
    )  # fmt: skip


def _words(cost: Cost) -> str:
    """What stands at the row's end: spent, and after a plus what is still expected."""
    if cost.expected is None:
        return amount(cost.spent)
    return f"{amount(cost.spent)} + {amount(cost.expected[0])}" if cost.spent else amount(cost.expected[0])
