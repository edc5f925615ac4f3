"""The life of a sweep over a simulated cluster: what is promoted, what is held, and what ends it."""

import math
from datetime import timedelta

import pytest
from simulated_cluster import Outcome, SimulatedCluster, World, climb, healthy, pass_time, settle

from sweep_analysis.forecast import Forecast
from sweep_analysis.record import FailureReason
from sweep_analysis.rung import Purpose, Run
from sweep_operator.api import ScalingSweep, SweepStatus
from sweep_operator.clusters import Ending
from sweep_operator.policy import Policy
from sweep_operator.reconcile import reconcile


def states(status: SweepStatus) -> dict[str, str]:
    return {f"{r.name}/{r.revision}": r.state.value for r in status.rungs}


def reason(status: SweepStatus, kind: str) -> str:
    condition = status.condition(kind)
    assert condition is not None
    return f"{condition.status}/{condition.reason}"


def with_spec(cluster: SimulatedCluster, **spec: object) -> None:
    """A user's edit."""
    old = cluster.stored
    meta = old.metadata.changed(generation=old.metadata.generation + 1)
    cluster.stored = old.changed(metadata=meta, spec=old.spec.changed(**spec))


def refused(sweep: ScalingSweep, policy: Policy | None = None) -> str:
    status = climb(SimulatedCluster(sweep), policy)
    condition = status.condition("Accepted")
    assert condition is not None
    assert condition.status == "False"
    assert status.phase == "Refused"
    return f"{condition.reason}: {condition.message}"


def test_a_healthy_ladder_climbs_to_its_target(manifest):
    cluster = SimulatedCluster(manifest())
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert set(states(status).values()) == {"Promoted"}
    assert reason(status, "Succeeded") == "True/Succeeded"
    assert reason(status, "Consistent") == "True/Consistent"
    assert status.target.observed == status.rungs[-1].loss
    assert status.law is not None
    assert status.law.records == 20
    assert status.spent.flops == pytest.approx(sum(r.spent.flops for r in status.rungs))


def test_tokens_to_serve_move_the_targets_best_split(manifest):
    target = {"parameters": "163K", "tokens": "3.3M"}
    plain = climb(SimulatedCluster(manifest(target=target))).target
    served = climb(SimulatedCluster(manifest(target={**target, "inferenceTokens": "1B"}))).target
    assert served.prediction == plain.prediction
    assert served.optimal_parameters.value < 0.9 * plain.optimal_parameters.value
    assert served.optimal_tokens.value > plain.optimal_tokens.value


def test_a_forecast_is_written_before_the_first_run_of_its_rung_exists(manifest):
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    times = {r.name: r.forecast.time for r in cluster.stored.status.rungs}
    for child in cluster.children.values():
        assert times[child.spec.rung] <= child.status.attempts[0].started_at
    creates = [i for i, w in enumerate(cluster.writes) if w.startswith("create demo-d-")]
    assert cluster.writes[creates[0] - 1] == "sweep status"


def test_warmup_rungs_are_promoted_but_never_called_consistent(manifest):
    cluster = SimulatedCluster(manifest())
    status = climb(cluster)
    for rung in status.rungs[:3]:
        assert rung.verdict.outcome == "NotJudged"
        assert not isinstance(rung.forecast.outcome, Forecast)


def test_a_sweep_that_never_launches_succeeds_when_its_last_rung_is_judged(manifest):
    status = climb(SimulatedCluster(manifest(target={"parameters": "163K", "tokens": "3.3M"})))
    assert status.phase == "Succeeded"
    assert "target/1" not in states(status)
    assert status.target.prediction is not None


def test_a_target_that_needs_approval_waits_and_only_the_verdicts_own_digest_releases_it(manifest):
    cluster = SimulatedCluster(manifest(target={"parameters": "163K", "tokens": "3.3M", "launch": "Approval"}))
    status = climb(cluster)
    assert status.phase == "AwaitingApproval"
    with_spec(cluster, approvals=({"rung": "target", "verdict": "sha256:" + "0" * 64},))
    assert climb(cluster).phase == "AwaitingApproval"
    with_spec(cluster, approvals=({"rung": "target", "verdict": status.rungs[-1].verdict.digest},))
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert status.rungs[-1].approved


