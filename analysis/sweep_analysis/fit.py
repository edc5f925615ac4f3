"""Records → a fitted law, with a status that says how far it may be trusted.

Owns the choice of starting points, the units of the fit, and FitStatus. The arithmetic is `solve.py`'s, covariance is
`covariance.py`'s, refits are `bootstrap.py`'s, intervals of new runs `forecast.py`'s. A soft failure is a
status with a remedy; input that no law can use raises TableError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sweep_analysis import solve
from sweep_analysis.covariance import condition_of, covariance_of, transported
from sweep_analysis.interval import Estimate as Estimate
from sweep_analysis.interval import Interval as Interval
from sweep_analysis.interval import Outlook as Outlook
from sweep_analysis.laws import Law, law_of
from sweep_analysis.laws.base import Array
from sweep_analysis.present import html_of, line_of, text_of
from sweep_analysis.suspect import suspicions
from sweep_analysis.table import Records, Table, read

if TYPE_CHECKING:
    from sweep_analysis.forecast import NoForecast

SAMPLE = 400  # points that choose the basins
SAME = 0.05  # starts that least squares brought this close (in any logarithm) are one
IDLE = 1e-4  # a term whose largest share of the value is below this says nothing above the noise of any seed
DOUBT = (
    1.0  # standard error of ln c, in the fit's own units, above which a term's size is not determined: e² either way
)
CONDITION_LIMIT = 1e3  # of the scaled Jacobian: 40 at ratios {10, 40}, 500 at ratios 10 % apart, 1e6 and more at one


class FitStatus(StrEnum):
    """How a fit ended. Only the first two leave constants to predict with."""

    CONVERGED = "Converged"
    AT_BOUND = "AtBound"
    """A constant ended at the edge of what is plausible: the data do not determine it."""
    ILL_CONDITIONED = "IllConditioned"
    """Some direction of the constants is undetermined; predictions near the data hold, the constants do not."""
    NOT_CONVERGED = "NotConverged"
    TOO_FEW_POINTS = "TooFewPoints"
    """Not more points than constants: any law would pass through them."""
    UNIDENTIFIED = "Unidentified"
    """The design (which sizes, which token counts) cannot tell the constants apart, however many points it has."""


@dataclass(frozen=True, slots=True, repr=False)
class Fit:
    """A law fitted to a table. Constants are in the units of the records."""

    law: str
    status: FitStatus
    message: str  # one sentence: what the status means here, and the remedy
    records: int
    constants: Mapping[str, float]  # empty when the fit was refused
    parameters: Mapping[str, Interval]  # the constants with intervals at `confidence`
    covariance: Array  # (k, k) of the coordinates: ln c for positive constants, c for the others
    condition_number: float  # of the Jacobian in the fit's own units, columns of unit length
    objective: float  # sum of Huber losses over residuals
    goal: solve.Objective
    confidence: float
    form: Law
    table: Table = field(repr=False)
    units: Mapping[str, float] = field(repr=False, default_factory=dict)  # of the fit: geometric mean of each axis
    solution: Array = field(repr=False, default_factory=lambda: np.empty(0))  # (k,) coordinates in those units
    warnings: tuple[str, ...] = ()  # what looks wrong in the records, one sentence each

    @property
    def usable(self) -> bool:
        """Whether there are constants to predict with."""
        return bool(self.constants)

    def predict(self, *positional: Any, **axes: Any) -> Any:
        """The law's value at axis values, by position in the law's order or by name; a float for scalars.

        Raises ValueError with the fit's message when it was refused, and for values that no run has; KeyError and
        TypeError for axes that are missing, unknown or too many.
        """
        if not self.usable:
            raise ValueError(f"{self.law} was not fitted: {self.message}")
        if len(positional) > len(self.form.axes):
            raise TypeError(f"{self.law} has {len(self.form.axes)} axes; {len(positional)} values were given")
        named = dict(zip((a.name for a in self.form.axes), positional, strict=False)) | axes
        self.form.check(named)
        value = self.form.predict(self.constants, **named)
        return float(value) if np.ndim(value) == 0 else value

    def forecast(self, *, confidence: float | None = None, **axes: float) -> "Outlook | NoForecast":
        """The response of a run at the given axis values, with its interval (see `outlook.py`)."""
        from sweep_analysis.outlook import outlook  # here: a fit alone need not wait for the forecaster

        return outlook(self, axes, self.confidence if confidence is None else confidence)

    def to_json(self) -> dict[str, Any]:
        """The fit as plain JSON values."""
        document: dict[str, Any] = {
            "law": self.law,
            "records": self.records,
            "status": str(self.status),
            "objective": self.objective if self.usable else None,
            "parameters": {name: interval.to_json() for name, interval in self.parameters.items()},
        }
        return document if self.usable else {**document, "message": self.message}

    def __repr__(self) -> str:
        return line_of(self)

    def __str__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        return html_of(self)


def identifies(points: Sequence[tuple[float, float]], law: str | Law = "Chinchilla") -> str | None:
    """None, or one sentence why runs at these (N, D) cannot identify the law, and the remedy."""
    return _identified(tuple(points), law_of(law))


@lru_cache(maxsize=4096)
def _identified(points: tuple[tuple[float, float], ...], form: Law) -> str | None:
    """Kept, since a sweep asks it of the same ladder in every pass."""
    if not points:
        return f"{form.name} needs runs, and there are none"
    N, D = (np.array(v, dtype=float) for v in zip(*points, strict=True))
    known = {"parameters": N, "tokens": D, "flops": 6.0 * N * D}
    other = [a.name for a in form.axes if a.name not in known]
    if other:
        return f"{form.name} is a law of {', '.join(a.name for a in form.axes)}; a ladder varies parameters and tokens"
    reason = form.identifies(known)
    if reason is None and len(set(points)) <= len(form.constants):
        reason = (
            f"{len(set(points))} distinct runs cannot determine the {len(form.constants)} constants of {form.name}: "
            f"add at least {len(form.constants) + 1 - len(set(points))}"
        )
    return reason


def fit(
    records: Records,
    law: str | Law = "Chinchilla",
    *,
    columns: Mapping[str, str] | None = None,
    delta: float | None = None,
    residual: Literal["relative", "absolute"] | None = None,
    asymmetry: float = 1.0,
    confidence: float = 0.95,
    **reading: Any,
) -> Fit:
    """Fit a law by the sum of Huber losses over residuals.

    records: see `table.read`, which also takes `columns` and `reading`. delta: width of the quadratic part, in units of
    the residual (infinity: least squares). residual: relative (ln predicted − ln observed) or absolute. Both are the
    law's own when None. asymmetry: weight of records that the law lies above, against 1 for the others. Raises
    TableError on input no law can use.
    """
    form = law_of(law)
    needs = (*(a.name for a in form.axes), form.response)
    residual = residual or form.residual
    signed = [a.name for a in form.axes if not a.positive] + ([form.response] if residual == "absolute" else [])
    table = read(records, needs, columns=columns, signed=signed, **reading)
    goal = solve.Objective(form.delta if delta is None else delta, residual == "relative", asymmetry)
    return fit_table(table, form, goal, confidence=confidence)


def fit_table(table: Table, form: Law, goal: solve.Objective | None = None, *, confidence: float = 0.95) -> Fit:
    """`fit` on a table already read; the law's own objective when none is given."""
    goal = goal or solve.Objective(form.delta, form.residual == "relative")
    if not goal.delta > 0:
        raise ValueError(f"delta is {goal.delta}; it must be greater than zero (infinity: least squares)")
    if not (np.isfinite(goal.asymmetry) and goal.asymmetry > 0):
        raise ValueError(f"asymmetry is {goal.asymmetry}; it must be a finite number greater than zero")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    k, n = len(form.constants), len(table)
    reason = form.identifies(table.columns)
    if n <= k:
        return _refused(
            table,
            form,
            FitStatus.TOO_FEW_POINTS,
            f"{n} records cannot determine the {k} constants of {form.name}: add at least {k + 1 - n}",
            goal,
            confidence,
        )
    if reason:
        return _refused(table, form, FitStatus.UNIDENTIFIED, reason, goal, confidence)

    units = {a.name: float(np.exp(np.mean(np.log(table[a.name])))) for a in form.axes if a.logarithmic}
    x = form.coordinates(table.columns, units)
    y = table[form.response]
    z, objective, converged = _best(form, x, y, goal)

    residual, J = solve.residuals(form, z[None], x, goal.target(y), goal.relative)
    condition = condition_of(J[0])
    covariance = covariance_of(residual[0], J[0], goal, table.labels.get("run"))
    status, message = _judge(form, z, J[0], converged, condition, covariance)
    c = solve.constants_of(form, z[None])
    public = form.to_units(c, units)[0]
    constants = {name: float(v) for name, v in zip(form.names, public, strict=True)}
    covariance = transported(form, z, units, covariance)
    from scipy import special  # here, since `lint` and `plan` ask this module for `identifies` and must not wait for it

    t = float(special.stdtrit(_freedom(table, k), 0.5 + confidence / 2))
    return Fit(
        law=form.name,
        status=status,
        message=message,
        records=n,
        constants=constants,
        parameters=_intervals(form, public, covariance, t),
        covariance=covariance,
        condition_number=condition,
        objective=objective,
        goal=goal,
        confidence=confidence,
        form=form,
        table=table,
        units=units,
        solution=z,
        warnings=suspicions(table, form, constants),
    )


