"""The decoder's variants: grouped queries, documents, experts, muP, scores, and what is left out of a loss."""

import math
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sweep_analysis.recipe import Data, Optimizer, Training, resolve, shape_of, whole_batches
from sweep_analysis.shape import Experts, Model, Shape, shape_for
from sweep_trainer.attention import sdpa
from sweep_trainer.build import build
from sweep_trainer.fused import objection
from sweep_trainer.model import Decoder, Scorer
from sweep_trainer.optim import FlatAdamW, parameter_groups

CPU = torch.device("cpu")
SHAPE = Shape(layers=2, width=32, heads=4, hidden=40, vocabulary=64)
END = 0


def tokens_of(*shape: int, seed: int = 0) -> torch.Tensor:
    """Ids without the one that ends a document."""
    return torch.randint(1, 64, shape, generator=torch.Generator().manual_seed(seed))


def shaken(model: Decoder) -> Decoder:
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return model


MODELS = {
    "grouped": Model(heads=4, kv_heads=2, head_size=16),
    "one key head": Model(heads=4, kv_heads=1, head_size=16),
    "query norms": Model(qk_norm=True),
    "experts": Model(experts=Experts(count=4)),
    "shared expert": Model(experts=Experts(count=8, top_k=3, shared=2), tied_embeddings=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_has_exactly_the_parameters_of_its_shape(name: str) -> None:
    shape = shape_for(300_000, 256, MODELS[name])
    assert sum(p.numel() for p in Decoder(shape, 16, 0).parameters()) == shape.parameters


def test_a_reward_model_has_exactly_the_parameters_of_its_shape() -> None:
    training = Training.model_validate(
        {"data": {"sources": [{"name": "a", "files": ["a.jsonl"]}]}, "objective": {"kind": "RewardModel"}}
    )
    shape = shape_of(training, 300_000)
    assert sum(p.numel() for p in Scorer(shape, 16, 0).parameters()) == shape.parameters
    assert shape_of(training, shape.parameters) == shape


def test_as_many_key_heads_as_query_heads_is_plain_attention() -> None:
    same = SHAPE.changed(kv_heads=4)
    tokens = tokens_of(2, 9)
    one, two = shaken(Decoder(SHAPE, 16, 0)), shaken(Decoder(same, 16, 0))
    assert torch.equal(one.loss(tokens), two.loss(tokens))


def test_with_document_masks_each_document_is_read_as_if_it_stood_alone() -> None:
    model = shaken(Decoder(SHAPE, 16, 0, document_end=END))
    first, second = tokens_of(1, 5), tokens_of(1, 7, seed=1)
    end = torch.tensor([[END]])
    packed = torch.cat([first, end, second], 1)
    with torch.no_grad():
        together, alone = model(packed)[:, 6:], model(second)
        assert torch.allclose(together, alone, atol=1e-5)
        through = shaken(Decoder(SHAPE, 16, 0))(packed)[:, 6:]
        assert not torch.allclose(through, alone, atol=1e-2)


def test_a_kernel_gets_queries_keys_and_values_in_one_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast on a GPU computes norms in fp32, those of queries and keys too; FlashAttention takes no mixture."""
    seen = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Any, scale: float) -> torch.Tensor:
        seen.append((q.dtype, k.dtype, v.dtype))
        return sdpa(q, k, v, documents, scale)

    def norm_in_fp32(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x.float(), (x.shape[-1],), gain)

    monkeypatch.setattr("sweep_trainer.model._norm", norm_in_fp32)
    with torch.autocast("cpu", torch.bfloat16):
        Decoder(SHAPE.changed(qk_norm=True), 16, 0, attend=attend)(tokens_of(2, 9))
    assert seen == [(torch.bfloat16,) * 3] * SHAPE.layers


def test_what_is_not_to_be_predicted_is_read_and_left_out_of_the_loss() -> None:
    model = shaken(Decoder(SHAPE, 16, 0))
    tokens = tokens_of(1, 9)
    with torch.no_grad():
        logits = model(tokens[:, :-1])[0].log_softmax(-1)
    prompt = tokens.clone()
    prompt[:, :6] = ~prompt[:, :6]
    right = -logits[torch.arange(5, 8), tokens[0, 6:]].mean()
    assert model.loss(prompt).item() == pytest.approx(right.item(), rel=1e-5)


def test_likelihood_tells_each_row_apart() -> None:
    model = shaken(Decoder(SHAPE, 16, 0))
    tokens = tokens_of(3, 9)
    with torch.no_grad():
        nats, right = model.likelihood(tokens)
        best = model(tokens[:, :-1]).argmax(-1)
    assert nats.mean().item() / 8 == pytest.approx(model.loss(tokens).item(), rel=1e-5)
    assert not right.any()
    tokens[1, 1] = best[1, 0]
    tokens[1, 2:] = ~tokens[1, 2:]
    assert model.likelihood(tokens)[1].tolist() == [False, True, False]


def test_a_mixture_equals_the_sum_over_experts_by_the_formula() -> None:
    shape = shape_for(300_000, 64, Model(experts=Experts(count=4, top_k=2, shared=1)))
    mixture = shaken(Decoder(shape, 16, 0)).blocks[0].mixture
    x = torch.randn(10, shape.width, generator=torch.Generator().manual_seed(0))

    def swiglu(gate_up: torch.Tensor, down: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        gate, up = (gate_up @ row).chunk(2)
        return down @ (gate * torch.sigmoid(gate) * up)

    with torch.no_grad():
        for row, ours in zip(x, mixture(x), strict=True):
            p = (mixture.router @ row).softmax(0)
            best = p.topk(2).indices
            right = swiglu(mixture.shared_gate_up, mixture.shared_down, row)
            for e in best:
                right = right + p[e] / p[best].sum() * swiglu(mixture.gate_up[e], mixture.down[e], row)
            assert torch.allclose(ours, right, atol=1e-4 * right.abs().max())


def test_auxiliary_losses_add_to_the_gradient_and_not_to_the_loss() -> None:
    tokens = tokens_of(4, 17)
    losses, routers = [], []
    for weight in (0.0, 1.0):
        experts = Experts(count=4, load_balance=weight, z_loss=weight)
        model = shaken(Decoder(shape_for(100_000, 64, Model(experts=experts)), 16, 0))
        loss = model.loss(tokens)
        loss.backward()
        losses.append(loss.item())
        routers.append(model.blocks[0].mixture.router.grad)
    assert losses[0] == losses[1]
    assert not torch.allclose(routers[0], routers[1])


def test_load_balance_is_one_when_all_experts_are_used_alike_and_grows_when_one_takes_all() -> None:
    experts = Experts(count=4, top_k=1, z_loss=0)
    mixture = Decoder(shape_for(100_000, 64, Model(experts=experts)), 16, 0).blocks[0].mixture
    alike = torch.eye(4).repeat(8, 1) * 1e-3
    one = torch.tensor([[9.0, 0, 0, 0]]).repeat(32, 1)
    balances = [
        mixture._auxiliary(logits, logits.softmax(-1), logits.topk(1).indices).item() / mixture.experts.load_balance
        for logits in (alike, one)
    ]
    assert balances == pytest.approx([1.0, 4.0], rel=0.01)


def test_training_pulls_a_router_towards_balance() -> None:
    experts = Experts(count=4, top_k=1, load_balance=1.0)
    model = Decoder(shape_for(100_000, 64, Model(experts=experts)), 16, 0)
    router = model.blocks[0].mixture.router
    router.data[0] += 0.5 * router.data.abs().mean()
    optimizer = FlatAdamW(model, Optimizer())
    tokens = tokens_of(8, 17)
    before = None
    for _ in range(30):
        optimizer.zero_gradients()
        model.loss(tokens).backward()
        before = model.blocks[0].mixture.auxiliary.item() if before is None else before
        optimizer.step(1e-2)
    assert model.blocks[0].mixture.auxiliary.item() < before


def test_recomputing_a_blocks_activations_changes_no_gradient() -> None:
    tokens = tokens_of(4, 17)
    gradients = []
    for recompute in (False, True):
        model = shaken(Decoder(shape_for(100_000, 64, Model(experts=Experts(count=4, shared=1))), 16, 0))
        if recompute:
            for block in model.blocks:
                forward = block.forward
                block.forward = lambda *args, f=forward: checkpoint(f, *args, use_reentrant=False)
        model.loss(tokens).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_reward_model_is_paid_for_the_better_answer_alone() -> None:
    model = shaken(Scorer(SHAPE.changed(scalar_head=True), 16, 0))
    pairs = tokens_of(4, 17)
    pairs[1, 6:] = ~END  # a shorter answer
    with torch.no_grad():
        scores = model.score(pairs)
        longer = pairs.clone()
        longer[1, 6:] = ~torch.tensor(7)  # what stands in the padding is not read
        assert torch.equal(model.score(longer), scores)
        right = -torch.log(torch.sigmoid(scores[0::2] - scores[1::2])).mean()
        assert model.loss(pairs).item() == pytest.approx(right.item(), rel=1e-5)


def test_an_untrained_reward_model_guesses_and_has_somewhere_to_go() -> None:
    model = Scorer(SHAPE.changed(scalar_head=True), 16, 0)
    pairs = tokens_of(4, 17)
    pairs[:, 15:] = torch.tensor([END, ~END])  # every answer ends alike
    loss = model.loss(pairs)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert model.blocks[0].projection.grad.abs().max() > 0


def test_mu_transfer_is_the_standard_model_at_its_base_width() -> None:
    shape = Shape(layers=2, width=64, heads=1, hidden=40, vocabulary=64)
    tokens = tokens_of(2, 17)
    with torch.no_grad():
        standard, transferred = Decoder(shape, 16, 0), Decoder(shape, 16, 0, base_width=64)
        assert torch.equal(standard.loss(tokens), transferred.loss(tokens))


def test_under_mu_transfer_a_step_moves_the_logits_alike_at_every_width() -> None:
    """The coordinate check of Yang et al. 2022, appendix D.1: with one rate, three steps of Adam change the logits of a
    model sixteen times as wide by as much; without muP by three times as much."""

    def moved(width: int, base: int | None) -> float:
        shape = Shape(layers=2, width=width, heads=width // 32, hidden=2 * width, vocabulary=64)
        model = Decoder(shape, 16, 0, base_width=base)
        optimizer = FlatAdamW(model, Optimizer(clip_norm=1e9), base / width if base else 1.0)
        tokens = tokens_of(8, 17)
        with torch.no_grad():
            before = model(tokens[:, :-1])
        for _ in range(3):
            optimizer.zero_gradients()
            model.loss(tokens).backward()
            optimizer.step(4e-3)
        with torch.no_grad():
            return (model(tokens[:, :-1]) - before).abs().mean().item()

    assert moved(512, 32) / moved(32, 32) == pytest.approx(1, abs=0.6)
    assert moved(512, None) / moved(32, None) > 2.5


def test_only_hidden_matrices_learn_more_slowly_in_a_wider_model() -> None:
    groups = {group.name: group for group in parameter_groups(Decoder(SHAPE, 16, 0), Optimizer(), 0.25)}
    assert set(groups["embeddings"].parameters) == {"embedding"}
    assert (groups["matrices"].rate, groups["embeddings"].rate, groups["gains"].rate) == (0.25, 1.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": {"heads": 4, "kvHeads": 2, "headSize": 16}}, "only plain blocks"),
        ({"model": {"experts": {"count": 4}}}, "only plain blocks"),
        ({"learningRate": {"rule": "MuTransfer", "peak": 0.01, "baseWidth": 64}}, "muP scales the logits"),
        ({"documentMask": True}, "attention stays within documents"),
        ({"objective": {"kind": "FineTuning"}}, "the objective is FineTuning"),
    ],
)
def test_only_plain_blocks_have_hand_derived_gradients(fields: dict[str, object], reason: str) -> None:
    data = Data.model_validate({"sources": [{"name": "a", "files": ["a.jsonl"]}]})
    training = Training.model_validate({"data": data, "sequence_length": 16} | fields)
    hyper = resolve(training, shape_of(training, 100_000).parameters, whole_batches(training, (10_000,)))
    assert str(objection(hyper)).startswith(reason)
    build(hyper, 0, CPU)
