"""Everything a verdict may look at, and what follows from it before any check: planned against observed.

Owns the frozen input of `judge` and the arithmetic shared by its checks. Compares with no threshold.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweep_analysis.forecast import Forecast, NoForecast, Point, planned_records, points_of
from sweep_analysis.gate.verdict import Affordable, Thresholds
from sweep_analysis.phases import Reading, read
from sweep_analysis.record import Failure, FailureReason, Record
from sweep_analysis.rung import Run

Key = tuple[int, int, int]
"""(N, D, seed): which planned record a record is."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Gathered by the operator; a verdict is a pure function of it."""

    rung: str
    planned: tuple[Run, ...]
    records: tuple[Record, ...]
    """This rung's accepted ladder records."""
    earlier: tuple[tuple[Record, ...], ...]
    """Earlier rungs' accepted ladder records, in order."""
    failures: Mapping[str, Failure]
    """Planned run's digest → last failure, for runs that ended without all their records."""
    forecast: Forecast | NoForecast
    thresholds: Thresholds
    warmup: bool
    """Whether the rung may be promoted although nothing can forecast it."""
    target: tuple[float, float] | None = None
    """(N, D)."""
    budget: Affordable | None = None
    diagnosis: tuple[tuple[Run, Record | Failure], ...] = ()
    """What the experiments asked for so far gave."""
    imported: tuple[Record, ...] = ()
    """Of other runs than the ladder's: forecasts rest on them too; how the ladder scales is read off its own alone."""
    retuned_from: tuple[float, ...] = ()
    """Learning-rate factors of this rung's superseded revisions."""


@dataclass(frozen=True)
class Gathered:
    """Evidence and what follows from it."""

    evidence: Evidence

    def __post_init__(self) -> None:
        """Raises ValueError when the forecast is not about the planned runs: a broken contract, not a finding."""
        forecast = self.evidence.forecast
        if isinstance(forecast, Forecast):
            foretold = [(p.parameters, p.tokens) for p in forecast.predictions]
            if foretold != [(round(N), round(D)) for N, D in planned_records(self.evidence.planned)[0]]:
                raise ValueError(
                    f"rung {self.evidence.rung}: the forecast is not about its {len(self.keys)} planned records"
                )

    @cached_property
    def keys(self) -> list[Key]:
        """Planned records, in the order of the forecast's predictions."""
        return [(run.parameters, tokens, run.seed) for run in self.evidence.planned for tokens in run.tokens]

    @cached_property
    def by_key(self) -> dict[Key, Record]:
        return {_key(record): record for record in self.evidence.records}

    @cached_property
    def missing(self) -> list[Key]:
        return [key for key in self.keys if key not in self.by_key]

    @cached_property
    def duplicated(self) -> list[Key]:
        return [key for key, count in Counter(map(_key, self.evidence.records)).items() if count > 1]

    @cached_property
    def unexpected(self) -> list[Key]:
        return [key for key in self.by_key if key not in set(self.keys)]

    @cached_property
    def diverged(self) -> list[Run]:
        """Planned runs that diverged, cheapest first."""
        failures = self.evidence.failures
        return sorted(
            (
                run
                for run in self.evidence.planned
                if (failure := failures.get(run.content_digest)) is not None
                and failure.reason is FailureReason.DIVERGED
                and any((run.parameters, tokens, run.seed) not in self.by_key for tokens in run.tokens)
            ),
            key=lambda run: run.flops,
        )

    @cached_property
    def usable(self) -> bool:
        """Whether every planned record is there once, with a finite loss."""
        whole = not (self.missing or self.duplicated or self.unexpected)
        return whole and all(math.isfinite(record.loss) and record.loss > 0 for record in self.evidence.records)

    @cached_property
    def deviations(self) -> list[float]:
        """ln(observed/predicted) of every planned record, in planned order; needs a forecast and usable records."""
        assert isinstance(self.evidence.forecast, Forecast)
        pairs = zip(self.keys, self.evidence.forecast.predictions, strict=True)
        return [math.log(self.by_key[key].loss / prediction.loss) for key, prediction in pairs]

    @cached_property
    def deviation(self) -> float:
        """The rung's one statistic: the mean of its log deviations."""
        return float(np.mean(self.deviations))

    @cached_property
    def spent(self) -> float:
        """This rung's share of the ladder's budget of false holds (Bonferroni)."""
        return (1.0 - self.evidence.thresholds.confidence) / self.evidence.thresholds.judged_rungs

    @cached_property
    def history(self) -> tuple[tuple[Point, ...], ...]:
        """Earlier rungs and this one, as points."""
        return (*(points_of(rung) for rung in self.evidence.earlier if rung), points_of(self.evidence.records))

    @cached_property
    def known(self) -> tuple[tuple[Point, ...], ...]:
        """What a forecast rests on: imported records before the ladder's own."""
        imported = points_of(self.evidence.imported)
        return (imported, *self.history) if imported else self.history

    @cached_property
    def reading(self) -> Reading:
        """Phase, pattern and the numbers behind them, this rung included."""
        return read(self.history, max_epochs=self.evidence.thresholds.max_epochs)


def _key(record: Record) -> Key:
    return record.parameters.total, record.tokens, record.seed
