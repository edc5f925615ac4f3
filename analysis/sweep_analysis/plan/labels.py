"""Labelled data: how many labels measure a metric so closely, and how many examples to tune on reach it.

Owns the reading of `METRIC=VALUE±HALFWIDTH` and the two counts. The first follows from the binomial alone; the second
needs a pilot, a few measured (labels, metric) pairs, since no published law knows the task.
"""

import difflib
import math
import re
from pathlib import Path

import numpy as np

from sweep_analysis.document import Document
from sweep_analysis.plan.devices import Range
from sweep_analysis.surface import Floats
from sweep_analysis.wilson import half_width as wilson_half_width

SHARES = ("accuracy", "error", "precision", "recall")
"""Metrics that are a share of labels. Precision counts labels among what was flagged, recall among what should be."""
HALF_WIDTH = 0.01


class Metric(Document):
    """A metric to be measured, and how closely."""

    name: str
    value: float
    half_width: float = HALF_WIDTH


class Labels(Document):
    """Label counts for one metric."""

    metric: Metric
    measured_by: int
    """Labels whose 95 % interval (Wilson 1927) is that narrow."""
    reached_by: Range | None = None
    """Examples to tune on that reach the value, by the pilot's law."""
    message: str = ""
    """Why the pilot gives no number, or what it rests on."""


def parse_metric(text: str) -> Metric:
    """`accuracy=0.9` or `accuracy=0.9±0.02` (`+-` will do). Raises ValueError with one sentence."""
    match = re.fullmatch(
        r"\s*([a-zA-Z0-9_-]+)\s*=\s*([0-9.]+)\s*(%?)\s*(?:(?:±|\+-|\+/-)\s*([0-9.]+)\s*(%?))?\s*", text
    )
    if not match:
        raise ValueError(f"{text!r} is no metric; accuracy=0.9 or accuracy=0.9±0.02 would be right")
    name, value, percent, half, half_percent = match.groups()
    if name.lower() not in SHARES:
        near = difflib.get_close_matches(name.lower(), SHARES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{name!r} is no metric that can be counted here; {hint}known: {', '.join(SHARES)}")
    try:
        level = float(value) / (100 if percent else 1)
        width = float(half) / (100 if half_percent or percent else 1) if half else HALF_WIDTH
    except ValueError:
        raise ValueError(f"{text!r}: {value} is not a number") from None
    if not 0 < level < 1:
        raise ValueError(f"{text!r}: a share lies between 0 and 1, such as 0.9 or 90%")
    if not 0 < width < 0.5:
        raise ValueError(f"{text!r}: the half-width {width:g} is not between 0 and 0.5")
    return Metric(name=name.lower(), value=level, half_width=width)


def labels_for(metric: Metric, pilot: Path | None = None) -> Labels:
    """Both counts; the second only with a pilot. Raises ValueError for a pilot that cannot be read."""
    answer = Labels(metric=metric, measured_by=measured_by(metric.value, metric.half_width))
    return answer if pilot is None else _reached(answer, pilot)


def measured_by(value: float, half_width: float) -> int:
    """Fewest labels whose Wilson interval is no wider than ±half_width at 95 %."""
    low, high = 1, 1
    while wilson_half_width(value, high) > half_width:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson_half_width(value, middle) <= half_width else (middle, high)
    return high


def _reached(answer: Labels, pilot: Path) -> Labels:
    """The pilot's error as E + K·labels^-gamma, solved for the labels; the interval by bootstrap refits."""
    from sweep_analysis.bootstrap import bootstrap
    from sweep_analysis.fit import fit
    from sweep_analysis.table import read

    metric = answer.metric
    rises = metric.name != "error"
    raw = read(pilot, ("labels", metric.name))
    wrong = 1.0 - raw[metric.name] if rises else raw[metric.name]
    # the saturating power law of one axis, whatever the axis is called
    result = fit({"flops": raw["labels"], "loss": wrong}, "SaturatingCompute")
    aim = 1.0 - metric.value if rises else metric.value
    if not result.usable:
        return answer.changed(message=f"{pilot}: {result.message}")

    def needed(E: Floats, K: Floats, gamma: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.where(aim > E, ((aim - E) / K) ** (-1.0 / gamma), np.inf)

    centre = float(needed(*(np.array(result.constants[n]) for n in ("E", "K", "gamma"))))
    if not math.isfinite(centre):
        best = 1.0 - result.constants["E"] if rises else result.constants["E"]
        return answer.changed(
            message=f"{metric.name} {metric.value:g} is beyond what the pilot's law ever reaches ({best:.3g})"
        )
    samples = needed(*bootstrap(result, 300).samples.T)
    low, high = np.quantile(samples, [0.025, 0.975], method="nearest")
    unbounded = not math.isfinite(high)
    finite = samples[np.isfinite(samples)]
    high = float(finite.max()) if unbounded else float(high)
    note = f"{result.records} pilot measurements, {result.status}"
    if unbounded:
        note += "; the upper end is open: some refits never reach it"
    reached = Range(value=centre, low=min(centre, float(low)), high=max(centre, high))
    return answer.changed(reached_by=reached, message=note)
