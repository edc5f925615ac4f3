"""From a fit to a run not trained yet: one number with an interval that has a right to its width.

Owns the choice of method. The Chinchilla surface asks `forecast.py`, whose intervals were calibrated on published
ladders; every other law answers with the spread of its bootstrap refits and of its residuals, which says nothing of a
law that breaks beyond the data. Only the former may gate a ladder.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sweep_analysis.bootstrap import bootstrap
from sweep_analysis.document import digest_of
from sweep_analysis.forecast import LAWS as CALIBRATED
from sweep_analysis.forecast import NoForecast, Point, forecast
from sweep_analysis.interval import Estimate, Outlook
from sweep_analysis.ladders import by_compute
from sweep_analysis.table import Table

if TYPE_CHECKING:
    from sweep_analysis.fit import Fit

REFITS = 500


def outlook(fit: "Fit", at: Mapping[str, float], confidence: float) -> Outlook | NoForecast:
    """The response at axis values `at`. Raises ValueError for values no run has, KeyError for wrong axes."""
    form = fit.form
    form.check(at)
    if form.name in CALIBRATED:
        return _calibrated(fit, float(at["parameters"]), float(at["tokens"]), confidence)
    if not fit.usable:
        reason = "TooFewRecords" if fit.status == "TooFewPoints" else "UnidentifiedLaw"
        return NoForecast(reason=reason, message=fit.message, evidence=_digest(fit.table), records=fit.records)
    return _resampled(fit, {a.name: float(at[a.name]) for a in form.axes}, confidence)


def rungs_of(table: Table) -> tuple[tuple[Point, ...], ...]:
    """Records of parameters, tokens and loss as rungs in order of compute: by their column `rung`, else by quarter
    decades of compute."""
    runs = table.labels.get("run") or tuple(str(i) for i in range(len(table)))
    unique = table.columns.get("unique_tokens")
    points = [
        Point(float(N), float(D), float(L), run, None if unique is None else float(unique[i]))
        for i, (N, D, L, run) in enumerate(zip(table["parameters"], table["tokens"], table["loss"], runs, strict=True))
    ]
    if "rung" not in table.labels:
        return by_compute(points)
    rungs: dict[str, list[Point]] = {}
    for name, point in zip(table.labels["rung"], points, strict=True):
        rungs.setdefault(name, []).append(point)
    return tuple(map(tuple, sorted(rungs.values(), key=lambda rung: max(p.parameters * p.tokens for p in rung))))


def _calibrated(fit: "Fit", parameters: float, tokens: float, confidence: float) -> Outlook | NoForecast:
    told = forecast(rungs_of(fit.table), [(parameters, tokens)], confidence=confidence, law=fit.law)
    if isinstance(told, NoForecast):
        return told
    run = told.predictions[0]
    loss = Estimate(value=run.loss, low=run.low, high=run.high, confidence=confidence)
    return Outlook(loss=loss, jump=told.jump, law=told.law, evidence=told.evidence)


def _resampled(fit: "Fit", at: dict[str, float], confidence: float) -> Outlook:
    refits = bootstrap(fit, REFITS)
    x = fit.form.coordinates(at)
    center = float(fit.form.predict(fit.constants, **at))
    values = fit.form.evaluate(refits.samples, x, jacobian=False)[0][:, 0]
    y = fit.table[fit.form.response]
    seen = fit.form.predict(fit.constants, **{a.name: fit.table[a.name] for a in fit.form.axes})
    # residuals stand for the run's own noise, spread over the refits in a fixed order; few records have them too small
    noise = np.log(y / seen) if fit.goal.relative else y - seen
    noise = np.resize(noise, len(values)) * np.sqrt(len(y) / (len(y) - len(fit.form.constants)))
    values = values * np.exp(noise) if fit.goal.relative else values + noise
    low, high = np.quantile(values[np.isfinite(values)], [0.5 - confidence / 2, 0.5 + confidence / 2])
    estimate = Estimate(value=center, low=min(float(low), center), high=max(float(high), center), confidence=confidence)
    return Outlook(loss=estimate, jump=_jump(fit, at), law=fit.law, evidence=_digest(fit.table))


def _jump(fit: "Fit", at: Mapping[str, float]) -> float:
    """Compute of the run over the largest seen, as far as the law's axes make compute."""
    resources = [a.name for a in fit.form.axes if a.name in ("parameters", "tokens", "flops", "steps")]
    names = resources or [a.name for a in fit.form.axes if a.logarithmic]
    if not names:
        return 1.0
    seen = np.prod([fit.table[n] for n in names], axis=0)
    return float(np.prod([at[n] for n in names]) / seen.max())


def _digest(table: Table) -> str:
    return digest_of({name: sorted(v.tolist()) for name, v in sorted(table.columns.items())})
