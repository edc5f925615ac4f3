"""The gate: which check decides, what is asked before a person is, and what settles it."""

import math
import re
from pathlib import Path

import pytest

from sweep_analysis.forecast import NoForecast, forecast, planned_records, points_of
from sweep_analysis.gate import CHECKS, Affordable, Evidence, Outcome, Reason, Thresholds, judge
from sweep_analysis.record import Failure, FailureReason, FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import Purpose, Run

SIZES = [30_000_000 * 2**i for i in range(5)]
RATIOS = (10, 20, 40)
BOWL = 0.01


def law(N, D):
    return 1.7 + 400 / N**0.34 + 400 / D**0.28


def record(N, D, loss=None, seed=0, **changes):
    fields: dict = dict(  # noqa: C408 - keyword form reads as the record's own
        run=RunReference(uid=f"{N}-{seed}", attempt=1, config_digest="c"),
        purpose=Purpose.LADDER,
        parameters=ParameterCounts(total=N, non_embedding=N, active=N),
        tokens=D,
        unique_tokens=D,
        epochs=1.0,
        flops=FlopCounts(six_nd=6 * N * D, detailed=6 * N * D),
        seed=seed,
        loss=law(N, D) if loss is None else loss,
        validation_digest="v",
        tokenizer_digest="t",
        gpu_seconds=1.0,
        trainer_version="0",
        finished_at="2026-01-01T00:00:00Z",
    )
    return Record.model_validate(fields | changes)


def runs(k, seeds=(0,), factor=1.0):
    tokens = tuple(SIZES[k] * r for r in RATIOS)
    return tuple(Run(parameters=SIZES[k], tokens=tokens, seed=s, learning_rate_factor=factor) for s in seeds)


def trained(planned, scale=1.0):
    return tuple(record(r.parameters, D, scale * law(r.parameters, D), r.seed) for r in planned for D in r.tokens)


def evidence(k=4, *, planned=None, records=None, **changes):
    planned = runs(k) if planned is None else planned
    earlier = tuple(trained(runs(i)) for i in range(k))
    at, owed = planned_records(planned)
    fields: dict = dict(  # noqa: C408 - keyword form reads as the evidence's own
        rung=f"r{k}",
        planned=planned,
        records=trained(planned) if records is None else records,
        earlier=earlier,
        failures={},
        forecast=forecast([points_of(rung) for rung in earlier], at, runs=owed),
        thresholds=Thresholds(judged_rungs=2),
        warmup=k < 3,
    )
    return Evidence(**(fields | changes))


def check(verdict, name):
    return next(c for c in verdict.checks if c.name == name)


def diagnosed(start, answer):
    """Answer every experiment until none is asked for; the verdict and how many runs it took."""
    diagnosis, asked = (), 0
    while True:
        verdict = judge(Evidence(**{f: getattr(start, f) for f in start.__slots__} | {"diagnosis": diagnosis}))
        if not verdict.experiments:
            return verdict, asked
        for experiment in verdict.experiments:
            asked += 1
            result = answer(experiment.run)
            found = (
                result
                if isinstance(result, Failure)
                else record(
                    experiment.run.parameters,
                    experiment.run.tokens[0],
                    result,
                    experiment.run.seed,
                    purpose=Purpose.DIAGNOSIS,
                )
            )
            diagnosis += ((experiment.run, found),)


def mistuned(factor, run, base=0):
    """Loss of a run whose learning rate is `factor` times too high at factor 1; a failure past 40 times."""
    off = factor * run.learning_rate_factor
    if off > 40:
        return Failure(attempt=1, reason=FailureReason.DIVERGED, message="the loss became NaN")
    return law(run.parameters, run.tokens[0]) * math.exp(BOWL * math.log(off) ** 2)


def test_a_healthy_rung_passes_every_check():
    verdict = judge(evidence())
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason is Reason.CONSISTENT
    assert all(c.outcome is Outcome.PASS for c in verdict.checks)
    assert len(verdict.checks) == len(CHECKS)


def test_the_message_says_what_was_seen_and_what_was_predicted():
    verdict = judge(evidence())
    numbers = check(verdict, "ObservedAsPredicted").numbers
    assert f"{numbers['observed']:.4g} nats/token at r4; predicted {numbers['predicted']:.4g} [" in verdict.message


@pytest.mark.parametrize("k", [0, 1, 2])
def test_first_rungs_are_never_judged(k):
    verdict = judge(evidence(k))
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_JUDGED, Reason.TOO_FEW_RECORDS)


def test_the_same_evidence_gives_the_same_digest_and_another_gives_another():
    assert judge(evidence()).digest == judge(evidence()).digest
    assert judge(evidence()).digest != judge(evidence(records=trained(runs(4), 1.001))).digest


