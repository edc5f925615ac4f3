"""Any causal language model of `transformers`, by name: sized exactly without the library, built, trained, exported."""

import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_run import moved, order_of, records_of, written
from torch.utils.flop_counter import FlopCounterMode

from sweep_analysis.architectures import counted_by, facts_of, fields_of_all, known, language_of, refused
from sweep_analysis.flops import detailed
from sweep_analysis.recipe import Data, Training, resolve, shape_of, whole_batches
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_analysis.shape import Model, Shape, shape_of_width
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.failure import RunError
from sweep_trainer.interruption import Interruption
from sweep_trainer.report import Report
from sweep_trainer.train import run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
LENGTH = 16
SAMPLE = {
    "afmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "apertus": {},
    "axk2": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "bart": {},
    "bert": {},
    "bigbird_pegasus": {},
    "blenderbot": {},
    "blenderbot-small": {},
    "bloom": {},
    "codegen": {},
    "cohere_compass_text": {},
    "cohere": {},
    "falcon": {},
    "falcon_mamba": {},
    "dbrx": {"moe_num_experts": 4, "moe_top_k": 2},
    "deepseek_v2": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v32": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v4": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "doge": {},
    "dots3_note_text": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "emu3": {},
    "gemma": {},
    "gemma2": {},
    "gemma3": {},
    "gemma3_text": {},
    "glm4": {},
    "glm_moe_dsa": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {},
    "gpt_neox": {},
    "gptj": {},
    "granite": {},
    "granitemoe": {"num_local_experts": 4},
    "hy_v4": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "inkling_text": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "jamba": {"num_experts": 4, "num_experts_per_tok": 2},
    "jetmoe": {"num_local_experts": 4},
    "kimi_linear": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama": {"rms_norm_eps": 1e-5},
    "longcat_flash": {"n_routed_experts": 4, "moe_topk": 2},
    "mamba": {},
    "mamba2": {},
    "marian": {},
    "mbart": {},
    "mimo_v2_flash": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "mistral": {},
    "mllama": {},
    "moshi": {},
    "mvp": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 1},
    "mpt": {},
    "nemotron": {},
    "nemotron_h": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "olmo": {},
    "olmo2": {},
    "olmo_hybrid": {},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "openai-gpt": {},
    "opt": {},
    "pegasus": {},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "plbart": {},
    "qwen2": {},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen3": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_next": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen4_exp_text": {"num_experts": 4, "num_experts_per_tok": 2},
    "recurrent_gemma": {},
    "reformer": {},
    "roberta": {},
    "rwkv": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "trocr": {},
    "whisper": {},
    "xglm": {},
    "xlnet": {},
    "xlstm": {},
    "xmod": {},
}
"""Architectures, and what is laid over their configuration."""


def model_of(name: str, *, tied: bool | None = None, **fields: object) -> Model:
    tied = facts_of(name).ties != "never" if tied is None else tied
    return Model.model_validate({"family": "HuggingFace", "architecture": name, "tied_embeddings": tied, **fields})


def recipe(name: str, **fields: object) -> Training:
    return Training(
        data=Data(corpus="Classics"), sequence_length=LENGTH, batch_tokens=128, model=model_of(name, **fields)
    )


def built_on_meta(shape: Shape) -> torch.nn.Module:
    from sweep_trainer.huggingface import HuggingFaceModel

    with torch.device("meta"):
        return HuggingFaceModel(shape, LENGTH, 0)


