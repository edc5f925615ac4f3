"""The decoder: its parameter count, and the two ways of computing its gradients."""

import numpy as np
import pytest
import torch

from sweep_analysis.recipe import Data, Optimizer, Training, resolve, whole_batches
from sweep_analysis.shape import Model, Shape, shape_for
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.fused import FusedLoss, agrees
from sweep_trainer.model import Decoder
from sweep_trainer.optim import FlatAdamW, gradient_of


@pytest.mark.parametrize("size", [7_000, 20_000, 27_000, 70_000, 167_000, 1_000_000])
@pytest.mark.parametrize("tied", [True, False])
def test_the_built_model_has_exactly_the_parameters_of_its_shape(size: int, tied: bool) -> None:
    shape = shape_for(size, 256, Model(tied_embeddings=tied))
    assert sum(p.numel() for p in Decoder(shape, 16, seed=0).parameters()) == shape.parameters


SHAPES = [
    Shape(layers=2, width=16, heads=1, hidden=40, vocabulary=256),
    Shape(layers=3, width=64, heads=2, hidden=168, vocabulary=256),
    Shape(layers=1, width=24, heads=3, hidden=64, vocabulary=50, tied_embeddings=False),
]


@pytest.mark.parametrize("shape", SHAPES, ids=["narrow", "two-heads", "untied"])
def test_hand_derived_gradients_equal_autograds(shape: Shape) -> None:
    model = Decoder(shape, 32, seed=1)
    FlatAdamW(model, Optimizer())
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    tokens = torch.randint(0, shape.vocabulary, (5, 33), generator=torch.Generator().manual_seed(2))
    by_hand = FusedLoss(model).loss_and_gradients(tokens)
    ours = [gradient_of(p).clone() for p in model.parameters()]
    for p in model.parameters():
        gradient_of(p).zero_()
    plain = model.loss(tokens)
    plain.backward()
    assert by_hand.item() == pytest.approx(plain.item(), rel=1e-6)
    assert FusedLoss(model).loss(tokens).item() == pytest.approx(plain.item(), rel=1e-6)
    for name, gradient in zip(dict(model.named_parameters()), ours, strict=True):
        theirs = gradient_of(dict(model.named_parameters())[name])
        assert torch.allclose(gradient, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max()), name


def test_where_the_gradients_differ_autograd_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agrees(SHAPES[0]) is None
    monkeypatch.setattr("sweep_trainer.fused._norm_backward", lambda g, normed, scale: g)
    assert agrees(SHAPES[0]) == "its gradients differ from autograd's"
    training = Training(data=Data(corpus="Classics"), sequence_length=16, batch_tokens=64)
    hyper = resolve(training, 7_000, whole_batches(training, (10_000,)))
    assert PlainTorch(hyper, 0, 1).path == "autograd, because its gradients differ from autograd's"


def test_flat_adamw_is_torchs_adamw_with_clipping() -> None:
    shape, recipe = SHAPES[0], Optimizer(clip_norm=0.5)
    ours, theirs = Decoder(shape, 16, seed=1), Decoder(shape, 16, seed=1)
    flat = FlatAdamW(ours, recipe)
    parameters = list(theirs.parameters())
    torchs = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(recipe.beta1, recipe.beta2),
    )
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        tokens = torch.randint(0, 256, (4, 17), generator=generator)
        flat.zero_gradients()
        ours.loss(tokens).backward()
        norm = flat.step(1e-2)
        torchs.zero_grad()
        theirs.loss(tokens).backward()
        assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(parameters, 0.5).item(), rel=1e-4)
        torchs.step()
    for a, b in zip(ours.parameters(), parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_no_token_sees_what_comes_after_it() -> None:
    model = Decoder(SHAPES[1], 16, seed=0)
    tokens = torch.randint(0, 256, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 9:] = 7
    with torch.no_grad():
        assert torch.allclose(model(tokens)[0, :9], model(changed)[0, :9], atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_engine_that_takes_up_a_state_goes_on_bit_for_bit(precision: str) -> None:
    training = Training(data=Data(corpus="Classics"), sequence_length=16, batch_tokens=64, precision=precision)
    hyper = resolve(training, 7_000, whole_batches(training, (10_000,)))
    batches = np.random.default_rng(0).integers(0, 256, (8, 4, 17), dtype=np.uint8)
    one, two = PlainTorch(hyper, 0, 1), PlainTorch(hyper, 99, 1)
    for batch in batches[:4]:
        one.step(batch, 1e-2)
    two.load(one.state())
    one.measured()
    for batch in batches[4:]:
        one.step(batch, 1e-2)
        two.step(batch, 1e-2)
    assert one.measured() == two.measured()
    assert one.evaluate(batches[0]) == two.evaluate(batches[0])


@pytest.mark.parametrize("document_end", [None, 7])
def test_a_compiler_is_given_the_same_model_without_complex_numbers(document_end: int | None) -> None:
    model = Decoder(Shape(layers=2, width=32, heads=2, hidden=88, vocabulary=64), 16, 0, document_end=document_end)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    given: list[torch.dtype] = []

    def looking(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        values = [node.meta.get("example_value") for node in graph.graph.nodes]
        given.extend(value.dtype for value in (*values, *inputs) if isinstance(value, torch.Tensor))
        return graph.forward

    tokens = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model.loss, backend=looking)(tokens)
    assert given
    assert not any(dtype.is_complex for dtype in given)
    torch.testing.assert_close(compiled, model.loss(tokens), atol=1e-6, rtol=0)


def test_positions_keep_their_precision_when_an_engine_takes_the_weights_down() -> None:
    shape = Shape(layers=1, width=32, heads=1, hidden=88, vocabulary=64)
    low, whole = Decoder(shape, 512, 0).bfloat16(), Decoder(shape, 512, 0)
    assert low.embedding.dtype == torch.bfloat16
    torch.testing.assert_close(low._rotation_in_parts, whole._rotation_in_parts, atol=0, rtol=0)
    torch.testing.assert_close(torch.view_as_complex(low._rotation_in_parts), whole.rotation, atol=0, rtol=0)
