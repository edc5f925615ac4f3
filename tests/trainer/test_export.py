"""The exported model: `transformers` reads it and computes what we compute."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve, shape_of, whole_batches
from sweep_analysis.record import FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import Purpose
from sweep_analysis.shape import Experts, Model, shape_for
from sweep_trainer.build import build
from sweep_trainer.export import files_of_export
from sweep_trainer.initial import take_up
from sweep_trainer.llama import Weights, architecture_of, from_llama, to_llama
from sweep_trainer.model import Decoder

CPU = torch.device("cpu")


def weights_of(model: torch.nn.Module) -> Weights:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Away from the zeros that training starts from, which hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return model


def export(folder: Path, model: torch.nn.Module, training: Training, hyper: Hyperparameters) -> None:
    folder.mkdir()
    record = record_of(hyper.shape.parameters)
    for name, content in files_of_export(weights_of(model), training, hyper, record, 0).items():
        (folder / name).write_bytes(content)


def record_of(parameters: int) -> Record:
    return Record(
        run=RunReference(uid="u", attempt=1, config_digest="sha256:c"),
        purpose=Purpose.LADDER,
        parameters=ParameterCounts(total=parameters, non_embedding=parameters, active=parameters),
        tokens=1000,
        unique_tokens=1000,
        epochs=0.5,
        flops=FlopCounts(six_nd=1e9, detailed=1e9),
        seed=0,
        loss=2.0,
        validation_digest="sha256:v",
        tokenizer_digest="sha256:t",
        gpu_seconds=1.0,
        trainer_version="test",
        finished_at="2026-01-01T00:00:00Z",
    )


MODELS = {
    "LlamaForCausalLM": Model(),
    "LlamaForCausalLM untied, grouped": Model(tied_embeddings=False, heads=4, kv_heads=2, head_size=8),
    "Qwen3ForCausalLM": Model(qk_norm=True),
    "MixtralForCausalLM": Model(experts=Experts(count=4, top_k=2)),
    "Qwen2MoeForCausalLM": Model(experts=Experts(count=4, top_k=2, shared=1), tied_embeddings=False),
    "Qwen3MoeForCausalLM": Model(experts=Experts(count=4, top_k=2), qk_norm=True),
    "LlamaForCausalLM by muP": Model(),
    "Qwen3ForCausalLM by muP": Model(qk_norm=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_the_exported_model_and_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    rate = {"rule": "MuTransfer", "base_width": 16} if "muP" in name else {}
    training = Training.model_validate(
        {"data": Data(corpus="Classics"), "model": MODELS[name], "sequence_length": 16, "learning_rate": rate}
    )
    hyper = resolve(training, shape_of(training, 60_000).parameters, whole_batches(training, (10_000,)))
    assert architecture_of(hyper.shape) == name.split()[0]
    ours = shaken(build(hyper, 0, CPU))
    export(tmp_path / "export", ours, training, hyper)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    assert type(theirs).__name__ == name.split()[0]
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, right = ours(tokens), theirs(tokens).logits
    assert torch.allclose(mine, right, atol=2e-5 * right.abs().max().item())
    card = (tmp_path / "export" / "README.md").read_text()
    assert "2.0000 nats per token" in card
    assert '"configDigest": "sha256:c"' in card


def test_what_no_class_of_theirs_computes_is_exported_in_our_own_layout() -> None:
    shape = shape_for(60_000, 256, Model(qk_norm=True, experts=Experts(count=4, shared=1)))
    assert architecture_of(shape) is None


BACK = {
    "untied": Model(tied_embeddings=False),
    "query norms": Model(qk_norm=True),
    "grouped": Model(heads=4, kv_heads=2, head_size=8),
    "experts": Model(experts=Experts(count=4, top_k=2)),
    "experts, query norms": Model(experts=Experts(count=4, top_k=2), qk_norm=True),
    "shared expert": Model(experts=Experts(count=4, top_k=2, shared=1), tied_embeddings=False),
}


@pytest.mark.parametrize("mu_transfer", [False, True])
@pytest.mark.parametrize("name", BACK)
def test_a_run_starts_from_an_exported_folder_with_the_weights_that_were_exported(
    name: str, mu_transfer: bool, tmp_path: Path
) -> None:
    """Bit for bit, as files in their layout hold them; where muP's factors were folded in, to a rounding."""
    rate = {"rule": "MuTransfer", "base_width": 16} if mu_transfer else {}
    training = Training.model_validate(
        {"data": Data(corpus="Classics"), "model": BACK[name], "sequence_length": 16, "learning_rate": rate}
    )
    hyper = resolve(training, shape_of(training, 60_000).parameters, whole_batches(training, (10_000,)))
    first, second = shaken(build(hyper, 0, CPU)), build(hyper, 1, CPU)
    export(tmp_path / "export", first, training, hyper)
    take_up(second, str(tmp_path / "export"))
    assert first.query_factor == pytest.approx(8 / first.shape.head_size**0.5 if mu_transfer else 1)
    for (at, p), q in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-6, atol=0) if mu_transfer else torch.equal(p, q), at


def test_weights_that_no_shape_of_ours_has_are_refused_in_one_clause() -> None:
    tied = shape_for(60_000, 256, Model())
    theirs = to_llama(weights_of(shaken(Decoder(tied, 16, 0))), tied)
    with pytest.raises(ValueError, match="has an output projection that is not its embedding"):
        from_llama(theirs | {"lm_head.weight": 2 * theirs["model.embed_tokens.weight"]}, tied)
    with pytest.raises(ValueError, match="which muP here multiplies"):
        from_llama(theirs, tied, logit_factor=0.5)
    shared = shape_for(60_000, 256, BACK["shared expert"])
    theirs = to_llama(weights_of(shaken(Decoder(shared, 16, 0))), shared)
    gate = "model.layers.0.mlp.shared_expert_gate.weight"
    with pytest.raises(ValueError, match="weighs its shared expert by a gate"):
        from_llama(theirs | {gate: np.ones_like(theirs[gate])}, shared)


@pytest.mark.parametrize("architecture", ["gemma", "gpt_neox", "llama", "mistral", "olmo2", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_hugging_face_model_has_exactly_the_parameters_of_its_shape_and_is_exported(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    model = Model.model_validate({"family": "HuggingFace", "architecture": architecture, "tied_embeddings": tied})
    training = Training(data=Data(corpus="Classics"), sequence_length=16, model=model)
    hyper = resolve(training, shape_of(training, 100_000).parameters, whole_batches(training, (10_000,)))
    built = build(hyper, 0, CPU)
    assert sum(p.numel() for p in built.parameters()) == hyper.shape.parameters
    tokens = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
    assert built.loss(tokens).item() == pytest.approx(np.log(256), rel=0.1)
    transformers = pytest.importorskip("transformers")
    export(tmp_path / "export", built, training, hyper)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(theirs(tokens).logits, built(tokens))
    another = build(hyper, 1, CPU)
    take_up(another, str(tmp_path / "export"))
    assert torch.equal(another(tokens), built(tokens))
