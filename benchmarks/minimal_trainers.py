"""Decoders as the well-known minimal trainers write them, for `benchmarks/gpu.py` to hold ours against.

Owns three models and the steps around them, written anew from what those trainers are described to do; all compute in
bf16 by autocast over fp32 weights, attend by PyTorch's own kernel, and step by fused AdamW after clipping at 1:

    nanoGPT-style   learned positions, LayerNorm and GELU without biases, one matrix for queries, keys and values; the
                    whole model is compiled, as is its loss
    Llama-style     RMSNorm, rotary positions in real numbers, SwiGLU, a matrix each; compiled block by block and the
                    loss on its own, as torchtitan does it, which compiles one block for all
    transformers    `LlamaForCausalLM` with SDPA and its own loss, in a plain loop, not compiled

Embeddings are tied, so that all have the matrices of our decoder of that shape, and within a few per mille its
parameters. Knows nothing of ours.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Step = Callable[[], None]


def nano_gpt(
    layers: int, width: int, heads: int, *, vocabulary: int, length: int, tokens: Tensor, pieces: int
) -> tuple[Step, int]:
    """A step over `pieces` times the (B, T + 1) tokens, and the number of parameters."""
    model = NanoGpt(layers, width, heads, vocabulary, length).to(tokens.device)
    compiled: Any = torch.compile(model)
    return stepper(model, compiled, tokens, pieces), counted(model)


def llama(
    layers: int, width: int, heads: int, *, vocabulary: int, length: int, tokens: Tensor, pieces: int
) -> tuple[Step, int]:
    """A step over `pieces` times the (B, T + 1) tokens, and the number of parameters."""
    model = Llama(layers, width, heads, vocabulary, length).to(tokens.device)
    for block in model.blocks:
        block.compile(fullgraph=True)
    loss_of: Any = torch.compile(cross_entropy)
    return stepper(model, lambda given: loss_of(model(given[:, :-1]), given[:, 1:]), tokens, pieces), counted(model)


def of_transformers(
    layers: int, width: int, heads: int, *, vocabulary: int, length: int, tokens: Tensor, pieces: int
) -> tuple[Step, int]:
    """A step over `pieces` times the (B, T + 1) tokens, and the number of parameters. Raises ImportError without it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=8 * round(width / 3),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model: Any = LlamaForCausalLM(config).to(tokens.device)
    return stepper(model, lambda given: model(given[:, :-1], labels=given[:, :-1]).loss, tokens, pieces), counted(model)


def stepper(model: nn.Module, loss_of: Callable[[Tensor], Tensor], tokens: Tensor, pieces: int) -> Step:
    """Gradients of all pieces, clipped, applied."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        for _ in range(pieces):
            with torch.autocast(tokens.device.type, torch.bfloat16):
                loss = loss_of(tokens)
            (loss / pieces).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def counted(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, T, h, d) each → (B, T, h·d)."""
    out = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True)
    return out.transpose(1, 2).flatten(2)


class NanoGpt(nn.Module):
    """(B, T + 1) tokens → mean loss."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(GptBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(initial)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        given = tokens[:, :-1]
        x = self.embedding(given) + self.positions(torch.arange(given.shape[1], device=given.device))
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(self.norm(x)).flatten(0, 1), tokens[:, 1:].flatten())


class GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.one, self.two = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(self.one(x)).chunk(3, -1))
        x = x + self.out(attended(q, k, v))
        return x + self.down(functional.gelu(self.up(self.two(x))))


class Llama(nn.Module):
    """(B, T) tokens → (B, T, V) logits."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(initial)
        self.head.weight = self.embedding.weight
        size = width // heads
        angles = torch.outer(torch.arange(length), 10_000.0 ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("turn", torch.stack([angles.cos(), angles.sin()])[:, :, None], persistent=False)

    def forward(self, given: Tensor) -> Tensor:
        x = self.embedding(given)
        for block in self.blocks:
            x = block(x, self.turn[:, : given.shape[1]])
        return self.head(self.norm(x))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, hidden = heads, 8 * round(width / 3)
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        y = self.one(x)
        q, k, v = (project(y).unflatten(-1, (self.heads, -1)) for project in (self.q, self.k, self.v))
        x = x + self.out(attended(turned(q, turn), turned(k, turn), v))
        y = self.two(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Each half of a head's channels against the other, by the position's angle."""
    (cos, sin), (a, b) = turn, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def initial(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
