"""From a ladder's documents to the figures' series, and each figure as SVG at two widths with its text alternative.

Owns the translation. What the figures look like is `sweep_analysis.figures`' business.
"""

import math
from collections.abc import Callable
from datetime import datetime

from matplotlib.figure import Figure

from sweep_analysis.figures import (
    Band,
    Bar,
    Cost,
    Foretold,
    Layout,
    LearningCurve,
    Mark,
    Measured,
    Misfit,
    RungOutcome,
    band_along,
    inline_svg,
)
from sweep_analysis.figures.style import PAGE, PHONE
from sweep_analysis.forecast import Forecast, points_of
from sweep_analysis.laws import law_of
from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose
from sweep_operator.api import RungState, RungStatus, ScalingRun
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Markup, tag
from sweep_operator.report.words import outcome_word, rung_name, target_forecast


def picture(draw: Callable[[Layout], Figure], key: str, alternative: str) -> Markup:
    """A figure drawn twice, for a wide and for a narrow page; the style sheet shows one of them."""
    drawn = [
        Markup(inline_svg(draw(layout), f"{key}-{width}", alternative, css_class=width))
        for width, layout in (("wide", PAGE), ("narrow", PHONE))
    ]
    return tag("div", *drawn, class_="picture")


def measured(ladder: Ladder) -> list[Measured]:
    """Every record that the law rests on, and, as not used, those of the rung that runs, is held or was stopped."""
    shown = []
    for rung in ladder.rungs:
        if rung.state is not RungState.SUPERSEDED:
            used = rung.state is RungState.PROMOTED
            shown += [_measured(rung.name, record, used) for record in ladder.records[rung.name, rung.revision]]
    return shown


def _measured(rung: str, record: Record, used: bool = True) -> Measured:
    return Measured(rung, record.parameters.total, record.tokens, record.loss, record.run.uid, used)


def bands(ladder: Ladder, records: list[Measured]) -> tuple[Band | None, list[Band]]:
    """The forecast along the target's token/parameter ratio, and along the ladder's other ratios."""
    target = ladder.sweep.spec.target
    aim = float(f"{target.tokens / target.parameters:.2g}")
    computes = [*(m.compute for m in records), 6.0 * target.parameters * target.tokens]
    span = (min(computes) / 4, max(computes) * 3)
    history = [points_of(records) for records in ladder.history()]
    confidence = ladder.sweep.spec.gate.confidence
    band = band_along(history, aim, span, confidence=confidence, law=ladder.sweep.spec.law)
    if band is None:
        return None, []
    others = sorted({m.ratio for m in records if abs(math.log(m.ratio / aim)) > 0.1})
    drawn = (band_along(history, r, span, confidence=confidence, law=ladder.sweep.spec.law) for r in others[:4])
    return band, [line for line in drawn if line is not None]


def target_point(ladder: Ladder) -> Foretold | None:
    """The target's forecast and what came; the forecast written before its run, or today's outlook without one."""
    interval = target_forecast(ladder)
    if interval is None:
        return None
    rung, spec = ladder.target, ladder.sweep.spec.target
    run = rung.runs[0] if rung and rung.runs else None
    N, D = (run.parameters, run.tokens[-1]) if run else (spec.parameters, spec.tokens)
    observed = tuple(r.loss for r in ladder.records[rung.name, rung.revision] if r.tokens == D) if rung else ()
    return Foretold(N, D, interval.value, interval.low, interval.high, observed)


def outcomes(ladder: Ladder) -> list[RungOutcome]:
    """Every rung and revision that has a forecast or its refusal written down, the target last."""
    return [
        RungOutcome(rung_name(rung), foretold(ladder, rung), judged_half_width(rung), outcome_word(rung))
        for rung in ladder.sweep.status.rungs
        if rung.forecast is not None
    ]


def foretold(ladder: Ladder, rung: RungStatus) -> tuple[Foretold, ...]:
    """The rung's predictions, each with the losses that came; runs that differ in their seed alone share one."""
    outcome = rung.forecast.outcome if rung.forecast else None
    if not isinstance(outcome, Forecast):
        return ()
    by_size = {(p.parameters, p.tokens): p for p in outcome.predictions}
    came = owed(ladder, rung)
    return tuple(Foretold(N, D, p.loss, p.low, p.high, tuple(came.get((N, D), ()))) for (N, D), p in by_size.items())


def owed(ladder: Ladder, rung: RungStatus) -> dict[tuple[int, int], list[float]]:
    """Every (N, D) at which the rung owes records, in the order of the plan, with the losses that have come."""
    came: dict[tuple[int, int], list[float]] = {}
    for run in rung.judged:
        losses = ladder.losses[rung.name, rung.revision, run.content_digest]
        for tokens in run.tokens:
            came.setdefault((run.parameters, tokens), []).extend([losses[tokens]] if tokens in losses else [])
    return came