@pytest.mark.parametrize(
    ("target", "check"),
    [
        ({"maxLoss": 2.29}, "MaxLossNotCertain"),
        ({}, "MaxLossNotSet"),
        ({"tokens": "60M", "maxLoss": 4.0}, None),
        ({"tokens": "2e9", "maxLoss": 4.0}, "JumpTooLarge"),
    ],
)
def test_an_automatic_launch_names_the_check_that_failed(manifest, target, check):
    body = {"parameters": "163K", "tokens": "3.3M", "launch": "Automatic", **target}
    cluster = SimulatedCluster(manifest(target=body), World(flops_per_second=1e11))
    status = climb(cluster)
    launch = status.rungs[-1].verdict
    if check is None:
        assert status.phase == "Succeeded"
    else:
        assert status.phase == "AwaitingApproval"
        assert check in [c.reason for c in launch.checks]


def test_a_target_that_cannot_reach_its_loss_ends_the_sweep_as_not_worth_it(manifest):
    target = {"parameters": "163K", "tokens": "3.3M", "launch": "Automatic", "maxLoss": 1.2}
    status = climb(SimulatedCluster(manifest(target=target)))
    assert status.phase == "NotWorthIt"
    assert reason(status, "Finished") == "True/NotWorthIt"


def test_a_rung_trained_at_a_wrong_learning_rate_is_told_from_a_broken_law_and_rerun_whole(manifest):
    def detuned(run: Run, tokens: int) -> float:
        tuned = healthy(run.changed(learning_rate_factor=1.0), tokens)
        return tuned * (1.0 + 0.012 * math.log(run.learning_rate_factor) ** 2)

    sweep = manifest()
    rungs = [r.to_json() for r in sweep.spec.ladder.rungs]
    rungs[3]["runs"][0]["learningRateFactor"] = 30.0
    cluster = SimulatedCluster(manifest(ladder={"rungs": rungs}), World(loss=detuned))
    status = climb(cluster)
    first, second = (r for r in status.rungs if r.name == "d")
    assert first.state == "Superseded"
    assert first.verdict.reason == "BadlyTuned"
    assert first.experiments
    assert second.runs[0].learning_rate_factor < 10
    diagnosis = {c.metadata.name for c in cluster.children.values() if c.spec.run.purpose is Purpose.DIAGNOSIS}
    assert len(diagnosis) == len(first.experiments)
    assert status.phase == "Succeeded"


def test_a_law_that_breaks_stops_the_ladder_and_the_target_is_never_started(manifest):
    def bent(run: Run, tokens: int) -> float:
        return healthy(run, tokens) * (1.15 if run.parameters > 60_000 else 1.0)

    cluster = SimulatedCluster(manifest(), World(loss=bent))
    status = climb(cluster)
    assert status.phase == "Inconsistent"
    assert reason(status, "Consistent").startswith("False/")
    assert not any(c.spec.rung == "target" for c in cluster.children.values())


def test_a_person_may_accept_a_failed_verdict_by_its_digest(manifest):
    def bent(run: Run, tokens: int) -> float:
        return healthy(run, tokens) * (1.15 if 60_000 < run.parameters < 80_000 else 1.0)

    cluster = SimulatedCluster(manifest(), World(loss=bent))
    status = climb(cluster)
    assert status.phase == "Inconsistent"
    held = next(r for r in status.rungs if r.state == "Stopped")
    with_spec(cluster, approvals=({"rung": held.name, "verdict": held.verdict.digest},))
    status = climb(cluster)
    assert next(r for r in status.rungs if r.name == held.name).approved == held.verdict.digest
    assert any(c.spec.rung == "e" for c in cluster.children.values())


