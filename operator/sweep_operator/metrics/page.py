"""What a scrape gets of the sweeps: text, kept for each sweep and computed anew only when it has changed.

Owns how a scrape stays quick. `prometheus_client` would format each sample at every scrape, a second and more for a
hundred thousand; here a sweep that rests costs nothing. A scrape spends at most `BUDGET_SECONDS` on changed sweeps, the
longest unseen first; what remains is served as it was, and the page says for how many and how old. Series of a sweep
that is gone are gone with it.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from importlib.metadata import version

from sweep_operator.live.picture import slots_of
from sweep_operator.metrics.exemplars import Exemplars, exemplars_of
from sweep_operator.metrics.exposition import Exposition, line
from sweep_operator.metrics.families import FAMILIES, PREFIX
from sweep_operator.metrics.sweep import Observed, Series, Slots, series_of

log = logging.getLogger(__name__)

BUDGET_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Known:
    """A sweep that is read only if it changed since it was last computed."""

    key: Hashable
    """Its UID."""
    version: Hashable
    """Changes whenever the sweep or one of its runs does; None is never the same."""
    read: Callable[[], Observed | None]
    """The sweep and its runs; None for one that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A sweep's lines by family."""

    version: Hashable
    computed_at: float
    lines: dict[str, str]
    with_exemplars: dict[str, str]
    """The same, of the families that have any."""
    counted: dict[tuple[str, tuple[str, ...]], float]
    """Values of counters, by family and labels."""


class SweepPage:
    """The sweeps' part of a metrics page. Scrapes may come from several threads."""

    def __init__(
        self,
        sweeps: Callable[[], Iterable[Known | Observed]],
        *,
        of_runs: bool = False,
        traced: bool = False,
        slots: Slots = slots_of,
        budget_seconds: float = BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweeps = sweeps
        self._of_runs, self._traced, self._slots = of_runs, traced, slots
        self._budget = budget_seconds
        self._clock = clock
        self._born = clock()
        self._rendered: dict[Hashable, _Rendered] = {}
        self._lock = threading.Lock()

    def text(self, exposition: Exposition = Exposition.PROMETHEUS) -> str:
        """All series; of an OpenMetrics page without its last line, for there is more to come."""
        with self._lock:
            return self._text(exposition)

    def _text(self, exposition: Exposition) -> str:
        begun = self._clock()
        known = {entry.key: entry for entry in map(_as_known, self._sweeps())}
        self._rendered = {key: lines for key, lines in self._rendered.items() if key in known}
        changed = [entry for entry in known.values() if self._changed(entry)]
        changed.sort(key=self._computed_at)
        late = 0
        for entry in changed:
            if self._clock() - begun > self._budget:
                late += 1
            else:
                self._compute(entry)
        oldest = min((self._computed_at(entry) for entry in changed[len(changed) - late :]), default=begun)
        return self._joined(exposition, late, begun - oldest)

    def _changed(self, entry: Known) -> bool:
        rendered = self._rendered.get(entry.key)
        return rendered is None or entry.version is None or rendered.version != entry.version

    def _computed_at(self, entry: Known) -> float:
        rendered = self._rendered.get(entry.key)
        return rendered.computed_at if rendered else self._born

    def _compute(self, entry: Known) -> None:
        lines: dict[str, str] = {}
        with_exemplars: dict[str, str] = {}
        series: Series = {}
        exemplars: Exemplars = {}
        try:
            if observed := entry.read():
                series = series_of(observed, of_runs=self._of_runs, slots=self._slots)
                exemplars = exemplars_of(observed, traced=self._traced)
        except Exception:
            log.exception("the series of sweep %s could not be computed; the others are served", entry.key)
            series = {}
        counted = self._counted(entry.key, series)
        for name, samples in series.items():
            family = FAMILIES[name]
            rows = [
                (dict(zip(family.labels, values, strict=True)), counted.get((name, values), value))
                for values, value in samples
            ]
            lines[name] = "".join(line(family.sample, *row) for row in rows)
            if told := exemplars.get(name):
                with_exemplars[name] = "".join(
                    line(family.sample, *row, told.get(values)) for row, (values, _) in zip(rows, samples, strict=True)
                )
        self._rendered[entry.key] = _Rendered(entry.version, self._clock(), lines, with_exemplars, counted)

    def _counted(self, key: Hashable, series: Series) -> dict[tuple[str, tuple[str, ...]], float]:
        """Counters as they stand, none below what was told before: with a run that somebody deletes its numbers go."""
        rendered = self._rendered.get(key)
        before = rendered.counted if rendered else {}
        counters = (name for name in series if FAMILIES[name].kind == "counter")
        found = {(name, values): value for name in counters for values, value in series[name]}
        return before | {sample: max(value, before.get(sample, value)) for sample, value in found.items()}

    def _joined(self, exposition: Exposition, late: int, age: float) -> str:
        parts: list[str] = []
        annotated = exposition is Exposition.OPEN_METRICS
        for name, family in FAMILIES.items():
            lines = [
                (rendered.with_exemplars.get(name) if annotated else None) or rendered.lines[name]
                for rendered in self._rendered.values()
                if name in rendered.lines
            ]
            if lines:
                parts += [exposition.head(family.sample, family.kind, family.help), *lines]
        for name, text, labels, value in (
            ("build_info", "The program's version.", {"version": version("scalingsweep")}, 1.0),
            ("series_late", "Sweeps whose series were not computed anew although they have changed.", {}, late),
            ("series_late_seconds", "Age of the oldest such series.", {}, age),
        ):
            parts += [exposition.head(PREFIX + name, "gauge", text), line(PREFIX + name, labels, value)]
        return "".join(parts)


def _as_known(entry: Known | Observed) -> Known:
    if isinstance(entry, Known):
        return entry
    return Known((entry.sweep.metadata.namespace, entry.sweep.metadata.name), None, lambda: entry)
