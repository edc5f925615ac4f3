"""The page: headline, facts, a section for each figure, and the folded manifest; one file that asks for nothing else.

Owns the order of the sections and their captions. Reads no files but its own style sheet.
"""

from collections.abc import Callable
from importlib.resources import files

from matplotlib.figure import Figure

from sweep_analysis.figures import (
    Measured,
    cost_figure,
    curves_figure,
    forecasts_figure,
    law_figure,
    residuals_figure,
    timeline_figure,
)
from sweep_analysis.figures.style import MARKER_NAMES, MOST, Layout, percent, power
from sweep_analysis.fit import FitStatus
from sweep_analysis.gate import Outcome
from sweep_operator.api import RungState
from sweep_operator.report import folded, plots, tables
from sweep_operator.report.contexts import context_table
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Child, Markup, join, tag
from sweep_operator.report.words import amount, between, headline, loss, moment, size_words, target_forecast


def page(ladder: Ladder) -> str:
    """The whole report as HTML."""
    sweep = ladder.sweep
    name = f"{sweep.metadata.namespace}/{sweep.metadata.name}"
    said = headline(ladder)
    style = files("sweep_operator.report").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{sweep.metadata.name}: {said.title}"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "Scaling sweep ", tag("b", name), class_="kicker"),
            tag("h1", said.title),
            tag("p", *_with_code(said.lede), class_="lede") if said.lede.strip() else None,
            _facts(ladder),
        ),
        tag("main", *(section for section in _sections(ladder))),
        tag("footer", tag("p", _provenance(ladder))),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _with_code(text: str) -> list[Child]:
    """Text in which `…` is shown as code."""
    return [tag("code", part) if i % 2 else part for i, part in enumerate(text.split("`"))]


def _facts(ladder: Ladder) -> Markup:
    status, spec = ladder.sweep.status, ladder.sweep.spec
    facts: list[tuple[str, str, str]] = []
    forecast = target_forecast(ladder)
    confidence = f"{spec.gate.confidence:.0%}"
    if forecast is not None:
        facts.append(("Target, forecast", loss(forecast.value), f"{between(forecast)}, {confidence}"))
    else:
        facts.append(("Target, forecast", "none yet", size_words(spec.target.parameters, spec.target.tokens)))
    if status.target.observed is not None:
        off = percent(status.target.observed / forecast.value - 1) if forecast else ""
        facts.append(("Target, observed", loss(status.target.observed), off))
    names = {r.name for r in ladder.rungs}
    passed = sum(
        r.verdict is not None and r.verdict.outcome is Outcome.PASS and r.state is not RungState.SUPERSEDED
        for r in ladder.rungs
    )
    done = sum(r.state is RungState.PROMOTED for r in ladder.rungs)
    facts.append(("Rungs promoted", f"{done} of {len(names)}", f"{passed} judged and passed"))
    unit, per_hour = plots.cost_unit(ladder)
    spent = status.spent.gpu_seconds / 3600 * per_hour
    facts.append((f"{unit} spent", amount(spent), f"{power(status.spent.flops)} FLOPs"))
    kinds = {"Target, forecast": "forecast" if forecast else "quiet", "Target, observed": "observed"}
    return tag(
        "dl",
        *(
            tag("div", tag("dt", what), tag("dd", value, class_=kinds.get(what)), tag("dd", more, class_="more"))
            for what, value, more in facts
        ),
        class_="facts",
    )


def _sections(ladder: Ladder) -> list[Markup]:
    sections = [
        _law(ladder),
        _forecasts(ladder),
        _section("Verdicts", "What the gate said of each rung, check by check.", folded.verdicts(ladder)),
        _section("The law’s constants", "As last fitted, with the interval of each.", tables.law_table(ladder)),
        _residuals(ladder),
        _curves(ladder),
        _timeline(ladder),
        _cost(ladder),
    ]
    contexts = context_table(ladder)
    if contexts is not None:
        sections.insert(-2, _section("Other context lengths", "Trained with the rungs, and never judged.", contexts))
    if ladder.notices:
        items = [tag("li", notice) for notice in ladder.notices]
        sections.append(_section("What could not be read", "The rest of the report does without.", tag("ul", *items)))
    sections.append(_section("Manifest", "What was asked for.", folded.manifest(ladder.sweep.spec)))
    return sections