def test_an_approval_that_names_no_verdict_or_another_has_no_effect_and_the_status_says_so(manifest):
    cluster = SimulatedCluster(manifest(gate={"warmupRungs": 3, "promotion": "Manual"}))
    held = next(r for r in climb(cluster).rungs if r.state == "Held")
    for verdict, named in (("", "no verdict"), ("sha256:" + "0" * 64, "another verdict")):
        with_spec(cluster, approvals=({"rung": held.name, "verdict": verdict},))
        condition = climb(cluster).condition("AwaitingApproval")
        assert condition.status == "True"
        assert f"the approval given names {named} and has no effect" in condition.message
        assert condition.message.endswith(held.verdict.digest)
    with_spec(cluster, approvals=({"rung": held.name, "verdict": held.verdict.digest},))
    assert next(r for r in climb(cluster).rungs if r.name == held.name).state == "Promoted"


def test_manual_promotion_waits_at_every_rung(manifest):
    cluster = SimulatedCluster(manifest(gate={"warmupRungs": 3, "promotion": "Manual"}))
    for name in "abc":
        status = climb(cluster)
        waiting = next(r for r in status.rungs if r.state == "Held")
        assert (status.phase, waiting.name) == ("AwaitingApproval", name)
        given = [a.to_json() for a in cluster.stored.spec.approvals]
        with_spec(cluster, approvals=(*given, {"rung": name, "verdict": waiting.verdict.digest}))


def test_a_budget_ends_the_ladder_before_the_rung_that_does_not_fit_and_raising_it_goes_on(manifest):
    cluster = SimulatedCluster(manifest(budget={"flops": "2e12"}))
    status = climb(cluster)
    assert status.phase == "OverBudget"
    assert status.spent.flops <= 2e12
    assert states(status)["d/1"] == "Pending"
    with_spec(cluster, budget={"flops": "1e14"})
    assert climb(cluster).phase == "Succeeded"


def test_a_budget_in_hours_pauses_what_runs_past_it(manifest):
    sweep = manifest(budget={"gpuHours": 0.005})
    status = climb(SimulatedCluster(sweep, World()))
    assert status.phase == "OverBudget"
    assert status.spent.gpu_seconds / 3600 < 0.005 * 2


def test_suspend_stops_what_runs_and_resume_loses_nothing(manifest):
    cluster = SimulatedCluster(manifest())
    undisturbed = climb(SimulatedCluster(manifest()))
    for moment in range(12):
        pass_time(cluster, 3.7 * (moment + 1))
        with_spec(cluster, suspend=True)
        assert climb(cluster).phase in ("Suspended", "Succeeded")
        with_spec(cluster, suspend=False)
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert [r.verdict.digest for r in status.rungs] == [r.verdict.digest for r in undisturbed.rungs]


@pytest.mark.parametrize(("wish", "phase"), [("suspend", "Suspended"), ("abort", "Aborted")])
def test_a_sweep_is_at_rest_only_once_attempts_that_nobody_has_written_down_are_over(manifest, wish, phase):
    cluster = SimulatedCluster(manifest(), World(silent_seconds=5.0))
    settle(cluster)
    assert cluster.started
    assert not any(child.status.attempt for child in cluster.children.values()), "just begun: nothing is written yet"
    with_spec(cluster, **{wish: True})
    for _ in range(100):
        changed = reconcile(cluster, "default/" + cluster.stored.metadata.name, cluster.now, Policy()).changed
        assert not (cluster.busy and cluster.stored.status.phase == phase)
        cluster.now += timedelta(seconds=1)
        if not changed and not cluster.busy:
            break
    assert cluster.stored.status.phase == phase


def test_abort_stops_everything_for_good_and_keeps_the_results(manifest):
    cluster = SimulatedCluster(manifest())
    pass_time(cluster, 60)
    before = {n: c.status.accepted for n, c in cluster.children.items() if c.status.accepted}
    with_spec(cluster, abort=True)
    status = climb(cluster)
    assert status.phase == "Aborted"
    assert before
    assert all(cluster.children[n].status.accepted == records for n, records in before.items())
    with_spec(cluster, abort=False, suspend=True)
    assert climb(cluster).phase in ("Aborted", "Suspended")


