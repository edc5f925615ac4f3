"""What a recipe resolves to: the published ladder stays as it was, and one dial gives every shape."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sweep_analysis.document import digest_of
from sweep_analysis.shape import Experts, Model, shape_for
from sweep_operator import names
from sweep_operator.acceptance import Accepted, accept
from sweep_operator.api import ScalingSweep
from sweep_operator.policy import Policy

LAPTOP = Path(__file__).parents[2] / "examples" / "laptop.yaml"
PUBLISHED = {
    ("20k", 0): "sha256:2c568d7dae3b4d5e00f1bdd8c669e18c6f0e9c3ac905fd12500bcaa2f7368060",
    ("20k", 1): "sha256:fe0a7d7a9326f348405a5cb61592ee4277938b8943bacbc41e38b2be34ef3044",
    ("27k", 0): "sha256:38d7ddeaba408e02989772eeabca074b9bc85f5199976d3e1c140a980f24df97",
    ("27k", 1): "sha256:5f496ca4a57477fa2e5237b59878ee330af6f945e53041c48971fdc35c89a510",
    ("36k", 0): "sha256:527561535edcefd0f554d5abac98443a4b8d19452ba0299f5c0151484d4fed15",
    ("36k", 1): "sha256:43daaff5cd5d9156c634771cf497d2b303c09fb58a65f001520fa3315370c3b9",
    ("46k", 0): "sha256:20ae9b6c6fd77b8b0691ba58955fd6ede433002b7d34210e5ae37b82a59c4f5b",
    ("46k", 1): "sha256:b3fa5f823dfb4ce51501bfa98b3da8bb00d28491bc96ed0e02f54d9ea2def173",
    ("67k", 0): "sha256:5d4d5ca43fdb35addfcf542794354daf068d0745fabe3368af44a5fc8c5cf052",
    ("67k", 1): "sha256:fb8fabc46e1b419dd8a35f3d7f9b31d5e8b0ee7351514cf855848e6e143cd7c5",
    ("target", 0): "sha256:05ff53237c45b0a661cc8701f8c30aef94c9ae00c1d2a74fd0124bacdb8a3094",
}
"""Configuration digests of the laptop ladder whose losses docs/laptop.md reports."""


def test_the_laptop_ladders_configurations_are_those_whose_losses_are_published() -> None:
    sweep = ScalingSweep.model_validate(YAML(typ="safe").load(LAPTOP.read_text()))
    ladder = accept(sweep, Policy())
    assert isinstance(ladder, Accepted)
    runs = [(rung.name, run) for rung in ladder.rungs for run in rung.runs] + [("target", ladder.target)]
    assert {(name, run.seed): names.config_digest(sweep.spec.training, run) for name, run in runs} == PUBLISHED
    frozen = "sha256:af7acb3a6c14bb4e22ab0ce17ed668fdfcf92c50fc1172cf405c6aee26abe59c"
    assert digest_of(sweep.spec.training.to_json()) == frozen


@pytest.mark.parametrize("size", [125e6, 350e6, 1.3e9, 7e9])
def test_one_dial_gives_a_dense_decoder_within_a_tenth_of_its_size(size: float) -> None:
    shape = shape_for(round(size), 50_304, Model(tied_embeddings=False))
    assert shape.parameters == pytest.approx(size, rel=0.1)
    assert shape.head_size in (64, 128)


def test_what_the_user_fixes_of_a_shape_stays_fixed_and_the_rest_reaches_the_size() -> None:
    model = Model(width=256, heads=4, kv_heads=2, head_size=80)
    shape = shape_for(20_000_000, 1000, model)
    assert (shape.width, shape.heads, shape.key_heads, shape.head_size) == (256, 4, 2, 80)
    assert shape.parameters == pytest.approx(20_000_000, rel=0.05)


@pytest.mark.parametrize("size", [2_000_000, 30_000_000, 700_000_000])
def test_key_heads_divide_the_query_heads_at_every_size(size: int) -> None:
    shape = shape_for(size, 1000, Model(kv_heads=2))
    assert shape.heads % shape.key_heads == 0
    assert shape.parameters == pytest.approx(size, rel=0.15)


def test_heads_that_cannot_be_are_refused_with_the_width_and_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"3 heads do not divide the width 256; set model\.headSize"):
        shape_for(20_000_000, 1000, Model(width=256, heads=3))
    with pytest.raises(ValueError, match=r"model\.kvHeads \(3\) does not divide the 4 heads at width 256"):
        shape_for(20_000_000, 1000, Model(width=256, heads=4, kv_heads=3))


def test_a_token_meets_about_as_many_weights_among_experts_as_in_the_dense_block() -> None:
    experts = shape_for(50_000_000, 1000, Model(experts=Experts(count=8, top_k=2, shared=1)))
    dense = shape_for(experts.active_parameters, 1000, Model(width=experts.width, layers=experts.layers))
    assert experts.active_parameters == pytest.approx(dense.parameters, rel=0.05)
    assert experts.parameters > 2 * experts.active_parameters