def _section(title: str, caption: str, *content: Child) -> Markup:
    return tag(
        "section",
        tag("div", tag("h2", title), tag("p", caption), class_="margin"),
        tag("div", *content, class_="content"),
    )


def _drawn(key: str, alternative: str, draw: Callable[[Layout], Figure]) -> Markup:
    return tag("figure", plots.picture(draw, key, alternative))


def _absent(sentence: str) -> Markup:
    return tag("p", sentence, class_="quiet")


def _law(ladder: Ladder) -> Markup:
    records = plots.measured(ladder)
    target = plots.target_point(ladder)
    title = "The law and its target"
    if not records:
        return _section(title, "Loss against training compute.", _absent("No record has come in yet."))
    band, lines = plots.bands(ladder, records)
    lowest = min(records, key=lambda m: m.loss)
    alternative = (
        f"Loss against training compute. {len(records)} records, the lowest {loss(lowest.loss)} nats per token"
        f" at rung {lowest.rung}."
    )
    caption = "Points are measured losses."
    if band is not None:
        caption = (
            f"Points are measured losses; the line is the law along the target’s {band.ratio:g} tokens per parameter,"
            f" the band its {band.confidence:.0%} interval for a single run. Both use every promoted rung."
        )
    if not all(m.used for m in records) and band is not None:
        caption += " Hollow points are not part of it."
    if len(records) > MOST:
        caption += f" Of {len(records):,} records, {MOST:,} are drawn, chosen evenly."
    caption += _shapes(records)
    if target is not None:
        alternative += (
            f" The target is forecast at {loss(target.loss)}, between {loss(target.low)} and {loss(target.high)}."
        )
        if target.observed:
            alternative += f" It reached {loss(target.observed[0])}."
        if target.observed and ladder.target is not None:
            caption += " The target’s own forecast, the bar, was fixed before it ran."

    def draw(layout: Layout) -> Figure:
        return law_figure(records, band=band, lines=lines, target=target, layout=layout)

    return _section(title, caption, _drawn("law", alternative, draw))


def _shapes(records: list[Measured]) -> str:
    """Which marker stands for which token/parameter ratio."""
    ratios = sorted({m.ratio for m in records})
    if not 1 < len(ratios) <= len(MARKER_NAMES):
        return ""
    named = ", ".join(f"{shape} {ratio:g}" for shape, ratio in zip(MARKER_NAMES, ratios, strict=False))
    return f" By tokens per parameter: {named}."


def _forecasts(ladder: Ladder) -> Markup:
    rows = plots.outcomes(ladder)
    title = "Forecasts against what came"
    if not rows:
        return _section(title, "Rung by rung.", _absent("No forecast has been written yet."))
    caption = (
        "The bar is the interval by which a rung is judged; the filled point is its mean deviation, the rings are"
        " single records. The bars are wider than one rung alone would need: all rungs share one budget of false holds."
    )
    said = [f"{r.rung}: {percent(r.deviation)}" for r in rows if r.deviation is not None]
    alternative = "Deviation of each rung from its forecast. " + ("; ".join(said) or "None has been measured yet") + "."
    figure = _drawn("forecasts", alternative, lambda layout: forecasts_figure(rows, layout=layout))
    return _section(title, caption, figure, tables.forecast_table(ladder))


def _residuals(ladder: Ladder) -> Markup:
    misfits = plots.misfits(ladder)
    title, caption = "Residuals", "What the law leaves unexplained in the records it was fitted to."
    if not misfits:
        return _section(title, caption, _absent("There is no fitted law to compare the records with yet."))
    worst = max(misfits, key=lambda m: abs(m.measured.loss / m.fitted - 1))
    off = worst.measured.loss / worst.fitted - 1
    alternative = (
        f"Residuals of {len(misfits)} records; the largest is {percent(off, 2)}, at rung {worst.measured.rung}."
    )
    tolerance = ladder.sweep.spec.gate.tolerance
    law = ladder.sweep.status.law
    if law is not None and law.fit_status != FitStatus.CONVERGED:
        caption += f" The records alone would leave it {law.fit_status}."
    caption += _shapes([m.measured for m in misfits])
    figure = _drawn(
        "residuals", alternative, lambda layout: residuals_figure(misfits, tolerance=tolerance, layout=layout)
    )
    return _section(title, caption, figure)