def parameters_of(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_name_that_the_library_knows_is_sized_or_refused_with_a_reason() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    assert counted_by() == transformers.__version__, "run `make architectures`"
    assert {*known(), *refused()} == {*NAMES}
    assert len(known()) > len(refused()) * 2
    assert all(refused().values())


def test_the_page_names_every_architecture_that_can_be_sized() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    assert f"{len(known())} of {len(known()) + len(refused())} causal language models" in page
    assert [name for name in known() if not re.search(rf"\b{re.escape(name)}\b[,.:;]", page)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", known())
def test_every_architecture_has_exactly_the_parameters_of_its_shape(name: str) -> None:
    """At sizes that the derivation did not look at, tied and not, the embeddings among them."""
    facts = facts_of(name)
    for tied in {"either": (True, False), "always": (True,), "never": (False,)}[facts.ties]:
        for width in (256, 352):
            layers = max(4, facts.least_layers)
            shape = shape_of_width(width, 259, model_of(name, tied=tied), layers, LENGTH)
            built = built_on_meta(shape)
            assert parameters_of(built) == shape.parameters, (width, tied)
        if facts.around.of("V", "w"):  # not factorised
            embedding = built.model.get_input_embeddings().weight[: shape.vocabulary].numel()  # more rows are images'
            output = 0 if tied else built.model.get_output_embeddings().weight.numel()
            positions = LENGTH * shape.width if "s" in facts.around.dimensions else 0  # biases are of their blocks
            biases = shape.vocabulary * (facts.around.of("V") + (0 if tied else facts.untied.of("V")))
            assert shape.embedding_parameters == embedding + output + positions + biases


@pytest.mark.parametrize("name", SAMPLE)
def test_an_architecture_trains_in_the_size_that_was_asked_for_and_is_exported(name: str) -> None:
    training = recipe(name, configuration=SAMPLE[name] or None)
    hyper = resolve(training, shape_of(training, 400_000).parameters, whole_batches(training, (10_000,)))
    assert hyper.shape.parameters == pytest.approx(400_000, rel=0.25)
    engine = PlainTorch(hyper, 0, 1)
    assert engine.parameters == hyper.shape.parameters
    again = PlainTorch(hyper, 0, 1, execution=training.changed(activation_checkpointing=True))
    assert len(again.model.blocks) == hyper.shape.layers
    batch = np.random.default_rng(0).integers(0, 256, (8, LENGTH + 1))
    for one in (engine, again):
        for _ in range(3):
            one.step(batch, 3e-3)
    losses = [loss for loss, _ in engine.measured()]
    assert losses[0] == pytest.approx(np.log(256), rel=0.25)
    assert losses[2] < losses[0]
    np.testing.assert_allclose([loss for loss, _ in again.measured()], losses, rtol=1e-5)
    config = engine.model.model.config
    for field, value in SAMPLE[name].items():
        assert getattr(config.ffn_config if name == "dbrx" else config, field) == value


@pytest.mark.parametrize("name", ["apertus", "olmo"])  # has scalars; has no gains
def test_every_parameter_of_an_architecture_is_trained(name: str) -> None:
    training = recipe(name)
    hyper = resolve(training, shape_of(training, 400_000).parameters, whole_batches(training, (10_000,)))
    engine = PlainTorch(hyper, 0, 1)
    before = engine.weights()
    for seed in range(3):
        engine.step(np.random.default_rng(seed).integers(0, 256, (8, LENGTH + 1)), 3e-2)
    after = engine.weights()
    assert not [n for n, _ in engine.model.named_parameters() if np.array_equal(before[n], after[n])]


def test_a_tokens_parameters_of_a_mixture_leave_out_the_experts_that_it_does_not_meet() -> None:
    wide = shape_of_width(128, 256, model_of("mixtral", configuration={"num_local_experts": 6}), 4)
    met = shape_of_width(128, 256, model_of("mixtral", configuration={"num_local_experts": 2}), 4)
    routers = 4 * 4 * 128
    assert wide.hidden == met.hidden
    assert wide.active_parameters == met.parameters + routers
    assert detailed(wide, 1000, LENGTH) == detailed(met, 1000, LENGTH) + 3 * 2 * routers * 1000


def test_layers_of_several_kinds_follow_each_other_as_in_the_library_at_every_depth() -> None:
    facts = facts_of("jamba")
    assert [facts.numbers(layers) for layers in (1, 4, 5, 8, 16)] == [
        (1, 0, 0),
        (2, 2, 0),
        (2, 2, 1),
        (3, 4, 1),
        (6, 8, 2),
    ]
    few = model_of("jamba", configuration={"num_experts": 4})
    for layers in (1, 2, 4, 5, 9, 13):
        shape = shape_of_width(96, 259, few, layers, LENGTH)
        assert parameters_of(built_on_meta(shape)) == shape.parameters


def test_only_layers_that_attend_compute_scores() -> None:
    """Of qwen3_next's four layers, one."""
    some = shape_of_width(128, 256, model_of("qwen3_next", configuration={"num_experts": 10}), 8)
    all_ = shape_of_width(128, 256, model_of("qwen3_moe", configuration={"num_experts": 10}), 8)
    scores = [detailed(shape, 1000, 32) - detailed(shape, 1000, 16) for shape in (some, all_)]
    assert scores[0] == pytest.approx(scores[1] / 4)


def test_a_model_for_several_modalities_is_trained_as_its_language_model() -> None:
    shape, text = (shape_of_width(128, 259, model_of(name), 4, LENGTH) for name in ("gemma3", "gemma3_text"))
    assert shape.parameters == text.parameters == parameters_of(built_on_meta(shape))
    assert built_on_meta(shape).model.config.model_type == "gemma3_text"


def test_what_no_gradient_moves_is_kept_but_is_no_parameter() -> None:
    from sweep_trainer.model import fixed

    built = built_on_meta(shape_of_width(64, 259, model_of("afmoe", configuration={"num_experts": 8}), 4, LENGTH))
    assert not [name for name, _ in built.named_parameters() if name.endswith("expert_bias")]
    assert len([name for name in built.state_dict() if name.endswith("expert_bias")]) == 4
    assert len([name for name in fixed(built) if name.endswith("expert_bias")]) == 4


@pytest.mark.parametrize(
    "name",
    [
        *("axk2", "deepseek_v32", "dots3_note_text", "glm_moe_dsa", "hy_v4", "qwen4_exp_text"),  # an indexer
        *("bart", "bigbird_pegasus", "marian", "trocr", "whisper"),  # attention to an encoder
        *("deepseek_v4", "reformer", "xlnet"),
    ],
)
def test_what_the_loss_does_not_reach_changes_no_logit_and_all_else_has_a_gradient(name: str) -> None:
    from sweep_trainer.huggingface import HuggingFaceModel
    from sweep_trainer.model import fixed

    shape = shape_of_width(64, 259, model_of(name, configuration=SAMPLE[name] or None), 4, LENGTH)
    model = HuggingFaceModel(shape, LENGTH, 0)
    batches = [torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (8, LENGTH + 1))) for seed in range(3)]
    for tokens in batches:
        model.loss(tokens).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert parameters_of(model) == shape.parameters
    with torch.no_grad():
        before = model.eval()(batches[0][:, :-1])
        beside = [b for n, b in fixed(model).items() if re.search("indexer|encoder_attn|seg_embed|mask_emb|lm_head", n)]
        for buffer in beside:
            buffer.normal_(generator=torch.Generator().manual_seed(1))
        assert bool(beside) == (name != "deepseek_v4")
        np.testing.assert_array_equal(model(batches[0][:, :-1]), before)


