"""What every law declares: its axes, its constants with units and bounds, its form with Jacobian, and its source.

Owns the declarative vocabulary and what follows from it alone: change of units, starting points, and whether a set of
points can identify the law. Fits nothing: `solve.py` minimises, `fit.py` judges the result.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # float64; complex128 where a test differentiates by complex step


@dataclass(frozen=True, slots=True)
class Axis:
    """One input of a law. A logarithmic axis reaches `evaluate` as its natural logarithm, in the fit's own units."""

    name: str  # the column of a table, and the keyword of `predict`
    symbol: str
    unit: str
    logarithmic: bool = True
    levels: int = 2  # distinct values that identify the law
    by_ratio: bool = False  # whether values are told apart by their ratio though the law takes them as they are

    @property
    def positive(self) -> bool:
        """Whether every value lies above zero, and those that differ do so by their ratio."""
        return self.logarithmic or self.by_ratio


@dataclass(frozen=True, slots=True)
class Constant:
    """One fitted number. Positive constants are fitted as logarithms, and their intervals stay positive."""

    name: str
    unit: str
    meaning: str
    positive: bool = True
    low: float = 1e-9  # bounds hold in the fit's own units: every axis divided by its geometric mean
    high: float = 1e9
    scales: tuple[tuple[str, float | str], ...] = ()
    # ("parameters", "alpha"): in the records' units, multiplied by (unit of parameters)^alpha; "-alpha": by its
    # inverse; ("parameters", 1.0): by the unit itself


