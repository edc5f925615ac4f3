"""All sweeps at a glance: for who leads a team, and for who was just called."""

from sweep_chart.dashboards.panel import Dashboard, Query, Row, Variable, lines, stat, states, table

HERE = 'namespace=~"$namespace"'
EACH = "namespace, sweep"


def of(name: str, *more: str) -> str:
    """A sweep's series in the namespaces picked."""
    return f"scalingsweep_{name}{{{','.join((HERE, *more))}}}"


OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "Every sweep: where it stands, what it waits for, what it costs.",
    (Variable("namespace", "label_values(scalingsweep_sweep_phase, namespace)", "Namespace"),),
    (
        Row(
            "Now",
            (
                stat(
                    "Climbing",
                    "How many sweeps are training or judging?",
                    f"count({of('sweep_phase', 'phase=~`Pending|Forecast|Running|Diagnosing`')}) or vector(0)",
                ),
                stat(
                    "Held",
                    "How many need a yes or a no?",
                    f"count(max by ({EACH}) ({of('sweep_awaiting_approval')})) or vector(0)",
                ),
                stat(
                    "Forecasts broken",
                    "On how many was the newest judged rung other than forecast?",
                    f"count(max by ({EACH}) ({of('sweep_condition', 'condition=`Consistent`')} == 0)) or vector(0)",
                ),
                stat(
                    "Devices in use",
                    "How many devices train, by what was spent lately?",
                    f"sum(rate({of('gpu_seconds_total')}[$__rate_interval])) or vector(0)",
                    decimals=1,
                ),
                stat(
                    "Device time of the last day",
                    "What did a day cost?",
                    f"sum(increase({of('gpu_seconds_total')}[1d])) or vector(0)",
                    unit="s",
                ),
                stat(
                    "Alerts firing",
                    "Does anything need help?",
                    'count(ALERTS{alertname=~"ScalingSweep.*",alertstate="firing"}) or vector(0)',
                ),
            ),
        ),
        Row(
            "Sweeps",
            (
                table(
                    "Every sweep",
                    "Where does each stand, what will its target reach, and what will that cost?",
                    {
                        ":phase": f"max by ({EACH}, phase) ({of('sweep_phase')})",
                        "Largest deviation": f"max by ({EACH}) (abs({of('rung_deviation_ratio')}))",
                        "Target's loss": f"max by ({EACH}) ({of('target_forecast_loss_nats')})",
                        "at least": f"max by ({EACH}) ({of('target_forecast_loss_low_nats')})",
                        "at most": f"max by ({EACH}) ({of('target_forecast_loss_high_nats')})",
                        "Device time": f"max by ({EACH}) ({of('gpu_seconds_total')})",
                        "Still to come": f"max by ({EACH}) ({of('remaining_gpu_seconds')})",
                        "Budget spent": f"max by ({EACH}) ({of('budget_spent_ratio')})",
                        "Ends in": f"max by ({EACH}) ({of('sweep_eta_seconds')})",
                    },
                    units={
                        "Largest deviation": "percentunit",
                        "Device time": "s",
                        "Still to come": "s",
                        "Budget spent": "percentunit",
                        "Ends in": "s",
                    },
                ),
                table(
                    "Waiting for a person",
                    "Which sweep waits at which rung, and why? Decide with: scalingsweep approve -n NAMESPACE SWEEP",
                    {":reason": f"max by ({EACH}, rung, reason) ({of('sweep_awaiting_approval')})"},
                    width=12,
                    height=8,
                ),
                table(
                    "Alerts",
                    "What fires, and for which sweep?",
                    {
                        ":alertname": "max by (alertname, namespace, sweep, severity) ("
                        "ALERTS{alertname=~`ScalingSweep.*`})"
                    },
                    width=12,
                    height=8,
                    wide=("alertname",),
                ),
            ),
        ),
        Row(
            "What it costs, what it waits for",
            (
                lines(
                    "Devices in use by sweep",
                    "Who uses what?",
                    Query(
                        f"sum by ({EACH}) (rate({of('gpu_seconds_total')}[$__rate_interval]))",
                        "{{namespace}}/{{sweep}}",
                    ),
                    stacked=True,
                ),
                lines(
                    "Share of budgets spent",
                    "Who will run out?",
                    Query(f"max by ({EACH}, resource) ({of('budget_spent_ratio')})", "{{sweep}} {{resource}}"),
                    unit="percentunit",
                    min=0,
                ),
                lines(
                    "Runs by state",
                    "How much trains, how much waits?",
                    Query(f"sum by (state) ({of('rung_runs')})", "{{state}}"),
                    stacked=True,
                ),
                lines(
                    "Wait for a place",
                    "How long from the opening of an attempt until it is scheduled?",
                    Query(f"max by ({EACH}) ({of('queue_wait_seconds')})", "{{namespace}}/{{sweep}}"),
                    unit="s",
                ),
                lines(
                    "Preempted attempts of the last hour",
                    "Who is pushed aside?",
                    Query(f"max by ({EACH}) (increase({of('run_preemptions_total')}[1h]))", "{{namespace}}/{{sweep}}"),
                ),
                lines(
                    "Failures of the last hour by reason",
                    "What goes wrong?",
                    Query(
                        f"sum by (reason) (increase({of('run_failures_total')}[1h])) > 0", "{{reason}}", exemplars=True
                    ),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "How well forecasts hold",
            (
                lines(
                    "Verdicts by reason",
                    "How do rungs come out?",
                    Query(f"sum by (outcome, reason) ({of('verdicts')})", "{{outcome}}: {{reason}}"),
                    width=12,
                    stacked=True,
                ),
                states(
                    "Phases",
                    "When did each sweep stand where?",
                    Query(f"max by ({EACH}, phase) ({of('sweep_phase')})", "{{sweep}}: {{phase}}"),
                ),
            ),
        ),
    ),
)
