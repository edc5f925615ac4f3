"""The gate's checks, each a pure function of what was gathered; the ordered tuple at the end is the documentation.

Owns what each check compares and in which words it says so. Which check decides a verdict is `judge`'s business.
"""

import math
from collections.abc import Callable

from sweep_analysis.forecast import Forecast, NoForecast, forecast
from sweep_analysis.gate.evidence import Gathered, Key
from sweep_analysis.gate.verdict import CheckResult, Outcome, Reason
from sweep_analysis.phases import Phase
from sweep_analysis.record import Record
from sweep_analysis.scale import format_scale

ABOVE_SHARE = 0.75
"""Of a rung's budget of false holds, spent on losses above the prediction: those cost the most when missed."""
PASS, FAIL, INCONCLUSIVE, NOT_JUDGED = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED


def records_complete(g: Gathered) -> CheckResult:
    """Every planned record is there, once, and nothing else is."""
    name, numbers = "RecordsComplete", {"planned": float(len(g.keys)), "records": float(len(g.evidence.records))}
    if g.diverged:
        run = g.diverged[0]
        message = (
            f"{len(g.diverged)} of {len(g.evidence.planned)} runs diverged,"
            f" the smallest at N = {format_scale(run.parameters)}"
        )
        return _found(name, INCONCLUSIVE, Reason.RUN_DIVERGED, message, numbers)
    if g.duplicated:
        message = f"two records claim to be {_name(g.duplicated[0])}; nothing says which is right"
        return _found(name, INCONCLUSIVE, Reason.RECORDS_DUPLICATED, message, numbers)
    if g.unexpected:
        message = f"{_name(g.unexpected[0])} was not planned; is N counted by another convention?"
        return _found(name, INCONCLUSIVE, Reason.RECORDS_UNEXPECTED, message, numbers)
    if g.missing:
        message = f"{len(g.missing)} of {len(g.keys)} records are missing, the first {_name(g.missing[0])}"
        return _found(name, INCONCLUSIVE, Reason.RECORDS_MISSING, message, numbers)
    message = f"all {len(g.keys)} planned records are there"
    return _found(name, PASS, Reason.RECORDS_COMPLETE, message, numbers)


def records_finite(g: Gathered) -> CheckResult:
    """Every loss is a positive finite number of nats per token."""
    name = "RecordsFinite"
    for record in _all_records(g):
        if not (math.isfinite(record.loss) and record.loss > 0):
            message = f"the loss of {_name((record.parameters.total, record.tokens, record.seed))} is {record.loss}"
            return _found(name, FAIL, Reason.LOSS_NOT_FINITE, message)
    return _found(name, PASS, Reason.RECORDS_FINITE, "every loss is finite")


def records_comparable(g: Gathered) -> CheckResult:
    """One validation set, one tokenizer and one way of counting N over the whole ladder."""
    name, records = "RecordsComparable", _all_records(g)
    imported = g.evidence.imported  # an empty digest is one that nobody stated
    for what, reason, digests, brought in (
        (
            "validation sets",
            Reason.VALIDATION_SET_DIFFERS,
            {r.validation_digest for r in records},
            {r.validation_digest for r in imported} - {""},
        ),
        (
            "tokenizers",
            Reason.TOKENIZER_DIFFERS,
            {r.tokenizer_digest for r in records},
            {r.tokenizer_digest for r in imported} - {""},
        ),
    ):
        if len(digests) == 1 and brought - digests:
            message = (
                f"the imported records and the ladder's come from {len(digests | brought)} {what}; only losses from"
                " one can be compared: apply a new sweep without them, or with records of this ladder's own"
            )
            return _found(name, FAIL, reason, message, {"distinct": float(len(digests | brought))})
        if len(digests) > 1:
            message = f"the ladder's losses come from {len(digests)} {what}; only losses from one can be compared"
            return _found(name, FAIL, reason, message, {"distinct": float(len(digests))})
    counts: dict[int, tuple[int, int]] = {}
    for record in records:
        N, others = record.parameters.total, (record.parameters.non_embedding, record.parameters.active)
        if counts.setdefault(N, others) != others or others[0] > N or others[1] > N:
            message = (
                f"records of N = {N:,} count their non-embedding or active parameters differently:"
                f" {counts[N]} and {others}"
            )
            return _found(name, FAIL, Reason.PARAMETER_COUNT_DIFFERS, message)
    return _found(name, PASS, Reason.RECORDS_COMPARABLE, "one validation set, tokenizer and count of N")


