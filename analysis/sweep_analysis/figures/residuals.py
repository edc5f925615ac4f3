"""Residuals: what the law leaves unexplained in the very records it was fitted to.

Owns the picture of (observed − law)/law against compute. Fits nothing.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from sweep_analysis.figures.series import Misfit
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
    name_axes,
    new_figure,
    percent,
    sample,
)


def residuals_figure(misfits: Sequence[Misfit], *, tolerance: float | None = None, layout: Layout = PAPER) -> Figure:
    """Residuals in percent of the fitted loss over compute C = 6·N·D; markers tell the token/parameter ratios apart.

    `tolerance` (relative) is drawn as two hair lines where it lies in the picture. Raises ValueError without records.
    """
    if not misfits:
        raise ValueError("nothing to draw: no records were fitted")
    figure, axes = new_figure(layout, 14, left=3.2, right=0.4, top=2.2, bottom=3.2)
    misfits = sample(misfits)
    compute = [m.measured.compute for m in misfits]
    residuals = [100 * (m.measured.loss / m.fitted - 1) for m in misfits]
    pad = 1.18 if max(compute) / min(compute) > 3 else 1.6
    log_axis(axes, "x", min(compute) / pad, max(compute) * pad, 4 if layout.narrow else 7)
    reach = max(1.25 * max(abs(r) for r in residuals), 0.05)
    axes.set_ylim(-reach, reach)
    step = next((s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if reach / s <= 3), 100.0)
    ticks = [k * step for k in range(-int(reach / step), int(reach / step) + 1)]
    axes.set_yticks(ticks, [percent(t / 100, 2 if step < 0.1 else 1 if step < 1 else 0) for t in ticks])
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.axhline(0, color=FORECAST, linewidth=1.4, zorder=2)
    if tolerance is not None and 100 * tolerance < reach:
        for sign in (-1, 1):
            axes.axhline(sign * 100 * tolerance, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), zorder=2)
        axes.annotate(
            "tolerance", (1, 100 * tolerance), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=MUTED, fontsize=layout.text * 0.88, ha="right", va="bottom",
        )  # fmt: skip
    if len(misfits) <= MANY:
        axes.vlines(compute, 0, residuals, color=OBSERVED, linewidth=0.8, alpha=0.45, zorder=3)
    ratios = [m.measured.ratio for m in misfits]
    for i, ratio in enumerate(sorted(set(ratios))):
        alike = [k for k, r in enumerate(ratios) if r == ratio]
        for group in [alike] if len(misfits) > MANY else [[k] for k in alike]:
            m, residual = misfits[group[0]].measured, residuals[group[0]]
            axes.plot(
                [compute[k] for k in group], [residuals[k] for k in group], linestyle="none",
                marker=MARKERS[i % len(MARKERS)], markersize=layout.text * 0.56, color=OBSERVED,
                markeredgecolor=PAPER_WHITE, markeredgewidth=0.7, zorder=4,
                gid=f"{TIP}{m.rung}, {m.ratio:g} tokens per parameter: {percent(residual / 100, 2)}"
                if len(group) == 1 else None,
            )  # fmt: skip
    name_axes(axes, layout, x="Training compute 6·N·D, FLOPs", y="Observed against the law, % of the loss")
    return figure
