"""The operator's own health: for who is on call."""

from sweep_chart.dashboards.panel import Dashboard, Query, Row, Variable, lines, stat, word

HERE = 'job=~"$job"'


def of(name: str, *more: str) -> str:
    """The operator's series."""
    return f"scalingsweep_{name}{{{','.join((HERE, *more))}}}"


def _share(quantile: float) -> Query:
    buckets = f"sum by (kind, le) (rate({of('reconcile_duration_seconds_bucket')}[$__rate_interval]))"
    legend = f"{{{{kind}}}} p{quantile * 100:g}"
    return Query(f"histogram_quantile({quantile}, {buckets})", legend, exemplars=quantile > 0.9)


def _refits() -> Query:
    buckets = f"sum by (le) (rate({of('refit_duration_seconds_bucket')}[$__rate_interval]))"
    return Query(f"histogram_quantile(0.99, {buckets})", "with a refit p99", exemplars=True)


OPERATOR = Dashboard(
    "operator",
    "Operator health",
    "Is the operator alive, leading, current, and quick?",
    (Variable("job", "label_values(scalingsweep_build_info, job)", "Operator"),),
    (
        Row(
            "Now",
            (
                stat("Replicas", "How many answer?", f"count({of('build_info')}) or vector(0)"),
                stat("Leaders", "Does exactly one lead?", f"sum({of('leader')}) or vector(0)"),
                word("Version", "Which version runs?", f"max by (version) ({of('build_info')})", "version"),
                stat("Sweeps", "How many does it know?", "count(scalingsweep_sweep_phase) or vector(0)"),
                stat(
                    "Oldest knowledge",
                    "How long ago did the quietest watch hear anything?",
                    f"max({of('watch_stale_seconds')})",
                    unit="s",
                ),
                stat(
                    "Behind by",
                    "For how long has the oldest key waited?",
                    f"max({of('queue_oldest_seconds')})",
                    unit="s",
                ),
            ),
        ),
        Row(
            "Work",
            (
                lines(
                    "Duration of passes",
                    "How long does one pass take, and one that fits a law?",
                    _share(0.5),
                    _share(0.99),
                    _refits(),
                    unit="s",
                ),
                lines(
                    "Passes by outcome",
                    "How do passes end?",
                    Query(f"sum by (outcome) (rate({of('reconciles_total')}[$__rate_interval]))", "{{outcome}}"),
                    unit="ops",
                    stacked=True,
                ),
                lines(
                    "Queue",
                    "How much is due, how much waits for its time?",
                    Query(f"max({of('queue_depth')})", "due"),
                    Query(f"max({of('queue_delayed')})", "waiting for its time"),
                ),
            ),
        ),
        Row(
            "The API server",
            (
                lines(
                    "Calls by verb",
                    "What is asked of the API server?",
                    Query(f"sum by (verb) (rate({of('api_calls_total')}[$__rate_interval]))", "{{verb}}"),
                    unit="reqps",
                    stacked=True,
                ),
                lines(
                    "Calls by code",
                    "What does it answer?",
                    Query(f"sum by (code) (rate({of('api_calls_total')}[$__rate_interval]))", "{{code}}"),
                    unit="reqps",
                    stacked=True,
                ),
                lines(
                    "Age of what is known",
                    "Are the watches heard?",
                    Query(f"max by (resource) ({of('watch_stale_seconds')})", "{{resource}}"),
                    unit="s",
                ),
                lines(
                    "Watches begun anew",
                    "How often does a watch break off?",
                    Query(f"sum by (resource) (rate({of('watch_restarts_total')}[$__rate_interval]))", "{{resource}}"),
                    unit="ops",
                ),
                lines(
                    "Whole lists read",
                    "How often is everything read again?",
                    Query(f"sum by (resource) (rate({of('watch_lists_total')}[$__rate_interval]))", "{{resource}}"),
                    unit="ops",
                ),
                lines(
                    "Events and spans not told",
                    "Were any dropped under load, or for a collector that was away?",
                    Query(f"sum(rate({of('events_dropped_total')}[$__rate_interval]))", "events"),
                    Query(f"sum(rate({of('spans_dropped_total')}[$__rate_interval]))", "spans"),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Its own cost",
            (
                lines(
                    "Memory",
                    "How far is it from its limit?",
                    Query(
                        f"process_resident_memory_bytes{{{HERE}}} and on (job, instance) {of('build_info')}",
                        "{{instance}}",
                    ),
                    unit="bytes",
                ),
                lines(
                    "CPU",
                    "How many cores does it use?",
                    Query(
                        f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])"
                        f" and on (job, instance) {of('build_info')}",
                        "{{instance}}",
                    ),
                ),
                lines(
                    "Duration of a scrape",
                    "Do scrapes stay below a second?",
                    Query(
                        f"scrape_duration_seconds{{{HERE}}} and on (job, instance) {of('build_info')}", "{{instance}}"
                    ),
                    unit="s",
                ),
                lines(
                    "Series of a scrape",
                    "How many series are there?",
                    Query(
                        f"scrape_samples_scraped{{{HERE}}} and on (job, instance) {of('build_info')}", "{{instance}}"
                    ),
                ),
                lines(
                    "Series that are late",
                    "Did more change than a scrape computes?",
                    Query(f"max({of('series_late')})", "sweeps"),
                    Query(f"max({of('series_late_seconds')})", "age of the oldest (s)"),
                ),
            ),
        ),
    ),
    since="now-6h",
)