def test_the_digest_is_of_all_the_rest():
    verdict = judge(evidence())
    assert verdict.digest == verdict.changed(digest="").content_digest


def test_a_missing_record_holds():
    verdict = judge(evidence(records=trained(runs(4))[1:]))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.RECORDS_MISSING)
    assert not verdict.experiments


def test_two_records_of_one_plan_hold():
    once = trained(runs(4))
    verdict = judge(evidence(records=(*once, once[0].changed(loss=3.0))))
    assert verdict.reason is Reason.RECORDS_DUPLICATED


def test_a_record_that_nobody_planned_holds():
    verdict = judge(evidence(records=(*trained(runs(4)), record(7, 70, 3.0))))
    assert verdict.reason is Reason.RECORDS_UNEXPECTED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"validation_digest": "other"}, Reason.VALIDATION_SET_DIFFERS),
        ({"tokenizer_digest": "other"}, Reason.TOKENIZER_DIFFERS),
        (
            {"parameters": ParameterCounts(total=SIZES[4], non_embedding=7, active=SIZES[4])},
            Reason.PARAMETER_COUNT_DIFFERS,
        ),
    ],
)
def test_losses_that_cannot_be_compared_fail(change, reason):
    first, *rest = trained(runs(4))
    verdict = judge(evidence(records=(first.changed(**change), *rest)))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, reason)


def test_a_loss_that_is_not_finite_fails():
    first, *rest = trained(runs(4))
    broken = Record.model_construct(**(dict(first) | {"loss": math.nan}))
    verdict = judge(evidence(records=(broken, *rest)))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, Reason.LOSS_NOT_FINITE)


def test_ignorance_does_not_promote():
    verdict = judge(evidence(thresholds=Thresholds(max_half_width=1e-4)))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.FORECAST_TOO_WIDE)


def test_a_certain_finding_goes_before_ignorance():
    limits = Thresholds(max_half_width=1e-4)
    verdict = judge(evidence(thresholds=limits, records=trained(runs(4), 1.2)))
    assert verdict.reason is Reason.LOSS_ABOVE_PREDICTION


def test_better_than_predicted_is_a_surprise_too():
    verdict = judge(evidence(records=trained(runs(4), 0.94)))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.LOSS_BELOW_PREDICTION)
    assert not verdict.experiments


def test_a_deviation_within_tolerance_never_holds():
    verdict = judge(evidence(records=trained(runs(4), 1.08), thresholds=Thresholds(tolerance=0.1)))
    assert verdict.outcome is Outcome.PASS


def test_a_high_loss_asks_for_a_bracket_and_a_seed_before_a_person():
    verdict = judge(evidence(records=trained(runs(4), 1.1)))
    asked = [(e.run.learning_rate_factor, e.run.seed) for e in verdict.experiments]
    assert asked == [(0.25, 0), (4.0, 0), (1.0, 1)]
    assert all(e.run.purpose is Purpose.DIAGNOSIS and e.run.parameters == SIZES[4] for e in verdict.experiments)


def test_a_rate_thirty_times_too_high_is_bad_tuning_and_is_retuned_near_a_thirtieth():
    records = tuple(
        record(r.parameters, D, law(r.parameters, D) * math.exp(BOWL * math.log(30) ** 2))
        for r in runs(4)
        for D in r.tokens
    )
    verdict, asked = diagnosed(evidence(records=records), lambda run: mistuned(30.0, run))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.BADLY_TUNED)
    assert verdict.retune in (0.0625, 0.015625)
    assert asked <= 5


def test_a_law_that_broke_fails_when_neither_rate_nor_seed_explains_it():
    verdict, asked = diagnosed(evidence(records=trained(runs(4), 1.05)), lambda run: 1.05 * mistuned(1.0, run))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, Reason.LOSS_ABOVE_PREDICTION)
    assert verdict.retune is None
    assert asked == 3


def test_a_seed_that_does_not_repeat_the_surprise_is_noise():
    verdict, _ = diagnosed(
        evidence(records=trained(runs(4), 1.05)),
        lambda run: (1.0 if run.seed else 1.05) * mistuned(1.0, run),
    )
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.SEEDS_DISAGREE)


def test_one_run_off_among_sound_ones_does_not_retune_the_rung():
    planned = runs(4, seeds=(0, 1, 2))
    records = tuple(r.changed(loss=1.15 * r.loss) if r.seed == 1 else r for r in trained(planned))

    def answer(run):
        return mistuned(30.0, run) if run.seed == 1 else mistuned(1.0, run)

    verdict, _ = diagnosed(evidence(planned=planned, records=records), answer)
    assert (verdict.outcome, verdict.reason, verdict.retune) == (Outcome.INCONCLUSIVE, Reason.ONE_RUN_OFF, None)