def judged_half_width(rung: RungStatus) -> float | None:
    """Relative half-width of the interval that the rung was, or will be, held against."""
    outcome = rung.forecast.outcome if rung.forecast else None
    if rung.forecast is None or not isinstance(outcome, Forecast):
        return None
    checks = rung.verdict.checks if rung.verdict else ()
    numbers = next((c.numbers for c in checks if c.name == "ObservedAsPredicted"), {})
    if numbers.get("predicted", 0) > 0 and "high" in numbers:
        return numbers["high"] / numbers["predicted"] - 1
    return max(outcome.half_width, rung.forecast.thresholds.tolerance)


def misfits(ladder: Ladder) -> list[Misfit]:
    """Every fitted record against the law as last fitted; empty while there is none, or none that predicts."""
    law = ladder.sweep.status.law
    if law is None:
        return []
    constants = {name: interval.value for name, interval in law.parameters.items()}
    form = law_of(law.name)
    if set(form.names) - set(constants):
        return []
    promoted = [r for r in ladder.rungs if r.state is RungState.PROMOTED]
    records = [_measured(r.name, record) for r in promoted for record in ladder.records[r.name, r.revision]]
    axes = {"parameters": [m.parameters for m in records], "tokens": [m.tokens for m in records]}
    return [Misfit(m, float(fitted)) for m, fitted in zip(records, form.predict(constants, **axes), strict=True)]


def learning_curves(ladder: Ladder) -> list[LearningCurve]:
    """The curves that were read, smallest model first."""
    return [
        LearningCurve(
            run.spec.rung,
            f"seed {run.spec.run.seed}{_context_words(run)}",
            ladder.curves[run.metadata.name],
            tuple((r.tokens, r.loss) for r in run.status.accepted),
        )
        for run in sorted(ladder.runs, key=lambda run: (run.spec.run.parameters, run.spec.run.seed))
        if run.metadata.name in ladder.curves
    ]


def timeline(ladder: Ladder) -> tuple[list[Bar], list[Mark], str]:
    """Attempts and marks in seconds from the first of them, and when that was (RFC 3339)."""
    rungs = ladder.sweep.status.rungs
    times = [a.started_at for run in ladder.runs for a in run.status.attempts]
    times += [t for r in rungs for t in ((r.forecast.time if r.forecast else None), r.finished_at) if t]
    if not times:
        return [], [], ""
    start, end = min(times), ladder.last_time
    revisions = {(r.name, r.revision): rung_name(r) for r in rungs}
    bars = [
        Bar(
            revisions.get((run.spec.rung, run.spec.revision), run.spec.rung),
            _run_words(run),
            _seconds(start, attempt.started_at),
            _seconds(start, attempt.ended_at or end),
            attempt.outcome or "Running",
            diagnosis=run.spec.run.purpose is Purpose.DIAGNOSIS,
        )
        for run in ladder.runs
        for attempt in run.status.attempts
    ]
    order = list(revisions.values())
    bars.sort(key=lambda bar: (order.index(bar.rung) if bar.rung in order else len(order), bar.start))
    marks = []
    for rung in rungs:
        if rung.forecast:
            marks.append(Mark(rung_name(rung), _seconds(start, rung.forecast.time), "Forecast"))
        if rung.verdict and rung.finished_at:
            marks.append(Mark(rung_name(rung), _seconds(start, rung.finished_at), "Verdict", outcome_word(rung)))
    return bars, marks, start


def _run_words(run: ScalingRun) -> str:
    spec = run.spec.run
    what = f"{spec.parameters:,} parameters, seed {spec.seed}{_context_words(run)}"
    if spec.learning_rate_factor != 1:
        what += f", learning rate x{spec.learning_rate_factor:g}"
    return what if spec.purpose is not Purpose.DIAGNOSIS else f"diagnosis, {what}"


def _context_words(run: ScalingRun) -> str:
    """`, context 512` of a run with a context of its own."""
    length = run.spec.run.sequence_length
    return f", context {length:,}" if length is not None else ""


def _seconds(start: str, moment: str) -> float:
    """Between two RFC 3339 times; 0 where one cannot be read."""
    try:
        return max(0.0, (datetime.fromisoformat(moment) - datetime.fromisoformat(start)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def costs(ladder: Ladder, per_hour: float) -> list[Cost]:
    """GPU time a rung, in units of which an hour has `per_hour`, and what the target is expected to take."""
    parts = []
    for rung in ladder.sweep.status.rungs:
        spent = rung.spent.gpu_seconds / 3600 * per_hour
        expected = None
        outlook = ladder.sweep.status.target.gpu_hours
        if rung is ladder.target and rung.finished_at is None and outlook is not None:
            expected = (
                max(0.0, outlook.value * per_hour - spent),
                max(0.0, outlook.low * per_hour - spent),
                max(0.0, outlook.high * per_hour - spent),
            )
        if spent or expected:
            parts.append(Cost(rung_name(rung), spent, expected))
    return parts


def cost_unit(ladder: Ladder) -> tuple[str, float]:
    """GPU-hours, or minutes where hours would be a small fraction; with how many of it an hour has."""
    hours = ladder.sweep.status.spent.gpu_seconds / 3600
    outlook = ladder.sweep.status.target.gpu_hours
    if ladder.target is not None and outlook is not None:
        hours = max(hours, outlook.high)
    return ("GPU-hours", 1.0) if hours >= 2 else ("GPU-minutes", 60.0)
