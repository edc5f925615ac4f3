"""docs/metrics.md: every series with its type, labels and meaning, and what a scrape costs.

The sweeps' series come from the table that the scrape itself uses, the operator's from a collector that is asked, so
that neither can be left out. The cost comes from the newest measurement (`benchmarks/metrics.py`).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from sweep_operator.controller.measures import Measures, OperatorCollector
from sweep_operator.controller.queue import WorkQueue
from sweep_operator.metrics import SweepPage
from sweep_operator.metrics.families import RUN_FAMILIES, RUNG_FAMILIES, SWEEP_FAMILIES, Family

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "metrics.json"
HEAD = """\
# Metrics

Written by `make chart`. The operator serves them at `/metrics` of its metrics port, a local ladder with
`scalingsweep run SWEEP.yaml --metrics-port PORT`. All are computed at the scrape from the statuses that the operator
knows, so that a restart loses none and the series of a deleted sweep are gone with the next scrape.

* **Names** keep Prometheus' and OpenMetrics' rules: base units, `_total` on counters. Losses are nats per token; FLOPs
  are 6·N·D; device seconds are allocated devices times the time they were held.
* **States** (phase, rung state, run state) are one series that is 1 while the state lasts and absent otherwise.
* **Sweeps' series come from the leader alone**, so sums count once. After a change of leader they carry another
  `instance`; `max by (namespace, sweep)` takes that off.
* **Intervals** are three series: the value, `_low_` and `_high_`.
* **Labels** come from names in a spec and from the documented lists of reasons, never from messages. Scrape with
  `honorLabels: true`: `namespace` is the sweep's.
* **Two formats**: OpenMetrics for who ranks it first in `Accept`, as Prometheus does by itself, else Prometheus' text.
  Both tell the same numbers; only OpenMetrics has exemplars, `_created` and units.
* **Exemplars** (Prometheus: `--enable-feature=exemplar-storage`) name the last object that was counted: the newest
  attempt of each reason on `run_failures_total` and of `run_preemptions_total`; the newest pass of each bucket of the
  durations, and of each outcome of `reconciles_total`. With `tracing.endpoint` set they carry `trace_id`, for an
  attempt `span_id` too, by which Grafana opens the trace.
* **Counters** of a sweep never fall while it lives: they are sums over what statuses keep of all attempts, and what a
  process has told once it keeps to, although somebody delete a run. Reasons of failures count from zero until the sweep
  is finished, so that `increase` sees the first of each. The operator's own
  counters begin with its process and have `_created`; a Prometheus that does not read that
  (`created-timestamp-zero-ingestion`) keeps it as a series, which `monitor.metricRelabelings` can drop.
"""
PROCESS = """
Beside these, of its process and under the names that all programs give them: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds`,
`process_start_time_seconds`.
"""
COST = """\
## How many series, and what a scrape costs

A sweep has at most 75 series of its own (a law of five constants is 15 of them, failures by reason 13) and 18 for each
revision of a rung, the target included; a run has 8 more while it is unfinished, where single runs are asked for
(`--run-metrics`, chart value `operator.runMetrics`). A spec holds at most 32 rungs of 64 runs.
(`tests/sweep/test_metrics.py` counts them.)

The operator's own do not grow with sweeps: fewer than 70, and besides, with a `_created` each, one for each way in
which passes over a kind have ended (a list in the code, and `Api` with the API server's code), one for each verb,
resource and code of API calls, and two for each watched resource in each watched namespace, with its age as a third.
(`tests/chart/test_metrics_page.py` counts them.)

A sweep that has not changed since the last scrape costs nothing; a scrape spends at most 0.4 s on those that have, the
longest unseen first, and serves the others as they were (`scalingsweep_series_late`).

"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        (
            HEAD,
            "## Of a sweep\n\n" + _table(_rows(SWEEP_FAMILIES)),
            "## Of a rung\n\n" + _table(_rows(RUNG_FAMILIES)),
            "## Of a single run, where it is asked for\n\n" + _table(_rows(RUN_FAMILIES)),
            "## Of the operator\n\n" + _table(_operator_rows()) + PROCESS,
            COST + _cost(),
        )
    )


def _rows(families: Iterable[Family]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for family in families:
        yield family.sample, family.kind, family.labels, family.help


def _operator_rows() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    lines = iter(SweepPage(list).text().splitlines())
    for line in lines:
        if line.startswith("# HELP"):
            _, _, name, text = line.split(" ", 3)
            labels = ("version",) if name.endswith("build_info") else ()
            yield name, next(lines).rsplit(" ", 1)[1], labels, text
    collector = OperatorCollector(Measures(), WorkQueue(), (), (), lambda: False, lambda: 0)
    for metric in collector.collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        yield name, metric.type, tuple(getattr(metric, "_labelnames", ())), metric.documentation


def _table(rows: Iterable[tuple[str, str, tuple[str, ...], str]]) -> str:
    lines = ["| Series | Type | Labels | Meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {', '.join(labels)} | {text} |" for name, kind, labels, text in rows]
    return "\n".join(lines) + "\n"


def _cost() -> str:
    if not RESULTS.exists():
        return "Not measured yet: `python benchmarks/metrics.py`.\n"
    measured = json.loads(RESULTS.read_text())
    lines = [
        f"Measured with five rungs of two runs each ({measured['machine']}), by `python benchmarks/metrics.py`:",
        "",
        "| Sweeps | Series | Size | First scrape | All changed | None changed | Rules, one evaluation |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in measured["rows"]:
        lines.append(
            f"| {row['sweeps']:,} | {row['series']:,} | {row['megabytes']:.1f} MB | {row['firstSeconds']:.2f} s"
            f" | {row['allChangedSeconds']:.2f} s | {row['noneChangedSeconds']:.3f} s | {row['rulesSeconds']} |"
        )
    return "\n".join(lines) + "\n"
