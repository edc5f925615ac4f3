"""The cheapest experiments that tell a law that broke from a rung that was badly tuned.

Owns which experiments to ask for next and what their results settle. A learning-rate bracket at the cheapest run that
went wrong, widened by its own factors until the optimum is inside, four runs at most; and a replicate seed. Its records
explain a rung, they never replace one: a retuned rung is rerun whole.
"""

import math
from dataclasses import dataclass

from sweep_analysis.forecast import Forecast
from sweep_analysis.gate.evidence import Gathered
from sweep_analysis.gate.verdict import Experiment, Outcome, Reason
from sweep_analysis.record import Failure, FailureReason, Record
from sweep_analysis.rung import Purpose, Run
from sweep_analysis.scale import format_scale

MOST_BRACKET_RUNS = 4
EXPLAINS = 0.5
"""A cause explains a rung's deviation when it moves the diagnosed run by at least this share of it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the diagnosis says so far: ask for `experiments`, or an outcome with its reason."""

    outcome: Outcome
    reason: Reason
    message: str
    experiments: tuple[Experiment, ...] = ()
    retune: float | None = None


def subject_of(g: Gathered) -> Run:
    """The cheapest run that went wrong: diverged, or above its own interval; else the rung's cheapest."""
    if g.diverged:
        return g.diverged[0]
    by_cost = sorted(g.evidence.planned, key=lambda run: (run.flops, run.parameters, run.seed))
    if isinstance(g.evidence.forecast, Forecast) and g.usable:
        above = {
            key
            for key, prediction in zip(g.keys, g.evidence.forecast.predictions, strict=True)
            if g.by_key[key].loss > prediction.high
        }
        for run in by_cost:
            if any((run.parameters, tokens, run.seed) in above for tokens in run.tokens):
                return run
    return by_cost[0]


def diagnose(g: Gathered, cause: Reason, finding: str) -> Settled:
    """Given that the rung diverged or came out above its prediction (`cause`): what to try next, or what it was."""
    subject, thresholds = subject_of(g), g.evidence.thresholds
    here = math.inf if g.diverged else _log_loss(subject, [g.by_key[k] for k in g.keys if k in g.by_key])
    bracket, replicates, lost = _results(g, subject, here)
    wanted = _next_factors(bracket, lost, thresholds.learning_rate_factors)
    experiments = [
        Experiment(run=_variant(subject, factor=factor), why=f"learning rate x{factor:g} at the run that went wrong")
        for factor in wanted
    ]
    asked_seeds = sum(run.seed != subject.seed for run, _ in g.evidence.diagnosis)
    seeds = {run.seed for run in g.evidence.planned} | {run.seed for run, _ in g.evidence.diagnosis}
    experiments += [
        Experiment(run=_variant(subject, seed=max(seeds) + 1 + i), why="a replicate seed: is it the noise of one run?")
        for i in range(thresholds.replicates - asked_seeds)
    ]
    if experiments:
        return Settled(
            Outcome.INCONCLUSIVE,
            cause,
            f"{finding}; {len(experiments)} diagnosis runs at N = {format_scale(subject.parameters)} will tell why",
            tuple(experiments),
        )
    return _settle(g, subject, here, bracket, replicates, cause, finding)


def _settle(
    g: Gathered,
    subject: Run,
    here: float,
    bracket: dict[float, float],
    replicates: list[float],
    cause: Reason,
    finding: str,
) -> Settled:
    best = min(bracket, key=lambda factor: (bracket[factor], abs(math.log(factor))))
    gain = here - bracket[best] if math.isfinite(bracket[best]) else 0.0
    excess = math.inf if g.diverged else g.deviation
    high = _predicted_high(g, subject)
    if best != 1.0 and bracket[best] <= high and gain >= EXPLAINS * excess:
        if not g.diverged and _alone(g, subject):
            return Settled(
                Outcome.INCONCLUSIVE,
                Reason.ONE_RUN_OFF,
                f"{finding}; learning rate x{best:g} mends the run at N = {format_scale(subject.parameters)}, seed"
                f" {subject.seed}, and the rung's other runs are as predicted: look at how it differs",
            )
        if any(
            math.isclose(subject.learning_rate_factor * best, tried, rel_tol=0.01) for tried in g.evidence.retuned_from
        ):
            return Settled(
                Outcome.INCONCLUSIVE,
                Reason.BADLY_TUNED,
                f"{finding}; learning rate x{best:g} is {gain:.1%} better, which undoes the retune that was made:"
                " no one rate suits this rung",
            )
        better = "trains" if math.isinf(here) else f"is {gain:.1%} better"
        return Settled(
            Outcome.INCONCLUSIVE,
            Reason.BADLY_TUNED,
            f"{finding}; learning rate x{best:g} {better} at N = {format_scale(subject.parameters)}:"
            " rerun the rung with it",
            retune=subject.learning_rate_factor * best,
        )
    finite = [loss for loss in replicates if math.isfinite(loss)]
    if finite and min(finite) <= high and here - min(finite) >= EXPLAINS * excess:
        return Settled(
            Outcome.INCONCLUSIVE,
            Reason.SEEDS_DISAGREE,
            f"{finding}; another seed gives {math.exp(min(finite)):.4g} nats/token:"
            " the noise of one run is as large as the surprise",
        )
    if len(bracket) == 1 and not replicates:
        tried = "and nothing was tried" if not g.evidence.diagnosis else "and no experiment gave a record"
        return Settled(
            Outcome.INCONCLUSIVE, Reason.DIAGNOSIS_FAILED if g.evidence.diagnosis else cause, f"{finding}; {tried}"
        )
    factors = ", ".join(f"x{factor:g}" for factor in sorted(bracket) if factor != 1.0)
    return Settled(Outcome.FAIL, cause, f"{finding}; neither learning rate ({factors}) nor seed explains it")


