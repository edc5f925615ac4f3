"""A run's plan: every count gets its decay, and the schedule is a pure function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep_analysis.recipe import Data, Schedule, Training, resolve
from sweep_trainer.schedule import learning_rate, segments


def hyper(steps: tuple[int, ...], schedule: Schedule = Schedule()):  # noqa: B008  # documents are immutable
    training = Training(data=Data(corpus="Classics"), batch_tokens=128, schedule=schedule)
    return resolve(training, 27_000, tuple(128 * s for s in steps))


@given(
    steps=st.sets(st.integers(1, 500), min_size=1, max_size=5),
    decay=st.floats(0.01, 1.0),
    warmup=st.floats(0.0, 0.99),
)
def test_every_token_count_is_reached_by_a_branch_and_no_step_is_executed_twice(
    steps: set[int], decay: float, warmup: float
) -> None:
    plan = segments(hyper(tuple(sorted(steps)), Schedule(decay=decay, warmup=warmup)))
    assert [s.stop for s in plan if s.branch is not None] == sorted(steps)
    executed = 0
    trunk = 0
    for s in plan:
        assert s.first == executed
        executed += s.stop - s.start
        assert s.start == trunk, "a segment begins where the trunk stands"
        trunk = s.stop if s.branch is None else trunk


def test_the_trunk_is_shared_and_only_the_decays_are_extra() -> None:
    plan = segments(hyper((100, 200)))
    assert [(s.start, s.stop, s.branch) for s in plan] == [
        (0, 70, None),
        (70, 100, 0),
        (70, 140, None),
        (140, 200, 1),
    ]


def test_the_learning_rate_warms_up_stays_and_decays_to_zero() -> None:
    h = hyper((100, 200))
    trunk, branch, *_ = segments(h)
    assert learning_rate(h, 0, trunk) == pytest.approx(h.learning_rate / 5)
    assert learning_rate(h, 4, trunk) == h.learning_rate
    assert learning_rate(h, 69, trunk) == h.learning_rate
    assert learning_rate(h, 70, branch) == h.learning_rate
    assert learning_rate(h, 99, branch) == pytest.approx(h.learning_rate / 30)


def test_a_cosine_goes_down_from_the_warm_up_to_its_final_share_and_is_each_counts_own() -> None:
    h = hyper((100, 200), Schedule.model_validate({"kind": "Cosine", "final": 0.1}))
    few, many = segments(h)
    assert [(s.start, s.stop, s.branch) for s in (few, many)] == [(0, 100, 0), (0, 200, 1)]
    rates = [learning_rate(h, step, few) / h.learning_rate for step in range(100)]
    assert rates[4] == max(rates) == 1.0
    assert rates[52] == pytest.approx(0.1 + 0.9 * 0.5, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(h, 99, many) > 5 * learning_rate(h, 99, few)


@given(steps=st.sets(st.integers(1, 500), min_size=1, max_size=5), decay=st.floats(0.01, 1.0))
def test_what_a_shared_trunk_saves_is_told_from_the_steps_that_are_executed(steps: set[int], decay: float) -> None:
    h = hyper(tuple(sorted(steps)), Schedule(decay=decay))
    plan = segments(h)
    assert plan[-1].first + plan[-1].stop - plan[-1].start == h.trained_steps
    assert h.share_saved == pytest.approx(1 - h.trained_steps / sum(steps))
