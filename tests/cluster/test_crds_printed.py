"""What `kubectl get sweeps` prints is about one rung, and short."""

import json
from pathlib import Path

import pytest

from sweep_operator.api import RungProgress, RungState, ScalingSweep, SweepStatus
from sweep_operator.printed import printed

FIXTURE = Path(__file__).parents[1] / "fixtures" / "v1alpha1" / "scalingsweep.json"


@pytest.fixture(scope="module")
def status() -> SweepStatus:
    """Of a sweep that climbed five rungs, one of them twice, and waits for a yes to its target."""
    return ScalingSweep.model_validate(json.loads(FIXTURE.read_text())).status


def at(status: SweepStatus, rung: int, **fields: object) -> SweepStatus:
    """The sweep as if that rung were being climbed."""
    changed = status.rungs[rung].changed(state=RungState.RUNNING, **fields)
    return status.changed(rungs=(*status.rungs[:rung], changed, *status.rungs[rung + 1 :]))


def test_nothing_is_printed_of_a_sweep_that_was_not_looked_at() -> None:
    row = printed(SweepStatus())
    assert (row.rung, row.runs, row.loss, row.forecast, row.verdict, row.target, row.gpu_hours) == (*[""] * 6, "0")


def test_the_row_is_about_the_first_rung_that_was_not_left_behind(status: SweepStatus) -> None:
    assert printed(status).rung == "target"
    row = printed(at(status, 4, progress=RungProgress(total=2, done=1, failed=1), verdict=None))
    assert (row.rung, row.runs, row.verdict) == ("d (revision 2)", "1/2 (1 failed)", "")


def test_a_verdict_that_does_not_pass_has_its_reason_and_a_missing_forecast_its_own(status: SweepStatus) -> None:
    assert printed(status).verdict == "Inconclusive: LaunchNeedsApproval"
    row = printed(at(status, 0))
    assert row.forecast == "TooFewRecords"
    assert row.verdict.startswith("NotJudged: ")
    assert printed(at(status, 5)).verdict == "Pass"


def test_the_forecast_is_of_the_record_with_the_lowest_loss(status: SweepStatus) -> None:
    row = printed(at(status, 5))
    predictions = status.rungs[5].to_json()["forecast"]["outcome"]["predictions"]
    lowest = min(predictions, key=lambda p: p["loss"])
    assert row.forecast == f"{lowest['loss']:.4f} [{lowest['low']:.4f}, {lowest['high']:.4f}]"
    assert row.loss == f"{status.rungs[5].loss:.4f}"


def test_the_target_is_a_forecast_until_it_was_measured(status: SweepStatus) -> None:
    assert "[" in printed(status).target
    assert printed(status.changed(target=status.target.changed(observed=2.25))).target == "2.2500 observed"


@pytest.mark.parametrize(("seconds", "hours"), [(0, "0"), (1296, "0.36"), (45_000, "12"), (1_483_200, "412")])
def test_gpu_hours_have_two_digits_or_are_whole(status: SweepStatus, seconds: float, hours: str) -> None:
    assert printed(status.changed(spent=status.spent.changed(gpu_seconds=seconds))).gpu_hours == hours