def _alone(g: Gathered, subject: Run) -> bool:
    """Whether most of the rung's other runs lie inside their own intervals."""
    if not isinstance(g.evidence.forecast, Forecast):
        return False
    others = [
        g.by_key[key].loss <= prediction.high
        for key, prediction in zip(g.keys, g.evidence.forecast.predictions, strict=True)
        if key in g.by_key and (key[0], key[2]) != (subject.parameters, subject.seed)
    ]
    return sum(others) > len(others) / 2


def _results(g: Gathered, subject: Run, here: float) -> tuple[dict[float, float], list[float], int]:
    """Log losses by relative learning-rate factor, those of replicate seeds, and how many bracket runs gave nothing."""
    bracket, replicates, lost = {1.0: here}, [], 0
    for run, result in g.evidence.diagnosis:
        if (run.parameters, run.tokens) != (subject.parameters, subject.tokens):
            continue
        if isinstance(result, Failure):
            loss = math.inf if result.reason is FailureReason.DIVERGED else math.nan
        elif result.tokens != subject.tokens[0]:
            continue
        else:
            loss = _log_loss(run, [result])
        factor = run.learning_rate_factor / subject.learning_rate_factor
        if run.seed != subject.seed:
            replicates += [] if math.isnan(loss) else [loss]
        elif math.isnan(loss):
            lost += 1
        else:
            bracket[float(f"{factor:.6g}")] = loss
    return bracket, replicates, lost


def _next_factors(bracket: dict[float, float], lost: int, first: tuple[float, ...]) -> list[float]:
    """Learning-rate factors to try next; none once the optimum is inside the bracket or four runs are spent."""
    left = MOST_BRACKET_RUNS - (len(bracket) - 1) - lost
    if left <= 0 or not first or lost:
        return []
    if len(bracket) == 1:
        # After a divergence only lower rates can help.
        return [f for f in first if f < 1.0 or math.isfinite(bracket[1.0])][:left]
    tried = sorted(bracket)
    best = min(bracket, key=lambda factor: (bracket[factor], factor))
    if math.isinf(bracket[best]):
        best = tried[0]
    down, up = min(first), max(first)
    if best == tried[0] and down < 1.0 and (best != 1.0 or math.isinf(bracket[best])):
        return [float(f"{best * down:.6g}")]
    if best == tried[-1] and up > 1.0 and best != 1.0:
        return [float(f"{best * up:.6g}")]
    return []


def _variant(subject: Run, *, factor: float = 1.0, seed: int | None = None) -> Run:
    return subject.changed(
        purpose=Purpose.DIAGNOSIS,
        learning_rate_factor=subject.learning_rate_factor * factor,
        seed=subject.seed if seed is None else seed,
        tokens=subject.tokens,
    )


def _log_loss(run: Run, records: list[Record]) -> float:
    """ln loss of the run's smallest token count."""
    losses = [
        r.loss
        for r in records
        if r.parameters.total == run.parameters and r.tokens == run.tokens[0] and r.seed == run.seed
    ]
    return math.log(losses[0]) if losses else math.nan


def _predicted_high(g: Gathered, subject: Run) -> float:
    """Upper end of the interval of the subject's smallest token count, ln loss; infinite when nothing was forecast."""
    if not isinstance(g.evidence.forecast, Forecast):
        return math.inf
    for key, prediction in zip(g.keys, g.evidence.forecast.predictions, strict=True):
        if key == (subject.parameters, subject.tokens[0], subject.seed):
            return math.log(prediction.high)
    return math.inf
