"""The decoder: RMSNorm, rotary positions, SwiGLU or experts, grouped queries, no biases.

Owns the forward pass, the losses and the initial weights, in plain PyTorch that every engine can wrap. Knows no
optimizer and no device.

B: sequences, T: tokens of each, w: width, h: query heads, k: key heads, d: head size, f: hidden width, V: vocabulary.
A token id t that is not to be predicted stands as ~t in a batch (`targets` reads it), so that one array carries both.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.shape import Shape
from sweep_trainer.attention import Attend, sdpa
from sweep_trainer.documents import Documents
from sweep_trainer.experts import Mixture, swiglu

NORM_EPS = 1e-6
ROTARY_BASE = 10_000.0
_NOT_PREDICTED = -100
"""What cross-entropy leaves out."""


class Decoder(nn.Module):
    """Tokens in, logits out."""

    def __init__(
        self,
        shape: Shape,
        sequence_length: int,
        seed: int,
        *,
        document_end: int | None = None,
        base_width: int | None = None,
        attend: Attend = sdpa,
    ) -> None:
        """`document_end`: the id behind which attention begins anew. `base_width`: muP's, at which all its factors are
        1 (Yang et al. 2022, arXiv:2203.03466, table 8)."""
        super().__init__()
        self.shape = shape
        self.document_end = document_end
        self.attend = attend
        generator = torch.Generator().manual_seed(seed)
        self.embedding = _matrix(generator, shape.vocabulary, shape.width, base_width)
        scale = attention_scale(shape.head_size, mu_transfer=base_width is not None)
        self.blocks = nn.ModuleList(Block(shape, generator, attend, scale) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        if shape.scalar_head:
            self.output = _matrix(generator, 1, shape.width, base_width)  # of zeros no gradient would come
        elif not shape.tied_embeddings:
            self.output = _matrix(generator, shape.vocabulary, shape.width, base_width)
        self.logit_factor = base_width / shape.width if base_width else 1.0
        self.query_factor = scale / attention_scale(shape.head_size, mu_transfer=False)
        """What queries would be multiplied by if attention were scaled by 1/√d."""
        self.register_buffer("rotation", rotation(shape.head_size, sequence_length), persistent=False)
        self.rotation: Tensor
        self._rotation_in_parts = torch.view_as_real(self.rotation).clone()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Parts follow the device and not the precision, which an engine may take down for the weights."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._rotation_in_parts = torch.view_as_real(self.rotation).clone()
        return self

    @property
    def head(self) -> Tensor:
        """(V, w): the output projection; (1, w) of a reward model."""
        return self.embedding if self.shape.tied_embeddings and not self.shape.scalar_head else self.output

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of the next token after each of `tokens` (B, T); (B, T, 1) of a reward model."""
        documents = None
        turns = self._rotation_in_parts if torch.compiler.is_compiling() else self.rotation
        turn = turns[: tokens.shape[1], None]  # (T, 1, d/2); in parts (T, 1, d/2, 2)
        if self.document_end is not None:
            documents = Documents(tokens == self.document_end)
            turn = turns[documents.positions, None]  # (B, T, 1, d/2), or (B, T, 1, d/2, 2)
        x = functional.embedding(tokens, self.embedding)  # (B, T, w)
        for block in self.blocks:
            x = block(x, turn, documents)  # (B, T, w)
        x = _norm(x, self.norm)
        if self.logit_factor != 1.0:
            x = x * self.logit_factor
        return functional.linear(x, self.head)  # (B, T, V)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy, nats per token, of predicting `tokens[:, 1:]` from `tokens[:, :-1]`; (B, T + 1) in.

        Experts' auxiliary losses add to its gradient and not to its value.
        """
        given, wanted = targets(tokens)
        logits = self(given)  # (B, T, V)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=_NOT_PREDICTED)
        return with_auxiliary(self, loss)

    def likelihood(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """For each row of (B, T + 1): nats of all its predicted tokens, and whether each was the most likely one."""
        return likelihood(self(targets(tokens)[0]), tokens)


class Scorer(Decoder):
    """A reward model: one score for a prompt and its answer. Rows come in pairs, the better answer first."""

    def score(self, tokens: Tensor) -> Tensor:
        """(B, T + 1) tokens, padded with ids that are not to be predicted → (B,) scores at the last real token."""
        given = tokens[:, :-1]
        last = (given >= 0).sum(1) - 1  # (B,)
        scores = self(targets(tokens)[0])[..., 0].float()  # (B, T)
        score: Tensor = scores.gather(1, last[:, None])[:, 0]
        return score

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean of -ln σ(score of the better - score of the worse), nats per pair (Ouyang et al. 2022, equation 1)."""
        better, worse = self.score(tokens).view(-1, 2).unbind(1)
        return with_auxiliary(self, -functional.logsigmoid(better - worse).mean())


