"""Forecasts with intervals: what the next rung's losses will be, and how well that is known.

Owns who may be forecast (`NoForecast` says why not), the evidence's digest and the stored documents. The statistics
stand in `predictive`. Sets no clock, draws no random number: the same evidence gives the same bits, in any order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from sweep_analysis import predictive
from sweep_analysis.document import Document, digest_of
from sweep_analysis.record import Record
from sweep_analysis.rung import Run

METHOD = "RecencyWeightedSurface"
VERSION = "4"
LAWS = ("Chinchilla",)
"""Laws that may forecast: those whose intervals were calibrated on published ladders."""


@dataclass(frozen=True, slots=True)
class Point:
    """One record as the statistics see it."""

    parameters: float
    """N."""
    tokens: float
    """D."""
    loss: float
    """Nats per token."""
    run: str
    """Records of one training run (checkpoints, decay branches) share it: their noise is not independent."""
    unique_tokens: float | None = None
    """Distinct training tokens among D, where known."""


class Prediction(Document):
    """The forecast of one planned record, with its interval at the forecast's confidence."""

    parameters: int
    """N of the planned record."""
    tokens: int
    """D of the planned record."""
    loss: float
    """Nats per token."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class Deviation(Document):
    """Predictive distribution of the mean of ln(observed/predicted) over the planned records: Student-t around zero.

    Branches of one run share their noise and all records of a rung share the law's error; the scale knows both.
    """

    scale: float = Field(gt=0)
    """Of the Student-t, in log loss."""
    degrees_of_freedom: float = Field(gt=0)
    """Of the Student-t."""

    def half_width(self, confidence: float) -> float:
        """Two-sided half-width at `confidence`, in log loss."""
        return self.scale * predictive.quantile(confidence, self.degrees_of_freedom)

    def bound(self, tail: float) -> float:
        """How far above (or below) zero a deviation lies with probability `tail`, in log loss."""
        return self.half_width(1.0 - 2.0 * tail)


class Forecast(Document):
    """What was foretold of one rung, from which evidence, by which method."""

    method: str = Field(max_length=40)
    """By which the forecast was made."""
    version: str = Field(max_length=20)
    """Of the method; another version is another method."""
    law: str = Field(max_length=40)
    """That was fitted."""
    evidence: str = Field(max_length=80)
    """Digest of the records used; the same in any order."""
    records: int
    """How many records the forecast rests on."""
    rungs: int
    """And of how many rungs."""
    confidence: float = Field(gt=0, lt=1)
    """Of the intervals."""
    jump: float
    """Largest planned compute over the largest of the evidence."""
    predictions: tuple[Prediction, ...] = Field(max_length=1024)
    """One for each planned record."""
    deviation: Deviation
    half_width: float
    """Relative half-width of the interval of the mean deviation at `confidence`."""


class NoForecast(Document):
    """Why there is no forecast, and what would make one possible."""

    reason: Literal["TooFewRecords", "UnidentifiedLaw", "FitNotConverged"]
    """In one word."""
    message: str = Field(max_length=1024)
    """In a sentence, with what would make a forecast possible."""
    evidence: str = Field(max_length=80)
    """Digest of the records there were."""
    records: int
    """How many records there were."""


def forecast(
    history: Sequence[Sequence[Point]],
    at: Sequence[tuple[float, float]],
    *,
    confidence: float = 0.95,
    law: str = "Chinchilla",
    runs: Sequence[str] | None = None,
) -> Forecast | NoForecast:
    """Forecast the losses of planned records from the rungs before them.

    `history`: past rungs in order, their accepted records only. `at`: planned (N, D). `runs`: which training run each
    planned record belongs to (all different when left out). Raises ValueError for values that no record can have.
    """
    if law not in LAWS:
        raise ValueError(f"no calibrated interval for law {law!r}; forecasts are made with {', '.join(LAWS)}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    if not at:
        raise ValueError("nothing to forecast: `at` is empty")
    if runs is not None and len(runs) != len(at):
        raise ValueError(f"{len(runs)} runs are named for {len(at)} planned records")
    rungs = [sorted(rung, key=lambda p: (p.parameters, p.tokens, p.loss, p.run)) for rung in history if rung]
    points = [point for rung in rungs for point in rung]
    for point in points:
        _check(point.parameters, point.tokens, point.loss)
    for parameters, tokens in at:
        _check(parameters, tokens, 1.0)
    evidence = evidence_digest(rungs)
    refusal = unidentified(points)
    if refusal:
        reason, message = refusal
        return NoForecast(reason=reason, message=message, evidence=evidence, records=len(points))
    past = predictive.History(evidence_of(rungs))
    k = past.evidence.rungs
    if not past.fits.converged[-1] or not np.isfinite(past.fits.theta[-1]).all():
        message = f"the fit to {len(points)} records did not converge; look for records that contradict each other"
        return NoForecast(reason="FitNotConverged", message=message, evidence=evidence, records=len(points))
    planned = np.log(np.array(at, dtype=float))
    joint = past.predict(k, planned[:, 0], planned[:, 1], list(runs) if runs else range(len(at)))
    half = joint.half_widths(confidence)
    deviation = Deviation(scale=joint.mean_scale, degrees_of_freedom=joint.degrees_of_freedom)
    return Forecast(
        method=METHOD,
        version=VERSION,
        law=law,
        evidence=evidence,
        records=len(points),
        rungs=k,
        confidence=confidence,
        jump=float(np.exp(planned.sum(axis=1).max() - past.evidence.log_compute.max())),
        predictions=tuple(
            Prediction(
                parameters=round(at[i][0]),
                tokens=round(at[i][1]),
                loss=math.exp(joint.mean[i]),
                low=math.exp(joint.mean[i] - half[i]),
                high=math.exp(joint.mean[i] + half[i]),
            )
            for i in range(len(at))
        ),
        deviation=deviation,
        half_width=math.expm1(deviation.half_width(confidence)),
    )


def evidence_of(history: Sequence[Sequence[Point]]) -> predictive.Evidence:
    """Rungs as arrays, in one canonical order, so that the order of a rung's records changes no bit of any result.

    Replicates of one (N, D) in a rung become one mean, and what their runs differ by becomes the noise of every record.
    """
    rows: list[tuple[float, float, float, int, int]] = []
    names: list[str] = []
    squares = freedom = 0.0
    for number, rung in enumerate(rung for rung in history if rung):
        places: dict[tuple[float, float], dict[str, list[float]]] = {}
        for p in sorted(rung, key=lambda p: (p.parameters, p.tokens, p.loss, p.run)):
            places.setdefault((p.parameters, p.tokens), {}).setdefault(p.run, []).append(math.log(p.loss))
        for (N, D), runs in places.items():
            means = np.array([np.mean(losses) for losses in runs.values()])
            names.append(min(runs))
            rows.append((math.log(N), math.log(D), float(means.mean()), number, len(means)))
            squares += (N * D) ** predictive.SEED_DECAY * float(np.sum((means - means.mean()) ** 2))
            freedom += len(means) - 1
    n, d, losses, rungs, counts = (np.array(column) for column in zip(*rows, strict=True))
    expected = predictive.SEED_SD**2 * (1e11 / 6.0) ** predictive.SEED_DECAY
    at_one = (squares + predictive.SEED_PRIOR * expected) / (freedom + predictive.SEED_PRIOR)
    variance = at_one * np.exp(-predictive.SEED_DECAY * (n + d))
    return predictive.Evidence(n, d, losses, rungs, tuple(names), variance / counts, float(variance.min()), freedom > 0)


def evidence_digest(history: Sequence[Sequence[Point]]) -> str:
    """`sha256:…` of the records a forecast was made from: rungs in order, records of a rung in any order."""
    return digest_of([sorted([p.parameters, p.tokens, p.loss, p.run] for p in rung) for rung in history if rung])


def _check(parameters: float, tokens: float, loss: float) -> None:
    for name, value in (("parameters", parameters), ("tokens", tokens), ("loss", loss)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value} at N = {parameters:g}, D = {tokens:g}: it must be finite and positive")


def unidentified(
    points: Sequence[Point],
) -> tuple[Literal["TooFewRecords", "UnidentifiedLaw"], str] | None:
    """Why these records cannot tell the law's two exponents apart, or None."""
    sizes, ratios = distinct([p.parameters for p in points]), distinct([p.tokens / p.parameters for p in points])
    if len(points) < 4 or sizes < 3:
        return "TooFewRecords", (
            f"{len(points)} records of {sizes} model sizes; a forecast needs at least 4 records of 3 sizes"
            " at 2 token/parameter ratios"
        )
    if ratios < 2:
        return "UnidentifiedLaw", (
            f"all {len(points)} records have one token/parameter ratio, which cannot tell the effect of size from that"
            " of data; train at least one size at a second ratio"
        )
    return None


def distinct(values: Sequence[float]) -> int:
    """How many of the values differ by more than 5 %, which is what rounding to whole batches can do."""
    ordered = np.sort(np.log(np.asarray(values, dtype=float)))
    count, last = 0, -math.inf
    for value in ordered:
        if value - last > math.log(1.05):
            count, last = count + 1, float(value)
    return count


def points_of(records: Iterable[Record]) -> tuple[Point, ...]:
    """Records as the statistics see them: N total, and the run that each belongs to."""
    return tuple(
        Point(r.parameters.total, r.tokens, r.loss, r.run.uid, min(r.unique_tokens, r.tokens)) for r in records
    )


def planned_records(runs: Iterable[Run]) -> tuple[list[tuple[float, float]], list[str]]:
    """(N, D) of every record that the runs owe, in order, and the run that owes it: `forecast`'s `at` and `runs`."""
    owed = [(run, tokens) for run in runs for tokens in run.tokens]
    return [(run.parameters, tokens) for run, tokens in owed], [run.content_digest for run, _ in owed]
