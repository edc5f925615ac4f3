"""Figures of a fit, a frontier and a ladder: the law, its band and residuals, forecasts against what came, cost.

Owns what each figure shows and how it looks; each returns a matplotlib `Figure` ready for a paper, `inline_svg` puts
one into a page, and `interactive` makes one a page that tells its values. Fits nothing, reads no files. matplotlib (the
`report` extra) is imported with the first figure.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep_analysis.figures.cost import cost_figure
    from sweep_analysis.figures.curves import curves_figure
    from sweep_analysis.figures.fitted import fit_figure, frontier_figure, misfits_of
    from sweep_analysis.figures.forecasts import forecasts_figure
    from sweep_analysis.figures.interaction import interactive
    from sweep_analysis.figures.law import law_figure
    from sweep_analysis.figures.residuals import residuals_figure
    from sweep_analysis.figures.series import (
        Band,
        Bar,
        Cost,
        Foretold,
        LearningCurve,
        Mark,
        Measured,
        Misfit,
        RungOutcome,
        band_along,
    )
    from sweep_analysis.figures.style import PAPER, Layout
    from sweep_analysis.figures.svg import inline_svg
    from sweep_analysis.figures.timeline import timeline_figure

_HOMES = {
    "fit_figure": "fitted",
    "frontier_figure": "fitted",
    "misfits_of": "fitted",
    "law_figure": "law",
    "forecasts_figure": "forecasts",
    "residuals_figure": "residuals",
    "curves_figure": "curves",
    "timeline_figure": "timeline",
    "cost_figure": "cost",
    "Band": "series",
    "Bar": "series",
    "Cost": "series",
    "Foretold": "series",
    "LearningCurve": "series",
    "Mark": "series",
    "Measured": "series",
    "Misfit": "series",
    "RungOutcome": "series",
    "band_along": "series",
    "Layout": "style",
    "PAPER": "style",
    "inline_svg": "svg",
    "interactive": "interaction",
}

__all__ = [
    "PAPER",
    "Band",
    "Bar",
    "Cost",
    "Foretold",
    "Layout",
    "LearningCurve",
    "Mark",
    "Measured",
    "Misfit",
    "RungOutcome",
    "band_along",
    "cost_figure",
    "curves_figure",
    "fit_figure",
    "forecasts_figure",
    "frontier_figure",
    "inline_svg",
    "interactive",
    "law_figure",
    "misfits_of",
    "residuals_figure",
    "timeline_figure",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
