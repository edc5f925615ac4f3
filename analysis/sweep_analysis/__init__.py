"""The scaling-law analysis: laws, fits, forecasts and verdicts as pure functions of records.

    import sweep_analysis as sa
    fit = sa.fit("runs.csv", law="Chinchilla", columns={"parameters": "N"})
    fit.forecast(parameters=7e9, tokens=1.4e11)

Names load on first use (PEP 562), so that importing the package costs nothing and the trainer never imports scipy.
A verb and its module share a name: `sa.fit(...)` and `from sweep_analysis.fit import FitStatus` both hold, because
those modules can be called.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep_analysis import figures as figures
    from sweep_analysis import plan as plan
    from sweep_analysis.bootstrap import Bootstrap as Bootstrap
    from sweep_analysis.bootstrap import bootstrap as bootstrap
    from sweep_analysis.choose import Candidate as Candidate
    from sweep_analysis.choose import Choice as Choice
    from sweep_analysis.choose import choose as choose
    from sweep_analysis.compare import Comparison as Comparison
    from sweep_analysis.compare import compare_corpora as compare_corpora
    from sweep_analysis.compare import offset_test as offset_test
    from sweep_analysis.compound import compound as compound
    from sweep_analysis.fit import Estimate as Estimate
    from sweep_analysis.fit import Fit as Fit
    from sweep_analysis.fit import FitStatus as FitStatus
    from sweep_analysis.fit import Interval as Interval
    from sweep_analysis.fit import Outlook as Outlook
    from sweep_analysis.fit import fit as fit
    from sweep_analysis.fit import identifies as identifies
    from sweep_analysis.forecast import Forecast as Forecast
    from sweep_analysis.forecast import NoForecast as NoForecast
    from sweep_analysis.forecast import Point as Point
    from sweep_analysis.forecast import forecast as forecast
    from sweep_analysis.frontier import Frontier as Frontier
    from sweep_analysis.frontier import envelope_frontier as envelope_frontier
    from sweep_analysis.frontier import isoflop_frontier as isoflop_frontier
    from sweep_analysis.laws import LAWS as LAWS
    from sweep_analysis.laws import Law as Law
    from sweep_analysis.laws.kaplan import overfitting as overfitting
    from sweep_analysis.laws.kaplan import tokens_against_overfitting as tokens_against_overfitting
    from sweep_analysis.split import Penalty as Penalty
    from sweep_analysis.split import Split as Split
    from sweep_analysis.split import optimal_split as optimal_split
    from sweep_analysis.split import penalty as penalty
    from sweep_analysis.table import Table as Table
    from sweep_analysis.table import TableError as TableError
    from sweep_analysis.table import read as read

_HOMES = {  # public name: its module
    "Bootstrap": "bootstrap",
    "Candidate": "choose",
    "Choice": "choose",
    "Comparison": "compare",
    "Estimate": "fit",
    "Fit": "fit",
    "FitStatus": "fit",
    "Forecast": "forecast",
    "Frontier": "frontier",
    "Interval": "fit",
    "NoForecast": "forecast",
    "Outlook": "fit",
    "Point": "forecast",
    "compare_corpora": "compare",
    "envelope_frontier": "frontier",
    "identifies": "fit",
    "isoflop_frontier": "frontier",
    "offset_test": "compare",
    "overfitting": "laws.kaplan",
    "LAWS": "laws",
    "Law": "laws",
    "Penalty": "split",
    "Split": "split",
    "optimal_split": "split",
    "penalty": "split",
    "Table": "table",
    "TableError": "table",
    "read": "table",
    "tokens_against_overfitting": "laws.kaplan",
}
_PACKAGES = ("figures", "plan")  # loaded by their own name
_VERBS = ("bootstrap", "choose", "compound", "fit", "forecast")  # modules that are called by their own name

__all__ = sorted((*_HOMES, *_PACKAGES, *_VERBS))


class _Verb(ModuleType):
    """A module that, called, calls the function of its own name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


class _Package(ModuleType):
    """This package: the import system sets a loaded submodule as an attribute, and verbs become callable there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        importlib.import_module(f"{__name__}.{name}")
        return sys.modules[__name__].__dict__[name]
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
