"""Every series of a sweep: its name, type, labels and meaning. docs/metrics.md is generated from this table.

Owns the words. A state is one series, 1 while it lasts and absent otherwise, so that many states cost what few do.
Labels come from closed lists or from names in a spec, never from messages.
"""

from dataclasses import dataclass
from typing import Literal

PREFIX = "scalingsweep_"
SWEEP = ("namespace", "sweep")
RUNG = (*SWEEP, "rung", "revision")
RUN = (*SWEEP, "rung", "run")


@dataclass(frozen=True, slots=True)
class Family:
    """One name, as a scrape declares it."""

    name: str
    """Without the prefix; of a counter without `_total`."""
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    help: str

    @property
    def sample(self) -> str:
        """The name under which its samples are queried."""
        return f"{PREFIX}{self.name}" + ("_total" if self.kind == "counter" else "")


def _gauge(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(name, "gauge", labels, text)


def _bounded(name: str, labels: tuple[str, ...], what: str, unit: str) -> tuple[Family, ...]:
    """A number with the bounds of its interval."""
    stem = name.removesuffix(f"_{unit}")
    return (
        _gauge(name, labels, f"{what}."),
        _gauge(f"{stem}_low_{unit}", labels, f"{what}: lower bound of the interval."),
        _gauge(f"{stem}_high_{unit}", labels, f"{what}: upper bound of the interval."),
    )


SWEEP_FAMILIES = (
    _gauge("sweep_created_timestamp_seconds", SWEEP, "When the sweep was created."),
    _gauge("sweep_phase", (*SWEEP, "phase"), "1 for the phase that the sweep is in."),
    _gauge(
        "sweep_condition", (*SWEEP, "condition", "reason"), "1 when the condition is True, 0 when False, -1 if Unknown."
    ),
    _gauge(
        "sweep_awaiting_approval",
        (*SWEEP, "rung", "reason"),
        "1 while the sweep is held until a person says yes or no.",
    ),
    _gauge("sweep_eta_seconds", SWEEP, "Expected time until the ladder ends, at the prices measured so far."),
    _gauge("remaining_flops", SWEEP, "Training FLOPs (6ND) of the rungs still to be trained, the target aside."),
    *_bounded(
        "remaining_gpu_seconds",
        SWEEP,
        "Device seconds of the rungs still to be trained, the target aside",
        "gpu_seconds",
    ),
    _gauge(
        "verdicts",
        (*SWEEP, "outcome", "reason"),
        "Rungs (revisions counted) by the outcome and reason of their newest verdict.",
    ),
    _gauge("law_info", (*SWEEP, "law", "fit_status", "phase", "pattern"), "1; how the fitted law stands."),
    _gauge("law_parameter", (*SWEEP, "law", "parameter"), "Constant of the fitted law."),
    _gauge("law_parameter_low", (*SWEEP, "law", "parameter"), "Lower bound of the constant's interval."),
    _gauge("law_parameter_high", (*SWEEP, "law", "parameter"), "Upper bound of the constant's interval."),
    _gauge("law_records", (*SWEEP, "law"), "Records that the law was fitted to."),
    *_bounded("target_forecast_loss_nats", SWEEP, "What the target is expected to reach, nats per token", "nats"),
    _gauge("target_loss_nats", SWEEP, "What the target reached, nats per token."),
    _gauge("target_max_loss_nats", SWEEP, "Loss above which the target is not worth its cost, nats per token."),
    _gauge("target_jump_ratio", SWEEP, "The target's compute over the largest compute measured."),
    _gauge("target_flops", SWEEP, "Training FLOPs (6ND) of the target."),
    *_bounded("target_gpu_seconds", SWEEP, "Device seconds that the target will cost", "gpu_seconds"),
    Family("flops", "counter", SWEEP, "Training FLOPs spent (6ND), failed attempts and diagnosis included."),
    Family("gpu_seconds", "counter", SWEEP, "Device seconds spent, failed attempts and diagnosis included."),
    Family("diagnosis_gpu_seconds", "counter", SWEEP, "Device seconds spent on diagnosis."),
    _gauge(
        "budget_spent_ratio", (*SWEEP, "resource"), "Share of the budget that is spent, by `flops` or `gpu_seconds`."
    ),
    _gauge("budget_flops", SWEEP, "The sweep's budget of training FLOPs."),
    _gauge("budget_gpu_seconds", SWEEP, "The sweep's budget of device seconds."),
    _gauge("budget_left_flops", SWEEP, "FLOPs left of the budget."),
    _gauge("budget_left_gpu_seconds", SWEEP, "Device seconds left of the budget."),
    Family("run_failures", "counter", (*SWEEP, "reason"), "Attempts that failed, by reason."),
    Family("run_preemptions", "counter", SWEEP, "Attempts that a preemption or a lost node ended."),
    Family("run_attempts", "counter", SWEEP, "Attempts that were made at runs."),
    Family("run_restarts", "counter", SWEEP, "Attempts after a run's first."),
    _gauge(
        "queue_wait_seconds",
        SWEEP,
        "Mean time from the opening of an attempt until it was scheduled, over the newest attempts of runs.",
    ),
)
RUNG_FAMILIES = (
    _gauge("rung_state", (*RUNG, "state"), "1 for the state that the rung is in."),
    _gauge("rung_runs", (*RUNG, "state"), "Runs of a rung by state; no series for none."),
    _gauge("rung_parameters", RUNG, "Largest parameter count of the rung."),
    _gauge("rung_compute_flops", RUNG, "Largest compute (6ND) of one of the rung's records."),
    _gauge("rung_loss_nats", RUNG, "Observed loss of a rung (geometric mean over its records), nats per token."),
    *_bounded("rung_forecast_loss_nats", RUNG, "Forecast of the rung's loss, nats per token", "nats"),
    _gauge("rung_deviation_ratio", RUNG, "Observed over predicted loss of a rung, less one."),
    _gauge("rung_progress_ratio", RUNG, "Share of the rung's training that is done."),
    _gauge("rung_eta_seconds", RUNG, "Expected time until the rung's last run ends."),
    _gauge("rung_training_loss_nats", RUNG, "Training loss, mean over the rung's running runs, nats per token."),
    _gauge("rung_tokens_per_second", RUNG, "Training speed of the rung's running runs together."),
    _gauge("rung_mfu_ratio", RUNG, "Model FLOPs utilisation, mean over the rung's running runs."),
    _gauge("rung_waiting_since_timestamp_seconds", RUNG, "When the oldest attempt that waits for a place was opened."),
    _gauge(
        "rung_progress_timestamp_seconds",
        RUNG,
        "When a running run of the rung last reported, or the rung was started.",
    ),
    Family("rung_flops", "counter", RUNG, "Training FLOPs spent on the rung (6ND)."),
    Family("rung_gpu_seconds", "counter", RUNG, "Device seconds spent on the rung."),
)
RUN_FAMILIES = (
    _gauge("run_state", (*RUN, "state"), "1 for the state that the run is in."),
    _gauge("run_progress_ratio", RUN, "Share of the run's steps that is done."),
    _gauge("run_training_loss_nats", RUN, "Training loss, nats per token."),
    _gauge("run_tokens_per_second", RUN, "Training speed."),
    _gauge("run_mfu_ratio", RUN, "Model FLOPs utilisation."),
    _gauge("run_eta_seconds", RUN, "Expected time until the run ends."),
    _gauge("run_attempt", RUN, "Number of the newest attempt."),
    _gauge("run_gpu_seconds", RUN, "Device seconds over all attempts."),
)
FAMILIES = {family.name: family for family in (*SWEEP_FAMILIES, *RUNG_FAMILIES, *RUN_FAMILIES)}