def diverged(planned):
    return {run.content_digest: Failure(attempt=1, reason=FailureReason.DIVERGED, message="NaN") for run in planned}


def test_a_diverged_rung_is_retuned_to_the_rate_that_trains_best():
    start = evidence(records=(), failures=diverged(runs(4)))
    assert [e.run.learning_rate_factor for e in judge(start).experiments] == [0.25, 1.0]
    verdict, _ = diagnosed(start, lambda run: mistuned(60.0, run))
    assert verdict.reason is Reason.BADLY_TUNED
    assert verdict.retune == 0.015625


def test_a_rung_that_diverges_at_every_rate_fails():
    verdict, asked = diagnosed(
        evidence(records=(), failures=diverged(runs(4))),
        lambda run: Failure(attempt=1, reason=FailureReason.DIVERGED, message="NaN"),
    )
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, Reason.RUN_DIVERGED)
    assert asked == 5


def test_a_divergence_in_warmup_is_diagnosed_without_a_forecast():
    verdict, _ = diagnosed(evidence(1, records=(), failures=diverged(runs(1))), lambda run: mistuned(60.0, run))
    assert (verdict.reason, verdict.retune) == (Reason.BADLY_TUNED, 0.015625)


def test_a_retune_is_never_undone():
    planned = runs(4, factor=0.25)
    verdict, _ = diagnosed(
        evidence(planned=planned, records=trained(planned, 1.05), retuned_from=(1.0,)),
        lambda run: mistuned(0.25 if run.learning_rate_factor < 1 else 1.0, run),
    )
    assert (verdict.reason, verdict.retune) == (Reason.BADLY_TUNED, None)


def test_experiments_that_give_nothing_leave_it_open():
    lost = Failure(attempt=1, reason=FailureReason.OUT_OF_MEMORY, message="out of memory")
    verdict, _ = diagnosed(evidence(records=trained(runs(4), 1.1)), lambda run: lost)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.DIAGNOSIS_FAILED)


def test_data_repeated_past_its_use_holds():
    records = tuple(r.changed(epochs=20.0, unique_tokens=r.tokens // 20) for r in trained(runs(4)))
    verdict = judge(evidence(records=records))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.OUT_OF_DATA)


def test_a_target_out_of_reach_fails_and_one_in_reach_does_not():
    target = (7e9, 1.4e11)
    far = judge(evidence(target=target, thresholds=Thresholds(max_loss=1.0)))
    near = judge(evidence(target=target, thresholds=Thresholds(max_loss=2.5)))
    assert (far.outcome, far.reason) == (Outcome.FAIL, Reason.TARGET_OUT_OF_REACH)
    assert near.outcome is Outcome.PASS


def test_a_next_rung_that_does_not_fit_the_budget_fails():
    verdict = judge(evidence(budget=Affordable(gpu_hours=10.0, gpu_hours_left=5.0)))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAIL, Reason.OVER_BUDGET)
    assert judge(evidence(budget=Affordable(flops=1e18, flops_left=1e20))).outcome is Outcome.PASS


def test_a_forecast_about_other_runs_is_a_broken_contract():
    with pytest.raises(ValueError, match="not about its 3 planned records"):
        judge(evidence(planned=runs(4), forecast=evidence(3).forecast))


def test_more_judged_rungs_make_each_bound_wider():
    one, ten = (
        check(judge(evidence(thresholds=Thresholds(judged_rungs=n))), "ObservedAsPredicted").numbers for n in (1, 10)
    )
    assert ten["high"] > one["high"]


def test_an_unfitted_law_is_inconclusive():
    refused = NoForecast(reason="FitNotConverged", message="the fit did not converge", evidence="sha256:0", records=12)
    verdict = judge(evidence(forecast=refused))
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.FIT_NOT_CONVERGED)


def test_every_reason_that_holds_a_rung_is_documented():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "gate.md").read_text()
    sources = [root / "analysis/sweep_analysis/gate" / name for name in ("checks.py", "diagnosis.py")]
    used = {
        Reason[name]
        for source in sources
        for name in re.findall(r"(?<!Failure)Reason\.([A-Z_]+)\b", source.read_text())
    }
    passing = {c.reason for c in judge(evidence(target=(7e9, 1.4e11), budget=Affordable())).checks}
    passing |= {c.reason for c in judge(evidence(thresholds=Thresholds(max_loss=9.0), target=(7e9, 1.4e11))).checks}
    assert {
        r.value for r in used - passing - {Reason.NOT_COMPUTED, Reason.NOT_ASKED} if f"`{r.value}`" not in page
    } == set()
