"""How the forecast's constants are found: scale constants by likelihood, coverage exact on the tuning side only.

Owns the vectorised form of the predictive scale and the search. Knows nothing of which origin is held out:
`calibration.py` says.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln, stdtrit

from sweep_analysis import predictive
from sweep_analysis.backtest import FAR, LEAST_RECORDS, LEAST_RUNGS, Score
from sweep_analysis.forecast import evidence_of, unidentified
from sweep_analysis.ladders import Ladder
from sweep_analysis.predictive import History, Settings

FREE = ("fit_factor", "floor", "off_optimum", "memory", "prior_weight")
FAR_WEIGHT = 0.3


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
    frontier: np.ndarray  # whether the run is the one of largest compute
    past: np.ndarray  # task → number of past rungs
    origin: np.ndarray  # task → index into origins
    ladder: np.ndarray  # task → index into names
    far: np.ndarray
    scored: np.ndarray
    runs: np.ndarray
    jump: np.ndarray
    records: np.ndarray  # task → past records
    later: np.ndarray  # history links: task `later` uses the surprise of task `earlier`, `age` rungs old
    earlier: np.ndarray
    age: np.ndarray
    origins: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def middle(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the two middle values of each task lie once a column is sorted within tasks."""
        first = np.concatenate(([0], np.cumsum(self.runs.astype(int))[:-1]))
        return first + (self.runs.astype(int) - 1) // 2, first + self.runs.astype(int) // 2


def table(ladders: list[Ladder], settings: Settings) -> Table:
    """Fit every past of every ladder and take its forecasts apart."""
    origins = tuple(sorted({ladder.origin for ladder in ladders}))
    rows: dict[str, list[np.ndarray]] = {
        n: [] for n in ("task", "residual", "unknown", "left", "off", "below", "ahead", "frontier")
    }
    tasks: dict[str, list[float]] = {
        n: [] for n in ("past", "origin", "ladder", "far", "scored", "runs", "jump", "records")
    }
    links: list[tuple[int, int, int]] = []
    for which, ladder in enumerate(ladders):
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
                rows["frontier"].append(np.arange(here.sum()) == np.argmax(c[here]))
                for name in ("unknown", "left"):
                    rows[name].append(np.diag(getattr(parts, name)))
                for name in ("off", "below", "ahead"):
                    rows[name].append(getattr(parts, name))
                for name, value in (
                    ("past", k),
                    ("origin", origins.index(ladder.origin)),
                    ("ladder", which),
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
        names=tuple(ladder.name for ladder in ladders),
    )