def test_an_indexer_of_another_size_is_beside_n_too() -> None:
    for name, field in (("deepseek_v32", "index_n_heads"), ("qwen4_exp_text", "indexer_n_heads")):
        few = SAMPLE[name] | {field: 1}
        shapes = [shape_of_width(64, 259, model_of(name, configuration=c), 4, LENGTH) for c in (SAMPLE[name], few)]
        whole, small = (built_on_meta(shape) for shape in shapes)
        assert parameters_of(whole) == parameters_of(small) == shapes[0].parameters == shapes[1].parameters
        assert sum(b.numel() for b in small.buffers()) < sum(b.numel() for b in whole.buffers())


def test_an_indexer_that_chose_less_than_the_context_would_leave_its_random_weights_in_the_loss() -> None:
    from sweep_trainer.huggingface import HuggingFaceModel

    shape = shape_of_width(64, 259, model_of("deepseek_v32", configuration=SAMPLE["deepseek_v32"]), 4, LENGTH)
    model = HuggingFaceModel(shape, LENGTH, 0).eval()
    indexers = [module for module in model.modules() if hasattr(module, "index_topk")]
    assert [indexer.index_topk for indexer in indexers] == [LENGTH] * 4
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, LENGTH)))
    losses = []
    for seed in range(2):
        for indexer in indexers:
            indexer.index_topk = LENGTH // 4
            for buffer in indexer.buffers():
                buffer.normal_(generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            losses.append(float(model.loss(tokens)))
    assert losses[0] != losses[1]


def test_heads_come_in_the_multiples_that_an_architecture_asks_for() -> None:
    assert facts_of("diffllama").heads_multiple == 2
    for parameters in (100_000, 1_000_000):
        shape = shape_of(recipe("diffllama"), parameters)
        assert shape.heads % 2 == shape.key_heads % 2 == 0
        assert parameters_of(built_on_meta(shape)) == shape.parameters
    with pytest.raises(ValueError, match="diffllama takes heads and key heads in multiples of 2, not 3 and 3"):
        shape_of(recipe("diffllama", heads=3), 100_000)


def test_a_table_of_learnt_positions_is_counted_with_the_context_and_among_the_embeddings() -> None:
    short, long = (shape_of(recipe("gpt2").changed(sequence_length=length), 400_000) for length in (16, 32))
    assert (short.width, short.layers) == (long.width, long.layers)
    assert long.embedding_parameters - short.embedding_parameters == 16 * short.width
    assert long.non_embedding_parameters == short.non_embedding_parameters


def test_a_state_space_model_computes_no_attention_scores() -> None:
    shape = shape_of_width(128, 256, model_of("mamba"), 4)
    assert detailed(shape, 1000, 16) == detailed(shape, 1000, 1024)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"architecture": "gpt3"}, "has no causal language model 'gpt3'; did you mean gptj or gpt2"),
        ({"architecture": "an-unheard-of-one"}, "docs/training.md"),
        ({"architecture": "blt"}, "blt .* cannot be trained here: it is four models"),
        ({"architecture": "musicgen"}, "musicgen .* cannot be trained here"),
        (
            {"architecture": "deepseek_v32", "configuration": {"index_topk": 64}},
            "configuration.index_topk follows from training.sequenceLength: attention sees the whole of it",
        ),
        ({"architecture": "zamba", "layers": 7, "tied_embeddings": True}, "zamba needs 8 layers or more, not 7"),
        ({"configuration": {"rms_norm_epsilon": 1e-5}}, "llama has no such field; did you mean rms_norm_eps"),
        ({"configuration": {"zzz": 1}}, "configuration.zzz: llama has no such field; it has attention_bias"),
        ({"configuration": {"to_dict": 1}}, "configuration.to_dict: llama has no such field"),
        ({"architecture": "jamba", "configuration": {"layers_block_type": []}}, "layers alternate as the library has"),
        ({"configuration": {"hidden_size": 64}}, "configuration.hidden_size follows from parameters"),
        ({"configuration": {"attention_dropout": 0.1}}, "nothing is dropped or shaken at random"),
        ({"configuration": {"router_jitter_noise": 0.1}}, "nothing is dropped or shaken at random"),
        ({"architecture": "mixtral", "configuration": {"num_local_experts": 1}}, "cannot meet 2 of 1 experts"),
        ({"architecture": "mixtral", "configuration": {"num_local_experts": "4"}}, "must be a whole number"),
        ({"architecture": "mamba", "heads": 4}, "mamba has no attention heads"),
        ({"architecture": "gpt2", "kv_heads": 2}, "as many key heads as query heads"),
        ({"architecture": "olmo2", "head_size": 32}, "head size is its width divided by its heads"),
        ({"family": "Decoder", "architecture": None, "configuration": {"a": 1}}, "goes with family HuggingFace"),
    ],
)
def test_what_cannot_be_built_is_refused_when_the_recipe_is_read(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Model.model_validate({"family": "HuggingFace", "architecture": "llama"} | fields)


def test_a_recipe_with_a_configuration_can_be_copied_read_back_and_is_a_key_of_caches() -> None:
    training = recipe("llama", configuration={"rms_norm_eps": 1e-5, "pretraining_tp": None})
    assert Training.model_validate(training.to_json()) == training
    assert hash(training) == hash(training.changed())
    assert training != recipe("llama")


def test_a_runs_record_has_the_exact_counts_and_names_the_librarys_own_kernel(
    training: Training, tmp_path: Path
) -> None:
    order = order_of(training.changed(model=model_of("gpt2")), 60_000, (10,), tmp_path)
    run(order, Interruption(), Report(order), begun=time.monotonic())
    (record,) = records_of(order).values()
    shape = shape_of(order.training, 60_000)
    built = built_on_meta(shape)
    assert record.parameters.total == parameters_of(built) == order.run.parameters
    embeddings = built.model.transformer.wte.weight.numel() + built.model.transformer.wpe.weight.numel()
    assert record.parameters.non_embedding == record.parameters.total - embeddings
    assert record.attention == f"transformers {transformers.__version__} sdpa"
    config = json.loads((Path(order.storage) / f"export-{order.run.tokens[-1]}" / "config.json").read_text())
    assert (config["model_type"], config["n_layer"], config["attn_pdrop"]) == ("gpt2", shape.layers, 0.0)


def test_a_configuration_of_another_size_ends_the_run_before_its_first_step(training: Training, tmp_path: Path) -> None:
    model = model_of("gpt2", configuration={"add_cross_attention": True})
    order = order_of(training.changed(model=model), 60_000, (10,), tmp_path)
    with pytest.raises(RunError, match=r"leave out of model\.configuration what changes the size") as raised:
        run(order, Interruption(), Report(order), begun=time.monotonic())
    assert raised.value.reason is FailureReason.BAD_CONFIGURATION


def test_a_field_that_another_version_of_the_library_lacks_is_refused_where_the_model_is_built() -> None:
    shape = shape_of_width(64, 259, model_of("gpt2"), 2, LENGTH).changed(configuration={"scale_attn_weight": True})
    with pytest.raises(RunError, match="gpt2 has no such field; did you mean scale_attn_weights") as raised:
        built_on_meta(shape)
    assert raised.value.reason is FailureReason.BAD_CONFIGURATION


@pytest.mark.slow
def test_the_trainers_process_says_it_in_one_sentence_and_exits_with_status_2(order: RunOrder, tmp_path: Path) -> None:
    path = written(moved(order, tmp_path / "bad", training=order.training.changed(model=model_of("gpt2"))))
    document = json.loads(path.read_text())
    document["training"]["model"]["configuration"] = {"no_such_field": 1}
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "sweep_trainer", "train", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitStatus.BAD_CONFIGURATION
    assert "Traceback" not in done.stderr
    assert "configuration.no_such_field: gpt2 has no such field" in done.stderr


def test_each_architectures_fields_are_those_of_its_class_of_configurations() -> None:
    from sweep_trainer.configuration import fields_of
    from sweep_trainer.huggingface import kind_of

    for name in SAMPLE:
        assert facts_of(name).fields | fields_of_all() >= fields_of(kind_of(language_of(name))), name
        assert facts_of(name).fields <= fields_of(kind_of(language_of(name))), name


def test_a_model_whose_stacks_take_turns_costs_as_often_as_a_token_goes_through_them() -> None:
    """hrm_text: two turns, in each three of one stack and one of the other."""
    shape = shape_of_width(64, 259, model_of("hrm_text"), 3, LENGTH)
    built = built_on_meta(shape)
    assert parameters_of(built) == shape.parameters
    assert len(built.blocks) == 2 * 3
    matrices = sum(p.numel() for p in built.blocks.parameters() if p.dim() == 2)
    assert shape.met_weights == 4 * matrices
    assert shape.score_widths == 8 * 3 * shape.attention_width


def test_layers_that_share_their_attention_are_counted_once_and_there_are_two_of_them_at_least() -> None:
    for layers in (8, 9, 14, 20):
        shape = shape_of_width(64, 259, model_of("zamba"), layers, LENGTH)
        assert parameters_of(built_on_meta(shape)) == shape.parameters
    assert shape_of(recipe("zamba"), 600_000).layers >= facts_of("zamba").least_layers == 8


def test_a_token_is_multiplied_by_shared_weights_wherever_they_are() -> None:
    """zamba: of three layers after the seventh the last is of both kinds, and its attention and feed-forward block are
    those of another."""
    shapes = [shape_of_width(64, 259, model_of("zamba"), layers, LENGTH) for layers in (12, 13, 14)]
    (plain, hybrid) = (b.met_weights - a.met_weights for a, b in itertools.pairwise(shapes))
    places = [block for block in built_on_meta(shapes[-1]).blocks if hasattr(block, "shared_transf")]
    assert len({id(place.shared_transf.self_attn.q_proj.weight) for place in places}) == 1 < len(places) == 3
    shared = sum(p.numel() for p in places[-1].shared_transf.parameters() if p.dim() == 2)
    assert hybrid == plain + 64 * 64 + shared


@pytest.mark.parametrize("name", ["gemma4_text", "olmo_hybrid", "bart", "deepseek_v3", "qwen3"])
def test_scores_are_counted_where_there_are_some(name: str) -> None:
    """By PyTorch's own count: what a token costs more at twice the context."""
    from sweep_trainer.huggingface import HuggingFaceModel

    counted, told = [], []
    for length in (64, 128):
        shape = shape_of_width(64, 259, model_of(name, configuration=SAMPLE.get(name) or None), 8, length)
        model = HuggingFaceModel(shape, length, 0)
        tokens = torch.zeros((1, length + 1), dtype=torch.long)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.loss(tokens)
        counted.append(counter.get_total_flops() / length)
        told.append(detailed(shape, 1, length) / 3)
    assert counted[1] - counted[0] == pytest.approx(told[1] - told[0], rel=0.02)


MANIFEST = """\
apiVersion: scalingsweep.dev/v1alpha1
kind: ScalingSweep
metadata: {name: climb}
spec:
  target: {parameters: 3M, tokens: 60M}
  ladder:
    rungs:
    - {name: a, runs: [{parameters: 200K, tokensPerParameter: [10, 20]}]}
    - {name: b, runs: [{parameters: 300K, tokensPerParameter: [10, 20]}]}
    - {name: c, runs: [{parameters: 450K, tokensPerParameter: [10, 20]}]}
    - {name: d, runs: [{parameters: 700K, tokensPerParameter: [10, 20]}]}
  gate: {warmupRungs: 3, tolerance: 0.03}
  training: {data: {corpus: Classics}, model: {family: HuggingFace, MODEL}, batchTokens: 2048}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "status", "sentence"),
    [
        ("architecture: mixtral, configuration: {num_local_experts: 4}", 0, "climb: fine, 4 rungs of 4 runs in all"),
        ("architecture: gpt3", 2, "spec.training.model: transformers .* has no causal language model 'gpt3'"),
        ("architecture: blt", 2, "architecture blt .* cannot be trained here"),
        ("architecture: gpt2, configuration: {n_embd: 4}", 2, "configuration.n_embd follows from parameters"),
        ("architecture: gpt2, configuration: {scale_attn: true}", 2, "did you mean scale_attn_weights"),
    ],
)
def test_a_manifest_is_planned_or_refused_before_anything_starts(
    model: str, status: int, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(MANIFEST.replace("MODEL", model))
    command = [sys.executable, "-m", "sweep_operator.cli", "lint", str(tmp_path / "sweep.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert re.search(sentence, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
