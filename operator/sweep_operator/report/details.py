"""The numbers behind the figures: forecasts against what came, every verdict with its checks, the law, the manifest.

Owns what stands in tables and folded parts. Draws nothing.
"""

import io
import math

from sweep_analysis.figures.series import Foretold
from sweep_analysis.figures.style import percent
from sweep_analysis.fit import Interval
from sweep_analysis.forecast import Forecast, NoForecast
from sweep_analysis.gate import CheckResult
from sweep_analysis.laws import law_of
from sweep_analysis.scale import format_scale
from sweep_operator.api import RungState, RungStatus, SweepSpec
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Child, Markup, tag
from sweep_operator.report.plots import foretold, owed
from sweep_operator.report.words import OUTCOMES, SIGNS, STATES, outcome_word, rung_name

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
        rows = [_record_row(p) for p in foretold(ladder, rung)] or [_unforeseen_row(p) for p in owed(ladder, rung)]
        bodies.append(
            tag(
                "tbody",
                tag("tr", tag("th", *title, colspan="5", scope="rowgroup"), class_="group"),
                *rows[:MOST_ROWS],
                tag("tr", tag("td", f"and {len(rows) - MOST_ROWS} more", colspan="5", class_="quiet"))
                if len(rows) > MOST_ROWS
                else None,
            )
        )
    caption = tag("caption", "Every planned record; losses in nats per token.")
    return scrolling(tag("table", caption, tag("thead", head), *bodies, class_="numbers"), "Forecasts and observations")


def _record_row(p: Foretold) -> Markup:
    observed = p.observed[0] if p.observed else None
    interval = tag("span", f"{p.low:.3f} – {p.high:.3f}", class_="interval")
    return tag(
        "tr",
        tag("td", format_scale(p.parameters)),
        tag("td", format_scale(p.tokens)),
        tag("td", tag("span", f"{p.loss:.4f}", class_="forecast"), " ", interval),
        _observed_cell(observed),
        tag("td", "" if observed is None else percent(observed / p.loss - 1)),
    )


def _unforeseen_row(record: tuple[int, int, float | None]) -> Markup:
    N, D, observed = record
    return tag(
        "tr",
        tag("td", format_scale(N)),
        tag("td", format_scale(D)),
        tag("td", "none", class_="quiet"),
        _observed_cell(observed),
        tag("td", ""),
    )


def _observed_cell(observed: float | None) -> Markup:
    if observed is None:
        return tag("td", "not yet", class_="quiet")
    return tag("td", f"{observed:.4f}", class_="observed")


def verdicts(ladder: Ladder) -> Markup:
    """Every rung and revision, folded: its forecast, its verdict, each check with its outcome and numbers."""
    entries = [_verdict(ladder, rung) for rung in ladder.sweep.status.rungs if rung.forecast or rung.verdict]
    if not entries:
        return tag("p", "No forecast has been written and no rung has been judged yet.", class_="quiet")
    return tag("div", *entries, class_="verdicts")


def _verdict(ladder: Ladder, rung: RungStatus) -> Markup:
    verdict = rung.verdict
    sign = SIGNS[verdict.outcome] if verdict else "·"
    words = OUTCOMES[verdict.outcome] if verdict else STATES[rung.state].capitalize()
    said = verdict.message if verdict else "not judged yet"
    summary = tag(
        "summary",
        tag("span", sign, class_="sign", aria_hidden="true"),
        tag("span", rung_name(rung), class_="name"),
        tag("span", words, class_="word"),
        tag("span", said, class_="said"),
    )
    body: list[Child] = [tag("p", _expectation(rung), class_="expectation")]
    if verdict is not None:
        body.append(tag("ol", *(_check(check) for check in verdict.checks), class_="checks"))
        body += [tag("p", each) for each in _consequences(rung)]
        body.append(tag("p", "Reason ", tag("code", verdict.reason), ", digest ", tag("code", verdict.digest)))
    wanting = rung.state in (RungState.HELD, RungState.STOPPED, RungState.FAILED, RungState.DIAGNOSING)
    return tag("details", summary, *body, open=wanting and verdict is not None)


def _expectation(rung: RungStatus) -> str:
    """What was written down before the rung began."""
    if rung.forecast is None:
        return "No forecast was written down."
    outcome, when = rung.forecast.outcome, moment(rung.forecast.time)
    if isinstance(outcome, NoForecast):
        return f"Written {when}: no forecast ({outcome.reason}): {outcome.message}."
    assert isinstance(outcome, Forecast)
    return (
        f"Forecast written {when} from {outcome.records} records of {outcome.rungs} rungs by {outcome.method}"
        f" {outcome.version}: mean within ±{outcome.half_width:.1%} at {outcome.confidence:.0%} confidence,"
        f" {outcome.jump:.3g} times the largest compute measured until then."
    )


