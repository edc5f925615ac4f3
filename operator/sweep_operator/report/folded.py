"""What unfolds: every verdict with its checks, the attempts that did not succeed, the manifest.

Owns the `<details>` of the page, and which of them stand open. Judges nothing.
"""

import io

from sweep_analysis.forecast import Forecast, NoForecast
from sweep_analysis.gate import CheckResult
from sweep_operator.api import RungState, RungStatus, SweepSpec
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Child, Markup, tag
from sweep_operator.report.words import OUTCOMES, SIGNS, STATES, moment, number, rung_name, spaced


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
    numbers = " · ".join(f"{spaced(name)} {number(value)}" for name, value in check.numbers.items())
    return tag(
        "li",
        tag("span", SIGNS[check.outcome], class_="sign", aria_hidden="true"),
        tag("span", OUTCOMES[check.outcome], class_="word"),
        tag(
            "span",
            tag("b", spaced(check.name).capitalize()),
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
    yaml.default_flow_style = None  # leaves on one line each, as a person writes them
    text = io.StringIO()
    yaml.dump({"spec": spec.to_json()}, text)
    return tag("details", tag("summary", "The manifest, with defaults filled in"), tag("pre", text.getvalue()))