def design_identifies_law(g: Gathered) -> CheckResult:
    """The earlier rungs can tell the effect of size from that of data."""
    name, foretold = "DesignIdentifiesLaw", g.evidence.forecast
    if isinstance(foretold, NoForecast) and foretold.reason != "FitNotConverged":
        reason = Reason(foretold.reason)
        return _found(name, NOT_JUDGED, reason, foretold.message)
    message = f"{foretold.records} earlier records identify the law"
    return _found(name, PASS, Reason.LAW_IDENTIFIED, message)


def fit_converged(g: Gathered) -> CheckResult:
    """The law could be fitted to the earlier rungs."""
    name, foretold = "FitConverged", g.evidence.forecast
    if isinstance(foretold, Forecast):
        message = f"{foretold.law} fitted to {foretold.records} records of {foretold.rungs} rungs"
        return _found(name, PASS, Reason.FIT_CONVERGED, message)
    if foretold.reason == "FitNotConverged":
        return _found(name, INCONCLUSIVE, Reason.FIT_NOT_CONVERGED, foretold.message)
    return _not_computed(name, "there is no forecast")


def forecast_sharp_enough(g: Gathered) -> CheckResult:
    """Ignorance must not promote."""
    name, foretold = "ForecastSharpEnough", g.evidence.forecast
    if not isinstance(foretold, Forecast):
        return _not_computed(name, "there is no forecast")
    limit = g.evidence.thresholds.max_half_width
    numbers = {"halfWidth": foretold.half_width, "maxHalfWidth": limit, "jump": foretold.jump}
    message = (
        f"forecast within ±{foretold.half_width:.2%} at a jump of {foretold.jump:.3g}x in compute;"
        f" at most ±{limit:.2%} may promote"
    )
    if foretold.half_width <= limit:
        return _found(name, PASS, Reason.FORECAST_SHARP, message, numbers)
    return _found(name, INCONCLUSIVE, Reason.FORECAST_TOO_WIDE, message, numbers)


def observed_as_predicted(g: Gathered) -> CheckResult:
    """One statistic per rung: the mean log deviation over its records against its joint predictive distribution."""
    name, foretold = "ObservedAsPredicted", g.evidence.forecast
    if not isinstance(foretold, Forecast) or not g.usable:
        return _not_computed(
            name, "there is no forecast" if not isinstance(foretold, Forecast) else "records are missing"
        )
    tolerance = math.log1p(g.evidence.thresholds.tolerance)
    above = max(foretold.deviation.bound(ABOVE_SHARE * g.spent), tolerance)
    below = max(foretold.deviation.bound((1.0 - ABOVE_SHARE) * g.spent), tolerance)
    predicted = math.exp(sum(math.log(p.loss) for p in foretold.predictions) / len(foretold.predictions))
    observed = predicted * math.exp(g.deviation)
    numbers = {
        "observed": observed,
        "predicted": predicted,
        "low": predicted * math.exp(-below),
        "high": predicted * math.exp(above),
        "deviation": g.deviation,
        "scale": foretold.deviation.scale,
        "degreesOfFreedom": foretold.deviation.degrees_of_freedom,
        "level": g.spent,
    }
    message = (
        f"{observed:.4g} nats/token at {g.evidence.rung};"
        f" predicted {predicted:.4g} [{numbers['low']:.4g}, {numbers['high']:.4g}]"
    )
    if -below <= g.deviation <= above:
        return _found(name, PASS, Reason.AS_PREDICTED, message, numbers)
    reason = Reason.LOSS_ABOVE_PREDICTION if g.deviation > 0 else Reason.LOSS_BELOW_PREDICTION
    return _found(name, INCONCLUSIVE, reason, message, numbers)


def still_scaling(g: Gathered) -> CheckResult:
    """More compute brought a gain beyond noise."""
    name = "StillScaling"
    if not g.usable or len(g.history) < 2:
        return _not_computed(name, "there are no two rungs to compare")
    reading = g.reading
    numbers = {"gain": reading.gain, "noise": reading.noise}
    message = f"lowest loss {reading.gain:.2%} below the earlier rungs'; one run's noise is {reading.noise:.2%}"
    if reading.phase is Phase.PLATEAU:
        return _found(name, INCONCLUSIVE, Reason.PLATEAU, message, numbers)
    return _found(name, PASS, Reason.STILL_SCALING, message, numbers)


