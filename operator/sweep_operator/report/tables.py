"""The numbers behind the figures: every forecast against what came, and the law's constants.

Owns what stands in tables. Draws nothing.
"""

import math
from collections.abc import Sequence

from sweep_analysis.figures.series import Foretold
from sweep_analysis.figures.style import percent
from sweep_analysis.fit import FitStatus, Interval
from sweep_analysis.laws import law_of
from sweep_analysis.phases import Pattern, Phase
from sweep_analysis.scale import format_scale
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Child, Markup, tag
from sweep_operator.report.plots import foretold, owed
from sweep_operator.report.words import number, outcome_word, rung_name

FIT_WORDS: dict[str, str] = {
    FitStatus.CONVERGED: "they determine it.",
    FitStatus.AT_BOUND: "AtBound, a constant ends at the edge of what is plausible; they do not determine it.",
    FitStatus.ILL_CONDITIONED: "IllConditioned, predictions near the records hold, the single constants do not.",
    FitStatus.NOT_CONVERGED: "NotConverged, the single constants cannot be had without the priors.",
    FitStatus.TOO_FEW_POINTS: "TooFewPoints, any law would pass through so few.",
    FitStatus.UNIDENTIFIED: "Unidentified, sizes and token counts cannot tell the constants apart.",
}
PHASES: dict[str, str] = {
    Phase.COLD_START: "the loss hardly falls yet, and faster with every rung.",
    Phase.SCALING: "every rung gains about what the law says.",
    Phase.PLATEAU: "more compute brings no gain beyond noise.",
}
PATTERNS: dict[str, str] = {
    Pattern.ORDINAL: "better with every rung, at a pace the law describes.",
    Pattern.EMERGENT: "a rung came out far better than those before announced.",
    Pattern.OUT_OF_DATA: "training data is repeated past its use.",
    Pattern.OUT_OF_COMPUTE: "what is left of the budget does not carry the next rung.",
    Pattern.SLOW: "it scales, too slowly to be worth climbing.",
}
SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}


MOST_ROWS = 24
"""Of one rung; what a page can be asked to hold and a reader to read."""


def forecast_table(ladder: Ladder) -> Markup:
    """A row a planned record: its forecast with the interval, what came, and how far off that is."""
    head = tag("tr", *(tag("th", each, scope="col") for each in ("N", "D", "Forecast", "Observed", "Off by")))
    bodies = []
    for rung in ladder.sweep.status.rungs:
        if rung.forecast is None:
            continue
        title: list[Child] = [tag("b", rung_name(rung)), f" {outcome_word(rung)}"]
        rows = [_record_row(p) for p in foretold(ladder, rung)[:MOST_ROWS]]
        due = owed(ladder, rung)
        rows = rows or [_unforeseen_row(N, D, came) for (N, D), came in list(due.items())[:MOST_ROWS]]
        bodies.append(
            tag(
                "tbody",
                tag("tr", tag("th", *title, colspan="5", scope="rowgroup"), class_="group"),
                *rows,
                tag("tr", tag("td", f"and {len(due) - MOST_ROWS} more", colspan="5", class_="quiet"))
                if len(due) > MOST_ROWS
                else None,
            )
        )
    seeds = any(
        len(r.judged) > len({(run.parameters, run.tokens) for run in r.judged}) for r in ladder.sweep.status.rungs
    )
    several = " Of several seeds, the mean and the range are given." if seeds else ""
    caption = tag("caption", f"Every planned record; losses in nats per token.{several}")
    return scrolling(tag("table", caption, tag("thead", head), *bodies, class_="numbers"), "Forecasts and observations")


def _record_row(p: Foretold) -> Markup:
    interval = tag("span", f"{p.low:.3f} – {p.high:.3f}", class_="interval")
    off = percent(math.expm1(sum(p.deviations) / len(p.deviations))) if p.observed else ""
    return tag(
        "tr",
        tag("td", format_scale(p.parameters)),
        tag("td", format_scale(p.tokens)),
        tag("td", tag("span", f"{p.loss:.4f}", class_="forecast"), " ", interval),
        _observed_cell(p.observed),
        tag("td", off),
    )


