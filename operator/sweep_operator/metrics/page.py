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
from sweep_operator.metrics.families import FAMILIES, PREFIX
from sweep_operator.metrics.sweep import Observed, Slots, series_of

log = logging.getLogger(__name__)

BUDGET_SECONDS = 0.4
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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


class SweepPage:
    """The sweeps' part of a metrics page. Scrapes may come from several threads."""

    def __init__(
        self,
        sweeps: Callable[[], Iterable[Known | Observed]],
        *,
        of_runs: bool = False,
        slots: Slots = slots_of,
        budget_seconds: float = BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweeps = sweeps
        self._of_runs, self._slots = of_runs, slots
        self._budget = budget_seconds
        self._clock = clock
        self._born = clock()
        self._rendered: dict[Hashable, _Rendered] = {}
        self._lock = threading.Lock()

    def text(self) -> str:
        """All series, in Prometheus' text format."""
        with self._lock:
            return self._text()

    def _text(self) -> str:
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
        return self._joined(late, begun - oldest)

    def _changed(self, entry: Known) -> bool:
        rendered = self._rendered.get(entry.key)
        return rendered is None or entry.version is None or rendered.version != entry.version

    def _computed_at(self, entry: Known) -> float:
        rendered = self._rendered.get(entry.key)
        return rendered.computed_at if rendered else self._born

    def _compute(self, entry: Known) -> None:
        lines: dict[str, str] = {}
        try:
            observed = entry.read()
            series = series_of(observed, of_runs=self._of_runs, slots=self._slots) if observed else {}
        except Exception:
            log.exception("the series of sweep %s could not be computed; the others are served", entry.key)
            series = {}
        for name, samples in series.items():
            family = FAMILIES[name]
            lines[name] = "".join(_line(family.sample, family.labels, *sample) for sample in samples)
        self._rendered[entry.key] = _Rendered(entry.version, self._clock(), lines)

    def _joined(self, late: int, age: float) -> str:
        parts: list[str] = []
        for name, family in FAMILIES.items():
            lines = [text for rendered in self._rendered.values() if (text := rendered.lines.get(name))]
            if lines:
                parts += [_head(family.sample, family.kind, family.help), *lines]
        build = f'{{version="{_escaped(version("scalingsweep"))}"}}'
        for name, text, labels, value in (
            ("build_info", "The program's version.", build, 1.0),
            ("series_late", "Sweeps whose series were not computed anew although they have changed.", "", late),
            ("series_late_seconds", "Age of the oldest such series.", "", age),
        ):
            parts += [_head(PREFIX + name, "gauge", text), f"{PREFIX}{name}{labels} {float(value)!r}\n"]
        return "".join(parts)


def _as_known(entry: Known | Observed) -> Known:
    if isinstance(entry, Known):
        return entry
    return Known((entry.sweep.metadata.namespace, entry.sweep.metadata.name), None, lambda: entry)


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: tuple[str, ...], values: tuple[str, ...], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}} {float(value)!r}\n"


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text