class Law(ABC):
    """A functional form. Subclasses are values without state: one instance each stands in `laws.LAWS`."""

    name: ClassVar[str]
    equation: ClassVar[str]  # LaTeX
    citation: ClassVar[str]
    use: ClassVar[str]  # when to use it
    limits: ClassVar[str]  # what it cannot tell
    axes: ClassVar[tuple[Axis, ...]]
    constants: ClassVar[tuple[Constant, ...]]
    response: ClassVar[str] = "loss"
    response_unit: ClassVar[str] = "nats per token"
    residual: ClassVar[Literal["relative", "absolute"]] = "relative"  # relative: ln predicted − ln observed
    delta: ClassVar[float] = 1e-3  # of the Huber loss, in units of the residual
    basins: ClassVar[int] = 4  # starting points that are polished
    linear: ClassVar[tuple[str, ...]] = ()  # constants in which the form is linear, all non-negative
    grid: ClassVar[Mapping[str, Sequence[float]]] = {}  # starting values of all others, in the fit's own units
    floor: ClassVar[str | None] = None  # the constant that the value falls towards, where there is one
    published: ClassVar[Mapping[str, float]] = {}  # constants as the source states them, where it does

    @abstractmethod
    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        """Value and derivative of the form.

        c: (R, k) constants in the order declared; x: one (n,) array an axis (logarithms on logarithmic axes).
        Returns the value (R, n) and d value / d constant (R, k, n), or None for the latter when not asked for.
        """

    def __repr__(self) -> str:
        return f"<Law {self.name}: {', '.join(a.name for a in self.axes)} → {self.response}>"

    def _repr_html_(self) -> str:
        return f"<div><b>{self.name}</b><br>\\({self.equation}\\)<br>{escape(self.citation)}</div>"

    # ---- what follows from the declaration

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.constants)

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """(k,) which constants are fitted as logarithms."""
        return np.array([c.positive for c in self.constants])

    @cached_property
    def curved(self) -> NDArray[np.bool_]:
        """(k,) positive constants in which the form is not linear; these the solver moves as logarithms."""
        return np.array([c.positive and c.name not in self.linear for c in self.constants])

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest coordinates (k,), (k,) in the fit's own units."""
        low = np.array([np.log(c.low) if c.positive else c.low for c in self.constants])
        high = np.array([np.log(c.high) if c.positive else c.high for c in self.constants])
        return low, high

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise when these are not values of the law's axes: KeyError for their names, ValueError for what they are."""
        names = [a.name for a in self.axes]
        for word, wrong in (
            ("missing", [n for n in names if n not in values]),
            ("unknown", [n for n in values if n not in names]),
        ):
            if wrong:
                raise KeyError(f"{self.name} is a law of {', '.join(names)}; {word}: {', '.join(wrong)}")
        for axis in self.axes:
            try:
                given = np.asarray(values[axis.name], dtype=float)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{axis.name} is {values[axis.name]!r}; a number would be right, such as 7e9"
                ) from None
            bad = ~np.isfinite(given) | (axis.positive & (given <= 0))
            if bad.any():
                right = "a finite number greater than zero" if axis.positive else "a finite number"
                raise ValueError(f"{axis.name} is {given[bad].flat[0]:g}; {right} would be right")

    def coordinates(self, values: Mapping[str, Any], units: Mapping[str, float] | None = None) -> list[Array]:
        """Axis values as `evaluate` wants them. units: divisor of each logarithmic axis, 1 where not given."""
        out: list[Array] = []
        for axis in self.axes:
            v = np.asarray(values[axis.name])
            v = v if np.iscomplexobj(v) else v.astype(np.float64)
            out.append(np.log(v / (units or {}).get(axis.name, 1.0)) if axis.logarithmic else v)
        return list(np.broadcast_arrays(*(np.atleast_1d(v) for v in out)))

    def predict(self, constants: Mapping[str, float], **axes: Any) -> Array:
        """The form at given constants and axis values; shape of the broadcast axes."""
        c = np.array([[constants[name] for name in self.names]])
        value = self.evaluate(c, self.coordinates(axes), jacobian=False)[0][0]
        return np.reshape(value, np.broadcast_shapes(*(np.shape(axes[a.name]) for a in self.axes)))

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        """Constants (R, k) of axes measured in `units`, restated for axes measured in ones. Complex-safe."""
        out = np.array(c)
        index = {name: i for i, name in enumerate(self.names)}
        for i, constant in enumerate(self.constants):
            for axis, power in constant.scales:
                if isinstance(power, str):
                    exponent = -c[:, index[power[1:]]] if power.startswith("-") else c[:, index[power]]
                else:
                    exponent = np.full(len(c), power)
                out[:, i] = out[:, i] * np.exp(exponent * np.log(units.get(axis, 1.0)))
        return out

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Starting constants (S, k) before the linear ones are solved for: the declared grid, in every combination."""
        free = [name for name in self.names if name not in self.linear]
        grid = np.array(list(itertools.product(*(self.grid[name] for name in free)))) if free else np.ones((1, 0))
        c = np.ones((len(grid), len(self.constants)))
        c[:, [self.names.index(name) for name in free]] = grid
        return c

    def starts(self, x: Sequence[Array], y: Array, relative: bool = True) -> Array:
        """Candidate constants (S, k), best first where some constants are linear.

        For fixed exponents these laws are linear in the rest, so that non-negative least squares finds the basin
        without a search. Exact NNLS: of all subsets of the linear constants, the best feasible one.
        """
        c = self.nodes(x, y)
        if not self.linear:
            return c
        lin = [self.names.index(name) for name in self.linear]
        jacobian = self.evaluate(c, x)[1]
        assert jacobian is not None
        weight = 1.0 / y if relative else np.ones_like(y)
        basis = jacobian[:, lin] * weight  # (S, m, n)
        gram = basis @ basis.transpose(0, 2, 1)
        moment = basis @ (y * weight)
        best = np.full(len(c), np.inf)
        solved = np.zeros((len(c), len(lin)))
        for size in range(len(lin), 0, -1):
            for subset in itertools.combinations(range(len(lin)), size):
                part = gram[:, subset][:, :, subset]
                ridge = (1e-13 * np.trace(part, axis1=1, axis2=2)[:, None, None] + 1e-300) * np.eye(size)
                a = np.linalg.solve(part + ridge, moment[:, subset, None])[:, :, 0]
                rss = -(a * moment[:, subset]).sum(1)  # less the constant |y·weight|²
                better = (a > 0).all(1) & (rss < best)
                best = np.where(better, rss, best)
                full = np.zeros_like(solved)
                full[:, subset] = a
                solved = np.where(better[:, None], full, solved)
        order = np.argsort(best, kind="stable")
        low = np.array([self.constants[i].low for i in lin])
        c[:, lin] = np.maximum(solved, np.maximum(low, 1e-3 * float(np.mean(np.abs(y)))))
        return np.asarray(c[order])

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        """None, or one sentence why points at these axis values cannot identify the law, and the remedy."""
        for axis in self.axes:
            levels = distinct(np.atleast_1d(np.asarray(values[axis.name], dtype=float)), axis.positive)
            if levels < axis.levels:
                return (
                    f"{self.name} needs at least {axis.levels} distinct values of {axis.name}, and there "
                    f"{'is' if levels == 1 else 'are'} {levels}: add runs at other {axis.name}"
                )
        return None


def distinct(values: Array, logarithmic: bool = True, tolerance: float = 0.05) -> int:
    """How many levels the values take: a level ends `tolerance` (relative, on a logarithmic axis) above its start."""
    v = np.unique(values)
    if logarithmic:
        v, gap = np.log(v), float(np.log1p(tolerance))
    else:
        gap = tolerance * float(v[-1] - v[0]) if v.size else 0.0
    levels, i = 0, 0
    while i < len(v):
        levels += 1
        i = int(np.searchsorted(v, v[i] + gap, side="right"))
    return levels