def _check(check: CheckResult) -> Markup:
    numbers = " · ".join(f"{_spaced(name)} {number(value)}" for name, value in check.numbers.items())
    return tag(
        "li",
        tag("span", SIGNS[check.outcome], class_="sign", aria_hidden="true"),
        tag("span", OUTCOMES[check.outcome], class_="word"),
        tag(
            "span",
            tag("b", _spaced(check.name).capitalize()),
            " ",
            check.message,
            tag("small", f"{check.reason}" + (f" · {numbers}" if numbers else "")),
            class_="said",
        ),
    )


def _consequences(rung: RungStatus) -> list[str]:
    """What followed from the verdict: experiments, a rerun, an approval."""
    said = []
    if rung.experiments:
        tried = ", ".join(f"learning rate x{run.learning_rate_factor:g}, seed {run.seed}" for run in rung.experiments)
        said.append(f"Diagnosis runs asked for: {tried}. Their records never enter the fit.")
    if rung.verdict and rung.verdict.retune is not None:
        said.append(f"The whole rung is rerun with {rung.verdict.retune:g} times its learning rate.")
    if rung.approved:
        said.append("A person accepted this verdict.")
    return said


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
            tag("td", f"{number(interval.low)} to {number(interval.high)}"),
            tag("td", units[name].meaning if name in units else "", class_="meaning"),
        )
        for name, interval in law.parameters.items()
    ]
    head = tag(
        "tr",
        *(tag("th", each, scope="col") for each in ("Constant", "Value", "Interval")),
        tag("th", "What it is", scope="col", class_="meaning"),
    )
    caption = tag("caption", f"Fitted to {law.records} records; the fit is {law.fit_status}.")
    parts: list[Child] = [_equation(law.name)]
    if rows:
        table = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="numbers law")
        parts.append(scrolling(table, "Constants of the law"))
    else:
        parts.append(tag("p", f"The {law.records} records do not determine its constants: {law.fit_status}."))
    parts += [tag("p", each) for each in _outlook(ladder)]
    return tag("div", *parts)


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
        said.append(f"Phase {_spaced(law.phase)}, pattern {_spaced(law.pattern)}.")
    if target.optimal_parameters is not None and target.optimal_tokens is not None:
        said.append(
            f"By this law the target’s compute is best spent on {_sizes(target.optimal_parameters)} parameters"
            f" and {_sizes(target.optimal_tokens)} tokens."
        )
    return said


def _sizes(interval: Interval) -> str:
    if not (0 < interval.low <= interval.high < math.inf) or interval.high > 1e30:
        return format_scale(interval.value)
    return f"{format_scale(interval.value)} ({format_scale(interval.low)} to {format_scale(interval.high)})"


def failures(ladder: Ladder) -> Markup | None:
    """Attempts that did not succeed, in words; None when there were none."""
    items = []
    for run in ladder.runs:
        for failure in run.status.failures:
            items.append(
                tag(
                    "li",
                    f"{run.spec.rung}, attempt {failure.attempt}: ",
                    tag("b", failure.reason),
                    f" {failure.message}",
                )
            )
        for attempt in run.status.attempts:
            if attempt.outcome in ("Preempted", "Interrupted"):
                items.append(tag("li", f"{run.spec.rung}, attempt {attempt.attempt}: ", tag("b", attempt.outcome)))
    if not items:
        return None
    summary = tag(
        "summary", f"{len(items)} attempts did not succeed" if len(items) > 1 else "1 attempt did not succeed"
    )
    return tag("details", summary, tag("ul", *items))


def manifest(spec: SweepSpec) -> Markup:
    """The spec as applied, defaults filled in, as YAML."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump({"spec": spec.to_json()}, text)
    return tag("details", tag("summary", "The manifest, with defaults filled in"), tag("pre", text.getvalue()))


def scrolling(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the page is too narrow, by keyboard too."""
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")


def moment(time: str) -> str:
    """`2026-03-14 09:26 UTC`, from RFC 3339."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) >= 16 else time


def number(value: float) -> str:
    """Four significant digits; very large and very small ones with a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}"


def _spaced(name: str) -> str:
    """`ForecastTooWide` → `forecast too wide`."""
    return "".join(f" {c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
