"""The two texts that a scrape may ask for, Prometheus' and OpenMetrics', down to the line.

Owns the choice between them by the request's Accept header, and the lines. Only OpenMetrics has exemplars, `_created`
and units, and ends with a mark, so that a page that was cut is known for one. Does not know what is counted.
"""

from collections.abc import Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as open_metrics
from prometheus_client.samples import Exemplar

UNITS = ("seconds", "flops", "nats", "ratio")
"""Those that OpenMetrics is told of where a name ends with one."""
EXEMPLAR_CHARACTERS = 128
"""Of all its labels' names and values together: OpenMetrics' limit."""


class Exposition(StrEnum):
    """A text format; its value is the content type."""

    PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
    OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    def head(self, sample: str, kind: str, text: str) -> str:
        """What stands above the samples of a family; `sample` is the name that they have."""
        name = sample
        if self is Exposition.OPEN_METRICS:
            name = sample.removesuffix("_total") if kind == "counter" else sample
            if name.endswith("_info"):
                name, kind = name.removesuffix("_info"), "info"
        unit = name.rpartition("_")[2]
        told = self is Exposition.OPEN_METRICS and kind != "info" and unit in UNITS
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + (f"# UNIT {name} {unit}\n" if told else "")

    def page(self, text: str, registry: CollectorRegistry) -> bytes:
        """The whole page: the families in `text`, then those of a registry, and OpenMetrics' mark at the end."""
        if self is Exposition.PROMETHEUS:
            return text.encode() + generate_latest(registry)
        rest: bytes = open_metrics.generate_latest(registry)  # type: ignore[no-untyped-call] # the library says no types
        return text.encode() + rest


def asked_for(accept: str) -> Exposition:
    """OpenMetrics where the header of the request ranks it no lower than plain text; else Prometheus' own.

    `prometheus_client.choose_encoder` looks at no ranks, and so overrules whoever set `scrape_protocols`.
    """
    ranks = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind in ranks and given.get("version", "1.0.0") in ("0.0.1", "0.0.4", "1.0.0"):
            ranks[kind] = max(ranks[kind], _rank(given.get("q", "1")))
    wanted, plain = ranks.values()
    return Exposition.OPEN_METRICS if wanted and wanted >= plain else Exposition.PROMETHEUS


def line(name: str, labels: Mapping[str, str], value: float, exemplar: Exemplar | None = None) -> str:
    """One sample; an exemplar may only be given where OpenMetrics was asked for."""
    said = f" # {_set(exemplar.labels)} {float(exemplar.value)!r} {exemplar.timestamp!r}" if exemplar else ""
    return f"{name}{_set(labels)} {float(value)!r}{said}\n"


def exemplar_of(labels: Mapping[str, str | None], value: float, at: float) -> Exemplar:
    """An exemplar with those of the labels that there are and that fit, the first ones first; `at` is Unix time."""
    kept: dict[str, str] = {}
    left = EXEMPLAR_CHARACTERS
    for name, text in labels.items():
        if text and len(name) + len(text) <= left:
            kept[name] = text
            left -= len(name) + len(text)
    return Exemplar(kept, value, at)


def _rank(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _set(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text
