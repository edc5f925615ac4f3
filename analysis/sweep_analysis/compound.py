"""A forecast through two laws: loss with its interval, then what a downstream metric will be at that loss.

Owns the compounding: the metric's interval holds the spread of the loss, of the second law's constants and of the
metric about its law. Neither law alone has the right width.
"""

import numpy as np
from scipy import special

from sweep_analysis.bootstrap import SEED, bootstrap
from sweep_analysis.fit import Estimate, Fit
from sweep_analysis.laws.base import Array
from sweep_analysis.table import TableError

DRAWS = 2000


def compound(metric: Fit, loss: Estimate, *, confidence: float | None = None, seed: int = SEED) -> Estimate:
    """The metric at a forecast loss.

    metric: a fitted law of `loss` (DownstreamSigmoid, DownstreamExponential). loss: with its interval, taken as
    log-normal with those quantiles. confidence: the loss's own when None. Raises TableError for a law of another axis.
    """
    names = [a.name for a in metric.form.axes]
    if names != ["loss"]:
        raise TableError(f"{metric.law} is a law of {', '.join(names)}; a metric must be a law of loss alone")
    if not metric.usable:
        raise ValueError(f"{metric.law} was not fitted: {metric.message}")
    level = loss.confidence if confidence is None else confidence
    draw = np.random.default_rng(seed)
    refits = bootstrap(metric, DRAWS, seed=seed).samples
    normal = draw.standard_normal(DRAWS)
    tail = float(special.ndtri(0.5 + loss.confidence / 2))
    # each side of the interval has a width of its own
    up, down = np.log(loss.high / loss.value) / tail, np.log(loss.value / loss.low) / tail
    losses = loss.value * np.exp(normal * np.where(normal > 0, up, down))
    values = _paired(metric, refits, losses)
    y = metric.table[metric.form.response]
    residual = y - metric.predict(loss=metric.table["loss"])
    spread = np.sqrt(float(residual @ residual) / (len(y) - len(metric.constants)))
    values = values + spread * draw.standard_normal(DRAWS)
    centre = float(metric.predict(loss=loss.value))
    low, high = np.quantile(values[np.isfinite(values)], [0.5 - level / 2, 0.5 + level / 2])
    if metric.form.response in ("accuracy", "error"):  # a fraction stays one
        low, high = max(float(low), 0.0), min(float(high), 1.0)
    return Estimate(value=centre, low=min(float(low), centre), high=max(float(high), centre), confidence=level)


def _paired(metric: Fit, constants: Array, losses: Array) -> Array:
    """The law at the i-th loss with the i-th constants, (R,)."""
    x = losses[:, None]
    return np.array(
        [metric.form.evaluate(c[None], [u], jacobian=False)[0][0, 0] for c, u in zip(constants, x, strict=True)]
    )
