"""What a recipe resolves to: the published ladder stays as it was, and one dial gives every shape."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Hyperparameters, Training, resolve, shape_of, whole_batches
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


def recipe(**fields: object) -> Training:
    return Training.model_validate({"data": {"corpus": "Classics"}} | fields)


def resolved(training: Training, parameters: int = 1_000_000, tokens: int = 20_000_000) -> Hyperparameters:
    return resolve(training, shape_of(training, parameters).parameters, whole_batches(training, (tokens,)))


def test_whatever_follows_from_the_dial_can_be_set_instead() -> None:
    derived = resolved(recipe())
    fixed = resolved(
        recipe(
            model={"width": 96, "layers": 7, "heads": 6},
            batchTokens=3 * 128,
            learningRate={"peak": 0.003, "exponent": 0},
            schedule={"warmupSteps": 11, "decay": 0.5},
        )
    )
    assert (fixed.shape.width, fixed.shape.layers, fixed.shape.heads) == (96, 7, 6)
    assert (fixed.batch_tokens, fixed.learning_rate, fixed.warmup_steps) == (384, 0.003, 11)
    assert fixed.steps == (round(20_000_000 / 384),)
    assert fixed.schedule.branch_steps(1000) == 500
    for field in ("shape", "batch_tokens", "learning_rate", "warmup_steps", "steps"):
        assert getattr(fixed, field) != getattr(derived, field)


def test_step_law_gives_the_papers_learning_rate_and_batch() -> None:
    hyper = resolved(recipe(learningRate={"rule": "StepLaw"}, sequenceLength=2048), 500_000_000, 10_000_000_000)
    N, D = hyper.shape.non_embedding_parameters, hyper.steps[-1] * hyper.batch_tokens
    assert hyper.learning_rate == pytest.approx(1.79 * N**-0.713 * D**0.307)
    assert 0.7 < hyper.batch_tokens / (0.58 * 1e10**0.571) < 1.5


def test_the_critical_batch_grows_as_the_loss_falls() -> None:
    few, many = (resolved(recipe(batchRule="Critical"), tokens=D).batch_tokens for D in (10**9, 10**11))
    assert many > 2 * few


def test_mu_transfer_keeps_the_peak_and_scales_by_width() -> None:
    training = recipe(learningRate={"rule": "MuTransfer", "peak": 0.01, "baseWidth": 64})
    small, large = resolved(training, 300_000), resolved(training, 30_000_000)
    assert small.learning_rate == large.learning_rate == 0.01
    assert large.width_ratio == 64 / large.shape.width


def test_a_cosine_trains_every_token_count_from_the_first_step_and_saves_nothing() -> None:
    branches = resolve(recipe(), *sized(recipe(), (10_000_000, 20_000_000)))
    cosine = recipe(schedule={"kind": "Cosine", "final": 0.1})
    separate = resolve(cosine, *sized(cosine, (10_000_000, 20_000_000)))
    assert branches.share_saved == pytest.approx(1 - 1.15 / 1.5, abs=0.01)
    assert separate.share_saved == 0


def sized(training: Training, tokens: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return shape_of(training, 1_000_000).parameters, whole_batches(training, tokens)


FILE = {"path": "t", "vocabulary": 9}
SOURCES = {"sources": [{"name": "web", "files": ["web.jsonl"]}]}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tokenizer": "HuggingFace"}, "tokenizerFile goes with tokenizer HuggingFace or Tiktoken"),
        (
            {"tokenizer": "Tiktoken", "tokenizerFile": FILE | {"endOfDocument": 8}},
            "name the data under data.sources",
        ),
        (
            {"data": SOURCES, "tokenizer": "HuggingFace", "tokenizerFile": FILE | {"endOfDocument": 9}},
            r"endOfDocument \(9\) is not below vocabulary \(9\)",
        ),
        ({"documentMask": True}, "documentMask needs documents, which data.sources has"),
        ({"objective": {"kind": "FineTuning"}}, "objective FineTuning reads documents of several fields"),
        ({"objective": {"prompt": "q"}}, "objective.kind Pretraining reads no prompt"),
        ({"data": SOURCES, "objective": {"kind": "RewardModel"}, "microBatch": 3}, "set microBatch to an even number"),
        (
            {
                "data": SOURCES,
                "objective": {"kind": "RewardModel"},
                "evaluation": {"tasks": [{"name": "q", "kind": "Cloze", "data": "q"}]},
            },
            "a reward model has no likelihood to answer tasks with",
        ),
        ({"batchTokens": 2048, "batchRule": "Critical"}, "batchRule Critical has no effect beside batchTokens"),
        ({"learningRate": {"rule": "StepLaw", "peak": 0.1}}, r"learningRate\.rule StepLaw has no use for peak"),
        ({"learningRate": {"rule": "MuTransfer", "peak": 0.1}}, "MuTransfer needs baseWidth"),
        ({"schedule": {"kind": "Cosine", "decay": 0.2}}, "a cosine takes the whole run"),
        ({"data": {"files": ["a.jsonl.gz"]}}, "files takes plain text; put a.jsonl.gz under sources"),
        ({"data": {"files": ["s3://b/a.txt"]}}, "is an address; data is read from files, so mount it or copy it"),
        ({"data": SOURCES | {"files": ["a.txt"]}}, "exactly one of corpus, files and sources"),
        ({"data": {"corpus": "Classics", "validationShare": 0.1}}, "validationShare is for sources"),
        ({"model": {"experts": {"count": 4, "topK": 5}}}, r"experts\.topK \(5\) is more than experts\.count \(4\)"),
        ({"model": {"family": "HuggingFace"}}, "that family needs it"),
        ({"model": {"family": "HuggingFace", "architecture": "qwen3", "qkNorm": True}}, "are the Decoder family's"),
    ],
)
def test_parts_that_contradict_each_other_are_refused_in_one_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe(**fields)


def test_every_path_of_a_recipe_is_told_in_full() -> None:
    training = recipe(
        data={"sources": [{"name": "web", "files": ["web.jsonl", "saved/"]}]},
        tokenizer="HuggingFace",
        tokenizerFile={"path": "tokenizer.json", "vocabulary": 300, "endOfDocument": 0},
        objective={"startFrom": "model.safetensors"},
        evaluation={"tasks": [{"name": "quiz", "kind": "Cloze", "data": "quiz.jsonl"}]},
    ).rooted(Path("/there"))
    assert training.data.sources[0].files == ("/there/web.jsonl", "/there/saved/")
    assert training.tokenizer_file is not None
    assert training.tokenizer_file.path == "/there/tokenizer.json"
    assert training.objective is not None
    assert training.objective.start_from == "/there/model.safetensors"
    assert training.evaluation is not None
    assert training.evaluation.tasks[0].data == "/there/quiz.jsonl"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"data": SOURCES, "objective": {"kind": "RewardModel"}},
        {"learningRate": {"rule": "StepLaw"}, "schedule": {"kind": "Cosine"}},
        {"learningRate": {"rule": "MuTransfer", "peak": 0.1, "baseWidth": 64}, "model": {"experts": {"count": 4}}},
    ],
)
def test_a_recipe_that_is_copied_or_read_back_is_the_same(fields: dict[str, object]) -> None:
    training = recipe(**fields)
    assert training.changed() == training
    assert training.data.changed(validation_tokens=2048).validation_tokens == 2048
    assert Training.model_validate(training.to_json()) == training
    assert hash(training) == hash(training.changed())
