"""The decoder's loss and gradients on a CPU in fp32, derived by hand.

Owns a second implementation of `model.Decoder.loss` and its backward pass, for models so small that autograd's
bookkeeping, copies and MKL's code path for other vendors' processors cost more than the arithmetic. Refuses everything
but fp32 on a CPU; `agrees` holds it to the plain model before it is used, and a test holds it closely.

Three things pay (`benchmarks/trainer.py` measures the sum): matrix products through oneDNN, which uses AVX-512 on every
vendor's processors; gains folded into the weight behind the norm, so that no pass over the activations is spent on
them; and gradients written where they belong, without an autograd graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sweep_analysis.recipe import Hyperparameters, Optimizer
from sweep_analysis.shape import Shape
from sweep_trainer.model import NORM_EPS, Block, Decoder
from sweep_trainer.optim import FlatAdamW, gradient_of

_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(slots=True)
class _Kept:
    """What the backward pass of one block needs. M: B·T tokens."""

    x1: Tensor  # (M, w), normed
    scale1: Tensor  # (M, 1), reciprocal root mean square
    qkv_weight: Tensor  # (3w, w), gain folded in
    q: Tensor  # (B, h, T, d), rotated, as k
    k: Tensor
    v: Tensor
    attended: Tensor  # (B, h, T, d)
    log_sum: Tensor
    x2: Tensor
    scale2: Tensor
    gate_up_weight: Tensor  # (2f, w), gain folded in
    gate_up: Tensor  # (M, 2f)
    opened: Tensor  # (M, f), silu of the gate
    inner: Tensor  # (M, f)


class FusedLoss:
    """Loss and gradients of a decoder whose parameters hold allocated gradients (`optim.FlatAdamW` gives them)."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.blocks = [block for block in model.blocks if isinstance(block, Block)]
        shape = model.shape
        # the rotation of all of q and k, side by side as they lie in qkv: (T, w) complex, w/2 pairs each
        self._turn = model.rotation.repeat(1, 2 * shape.heads)
        self._back = self._turn[:, : shape.width // 2].conj().resolve_conj().contiguous()

    @torch.no_grad()
    def loss(self, tokens: Tensor) -> Tensor:
        """Mean loss, nats per token, of (B, T + 1) tokens; no gradients."""
        logits, _, _ = self._forward(tokens, keep=None)
        return functional.cross_entropy(logits, tokens[:, 1:].flatten())

    @torch.no_grad()
    def loss_and_gradients(self, tokens: Tensor) -> Tensor:
        """Mean loss, nats per token, of (B, T + 1) tokens; every parameter's gradient is overwritten."""
        kept: list[_Kept] = []
        logits, x, scale = self._forward(tokens, keep=kept)
        targets = tokens[:, 1:].reshape(-1, 1)  # (M, 1)
        M = len(targets)
        p = torch.softmax(logits, -1)  # (M, V)
        right = p.gather(1, targets)
        loss = -right.clamp_min(torch.finfo(p.dtype).tiny).log().mean()
        p.scatter_(1, targets, right - 1)  # ∂(M·loss)/∂logits
        head, model = self.model.head, self.model
        g = _linear(p, (head * model.norm).t() / M)
        self._gradient_behind_norm(_weight_gradient(p, x).div_(M), head, model.norm)
        g = _norm_backward(g, x, scale)
        for block in reversed(self.blocks):
            g = self._block_backward(block, kept.pop(), g, tokens.shape[0])
        embedding = gradient_of(model.embedding)
        if not model.shape.tied_embeddings:
            embedding.zero_()
        embedding.index_add_(0, tokens[:, :-1].flatten(), g)
        return loss

    def _forward(self, tokens: Tensor, keep: list[_Kept] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (M, V), the normed last activations (M, w), and the norm's scale (M, 1)."""
        model = self.model
        B = tokens.shape[0]
        x = functional.embedding(tokens[:, :-1].flatten(), model.embedding)  # (M, w)
        for block in self.blocks:
            x = self._block(block, x, B, keep)
        x, scale = _norm(x)
        return _linear(x, head_weight(model)), x, scale

    def _block(self, block: Block, x: Tensor, B: int, keep: list[_Kept] | None) -> Tensor:
        M, w = x.shape
        T, h, f = M // B, block.heads, block.down.shape[1]
        qkv_weight = block.qkv * block.attention_norm
        x1, scale1 = _norm(x)
        qkv = _linear(x1, qkv_weight)  # (M, 3w)
        pairs = torch.view_as_complex(qkv[:, : 2 * w].view(B, T, w, 2))
        qk = torch.view_as_real(pairs * self._turn[:T]).view(B, T, 2, h, w // h)
        q, k = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2)  # (B, h, T, d)
        v = qkv.view(B, T, 3, h, w // h)[:, :, 2].transpose(1, 2)
        attended, log_sum = _attention(q, k, v, 0.0, True)
        x = _linear(attended.transpose(1, 2).reshape(M, w), block.projection).add_(x)
        gate_up_weight = block.gate_up * block.hidden_norm
        x2, scale2 = _norm(x)
        gate_up = _linear(x2, gate_up_weight)  # (M, 2f)
        opened = functional.silu(gate_up[:, :f])
        inner = opened * gate_up[:, f:]
        if keep is not None:
            keep.append(
                _Kept(
                    x1,
                    scale1,
                    qkv_weight,
                    q,
                    k,
                    v,
                    attended,
                    log_sum,
                    x2,
                    scale2,
                    gate_up_weight,
                    gate_up,
                    opened,
                    inner,
                )
            )
        return _linear(inner, block.down).add_(x)

    def _block_backward(self, block: Block, k: _Kept, g: Tensor, B: int) -> Tensor:
        """Gradient with respect to the block's input, from `g` (M, w) with respect to its output."""
        M, w = g.shape
        T, h, f = M // B, block.heads, block.down.shape[1]
        gradient_of(block.down).copy_(_weight_gradient(g, k.inner))
        g_inner = _linear(g, block.down.t())  # (M, f)
        g_gate_up = torch.empty_like(k.gate_up)
        torch.mul(g_inner, k.opened, out=g_gate_up[:, f:])
        g_opened = g_inner.mul_(k.gate_up[:, f:])
        torch.ops.aten.silu_backward.grad_input(g_opened, k.gate_up[:, :f], grad_input=g_gate_up[:, :f])
        self._gradient_behind_norm(_weight_gradient(g_gate_up, k.x2), block.gate_up, block.hidden_norm)
        g = _norm_backward(_linear(g_gate_up, k.gate_up_weight.t()), k.x2, k.scale2).add_(g)

        gradient_of(block.projection).copy_(_weight_gradient(g, k.attended.transpose(1, 2).reshape(M, w)))
        g_attended = _linear(g, block.projection.t()).view(B, T, h, w // h).transpose(1, 2)
        g_q, g_k, g_v = _attention_backward(g_attended, k.q, k.k, k.v, k.attended, k.log_sum, 0.0, True)
        g_qkv = torch.empty(B, T, 3, w)
        for place, part in enumerate((g_q, g_k)):
            pairs = torch.view_as_complex(part.transpose(1, 2).reshape(B, T, w // 2, 2))
            g_qkv[:, :, place] = torch.view_as_real(pairs * self._back[:T]).flatten(-2)
        g_qkv[:, :, 2] = g_v.transpose(1, 2).reshape(B, T, w)
        flat = g_qkv.view(M, 3 * w)
        self._gradient_behind_norm(_weight_gradient(flat, k.x1), block.qkv, block.attention_norm)
        return _norm_backward(_linear(flat, k.qkv_weight.t()), k.x1, k.scale1).add_(g)

    @staticmethod
    def _gradient_behind_norm(folded: Tensor, weight: Tensor, gain: Tensor) -> None:
        """Split the gradient of the folded product weight·gain between the two; `folded` is used up."""
        torch.sum(folded * weight, 0, out=gradient_of(gain))
        torch.mul(folded, gain, out=gradient_of(weight))


def head_weight(model: Decoder) -> Tensor:
    """(V, w): the output projection with the last norm's gain folded in."""
    return model.head * model.norm


def objection(hyper: Hyperparameters) -> str | None:
    """None where a run may be computed by hand, else why it must go through autograd."""
    if hyper.objective is not None and hyper.objective.kind != "Pretraining":
        return f"the objective is {hyper.objective.kind}"
    if hyper.document_end is not None:
        return "attention stays within documents"
    if hyper.transfer_width is not None:
        return "muP scales the logits"
    return agrees(hyper.shape)


def agrees(shape: Shape) -> str | None:
    """None when the hand-derived gradients equal autograd's on this machine, else why the plain model must be used.

    Tried on one block of the shape with random weights: zeros, as training starts from, hide mistakes.
    """
    if shape.architecture or shape.experts or shape.qk_norm or shape.kv_heads or shape.own_head_size:
        return "only plain blocks have hand-derived gradients"
    generator = torch.Generator().manual_seed(0)
    model = Decoder(shape.changed(layers=1), 16, seed=0)
    FlatAdamW(model, Optimizer())  # for the gradients that it allocates
    for p in model.parameters():
        p.data.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    tokens = torch.randint(0, shape.vocabulary, (2, 17), generator=generator)
    try:
        loss = FusedLoss(model).loss_and_gradients(tokens)
        by_hand = [gradient_of(p).clone() for p in model.parameters()]
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        return f"it does not run here: {str(error).splitlines()[0]}"
    for p in model.parameters():
        gradient_of(p).zero_()
    plain = model.loss(tokens)
    plain.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    autograd = [plain.detach(), *map(gradient_of, model.parameters())]
    for ours, theirs in zip([loss, *by_hand], autograd, strict=True):
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max())):
            return "its gradients differ from autograd's"
    return None


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x · weightᵀ through oneDNN; either may be a transposed view of contiguous memory."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """gᵀ · x (out, in) of a linear layer: the first operand is copied, so the narrower one comes first."""
    if g.shape[1] <= x.shape[1]:
        return _linear(g.t(), x.t())
    return _linear(x.t(), g.t()).t()


def _norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """RMSNorm without its gain, and the scale (M, 1) by which each row was multiplied."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().mul_(1 / x.shape[1]).add_(NORM_EPS).rsqrt_()
    return x * scale, scale


def _norm_backward(g: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """Gradient with respect to the norm's input: scale·(g − normed·mean(g·normed)); `g` is used up."""
    mean = (g * normed).sum(-1, keepdim=True).mul_(-1 / g.shape[1])
    return g.addcmul_(normed, mean).mul_(scale)