def scales(t: Table, s: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Each run's predictive scale and each task's degrees of freedom: `predictive.History` in one sweep, less seeds."""
    level = (np.minimum(t.past, predictive.MOST_RUNGS) / 4.0) ** -s.rungs_power
    level = level * (1.0 + (s.few_records / t.records) ** 2)
    unsaid = t.left * (s.floor**2 + (s.off_optimum * t.off) ** 2 + (s.below_data * t.below) ** 2)
    variance = (s.fit_factor * t.unknown + unsaid) * level[t.task] * (1.0 + (s.widening * t.ahead) ** 2)
    squares = t.residual**2 / variance
    lower, upper = t.middle
    ordered = squares[np.lexsort((squares, t.task))]
    median = (ordered[lower] + ordered[upper]) / 2
    capped = np.minimum(squares, predictive.LARGEST_SURPRISE)
    q = np.maximum(np.bincount(t.task, capped, minlength=len(t.runs)) / t.runs, median)
    weights = s.memory**t.age
    nu = s.prior_weight + np.bincount(t.later, weights, minlength=len(q))
    own = (s.prior_weight + np.bincount(t.later, weights * q[t.earlier], minlength=len(q))) / nu
    return s.inflation * np.sqrt(variance * own[t.task]), nu


def _averaged(t: Table, of_runs: np.ndarray) -> np.ndarray:
    """Means over the runs of each task."""
    return np.bincount(t.task, of_runs, minlength=len(t.runs)) / t.runs


def surprise(t: Table, scale: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Per task: mean negative log likelihood."""
    constant = gammaln(nu / 2) - gammaln((nu + 1) / 2) + 0.5 * np.log(nu * np.pi)
    freedom = nu[t.task]
    kernel = np.log(scale) + (freedom + 1) / 2 * np.log1p((t.residual / scale) ** 2 / freedom)
    return constant + _averaged(t, kernel)


def worth(t: Table, s: Settings) -> dict[str, np.ndarray]:
    """Per task: mean negative log likelihood, coverage, median width at 95 %."""
    scale, nu = scales(t, s)
    half = stdtrit(nu, 0.975)[t.task] * scale
    ordered = half[np.lexsort((half, t.task))]
    lower, upper = t.middle
    width = ordered[lower] + ordered[upper]
    return {"nll": surprise(t, scale, nu), "covered": _averaged(t, np.abs(t.residual) <= half), "width": width}


def scores(t: Table, s: Settings, origin: str) -> list[Score]:
    """Each forecast of one origin's ladders at 95 %; nothing is said of a rung's mean, which a table cannot tell."""
    scale, nu = scales(t, s)
    half = stdtrit(nu, 0.975)[t.task] * scale
    missed = np.maximum(0.0, np.abs(t.residual) - half)
    worth_it = 2.0 * half + 2.0 / 0.05 * missed
    told = []
    for i in np.flatnonzero((t.scored > 0) & (t.origin == t.origins.index(origin))):
        runs = t.task == i
        told.append(
            Score(
                origin=origin,
                ladder=t.names[int(t.ladder[i])],
                past_rungs=int(t.past[i]),
                jump=float(t.jump[i]),
                far=bool(t.far[i]),
                runs=int(t.runs[i]),
                covered=float(np.mean(missed[runs] == 0.0)),
                frontier_covered=bool(missed[runs & (t.frontier > 0)][0] == 0.0),
                mean_covered=False,
                width=float(np.median(2.0 * half[runs])),
                mean_width=float("nan"),
                interval_score=float(np.mean(worth_it[runs])),
                error=float(np.median(np.abs(t.residual[runs]))),
            )
        )
    return told


def mean_over_origins(t: Table, values: np.ndarray, keep: tuple[str, ...], far: bool, power: float = 0.0) -> float:
    """Mean over forecasts within an origin, then over origins, each weighing as its number of forecasts to `power`."""
    chosen = (t.scored > 0) & ((t.far > 0) == far)
    parts = [values[chosen & (t.origin == t.origins.index(o))] for o in keep]
    return float(np.average([part.mean() for part in parts], weights=[len(part) ** power for part in parts]))


def loss(t: Table, s: Settings, keep: tuple[str, ...]) -> float:
    nll = surprise(t, *scales(t, s))
    near, far = (mean_over_origins(t, nll, keep, far) for far in (False, True))
    return (near + FAR_WEIGHT * far) / (1.0 + FAR_WEIGHT)


def tune(
    t: Table,
    start: Settings,
    keep: tuple[str, ...],
    *,
    evaluations: int = 400,
    free: tuple[str, ...] = FREE,
    held: float = 1e-4,
) -> tuple[Settings, float]:
    """Scale constants by Powell's method on the log scale, then `inflation` by next-rung coverage.

    `held` is the price, in nats a forecast, of a constant that leaves its start by a factor of e.
    """

    def decoded(x: np.ndarray) -> Settings:
        values = dict(zip(free, np.exp(np.clip(x, -9.0, 4.0)).tolist(), strict=True))
        values["memory"] = min(values["memory"], 0.98)
        return replace(start, inflation=1.0, **values)

    x0 = np.log([getattr(start, name) for name in free])
    found = minimize(
        lambda x: loss(t, decoded(x), keep) + held * float(np.sum((x - x0) ** 2)),
        x0,
        method="Powell",
        options={"maxfev": evaluations, "xtol": 1e-2, "ftol": 1e-4},
    )
    best = decoded(found.x)
    likelihood = loss(t, best, keep)
    return replace(best, inflation=_solved(t, best, keep)), likelihood


def _solved(t: Table, s: Settings, keep: tuple[str, ...], *, target: float = 0.95) -> float:
    """The inflation at which next-rung coverage on `keep`, averaged over rungs, is the stated one; by bisection."""
    low, high = 0.5, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        covered = mean_over_origins(t, worth(t, replace(s, inflation=middle))["covered"], keep, far=False, power=1.0)
        low, high = (middle, high) if covered < target else (low, middle)
    return (low + high) / 2