def test_preemption_is_not_a_failure_and_a_crash_is_retried_up_to_the_limit(manifest):
    def outcome(run, attempt: int) -> Outcome:
        if attempt <= 4:
            return Outcome(Ending.PREEMPTED, share=0.2)
        return Outcome() if attempt > 6 else Outcome(Ending.FAILED, FailureReason.CRASHED, "boom", share=0.1)

    cluster = SimulatedCluster(manifest(), World(outcome=outcome))
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert all(c.status.counted_failures == 2 for c in cluster.children.values())
    assert all(c.status.attempt == 7 for c in cluster.children.values())


def test_too_many_failed_runs_fail_the_sweep_and_a_retry_token_revives_only_those(manifest):
    broken = True

    def outcome(run, attempt: int) -> Outcome:
        if broken and run.spec.rung == "c":
            return Outcome(Ending.FAILED, FailureReason.CRASHED, "no such file: corpus.txt", share=0.1)
        return Outcome()

    cluster = SimulatedCluster(manifest(), World(outcome=outcome))
    status = climb(cluster)
    assert status.phase == "Failed"
    assert states(status)["c/1"] == "Failed"
    finished = {n: c.status.attempt for n, c in cluster.children.items() if c.spec.rung != "c"}
    broken = False
    with_spec(cluster, retry_token="again")
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert all(cluster.children[n].status.attempt == attempt for n, attempt in finished.items())


def test_frozen_fields_are_refused_once_a_forecast_is_written(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    with_spec(cluster, gate=cluster.stored.spec.gate.changed(tolerance=0.2))
    settle(cluster)
    accepted = cluster.stored.status.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "FrozenField")
    assert "spec.gate" in accepted.message


def test_later_rungs_may_be_edited_while_earlier_ones_run(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    rungs = [r.to_json() for r in cluster.stored.spec.ladder.rungs]
    rungs[4]["runs"][0]["seeds"] = [0, 1, 2]
    with_spec(cluster, ladder={"rungs": rungs})
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert len(next(r for r in status.rungs if r.name == "e").runs) == 3


def test_an_edit_of_a_started_rung_is_refused(manifest):
    cluster = SimulatedCluster(manifest())
    settle(cluster)
    rungs = [r.to_json() for r in cluster.stored.spec.ladder.rungs]
    rungs[0]["runs"][0]["seeds"] = [7]
    with_spec(cluster, ladder={"rungs": rungs})
    settle(cluster)
    assert cluster.stored.status.condition("Accepted").reason == "RungStarted"


def test_a_design_that_cannot_identify_its_law_is_refused_with_the_remedy(manifest):
    rungs = [
        {"name": n, "runs": [{"parameters": s, "tokensPerParameter": [20]}]}
        for n, s in {"a": "20K", "b": "46K", "c": "96K"}.items()
    ]
    assert refused(manifest(ladder={"rungs": rungs})).startswith("DesignCannotIdentify")


def test_a_warmup_too_short_to_forecast_after_is_refused_with_the_number_that_works(manifest):
    assert "set gate.warmupRungs to 3" in refused(manifest(gate={"warmupRungs": 2}))


def test_a_target_below_the_ladder_is_refused(manifest):
    assert refused(manifest(target={"parameters": "30K", "tokens": "1M"})).startswith("TargetBelowLadder")


def test_rungs_that_come_out_at_one_size_are_refused(manifest):
    rungs = [
        {"name": n, "runs": [{"parameters": s, "tokensPerParameter": [10, 20]}]}
        for n, s in {"a": "20000", "b": "20100", "c": "46K"}.items()
    ]
    assert refused(manifest(ladder={"rungs": rungs})).startswith("SizesNotIncreasing")


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (Policy(launch=("Never", "Approval")), "target.launch is Automatic; this platform allows Never or Approval"),
        (Policy(min_rungs=9), "the ladder has 5 rungs; this platform asks for at least 9"),
        (Policy(max_tolerance=0.001), "gate.tolerance is 0.01; this platform allows at most 0.001"),
        (Policy(max_half_width=0.01), "gate.maxHalfWidth is 0.05; this platform allows at most 0.01"),
        (Policy(min_confidence=0.99), "gate.confidence is 0.95; this platform asks for at least 0.99"),
        (Policy(min_span=1e4), "the ladder spans a factor of 22.5 in compute; this platform asks for at least 10000"),
    ],
)
def test_the_platforms_policy_binds(manifest, policy, sentence):
    assert refused(manifest(), policy) == f"PolicyViolation: {sentence}"


