"""What a record and the log say of a run is what was built, computed and read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import carried_out, order_of, records_of
from torch.utils.flop_counter import FlopCounterMode

from sweep_analysis.flops import detailed
from sweep_analysis.recipe import Training, resolve, shape_of
from sweep_analysis.record import Curve
from sweep_analysis.rung import RunOrder
from sweep_analysis.shape import Experts, Model, shape_for
from sweep_trainer.data import open_prepared, prepare
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.evaluate import Evaluator, Losses
from sweep_trainer.model import Decoder
from sweep_trainer.outcome import record_of

LENGTH = 16
MODELS = {
    "dense": Model(),
    "untied": Model(tied_embeddings=False),
    "grouped": Model(heads=4, kv_heads=2, head_size=16),
    "query norms": Model(qk_norm=True),
    "experts": Model(experts=Experts(count=4)),
    "shared experts": Model(experts=Experts(count=8, top_k=3, shared=2), tied_embeddings=False),
}


def size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_told_apart_as_the_model_has_them(name: str) -> None:
    """Without embeddings and the output projection; and without the experts that a token is not sent to."""
    shape = shape_for(300_000, 256, MODELS[name])
    model = Decoder(shape, LENGTH, 0)
    around = [model.embedding] if shape.tied_embeddings else [model.embedding, model.output]
    assert shape.non_embedding_parameters == size(*model.parameters()) - size(*around)
    unmet = 0
    for block in model.blocks if shape.experts else ():
        unmet += size(block.mixture.gate_up[shape.experts.top_k :], block.mixture.down[shape.experts.top_k :])
    assert shape.active_parameters == shape.parameters - unmet


@pytest.mark.parametrize("name", MODELS)
def test_the_detailed_count_of_flops_is_pytorchs_own(name: str) -> None:
    """Forward and backward; of attention the backward pass is counted as twice the forward one, since kernels compute
    the scores anew there, which the count leaves out."""
    shape = shape_for(300_000, 256, MODELS[name])
    tokens = torch.randint(256, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        Decoder(shape, LENGTH, 0).loss(tokens).backward()
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    forward = [count for name, count in counts.items() if "attention" in name and "backward" not in name]
    products = sum(count for name, count in counts.items() if "attention" not in name)
    assert len(forward) == 1
    assert products + 3 * forward[0] == detailed(shape, 4 * LENGTH, LENGTH)


def test_a_mixtures_record_tells_all_its_parameters_and_those_that_a_token_meets(
    training: Training, tmp_path: Path
) -> None:
    model = training.model.changed(experts=Experts(count=4))
    order = order_of(training.changed(model=model), 20_000, (10,), tmp_path)
    carried_out(order)
    (record,) = records_of(order).values()
    shape = shape_of(order.training, 20_000)
    assert record.parameters.total == order.run.parameters == shape.parameters
    assert record.parameters.active == shape.active_parameters < shape.parameters
    assert record.flops.six_nd == 6 * shape.active_parameters * record.tokens


def test_a_record_counts_epochs_and_the_tokens_that_were_repeated(
    text: Path, training: Training, tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_bytes(text.read_bytes()[:8000])
    order = order_of(training.changed(data=training.data.changed(files=(str(few),))), 7_000, (40, 100), tmp_path)
    carried_out(order)
    there = open_prepared(order.training, Path(order.cache)).train_tokens
    once, again = records_of(order).values()
    assert once.tokens < there < again.tokens
    assert (once.unique_tokens, again.unique_tokens) == (once.tokens, there)
    assert [record.epochs for record in (once, again)] == [record.tokens / there for record in (once, again)]


def test_device_time_counts_the_device_of_each_process(order: RunOrder, tmp_path: Path) -> None:
    training = order.training
    hyper = resolve(training, order.run.parameters, order.run.tokens)
    engine: Any = SimpleNamespace(attention="Sdpa", start_digest=None, untrained=0)  # what a record asks of it
    data = prepare(training, tmp_path, tmp_path / "cache")
    evaluator = Evaluator(training, hyper, data, engine, Ranks(0, 8), ())
    curve = Curve(uri="file:///curve.jsonl", digest="sha256:c")
    record = record_of(order, hyper, evaluator, order.run.tokens[0], Losses(2.0, {}), (), curve, 3.0)
    assert record.gpu_seconds == 24


def test_every_rung_is_validated_on_the_same_tokens(order: RunOrder, tmp_path: Path) -> None:
    """Whatever size, token counts, batch and seed it has."""
    training = order.training.changed(batch_tokens=256)
    other = order_of(training, 20_000, (12,), tmp_path / "other").changed(cache=order.cache)
    other = other.changed(run=other.run.changed(seed=9))
    for one in (order, other):
        carried_out(one)
    told = {record.validation_digest for one in (order, other) for record in records_of(one).values()}
    assert len(told) == 1
    (mine, theirs) = (open_prepared(one.training, Path(one.cache)).validation for one in (order, other))
    assert (mine == theirs).all()


def test_the_log_begins_with_what_the_recipe_resolved_to(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    order = order_of(training.changed(model=Model(layers=1, width=32, heads=2)), 20_000, (40, 60), tmp_path)
    carried_out(order)
    shape, peak = shape_of(order.training, 20_000), training.learning_rate.at(order.run.parameters)
    assert f"1 layers of width 32, 2 heads of 16 (2 for keys), {shape.hidden} hidden, 256 token ids" in caplog.text
    assert f"{shape.parameters:,} parameters, {shape.non_embedding_parameters:,} without embeddings" in caplog.text
    assert f"batches of 128 tokens in sequences of 16; peak learning rate {peak:.4g} after 2 steps" in caplog.text
    assert "WarmupStableDecay; fp32" in caplog.text
    assert "60 steps, " in caplog.text
    assert "one trunk for 2 token counts saves 28% of separate runs' steps" in caplog.text