def _curves(ladder: Ladder) -> Markup:
    curves = plots.learning_curves(ladder)
    title = "Learning curves"
    if not curves:
        return _section(title, "Training loss over tokens.", _absent("No learning curve has been written yet."))
    caption = (
        "Training loss of every planned run; where a line forks, a decay branch ends in a record of its own."
        " Points are the records, measured on validation text."
    )
    if ladder.curves_left_out:
        all_curves = len(curves) + ladder.curves_left_out
        caption += f" {len(curves)} of {all_curves} runs are shown, the first of each rung."
    alternative = f"Training loss over tokens of {len(curves)} runs, of {len({c.rung for c in curves})} rungs."
    return _section(title, caption, _drawn("curves", alternative, lambda layout: curves_figure(curves, layout=layout)))


def _timeline(ladder: Ladder) -> Markup:
    bars, marks, start = plots.timeline(ladder)
    title = "Timeline"
    if not bars and not marks:
        return _section(title, "What ran when.", _absent("Nothing has happened yet."))
    caption = (
        f"From {moment(start)}. Bars are attempts at runs, from the order to the end; a hollow diamond is a forecast,"
        " a filled one a verdict. Each forecast stands before the runs it is about."
    )
    if any(bar.diagnosis for bar in bars):
        caption += " Paler bars are diagnosis."
    if any(bar.outcome not in ("Succeeded", "Running") for bar in bars):
        caption += " Hatched ones did not succeed."
    alternative = (
        f"{len(bars)} attempts at {len(ladder.runs)} runs, {sum(m.kind == 'Verdict' for m in marks)} verdicts."
    )
    figure = _drawn("timeline", alternative, lambda layout: timeline_figure(bars, marks, layout=layout))
    return _section(title, caption, figure, folded.failures(ladder))


def _cost(ladder: Ladder) -> Markup:
    unit, per_hour = plots.cost_unit(ladder)
    parts = plots.costs(ladder, per_hour)
    budget, spent = ladder.sweep.spec.budget, ladder.sweep.status.spent
    title, limits = "Cost", []
    if budget.gpu_hours is not None:
        used = spent.gpu_seconds / 3600 / budget.gpu_hours
        limits.append(f"{used:.0%} of {amount(budget.gpu_hours * per_hour)} {unit}")
    if budget.flops is not None:
        limits.append(f"{spent.flops / budget.flops:.0%} of {power(budget.flops)} FLOPs")
    caption = f"Spent so far: {' and '.join(limits)}." if limits else "No budget is set."
    if spent.diagnosis_gpu_seconds:
        caption += f" Diagnosis took {amount(spent.diagnosis_gpu_seconds / 3600 * per_hour)} {unit} of it."
    caption += _saved(ladder)
    if not parts:
        return _section(title, caption, _absent("Nothing has been spent yet."))
    outlook = ladder.sweep.status.target.gpu_hours
    if ladder.target is None and outlook is not None:
        caption += f" The target would take about {amount(outlook.value * per_hour)} {unit}."
    if any(part.expected for part in parts):
        caption += " The outline is what the target is still expected to take."
    limit = budget.gpu_hours * per_hour if budget.gpu_hours is not None else None
    alternative = f"Cost in {unit}: " + "; ".join(f"{part.name} {amount(part.spent)}" for part in parts) + "."
    figure = _drawn("cost", alternative, lambda layout: cost_figure(parts, unit=unit, budget=limit, layout=layout))
    return _section(title, caption, figure)


def _saved(ladder: Ladder) -> str:
    """What runs of several token counts saved by a common trunk; nothing where none did."""
    records = [record for records in ladder.records.values() for record in records]
    saved = sum(record.flops.six_nd * (record.steps_saved or 0.0) for record in records)
    if not saved:
        return ""
    alone = sum(record.flops.six_nd for record in records)
    return (
        f" A run for each token count would have taken {power(alone)} FLOPs; decays that branch off one trunk saved"
        f" {saved / alone:.0%} of them."
    )


def _provenance(ladder: Ladder) -> Markup:
    versions = sorted({r.trainer_version for records in ladder.records.values() for r in records})
    parts: list[Child] = []
    if ladder.last_time:
        parts.append(f"As of {moment(ladder.last_time)}. ")
    if versions:
        parts.append(f"Trained with version {', '.join(versions)}. ")
    parts.append("Losses are validation cross-entropy in nats per token; N counts all trainable parameters; C = 6·N·D.")
    return join(*parts)
