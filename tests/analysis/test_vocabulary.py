"""The shared vocabulary: sizes as people write them, shapes from one dial, documents and their digests."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweep_analysis.document import digest_of
from sweep_analysis.flops import detailed, six_nd
from sweep_analysis.recipe import Training, resolve, shape_of, whole_batches
from sweep_analysis.rung import Run
from sweep_analysis.scale import format_scale, parse_scale
from sweep_analysis.shape import Model, Shape, shape_for

LAPTOP = Training.model_validate({"data": {"corpus": "Classics"}, "model": {"layers": 3}, "batchTokens": 2048})


@pytest.mark.parametrize(
    ("text", "value"),
    [("30M", 30_000_000), ("1.4T", 1_400_000_000_000), ("1e21", 10**21), (7, 7), ("7B", 7 * 10**9), (1e21, 10**21)],
)
def test_a_size_is_read_as_it_was_meant(text, value):
    assert parse_scale(text) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("30 M", "did you mean 30M?"),
        ("30m", "did you mean 30M?"),
        ("7G", "did you mean 7B?"),
        ("7Gi", "did you mean 7B?"),
        ("1e400", "is not a size"),
        (float("nan"), "nan is not a size"),
        (float("inf"), "inf is not a size"),
        (-3, "greater than zero"),
        (0, "greater than zero"),
        (1.5, "not a whole number"),
        ("1.5", "not a whole number"),
        (True, "not bool"),
        ("many", "is not a size"),
        ("1e31", "beyond anything"),
    ],
)
def test_a_wrong_size_is_answered_with_the_form_that_was_meant(text, sentence):
    with pytest.raises(ValueError, match=r".*") as caught:
        parse_scale(text)
    assert sentence in str(caught.value)


@given(st.integers(min_value=1, max_value=10**15))
def test_a_printed_size_is_near_what_it_prints(value):
    printed = format_scale(value)
    assert parse_scale(printed.replace("+", "")) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize("vocabulary", [256, 50_000])
def test_a_size_above_the_embedding_finds_a_shape_within_a_seventh(vocabulary):
    size = 20_000.0 if vocabulary == 256 else 20e6
    while size < 1e12:
        shape = shape_for(round(size), vocabulary, Model())
        assert shape.parameters == pytest.approx(size, rel=0.15)
        assert shape.width % (2 * shape.heads) == 0
        size *= 1.07


def test_a_size_no_shape_comes_near_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="the nearest has"):
        shape_for(1000, 50_000, Model())


def test_parameters_are_counted_exactly():
    shape = Shape(layers=3, width=20, heads=1, hidden=56, vocabulary=256)
    assert shape.parameters == 256 * 20 + 3 * (4 * 400 + 3 * 20 * 56 + 2 * 20) + 20
    assert shape.changed(tied_embeddings=False).embedding_parameters == 2 * 256 * 20


def test_flops_by_both_conventions_agree_where_embeddings_and_attention_are_small():
    shape = shape_for(7_000_000_000, 32_000, Model())
    assert detailed(shape, 1e9, 128) == pytest.approx(six_nd(shape.parameters, 1e9), rel=0.03)
    assert detailed(shape, 1e9, 65_536) > 1.5 * six_nd(shape.parameters, 1e9)


def test_token_counts_become_whole_batches_of_one_run():
    tokens = whole_batches(LAPTOP, (200_000, 400_000))
    assert all(t % 2048 == 0 for t in tokens)
    plan = resolve(LAPTOP, 20_000, tokens)
    assert [s * plan.batch_tokens for s in plan.steps] == list(tokens)
    assert plan.warmup_steps == round(0.05 * plan.steps[0])


def test_the_learning_rate_falls_with_size_and_takes_its_factor():
    small, large = (resolve(LAPTOP, n, (204_800,)).learning_rate for n in (20_000, 96_000))
    assert small > large
    assert resolve(LAPTOP, 20_000, (204_800,), 30.0).learning_rate == pytest.approx(30 * small)
    assert shape_of(LAPTOP, 20_000).width == 20


def test_a_document_refuses_what_it_does_not_know_and_digests_what_it_says():
    run = Run(parameters=1, tokens=(2,))
    with pytest.raises(ValidationError, match="Extra inputs"):
        Run.model_validate({"parameters": 1, "tokens": [2], "colour": "red"})
    assert Run.model_validate(json.loads(json.dumps(run.to_json()))) == run
    assert run.content_digest == Run(tokens=(2,), parameters=1).content_digest
    assert run.content_digest != run.changed(seed=1).content_digest
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