class Block(nn.Module):
    """Attention and SwiGLU or experts, each behind a norm and added to the residual stream.

    What they add starts at zero. At 20,000 parameters and 98 steps that lowered the loss by 0.05 nats against the
    usual 1/sqrt(2·layers) damping, and its standard deviation over seeds from 0.04 to 0.01.
    """

    def __init__(self, shape: Shape, generator: torch.Generator, attend: Attend, scale: float) -> None:
        super().__init__()
        w, f, d = shape.width, shape.hidden, shape.head_size
        self.heads, self.key_heads, self.head_size = shape.heads, shape.key_heads, d
        self._attend, self._scale = attend, scale
        self.attention_norm = nn.Parameter(torch.ones(w))
        self.qkv = _matrix(generator, (shape.heads + 2 * shape.key_heads) * d, w)
        if shape.qk_norm:
            self.query_norm = nn.Parameter(torch.ones(d))
            self.key_norm = nn.Parameter(torch.ones(d))
        self._normed = shape.qk_norm
        self.projection = nn.Parameter(torch.zeros(w, shape.attention_width))
        self.hidden_norm = nn.Parameter(torch.ones(w))
        self.mixture = Mixture(shape.experts, w, f, generator) if shape.experts else None
        if self.mixture is None:
            self.gate_up = _matrix(generator, 2 * f, w)
            self.down = nn.Parameter(torch.zeros(w, f))

    def forward(self, x: Tensor, turn: Tensor, documents: Documents | None = None) -> Tensor:
        """(B, T, w) → (B, T, w); `turn` is the rotation of each token's position."""
        B, T, w = x.shape
        qkv = functional.linear(_norm(x, self.attention_norm), self.qkv).view(B, T, -1, self.head_size)
        q, k, v = torch.split(qkv, [self.heads, self.key_heads, self.key_heads], 2)  # (B, T, h, d), (B, T, k, d) twice
        if self._normed:  # on a GPU autocast norms in fp32, and kernels ask for one precision of all three
            q, k = _norm(q, self.query_norm).to(v.dtype), _norm(k, self.key_norm).to(v.dtype)
        attended = self._attend(_rotate(q, turn), _rotate(k, turn), v, documents, self._scale)  # (B, T, h, d)
        x = x + functional.linear(attended.reshape(B, T, -1), self.projection)
        normed = _norm(x, self.hidden_norm)
        if self.mixture is not None:
            out: Tensor = self.mixture(normed.view(B * T, w))
            return x + out.view(B, T, w)
        return x + swiglu(normed, self.gate_up, self.down)


def fixed(model: nn.Module) -> dict[str, Tensor]:
    """What a file of weights holds beside the parameters: buffers of the model's own that no gradient moves."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


def targets(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What is read, (B, T), and what is to be predicted, (B, T), of (B, T + 1) tokens."""
    given, wanted = tokens[:, :-1], tokens[:, 1:]
    return torch.where(given < 0, ~given, given), torch.where(wanted < 0, _NOT_PREDICTED, wanted)


def likelihood(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) nats of the predicted tokens of (B, T + 1), and (B,) whether each was the most likely."""
    _, wanted = targets(tokens)
    left_out = wanted == _NOT_PREDICTED
    nats = functional.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=_NOT_PREDICTED, reduction="none"
    )
    return nats.view(wanted.shape).sum(1), ((logits.argmax(-1) == wanted) | left_out).all(1)


def with_auxiliary(model: Decoder, loss: Tensor) -> Tensor:
    """The loss with the gradient, and without the value, of the experts' auxiliary losses."""
    mixtures = [block.mixture for block in model.blocks if isinstance(block, Block) and block.mixture is not None]
    if not mixtures:
        return loss
    auxiliary = torch.stack([mixture.auxiliary for mixture in mixtures]).sum()
    return loss + (auxiliary - auxiliary.detach())


def attention_scale(head_size: int, *, mu_transfer: bool) -> float:
    """1/√d, or muP's 8/d, which is the same for heads of 64."""
    return 8 / head_size if mu_transfer else head_size**-0.5


def rotation(head_size: int, positions: int) -> Tensor:
    """(positions, d/2) complex: e^(i·t·base^(-2j/d)) (Su et al. 2021, arXiv:2104.09864)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_size, 2) / head_size)
    angles = torch.outer(torch.arange(positions), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """(B, T, h, d): each neighbouring pair of channels is turned by its position's angle.

    One complex product, which is the fastest where nothing is compiled; compilers make no code of complex numbers, so
    for them the angle stands as its cosine and sine, (…, d/2, 2).
    """
    if not turn.is_complex():
        (a, b), (cos, sin) = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1), turn.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))  # (B, T, h, d/2)
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), gain, NORM_EPS)


def _matrix(generator: torch.Generator, rows: int, columns: int, fan_in: int | None = None) -> nn.Parameter:
    """Normal, of the standard deviation that keeps a unit-variance input's variance; or that of another fan-in."""
    return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(fan_in or columns))
