"""Prometheus series of sweeps, computed from their statuses at scrape time.

Owns names, labels and units (Prometheus' rules: base units, `_total` on counters), and the small server of a local
ladder. Keeps no numbers of its own: what is not in a status is not in a metric.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector

from sweep_operator.api import RungState, RunState, ScalingRun, ScalingSweep
from sweep_operator.live.picture import Picture, RungRow, picture_of, slots_of

SWEEP = ("namespace", "sweep")
RUNG = (*SWEEP, "rung", "revision")
PHASES = ("Pending", "Forecast", "Running", "Diagnosing", "Held", "Suspended", "AwaitingApproval", "Refused")
ENDINGS = ("Succeeded", "Failed", "Inconsistent", "OverBudget", "NotWorthIt", "Aborted")


@dataclass(frozen=True, slots=True)
class Observed:
    """One sweep and its runs, as they stand at the moment of a scrape."""

    sweep: ScalingSweep
    runs: Sequence[ScalingRun]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long passes took: counts within each bound (not cumulative, the last beyond all bounds), and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class SweepCollector(Collector):
    """Asks for the sweeps at every scrape. `latency` may be left out where no passes are run."""

    def __init__(self, observe: Callable[[], Iterable[Observed]], latency: Callable[[], Latency] | None = None) -> None:
        self._observe = observe
        self._latency = latency

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not ask for the sweeps."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily | InfoMetricFamily]:
        """All series."""
        families = _Families()
        for observed in self._observe():
            _describe(families, observed)
        yield from families.all()
        if self._latency:
            yield _histogram(self._latency())
        yield InfoMetricFamily("scalingsweep_build", "The program's version.", {"version": version("scalingsweep")})


class _Families:
    """The families by name, created on first use with their help."""

    def __init__(self) -> None:
        self._known: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def all(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        return self._known.values()

    def gauge(self, name: str, value: float | None, labels: Sequence[str], names: Sequence[str] = SWEEP) -> None:
        """One sample; none where there is no value."""
        if value is None:
            return
        family = self._known.get(name)
        if family is None:
            family = self._known[name] = GaugeMetricFamily(f"scalingsweep_{name}", HELP[name], labels=names)
        family.add_metric(labels, value)

    def counter(self, name: str, value: float, labels: Sequence[str], names: Sequence[str] = SWEEP) -> None:
        """One sample of something that only grows."""
        family = self._known.get(name)
        if family is None:
            family = self._known[name] = CounterMetricFamily(f"scalingsweep_{name}", HELP[name], labels=names)
        family.add_metric(labels, value)


HELP = {
    "sweep_phase": "1 for the phase that the sweep is in, 0 for the others.",
    "sweep_condition": "1 when the condition is True, 0 when False, -1 when Unknown.",
    "sweep_eta_seconds": "Expected time until the ladder ends, at the prices measured so far.",
    "rung_loss_nats": "Observed loss of a rung (geometric mean over its records), nats per token.",
    "rung_forecast_loss_nats": "Forecast of the same loss, nats per token.",
    "rung_forecast_loss_low_nats": "Lower bound of the forecast's interval, nats per token.",
    "rung_forecast_loss_high_nats": "Upper bound of the forecast's interval, nats per token.",
    "rung_deviation_ratio": "Observed over predicted loss of a rung, less one.",
    "rung_state": "1 for the state that the rung is in, 0 for the others.",
    "rung_runs": "Runs of a rung by state.",
    "rung_progress_ratio": "Share of the rung's training that is done.",
    "rung_tokens_per_second": "Training speed of the rung's running runs together.",
    "rung_eta_seconds": "Expected time until the rung's last run ends.",
    "verdicts": "Rungs (revisions counted) by the outcome and reason of their latest verdict.",
    "law_parameter": "Constant of the fitted law.",
    "law_parameter_low": "Lower bound of the constant's interval.",
    "law_parameter_high": "Upper bound of the constant's interval.",
    "law_records": "Records that the law was fitted to.",
    "target_forecast_loss_nats": "What the target is expected to reach, nats per token.",
    "target_forecast_loss_low_nats": "Lower bound of the target's interval, nats per token.",
    "target_forecast_loss_high_nats": "Upper bound of the target's interval, nats per token.",
    "target_loss_nats": "What the target reached, nats per token.",
    "target_jump_ratio": "The target's compute over the largest compute measured.",
    "flops": "Training FLOPs spent (6ND), failed attempts and diagnosis included.",
    "gpu_seconds": "Device seconds spent, failed attempts and diagnosis included.",
    "diagnosis_gpu_seconds": "Device seconds spent on diagnosis.",
    "budget_left_flops": "FLOPs left of the budget.",
    "budget_left_gpu_seconds": "Device seconds left of the budget.",
    "run_failures": "Failures of runs that counted, by reason (the newest ten of each run).",
    "run_attempts": "Attempts that were made at runs.",
}


def _describe(families: _Families, observed: Observed) -> None:
    sweep, runs = observed.sweep, observed.runs
    names = (sweep.metadata.namespace, sweep.metadata.name)
    picture = picture_of(sweep, runs, slots_of(sweep))
    for phase in (*PHASES, *ENDINGS):
        families.gauge("sweep_phase", float(sweep.status.phase == phase), (*names, phase), (*SWEEP, "phase"))
    for condition in sweep.status.conditions:
        truth = {"True": 1.0, "False": 0.0, "Unknown": -1.0}[condition.status]
        families.gauge("sweep_condition", truth, (*names, condition.type), (*SWEEP, "condition"))
    families.gauge("sweep_eta_seconds", picture.left_seconds, names)
    for row in picture.rows:
        _describe_rung(families, row, names)
    _describe_verdicts(families, picture, names)
    _describe_law_and_target(families, sweep, picture, names)
    _describe_cost(families, sweep, runs, names)


def _describe_rung(families: _Families, row: RungRow, names: tuple[str, str]) -> None:
    labels = (*names, row.name, str(row.revision))
    families.gauge("rung_loss_nats", row.loss, labels, RUNG)
    if row.forecast:
        families.gauge("rung_forecast_loss_nats", row.forecast.value, labels, RUNG)
        families.gauge("rung_forecast_loss_low_nats", row.forecast.low, labels, RUNG)
        families.gauge("rung_forecast_loss_high_nats", row.forecast.high, labels, RUNG)
    families.gauge("rung_deviation_ratio", row.deviation, labels, RUNG)
    for state in RungState:
        families.gauge("rung_state", float(row.state == state), (*labels, state), (*RUNG, "state"))
    waiting = row.runs - row.done - row.running - row.failed
    counts = {
        RunState.SUCCEEDED: row.done,
        RunState.RUNNING: row.running,
        RunState.FAILED: row.failed,
        RunState.QUEUED: waiting,
    }
    for run_state, count in counts.items():
        families.gauge("rung_runs", float(count), (*labels, run_state), (*RUNG, "state"))
    families.gauge("rung_progress_ratio", row.share, labels, RUNG)
    families.gauge("rung_tokens_per_second", row.tokens_per_second, labels, RUNG)
    families.gauge("rung_eta_seconds", row.left_seconds, labels, RUNG)


def _describe_verdicts(families: _Families, picture: Picture, names: tuple[str, str]) -> None:
    verdicts = [(str(row.verdict.outcome), str(row.verdict.reason)) for row in picture.rows if row.verdict]
    for outcome, reason in sorted(set(verdicts)):
        count = float(verdicts.count((outcome, reason)))
        families.gauge("verdicts", count, (*names, outcome, reason), (*SWEEP, "outcome", "reason"))


def _describe_law_and_target(
    families: _Families, sweep: ScalingSweep, picture: Picture, names: tuple[str, str]
) -> None:
    law, target = sweep.status.law, sweep.status.target
    if law:
        labels = (*SWEEP, "law", "parameter")
        for parameter, interval in law.parameters.items():
            values = (*names, law.name, parameter)
            families.gauge("law_parameter", interval.value, values, labels)
            families.gauge("law_parameter_low", interval.low, values, labels)
            families.gauge("law_parameter_high", interval.high, values, labels)
        families.gauge("law_records", float(law.records), (*names, law.name), (*SWEEP, "law"))
    if picture.target:
        families.gauge("target_forecast_loss_nats", picture.target.value, names)
        families.gauge("target_forecast_loss_low_nats", picture.target.low, names)
        families.gauge("target_forecast_loss_high_nats", picture.target.high, names)
    families.gauge("target_loss_nats", target.observed, names)
    families.gauge("target_jump_ratio", target.jump, names)


def _describe_cost(
    families: _Families, sweep: ScalingSweep, runs: Sequence[ScalingRun], names: tuple[str, str]
) -> None:
    spent, budget = sweep.status.spent, sweep.spec.budget
    families.counter("flops", spent.flops, names)
    families.counter("gpu_seconds", spent.gpu_seconds, names)
    families.counter("diagnosis_gpu_seconds", spent.diagnosis_gpu_seconds, names)
    if budget.flops is not None:
        families.gauge("budget_left_flops", budget.flops - spent.flops, names)
    if budget.gpu_hours is not None:
        families.gauge("budget_left_gpu_seconds", budget.gpu_hours * 3600 - spent.gpu_seconds, names)
    reasons = [str(failure.reason) for run in runs for failure in run.status.failures]
    for reason in sorted(set(reasons)):
        families.gauge("run_failures", float(reasons.count(reason)), (*names, reason), (*SWEEP, "reason"))
    families.gauge("run_attempts", float(sum(run.status.attempt for run in runs)), names)


def _histogram(latency: Latency) -> HistogramMetricFamily:
    family = HistogramMetricFamily("scalingsweep_pass_duration_seconds", "Time that one pass over a sweep took.")
    buckets, running = [], 0
    for bound, count in zip((*latency.bounds, float("inf")), latency.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(running)))
    family.add_metric((), buckets, latency.total)
    return family


class PortTakenError(Exception):
    """Another program listens on the port already."""


def serve(collector: SweepCollector, port: int, address: str = "127.0.0.1") -> Callable[[], None]:
    """Serve the series on a port; returns what stops it. Raises PortTakenError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OverflowError:
        raise PortTakenError(f"{port} is no port; choose one from 1 to 65535") from None
    except OSError as error:
        raise PortTakenError(f"metrics cannot be served on {address}:{port}: {error.strerror}") from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return stop