def _best(form: Law, x: Sequence[Array], y: Array, goal: solve.Objective) -> tuple[Array, float, bool]:
    """The lowest minimum found: grid → basins → polish, on a sample first where the table is long."""
    stride = max(1, len(y) // SAMPLE)
    few = [v[::stride] for v in x]
    start = solve.coordinates_of(form, form.starts(few, y[::stride], goal.relative))
    smooth = replace(goal, delta=np.inf)
    if not form.linear:  # a grid without solved constants: its order says nothing yet
        start = start[np.argsort(solve.objective_of(form, start, few, y[::stride], smooth), kind="stable")]
    start = start[: form.basins]
    if stride > 1:
        rough = solve.minimise(form, few, y[::stride], start, smooth, tolerance=1e-4)
        start = rough.z[[int(np.argmin(rough.objective))]]
    elif goal.delta < np.inf:
        # least squares first: the Huber objective far from its minimum is nearly flat in the exponents
        start = _distinct(solve.minimise(form, x, y, start, smooth, tolerance=1e-4, iterations=12))
    best = solve.minimise(form, x, y, start, goal)
    i = int(np.argmin(best.objective))
    return best.z[i], float(best.objective[i]), bool(best.converged[i])


def _distinct(rough: solve.Solution) -> Array:
    """The minima that differ, best first: most starts end in the same one."""
    kept: list[Array] = []
    for i in np.argsort(rough.objective, kind="stable"):
        if all(np.abs(rough.z[i] - z).max() > SAME for z in kept):
            kept.append(rough.z[i])
    return np.array(kept)


def _refused(table: Table, form: Law, status: FitStatus, message: str, goal: solve.Objective, confidence: float) -> Fit:
    return Fit(
        law=form.name,
        status=status,
        message=message,
        records=len(table),
        constants={},
        parameters={},
        covariance=np.empty((0, 0)),
        condition_number=float("inf"),
        objective=float("inf"),
        goal=goal,
        confidence=confidence,
        form=form,
        table=table,
    )


def _judge(
    form: Law, z: Array, J: Array, converged: bool, condition: float, covariance: Array
) -> tuple[FitStatus, str]:
    low, high = form.bounds
    edge = [n for n, v, a, b in zip(form.names, z, low, high, strict=True) if v <= a + 1e-9 or v >= b - 1e-9]
    if edge:
        return FitStatus.AT_BOUND, (
            f"{', '.join(edge)} ended at the edge of the plausible range: the records do not determine "
            f"{'it' if len(edge) == 1 else 'them'}; add runs over a wider range, or fit a law with fewer constants"
        )
    idle = [n for n, column in zip(form.names, J, strict=True) if n in form.linear and np.abs(column).max() < IDLE]
    if idle and form.residual == "relative":
        return FitStatus.AT_BOUND, (
            f"{', '.join(idle)} adds less than {IDLE:.0e} of the value anywhere, as good as zero: the records do not "
            "determine it; add runs over a wider range, or fit a law with fewer constants"
        )
    if condition > CONDITION_LIMIT:
        return FitStatus.ILL_CONDITIONED, (
            f"the condition number is {condition:.1e}: some constants can trade off against each other "
            "without changing the fit; add sizes or ratios further apart, or fit a law with fewer constants"
        )
    sizes = np.array([name in form.linear for name in form.names]) & form.positive  # a place may lie far outside
    error = np.where(sizes, np.sqrt(np.maximum(np.diag(covariance), 0.0)), 0.0)
    if converged and error.max() > DOUBT:
        loose = [n for n, e in zip(form.names, error, strict=True) if e > DOUBT]
        factor = np.exp(min(2 * error.max(), 10.0))
        return FitStatus.ILL_CONDITIONED, (
            f"the records leave {', '.join(loose)} open by a factor of {factor:,.0f} either way: add runs "
            "over a wider range, or fit a law with fewer constants"
        )
    if not converged:
        return (
            FitStatus.NOT_CONVERGED,
            "the minimiser stopped before its step became negligible; check the records for outliers",
        )
    return FitStatus.CONVERGED, "the minimum was found and the records determine every constant"


def _freedom(table: Table, k: int) -> int:
    """Degrees of freedom of the intervals: records (or runs, when several records share one) less constants."""
    return max(1, len(table) - k)


def _intervals(form: Law, c: Array, covariance: Array, t: float) -> dict[str, Interval]:
    out = {}
    for i, constant in enumerate(form.constants):
        half = t * float(np.sqrt(max(covariance[i, i], 0.0)))
        if constant.positive:
            half = min(half, 300.0)  # e^300: an undetermined constant, still a finite number
            low, high = c[i] * np.exp(-half), c[i] * np.exp(half)
        else:
            low, high = c[i] - half, c[i] + half
        out[constant.name] = Interval(value=float(c[i]), low=float(low), high=float(min(high, 1e307)))
    return out