def fast_enough(g: Gathered) -> CheckResult:
    """The exponent of compute, interval included, is not below the floor."""
    name = "FastEnough"
    if not g.usable or not isinstance(g.evidence.forecast, Forecast):
        return _not_computed(name, "there is no law to read an exponent from")
    reading, floor = g.reading, g.evidence.thresholds.slowest_exponent
    numbers = {
        "exponent": reading.exponent,
        "low": reading.exponent_low,
        "high": reading.exponent_high,
        "slowestExponent": floor,
    }
    message = (
        f"loss falls as compute to the −{reading.exponent:.3g}"
        f" [{reading.exponent_low:.3g}, {reading.exponent_high:.3g}]; the floor is {floor:g}"
    )
    if reading.exponent_high < floor:
        return _found(name, FAIL, Reason.SLOW, message, numbers)
    return _found(name, PASS, Reason.FAST_ENOUGH, message, numbers)


def data_fresh(g: Gathered) -> CheckResult:
    """No record saw its training data more often than repetition is worth."""
    name, limit = "DataFresh", g.evidence.thresholds.max_epochs
    if not g.evidence.records:
        return _not_computed(name, "there are no records")
    worst = max(g.evidence.records, key=lambda r: (r.epochs, r.tokens))
    numbers = {"epochs": worst.epochs, "maxEpochs": limit}
    message = (
        f"at most {worst.epochs:.3g} passes over the training data; past {limit:g} they are hardly worth their compute"
    )
    if worst.epochs > limit:
        return _found(name, INCONCLUSIVE, Reason.OUT_OF_DATA, message, numbers)
    return _found(name, PASS, Reason.DATA_FRESH, message, numbers)


def target_in_reach(g: Gathered) -> CheckResult:
    """With this rung known, `maxLoss` is not below everything the target may come to."""
    name, limit = "TargetInReach", g.evidence.thresholds.max_loss
    if limit is None or g.evidence.target is None:
        return _found(name, PASS, Reason.NOT_ASKED, "no maxLoss is set for the target")
    foretold = forecast(g.known, [g.evidence.target], confidence=g.evidence.thresholds.confidence) if g.usable else None
    if not isinstance(foretold, Forecast):
        return _not_computed(name, "the target cannot be forecast yet")
    target = foretold.predictions[0]
    numbers = {"loss": target.loss, "low": target.low, "high": target.high, "maxLoss": limit, "jump": foretold.jump}
    message = (
        f"target forecast at {target.loss:.4g} [{target.low:.4g}, {target.high:.4g}] nats/token;"
        f" worth its cost up to {limit:g}"
    )
    if target.low > limit:
        return _found(name, FAIL, Reason.TARGET_OUT_OF_REACH, message, numbers)
    return _found(name, PASS, Reason.TARGET_IN_REACH, message, numbers)


def next_rung_affordable(g: Gathered) -> CheckResult:
    """The next rung's upper cost fits what is left."""
    name, budget = "NextRungAffordable", g.evidence.budget
    if budget is None:
        return _found(name, PASS, Reason.NOT_ASKED, "no budget, or no next rung")
    numbers: dict[str, float] = {}
    over = []
    for unit, cost, left in (
        ("GPU-hours", budget.gpu_hours, budget.gpu_hours_left),
        ("FLOPs", budget.flops, budget.flops_left),
    ):
        if cost is not None and left is not None:
            key = "gpuHours" if unit == "GPU-hours" else "flops"
            numbers |= {key: cost, f"{key}Left": left}
            if cost > left:
                over.append(f"the next rung may take {cost:.3g} {unit} and {left:.3g} are left")
    if over:
        message = "; ".join(over)
        return _found(name, FAIL, Reason.OVER_BUDGET, message, numbers)
    return _found(name, PASS, Reason.AFFORDABLE, "the next rung fits the budget", numbers)


CHECKS: tuple[Callable[[Gathered], CheckResult], ...] = (
    records_complete,
    records_finite,
    records_comparable,
    design_identifies_law,
    fit_converged,
    forecast_sharp_enough,
    observed_as_predicted,
    still_scaling,
    fast_enough,
    data_fresh,
    target_in_reach,
    next_rung_affordable,
)


def _found(
    name: str, outcome: Outcome, reason: Reason, message: str, numbers: dict[str, float] | None = None
) -> CheckResult:
    return CheckResult(name=name, outcome=outcome, reason=reason, message=message, numbers=numbers or {})


def _all_records(g: Gathered) -> list[Record]:
    return [record for rung in (*g.evidence.earlier, g.evidence.records) for record in rung]


def _name(key: Key) -> str:
    return f"the record at N = {key[0]:,}, D = {key[1]:,}, seed {key[2]}"


def _not_computed(name: str, why: str) -> CheckResult:
    return _found(name, NOT_JUDGED, Reason.NOT_COMPUTED, f"not computed: {why}")
