"""How the forecast's constants are found: the scale's by likelihood, then by coverage, on the tuning side only.

Owns the vectorised form of the predictive scale and the search. Knows nothing of which origin is held out:
`calibration.py` says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln, stdtrit

from sweep_analysis import predictive
from sweep_analysis.backtest import FAR, LEAST_RECORDS, LEAST_RUNGS
from sweep_analysis.forecast import evidence_of, unidentified
from sweep_analysis.ladders import Ladder
from sweep_analysis.predictive import History, Settings

FREE = ("fit_factor", "floor", "off_optimum", "drift", "memory", "prior_weight")
STRUCTURE = ("widening", "bend_power", "few_records", "below_data")
"""What the shape of the scale hangs on: set by hand in what ships, found as the others where asked for."""
MOST = {"memory": 0.98, "bend_power": 3.0}
"""No more than this of a constant is tried."""
FAR_WEIGHT = 0.3
NEAR_COVERAGE = 0.95
FAR_COVERAGE = 0.93
"""What the origin that is covered least often must have far ahead: targets are what the large money hangs on."""
HELD = 1e-4
"""The price, in nats a forecast, of a constant that leaves its start by a factor of e."""
LEAST_FORECASTS = 10
"""An origin with fewer teaches nothing; it is scored all the same."""


@dataclass(frozen=True)
class Table:
    """Every forecast of many ladders taken apart: one row a run, one task a (past, rung)."""

    task: np.ndarray
    residual: np.ndarray
    unknown: np.ndarray
    off: np.ndarray
    below: np.ndarray
    ahead: np.ndarray
    left: np.ndarray
    past: np.ndarray  # task → number of past rungs
    origin: np.ndarray  # task → index into origins
    far: np.ndarray
    scored: np.ndarray
    runs: np.ndarray
    jump: np.ndarray
    records: np.ndarray  # task → past records
    later: np.ndarray  # history links: task `later` uses the surprise of task `earlier`, `age` rungs old
    earlier: np.ndarray
    age: np.ndarray
    origins: tuple[str, ...]

    @property
    def middle(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the two middle values of each task lie once a column is sorted within tasks."""
        first = np.concatenate(([0], np.cumsum(self.runs.astype(int))[:-1]))
        return first + (self.runs.astype(int) - 1) // 2, first + self.runs.astype(int) // 2


def table(ladders: list[Ladder], settings: Settings) -> Table:
    """Fit every past of every ladder and take its forecasts apart; drift is left to `deviations`."""
    settings = replace(settings, drift=0.0)
    origins = tuple(sorted({ladder.origin for ladder in ladders}))
    rows: dict[str, list[np.ndarray]] = {
        n: [] for n in ("task", "residual", "unknown", "left", "off", "below", "ahead")
    }
    tasks: dict[str, list[float]] = {n: [] for n in ("past", "origin", "far", "scored", "runs", "jump", "records")}
    links: list[tuple[int, int, int]] = []
    for ladder in ladders:
        evidence = evidence_of(ladder.rungs)
        history = History(evidence, settings)
        c, next_task = evidence.log_compute, {}
        for k in range(1, evidence.rungs):
            past = [p for rung in ladder.rungs[:k] for p in rung]
            scored = k >= LEAST_RUNGS and len(past) >= LEAST_RECORDS and unidentified(past) is None
            for j in range(k, evidence.rungs):
                here = evidence.rung == j
                jump = float(np.exp(c[here].max() - history.newest[k - 1]))
                if j > k and not (scored and FAR[0] <= jump <= FAR[1]):
                    continue
                runs = [name for name, inside in zip(evidence.run, here, strict=True) if inside]
                parts = history.components(k, evidence.log_parameters[here], evidence.log_tokens[here], runs)
                number = len(tasks["past"])
                if j == k:
                    next_task[k] = number
                links += [(number, next_task[i], k - 1 - i) for i in range(1, k)]
                rows["task"].append(np.full(here.sum(), number))
                rows["residual"].append(evidence.log_loss[here] - parts.mean)
                for name in ("unknown", "left"):
                    rows[name].append(np.diag(getattr(parts, name)))
                for name in ("off", "below", "ahead"):
                    rows[name].append(getattr(parts, name))
                for name, value in (
                    ("past", k),
                    ("origin", origins.index(ladder.origin)),
                    ("far", j > k),
                    ("scored", scored),
                    ("runs", here.sum()),
                    ("jump", jump),
                    ("records", int((evidence.rung < k).sum())),
                ):
                    tasks[name].append(float(value))
    later, earlier, age = np.array(links).T
    return Table(
        **{name: np.concatenate(parts) for name, parts in rows.items()},
        **{name: np.array(values) for name, values in tasks.items()},
        later=later,
        earlier=earlier,
        age=age,
        origins=origins,
    )