def _unforeseen_row(N: int, D: int, came: list[float]) -> Markup:
    return tag(
        "tr",
        tag("td", format_scale(N)),
        tag("td", format_scale(D)),
        tag("td", "none", class_="quiet"),
        _observed_cell(came),
        tag("td", ""),
    )


def _observed_cell(came: Sequence[float]) -> Markup:
    """The loss; of several seeds their mean and range."""
    if not came:
        return tag("td", "not yet", class_="quiet")
    mean = tag("span", f"{math.exp(sum(map(math.log, came)) / len(came)):.4f}", class_="observed")
    if len(came) == 1:
        return tag("td", mean)
    return tag("td", mean, " ", tag("span", f"{min(came):.3f} – {max(came):.3f}", class_="interval"))


def law_table(ladder: Ladder) -> Markup:
    """The law's equation and constants with intervals, and what else the fit says of the ladder."""
    law = ladder.sweep.status.law
    if law is None:
        return tag("p", "No law has been fitted yet: it takes the records of at least two rungs.", class_="quiet")
    form = law_of(law.name)
    units = {c.name: c for c in form.constants}
    rows = [
        tag(
            "tr",
            tag("th", SYMBOLS.get(name, name), scope="row"),
            tag("td", number(interval.value), class_="forecast"),
            tag("td", _range(interval)),
            tag("td", units[name].meaning if name in units else "", class_="meaning"),
        )
        for name, interval in law.parameters.items()
    ]
    head = tag(
        "tr",
        *(tag("th", each, scope="col") for each in ("Constant", "Value", "Interval")),
        tag("th", "What it is", scope="col", class_="meaning"),
    )
    alone = FIT_WORDS.get(law.fit_status, law.fit_status)
    imports = ladder.sweep.status.imports
    brought = f" ({imports.records} of them imported, {imports.digest[:19]}…)" if imports else ""
    said = f"As forecasts use it, from {law.records} records{brought} and the method’s priors."
    said += f" The records alone: {alone}"
    caption = tag("caption", said)
    parts: list[Child] = [_equation(law.name)]
    if rows:
        table = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="numbers law")
        parts.append(scrolling(table, "Constants of the law"))
    else:
        said = FIT_WORDS.get(law.fit_status, law.fit_status)
        parts.append(tag("p", f"The {law.records} records do not determine its constants. {said}"))
    parts += [tag("p", each) for each in _outlook(ladder)]
    return tag("div", *parts)


def _range(interval: Interval) -> str:
    """The interval, or that there is none worth the name: a factor of a thousand says nothing."""
    if interval.low > 0 and interval.high > 1000 * interval.low:
        return "undetermined"
    return f"{number(interval.low)} to {number(interval.high)}"


def _equation(name: str) -> Markup:
    if name != "Chinchilla":
        return tag("p", f"The law is {name}.")
    return tag(
        "p",
        tag("i", "L"), "(", tag("i", "N"), ", ", tag("i", "D"), ") = ", tag("i", "E"), " + ", tag("i", "A"), " / ",
        tag("i", "N"), tag("sup", "α"), " + ", tag("i", "B"), " / ", tag("i", "D"), tag("sup", "β"),
        class_="equation",
    )  # fmt: skip


def _outlook(ladder: Ladder) -> list[str]:
    law, target = ladder.sweep.status.law, ladder.sweep.status.target
    said = []
    if law is not None:
        said.append(
            f"Phase {law.phase}: {PHASES.get(law.phase, '')} Pattern {law.pattern}: {PATTERNS.get(law.pattern, '')}"
        )
    if target.optimal_parameters is not None and target.optimal_tokens is not None:
        served = ladder.sweep.spec.target.inference_tokens
        best = (
            f"With {format_scale(served)} tokens to serve, the same loss is cheapest to train and serve with"
            if served
            else "By this law the target’s compute is best spent on"
        )
        said.append(
            f"{best} {_sizes(target.optimal_parameters)} parameters and {_sizes(target.optimal_tokens)} tokens."
        )
    return said


def _sizes(interval: Interval) -> str:
    if not (0 < interval.low <= interval.high < math.inf) or interval.high > 1e30:
        return format_scale(interval.value)
    return f"{format_scale(interval.value)} ({format_scale(interval.low)} to {format_scale(interval.high)})"


def scrolling(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the page is too narrow, by keyboard too."""
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")
