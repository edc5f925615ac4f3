"""Architectures of `transformers` from the trainer's entry point to the export that the library loads back."""

import json
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import order_of, records_of, written

from sweep_analysis.architectures import facts_of
from sweep_analysis.execution import DeepSpeed
from sweep_analysis.recipe import Training, resolve
from sweep_analysis.record import ExitStatus
from sweep_analysis.rung import RunOrder
from sweep_analysis.shape import Model
from sweep_trainer.__main__ import train
from sweep_trainer.build import build
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.export import files_of_export
from sweep_trainer.initial import take_up
from sweep_trainer.model import fixed

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
SIZE = 150_000
FEW = {"num_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2}
TRIED = {
    "axk2": ROUTED,  # an indexer beside attention, as all that are called indexed
    "bart": {},  # the decoder of a pair
    "bigbird_pegasus": {},
    "deepseek_v32": ROUTED,  # indexed
    "deepseek_v3": ROUTED,  # latent attention and experts
    "deepseek_v4": ROUTED,  # residual streams side by side
    "dots3_note_text": ROUTED,  # indexed
    "falcon_h1": {},  # a state space and attention side by side
    "glm_moe_dsa": ROUTED,  # indexed
    "hy_v4": ROUTED,  # indexed, with sinks and residual streams
    "jamba": FEW,  # state spaces, attention and experts in turn
    "jetmoe": {"num_local_experts": 4},  # experts of attention as well
    "mamba2": {},  # no attention
    "marian": {},  # the decoder of a pair, with fixed positions
    "mllama": {},  # the text half of one that sees
    "olmo_hybrid": {},  # has a layer of each kind at least
    "qwen3_next": FEW,  # linear attention, gated attention and experts
    "qwen4_exp_text": FEW,  # linear attention and indexed
    "reformer": {},  # reversible layers
    "whisper": {},  # the decoder of a pair
    "xlnet": {},  # positions relative to each other
    "zamba": {},  # layers that share their attention
}
"""Architectures, and what is laid over their configuration."""
FOLLOWED = ("deepseek_v3", "deepseek_v32", "bart", "olmo_hybrid")
"""Those that DeepSpeed trains too."""


def recipe(training: Training, name: str) -> Training:
    tied = facts_of(name).ties != "never"
    fields = {"family": "HuggingFace", "architecture": name, "tied_embeddings": tied, "configuration": TRIED[name]}
    return training.changed(model=Model.model_validate(fields))


def exported(order: RunOrder) -> Path:
    return Path(order.storage) / f"export-{order.run.tokens[-1]}"


def loaded(folder: Path) -> torch.nn.Module:
    """By `transformers`, as the class that its `config.json` names."""
    document = json.loads((folder / "config.json").read_text())
    (name,) = document["architectures"]
    model, told = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert isinstance(model, torch.nn.Module)
    assert not told["missing_keys"] | told["unexpected_keys"] | told["mismatched_keys"], told
    return model.eval()


def logits_of(model: torch.nn.Module) -> np.ndarray:
    tokens = torch.randint(1, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: np.ndarray = model(input_ids=tokens, use_cache=False).logits.numpy()
    return logits


@pytest.mark.parametrize("name", TRIED)
def test_an_architecture_goes_from_its_order_to_a_record_and_an_export(
    name: str, training: Training, tmp_path: Path
) -> None:
    order = order_of(recipe(training, name), SIZE, (2,), tmp_path)
    assert train(str(written(order))) == ExitStatus.DONE
    (record,) = records_of(order).values()
    theirs = loaded(exported(order))
    assert record.parameters.total == order.run.parameters
    beside = sum(buffer.numel() for buffer in fixed(theirs).values())
    theirs_in_all = sum(p.numel() for p in theirs.parameters()) + beside
    assert theirs_in_all == record.parameters.total + record.parameters.untrained
    hyper = resolve(order.training, order.run.parameters, order.run.tokens)
    ours = build(hyper, 1, torch.device("cpu"))
    assert sum(p.numel() for p in ours.parameters()) == record.parameters.total
    take_up(ours, str(exported(order)))
    np.testing.assert_allclose(logits_of(ours.model.eval()), logits_of(theirs), atol=1e-5)

    engine = PlainTorch(hyper, 0, 1)  # what it has trained is what its export holds
    for seed in range(2):
        engine.step(np.random.default_rng(seed).integers(0, 256, (8, 17)), 3e-3)
    (tmp_path / "export").mkdir()
    for file, content in files_of_export(engine.weights(), order.training, hyper, record, None).items():
        (tmp_path / "export" / file).write_bytes(content)
    np.testing.assert_allclose(logits_of(loaded(tmp_path / "export")), logits_of(engine.model.model.eval()), atol=1e-5)


@pytest.mark.parametrize("name", FOLLOWED)
def test_deepspeed_in_stage_2_trains_an_architecture_as_plain_pytorch_does(
    name: str, training: Training, tmp_path: Path, start: Callable[[RunOrder], BaseProcess]
) -> None:
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    plain = order_of(recipe(training, name), SIZE, (2,), tmp_path / "plain")
    zero = recipe(training, name).changed(engine="DeepSpeed", deepspeed=DeepSpeed(zero_stage=2))
    sharded = order_of(zero, SIZE, (2,), tmp_path / "sharded")
    assert train(str(written(plain))) == ExitStatus.DONE
    process = start(sharded)
    process.join()
    assert process.exitcode == ExitStatus.DONE
    losses = [next(iter(records_of(order).values())).loss for order in (plain, sharded)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    one, other = (logits_of(loaded(exported(order))) for order in (plain, sharded))
    np.testing.assert_allclose(other, one, atol=1e-3)