def scales(t: Table, s: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Each run's predictive scale and each task's degrees of freedom: `predictive.History` in one sweep, less seeds."""
    level = (np.minimum(t.past, predictive.MOST_RUNGS) / 4.0) ** -s.rungs_power
    level = level * (1.0 + (s.few_records / t.records) ** 2)
    unsaid = t.left * (s.floor**2 + (s.off_optimum * t.off) ** 2 + (s.below_data * t.below) ** 2)
    variance = (s.fit_factor * t.unknown + unsaid) * level[t.task] * (1.0 + (s.widening * t.ahead) ** 2)
    bent = (s.bend * t.ahead**s.bend_power) ** 2
    squares = deviations(t, s) ** 2 / (variance + bent)
    lower, upper = t.middle
    ordered = squares[np.lexsort((squares, t.task))]
    median = (ordered[lower] + ordered[upper]) / 2
    capped = np.minimum(squares, predictive.LARGEST_SURPRISE)
    q = np.maximum(np.bincount(t.task, capped, minlength=len(t.runs)) / t.runs, median)
    weights = s.memory**t.age
    nu = s.prior_weight + np.bincount(t.later, weights, minlength=len(q))
    own = (s.prior_weight + np.bincount(t.later, weights * q[t.earlier], minlength=len(q))) / nu
    return s.inflation * np.sqrt(variance * own[t.task] + bent), nu


def deviations(t: Table, s: Settings) -> np.ndarray:
    """Observed less forecast, per run; a table is made without drift."""
    return t.residual + s.drift * t.ahead**s.bend_power


def _averaged(t: Table, of_runs: np.ndarray) -> np.ndarray:
    """Means over the runs of each task."""
    return np.bincount(t.task, of_runs, minlength=len(t.runs)) / t.runs


def surprise(t: Table, s: Settings) -> np.ndarray:
    """Per task: mean negative log likelihood."""
    scale, nu = scales(t, s)
    constant = gammaln(nu / 2) - gammaln((nu + 1) / 2) + 0.5 * np.log(nu * np.pi)
    freedom = nu[t.task]
    kernel = np.log(scale) + (freedom + 1) / 2 * np.log1p((deviations(t, s) / scale) ** 2 / freedom)
    return constant + _averaged(t, kernel)


def worth(t: Table, s: Settings) -> dict[str, np.ndarray]:
    """Per task: coverage and median width at 95 %."""
    scale, nu = scales(t, s)
    half = stdtrit(nu, 0.975)[t.task] * scale
    ordered = half[np.lexsort((half, t.task))]
    lower, upper = t.middle
    width = ordered[lower] + ordered[upper]
    return {"covered": _averaged(t, np.abs(deviations(t, s)) <= half), "width": width}


def by_origin(t: Table, values: np.ndarray, keep: tuple[str, ...], *, far: bool) -> list[float]:
    """The mean over each origin's forecasts, of those that have enough."""
    chosen = (t.scored > 0) & ((t.far > 0) == far)
    parts = [values[chosen & (t.origin == t.origins.index(o))] for o in keep]
    return [float(part.mean()) for part in parts if len(part) >= LEAST_FORECASTS]


def loss(t: Table, s: Settings, keep: tuple[str, ...]) -> float:
    nll = surprise(t, s)
    near, far = (float(np.mean(by_origin(t, nll, keep, far=far))) for far in (False, True))
    return (near + FAR_WEIGHT * far) / (1.0 + FAR_WEIGHT)


def tune(
    t: Table,
    start: Settings,
    keep: tuple[str, ...],
    *,
    evaluations: int = 250,
    rounds: int = 2,
    free: tuple[str, ...] = FREE,
) -> tuple[Settings, float]:
    """The scale's constants named in `free`, on the origins of `keep`, and their negative log likelihood there.

    Powell's method on the log scale for the likelihood; then `bend` such that even the origin covered least often has
    FAR_COVERAGE far ahead; then `inflation` such that next rungs have NEAR_COVERAGE, origins weighing the same; again.
    """
    found = start
    for _ in range(rounds):
        found = replace(likeliest(t, found, keep, evaluations, free), inflation=1.0)
        found = replace(
            found, bend=_least(lambda x, s=found: _worst_far(t, replace(s, bend=x), keep), FAR_COVERAGE, 0.02)
        )
        found = replace(
            found, inflation=_least(lambda x, s=found: _near(t, replace(s, inflation=x), keep), NEAR_COVERAGE, 2.0)
        )
    return found, loss(t, found, keep)


def likeliest(
    t: Table, start: Settings, keep: tuple[str, ...], evaluations: int, free: tuple[str, ...] = FREE
) -> Settings:
    """`start` with its constants of `free` moved to where the forecasts of `keep` are likeliest."""

    def decoded(x: np.ndarray) -> Settings:
        values = dict(zip(free, np.exp(np.clip(x, -9.0, 4.0)).tolist(), strict=True))
        values = {name: min(value, MOST.get(name, value)) for name, value in values.items()}
        return replace(start, inflation=1.0, **values)

    x0 = np.log([getattr(start, name) for name in free])
    found = minimize(
        lambda x: loss(t, decoded(x), keep) + HELD * float(np.sum((x - x0) ** 2)),
        x0,
        method="Powell",
        options={"maxfev": evaluations, "xtol": 1e-2, "ftol": 1e-4},
    )
    return decoded(found.x)


def _worst_far(t: Table, s: Settings, keep: tuple[str, ...]) -> float:
    return min(by_origin(t, worth(t, s)["covered"], keep, far=True))


def _near(t: Table, s: Settings, keep: tuple[str, ...]) -> float:
    return float(np.mean(by_origin(t, worth(t, s)["covered"], keep, far=False)))


def _least(covered: Callable[[float], float], target: float, high: float) -> float:
    """The least value at which so much is covered, by bisection; at most `high`."""
    low = 0.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if covered(middle) < target else (low, middle)
    return high