def test_a_generated_ladder_is_evenly_spaced_and_named_after_its_sizes(manifest):
    rule = {"from": "20K", "to": "163K", "rungs": 5, "tokensPerParameter": [10, 20]}
    target = {"parameters": "400K", "tokens": "9M", "launch": "Never"}
    cluster = SimulatedCluster(manifest(ladder={"generate": rule}, target=target))
    status = climb(cluster)
    assert status.phase == "Succeeded"
    assert [r.name for r in status.rungs] == ["20k", "34k", "57k", "96k", "160k"]


def test_runs_at_once_never_exceed_the_parallelism(manifest):
    rungs = [
        {"name": n, "runs": [{"parameters": s, "tokensPerParameter": [10, 20], "seeds": [0, 1, 2, 3, 4]}]}
        for n, s in {"a": "20K", "b": "46K", "c": "96K"}.items()
    ]
    cluster = SimulatedCluster(manifest(ladder={"rungs": rungs}, limits={"parallelism": 2}))
    for _ in range(200):
        settle(cluster)
        assert sum(not c.status.finished for c in cluster.children.values()) <= 2
        cluster.now += timedelta(seconds=11)
    assert len([c for c in cluster.children.values() if c.status.finished]) > 5


def test_a_run_that_falls_silent_is_ended_and_tried_again(manifest):
    def outcome(run, attempt: int) -> Outcome:
        return Outcome(share=1e6) if attempt == 1 and run.spec.rung == "b" else Outcome()

    cluster = SimulatedCluster(manifest(limits={"progressSeconds": 100}), World(outcome=outcome))
    stuck = cluster
    original = SimulatedCluster._with_report

    def silent(self, run):
        reported = original(self, run)
        if run.spec.rung == "b" and run.status.attempt == 1 and reported.status.progress:
            frozen = reported.status.progress.changed(last_updated=run.status.attempts[0].started_at)
            return reported.changed(status=reported.status.changed(progress=frozen))
        return reported

    stuck._with_report = silent.__get__(stuck)
    status = climb(stuck)
    assert status.phase == "Succeeded"
    assert all(c.status.failures[0].reason == "NoProgress" for c in cluster.children.values() if c.spec.rung == "b")


def test_a_diagnosis_beyond_its_share_of_the_budget_is_not_run_and_the_verdict_says_so(manifest):
    def bent(run: Run, tokens: int) -> float:
        return healthy(run, tokens) * (1.15 if run.parameters > 60_000 else 1.0)

    cluster = SimulatedCluster(manifest(budget={"flops": "1e13"}), World(loss=bent))
    status = climb(cluster)
    assert status.phase in ("AwaitingApproval", "Inconsistent")
    assert not any(c.spec.run.purpose is Purpose.DIAGNOSIS for c in cluster.children.values())
    waiting = next(r for r in status.rungs if r.state in ("Held", "Stopped"))
    assert "nothing was tried" in waiting.verdict.message


def test_runs_of_a_rung_that_differ_in_their_learning_rate_alone_are_refused(manifest):
    twice = [{"parameters": "67K", "tokensPerParameter": [10, 20], "learningRateFactor": f} for f in (1.0, 2.0)]
    sweep = manifest()
    rungs = [r.to_json() for r in sweep.spec.ladder.rungs]
    rungs[3]["runs"] = twice
    assert refused(manifest(ladder={"rungs": rungs})).startswith("DuplicateRuns: rung 'd' trains 67.2K")
