"""What the report says in sentences: the headline, and the words for a rung's outcome.

Owns the wording. Every number and reason in it stands in the status; nothing is computed but a percentage.
"""

from dataclasses import dataclass

from sweep_analysis.figures.style import percent
from sweep_analysis.fit import Interval
from sweep_analysis.forecast import Forecast
from sweep_analysis.gate import Outcome
from sweep_analysis.scale import format_scale
from sweep_operator.api import RungState, RungStatus, RunState
from sweep_operator.report.gather import Ladder

OUTCOMES = {
    Outcome.PASS: "Pass",
    Outcome.FAIL: "Fail",
    Outcome.INCONCLUSIVE: "Inconclusive",
    Outcome.NOT_JUDGED: "Not judged",
}
SIGNS = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "?", Outcome.NOT_JUDGED: "–"}
"""Read beside the word, so that an outcome never rests on a colour."""

STATES = {
    RungState.PENDING: "waiting",
    RungState.FORECAST: "starting",
    RungState.RUNNING: "training",
    RungState.DIAGNOSING: "in diagnosis",
    RungState.HELD: "held",
    RungState.PROMOTED: "promoted",
    RungState.STOPPED: "stopped",
    RungState.FAILED: "failed",
    RungState.SUPERSEDED: "rerun",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """One line that says how it stands, and what else a reader must know first."""

    title: str
    lede: str


def rung_name(rung: RungStatus) -> str:
    """The rung, with its revision from the second on."""
    return rung.name if rung.revision == 1 else f"{rung.name} rev. {rung.revision}"


def outcome_word(rung: RungStatus) -> str:
    """The verdict in a word or two; the rung's state while there is none."""
    if rung.verdict is None or (rung.name == "target" and rung.finished_at is None):
        return STATES[rung.state].capitalize()
    return OUTCOMES[rung.verdict.outcome]


def target_forecast(ladder: Ladder) -> Interval | None:
    """The target's forecast: the one written before its run, or today's outlook while it has none."""
    rung = ladder.target
    if rung is not None and rung.forecast is not None and isinstance(rung.forecast.outcome, Forecast):
        p = rung.forecast.outcome.predictions[-1]
        return Interval(value=p.loss, low=p.low, high=p.high)
    return ladder.sweep.status.target.prediction


def loss(value: float) -> str:
    """Nats per token as the text gives them."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.4g}"


def amount(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def between(interval: Interval) -> str:
    """`2.35 to 2.47`."""
    return f"{loss(interval.low)} to {loss(interval.high)}"


def headline(ladder: Ladder) -> Headline:
    """What the target was forecast to reach and what came; or why the ladder stopped; or how far it is."""
    status = ladder.sweep.status
    refused = status.condition("Accepted")
    if refused is not None and refused.status == "False":
        return Headline("The sweep is not accepted as it is written.", refused.message)
    if ladder.target is not None and ladder.target.finished_at and status.target.observed is not None:
        return _target_came(ladder, ladder.target, status.target.observed)
    finished = status.condition("Finished")
    if finished is not None and finished.status == "True":
        return _ended(ladder, finished.reason, finished.message)
    waiting = next((r for r in status.rungs if r.state is RungState.HELD), None)
    if waiting is not None and waiting.verdict is not None:
        what = "The target" if waiting.name == "target" else f"Rung {waiting.name}"
        remedy = f"`scalingsweep approve {waiting.name}` accepts this very verdict and goes on."
        return Headline(f"{what} waits for a person to decide.", f"{_sentence(waiting.verdict.message)} {remedy}")
    if status.is_true("Suspended"):
        return Headline("The sweep is suspended.", f"{_progress(ladder)} `scalingsweep resume` takes it up again.")
    if not any(run.status.attempts for run in ladder.runs):
        return Headline("The ladder has not begun.", "No run has started yet.")
    return Headline(_climbing(ladder), " ".join(filter(None, (_progress(ladder), _running(ladder), _outlook(ladder)))))


def _target_came(ladder: Ladder, rung: RungStatus, observed: float) -> Headline:
    forecast = target_forecast(ladder)
    if forecast is None or rung.forecast is None or not isinstance(rung.forecast.outcome, Forecast):
        return Headline(
            f"The target reached {loss(observed)} nats per token.", "No forecast of it had been written before it ran."
        )
    outcome = rung.forecast.outcome
    off = observed / forecast.value - 1
    where = "inside" if forecast.low <= observed <= forecast.high else "outside"
    distance = (
        "exactly as forecast"
        if percent(off) == "0.0%"
        else f"{percent(abs(off)).lstrip('+')} " + ("above" if off > 0 else "below")
    )
    return Headline(
        f"The target was forecast to reach {loss(forecast.value)} nats per token, and reached {loss(observed)}.",
        f"That is {distance}, {where} the {outcome.confidence:.0%} interval of {between(forecast)}, which was written"
        f" down before the run began: from {outcome.records} records of {outcome.rungs} rungs, the largest of which"
        f" used {1 / outcome.jump:.0%} of the target’s compute.",
    )


def _ended(ladder: Ladder, reason: str, message: str) -> Headline:
    status = ladder.sweep.status
    forecast = target_forecast(ladder)
    if reason == "Succeeded" and forecast is not None:
        passed = _count(sum(r.verdict is not None and r.verdict.outcome is Outcome.PASS for r in ladder.rungs), "rung")
        return Headline(
            f"The target is forecast to reach {loss(forecast.value)} nats per token.",
            f"Between {between(forecast)}, at {ladder.sweep.spec.gate.confidence:.0%} confidence. The ladder is"
            f" climbed, {passed} passed the gate; the target itself was not to be trained.",
        )
    if reason == "Succeeded":
        return Headline("The ladder is climbed; nothing can be said of the target yet.", status.target.message)
    stopped = next((r for r in status.rungs if r.state in (RungState.STOPPED, RungState.FAILED)), None)
    at = f" at rung {stopped.name}" if stopped is not None and stopped.name != "target" else ""
    titles = {
        "Inconsistent": f"The ladder stopped{at}: what came does not follow the law.",
        "NotWorthIt": f"The ladder stopped{at}: the target is not worth its cost.",
        "OverBudget": f"The ladder stopped{at}: the budget does not carry the next step.",
        "Aborted": "The sweep was aborted; what it had measured is kept.",
        "Failed": f"The sweep failed{at}: too many of its runs did not finish.",
    }
    prefix = f"{stopped.name}: " if stopped is not None else ""
    return Headline(titles.get(reason, f"The sweep ended: {reason}."), _sentence(message.removeprefix(prefix)))


def _climbing(ladder: Ladder) -> str:
    rung = next(
        (r for r in ladder.sweep.status.rungs if r.state not in (RungState.PROMOTED, RungState.SUPERSEDED)), None
    )
    if rung is None:
        return "The ladder is climbing."
    if rung.name == "target":
        return f"The ladder is climbed; the target is {STATES[rung.state]}."
    names = list(dict.fromkeys(r.name for r in ladder.rungs))
    return f"Rung {rung.name}, {names.index(rung.name) + 1} of {len(names)}, is {STATES[rung.state]}."


def _progress(ladder: Ladder) -> str:
    done = [r for r in ladder.rungs if r.state is RungState.PROMOTED]
    names = {r.name for r in ladder.rungs}
    if not done:
        return "No rung has finished yet."
    return f"{len(done)} of {_count(len(names), 'rung')} finished, {_sentence(_passes(done))}"


def _running(ladder: Ladder) -> str:
    """How many runs train now, and how long the slowest of them still takes by its own account."""
    running = [run.status.progress for run in ladder.runs if run.status.state is RunState.RUNNING]
    if not running:
        return ""
    left = [progress.eta_seconds for progress in running if progress and progress.eta_seconds is not None]
    said = f"{_count(len(running), 'run')} {'is' if len(running) == 1 else 'are'} training"
    return f"{said}, done in about {duration(max(left))}." if left else f"{said}."


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `2 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _passes(done: list[RungStatus]) -> str:
    passed = sum(r.verdict is not None and r.verdict.outcome is Outcome.PASS for r in done)
    return f"{passed or 'none'} of them judged and passed"


def _outlook(ladder: Ladder) -> str:
    forecast = target_forecast(ladder)
    if forecast is None:
        return "Nothing can be said of the target yet."
    return f"By what is known so far the target will reach {loss(forecast.value)} nats per token ({between(forecast)})."


def _sentence(text: str) -> str:
    """With a capital where it begins with a word, and a full stop."""
    text = text.strip()
    if not text:
        return ""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_words(parameters: float, tokens: float) -> str:
    """`300K parameters on 6M tokens`."""
    return f"{format_scale(parameters)} parameters on {format_scale(tokens)} tokens"


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


def spaced(name: str) -> str:
    """`ForecastTooWide` → `forecast too wide`."""
    return "".join(f" {c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
