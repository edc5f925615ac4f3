"""One sweep: for the researcher who wants to know whether the law holds, what the target will reach, and when."""

from sweep_chart.dashboards.panel import (
    Curve,
    Dashboard,
    Query,
    Row,
    Variable,
    lines,
    plot,
    stat,
    states,
    table,
    word,
)

HERE = 'namespace="$namespace",sweep="$sweep"'
RUNG = "rung, revision"


def of(name: str, *more: str) -> str:
    """The sweep's own series."""
    return f"scalingsweep_{name}{{{','.join((HERE, *more))}}}"


def newest(name: str) -> str:
    """A rung's value, of its newest revision."""
    return f"max by (rung) ({of(name)} and on (rung, revision) {of('rung_state', 'state!=`Superseded`')})"


def _band(what: str) -> tuple[Query, ...]:
    """A loss over time with its bounds."""
    stem = what.removesuffix("_nats")
    return (
        Query(f"max({of(what)})", "forecast"),
        Query(f"max({of(f'{stem}_low_nats')})", "lower bound"),
        Query(f"max({of(f'{stem}_high_nats')})", "upper bound"),
    )


ONE_SWEEP = Dashboard(
    "sweep",
    "One sweep",
    "One ladder: its forecasts against what came, its law, its target, its cost, its runs.",
    (
        Variable("namespace", "label_values(scalingsweep_sweep_phase, namespace)", "Namespace", several=False),
        Variable(
            "sweep", 'label_values(scalingsweep_sweep_phase{namespace="$namespace"}, sweep)', "Sweep", several=False
        ),
    ),
    (
        Row(
            "Now",
            (
                word("Phase", "Where does it stand?", f"max by (phase) ({of('sweep_phase')})", "phase"),
                word(
                    "Consistent",
                    "What did the gate say of the newest judged rung?",
                    f"max by (reason) ({of('sweep_condition', 'condition=`Consistent`')})",
                    "reason",
                ),
                stat(
                    "Target's loss",
                    "What will the target reach, in nats per token?",
                    f"max({of('target_forecast_loss_nats')})",
                    decimals=3,
                ),
                stat("Ends in", "When will the ladder be climbed?", f"max({of('sweep_eta_seconds')})", unit="s"),
                stat(
                    "Device time",
                    "What was spent, failed attempts and diagnosis included?",
                    f"max({of('gpu_seconds_total')})",
                    unit="s",
                ),
                stat(
                    "Budget spent",
                    "How much of the budget is gone?",
                    f"max({of('budget_spent_ratio')})",
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            "Does the law hold?",
            (
                plot(
                    "Forecasts and observations over compute",
                    "Did each rung come out where it was forecast, before it was trained?",
                    Curve("FLOPs", newest("rung_compute_flops")),
                    (
                        Curve("observed", newest("rung_loss_nats")),
                        Curve("forecast", newest("rung_forecast_loss_nats"), line=True),
                        Curve("lower bound", newest("rung_forecast_loss_low_nats"), line=True),
                        Curve("upper bound", newest("rung_forecast_loss_high_nats"), line=True),
                    ),
                    by="rung",
                    unit="none",
                ),
                plot(
                    "Deviation against the interval",
                    "How far from its forecast was each rung, and how far might it have been?",
                    Curve("FLOPs", newest("rung_compute_flops")),
                    (
                        Curve("deviation", newest("rung_deviation_ratio")),
                        Curve(
                            "lower bound",
                            f"{newest('rung_forecast_loss_low_nats')} / {newest('rung_forecast_loss_nats')} - 1",
                            line=True,
                        ),
                        Curve(
                            "upper bound",
                            f"{newest('rung_forecast_loss_high_nats')} / {newest('rung_forecast_loss_nats')} - 1",
                            line=True,
                        ),
                    ),
                    by="rung",
                    unit="percentunit",
                ),
                lines(
                    "What the target is expected to reach",
                    "Does the forecast of the target settle as the ladder grows? Nats per token.",
                    *_band("target_forecast_loss_nats"),
                    Query(f"max({of('target_max_loss_nats')})", "not worth it above"),
                    Query(f"max({of('target_loss_nats')})", "reached"),
                    width=12,
                    unit="none",
                ),
                table(
                    "The law",
                    "Which constants, how certain, and how does the fit stand?",
                    {
                        "Value": f"max by (law, parameter) ({of('law_parameter')})",
                        "at least": f"max by (law, parameter) ({of('law_parameter_low')})",
                        "at most": f"max by (law, parameter) ({of('law_parameter_high')})",
                    },
                    width=6,
                    height=8,
                    without=("law",),
                ),
                table(
                    "The fit",
                    "On its own records, in which phase, by which pattern?",
                    {":fit_status": f"max by (law, fit_status, phase, pattern) ({of('law_info')})"},
                    width=6,
                    height=8,
                ),
            ),
        ),
        Row(
            "What it costs",
            (
                lines(
                    "Device time against the budget",
                    "Will what is left last?",
                    Query(f"max({of('gpu_seconds_total')})", "spent"),
                    Query(f"max({of('gpu_seconds_total')}) + max({of('remaining_gpu_seconds')})", "ladder's end"),
                    Query(f"max({of('gpu_seconds_total')}) + max({of('remaining_low_gpu_seconds')})", "at least"),
                    Query(f"max({of('gpu_seconds_total')}) + max({of('remaining_high_gpu_seconds')})", "at most"),
                    Query(f"max({of('target_gpu_seconds')})", "the target alone"),
                    Query(f"max({of('budget_gpu_seconds')})", "budget"),
                    unit="s",
                    min=0,
                ),
                lines(
                    "FLOPs against the budget",
                    "Will what is left last?",
                    Query(f"max({of('flops_total')})", "spent"),
                    Query(f"max({of('flops_total')}) + max({of('remaining_flops')})", "ladder's end"),
                    Query(f"max({of('target_flops')})", "the target alone"),
                    Query(f"max({of('budget_flops')})", "budget"),
                    unit="sci",
                    min=0,
                ),
                lines(
                    "Device time by rung",
                    "What did each rung cost?",
                    Query(f"sum by ({RUNG}) ({of('rung_gpu_seconds_total')})", "{{rung}}"),
                    unit="s",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "How it trains",
            (
                lines(
                    "Progress of rungs",
                    "How far is each?",
                    Query(f"max by ({RUNG}) ({of('rung_progress_ratio')})", "{{rung}}"),
                    unit="percentunit",
                    min=0,
                    max=1,
                ),
                states(
                    "States of rungs",
                    "When did each rung stand where?",
                    Query(f"max by (rung, state) ({of('rung_state')})", "{{rung}}: {{state}}"),
                    width=8,
                ),
                lines(
                    "Runs by state",
                    "How much trains, how much waits?",
                    Query(f"sum by (state) ({of('rung_runs')})", "{{state}}"),
                    stacked=True,
                ),
                lines(
                    "Training loss",
                    "Does it fall? Nats per token, mean over the rung's running runs.",
                    Query(f"max by ({RUNG}) ({of('rung_training_loss_nats')})", "{{rung}}"),
                    unit="none",
                ),
                lines(
                    "Throughput",
                    "How fast, in tokens a second?",
                    Query(f"sum by ({RUNG}) ({of('rung_tokens_per_second')})", "{{rung}}"),
                    stacked=True,
                ),
                lines(
                    "Model FLOPs utilisation",
                    "How much of the devices' peak is used?",
                    Query(f"max by ({RUNG}) ({of('rung_mfu_ratio')})", "{{rung}}"),
                    unit="percentunit",
                    min=0,
                ),
                lines(
                    "Time left by rung",
                    "When does each end?",
                    Query(f"max by ({RUNG}) ({of('rung_eta_seconds')})", "{{rung}}"),
                    unit="s",
                ),
                lines(
                    "Wait, preemptions, restarts",
                    "What holds it up?",
                    Query(f"max({of('queue_wait_seconds')})", "mean wait for a place (s)"),
                    Query(f"max({of('run_preemptions_total')})", "preempted attempts"),
                    Query(f"max({of('run_restarts_total')})", "attempts after the first"),
                ),
                lines(
                    "Failures by reason",
                    "What goes wrong?",
                    Query(f"sum by (reason) ({of('run_failures_total')}) > 0", "{{reason}}", exemplars=True),
                    stacked=True,
                ),
            ),
        ),
    ),
)
