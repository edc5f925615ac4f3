"""All that is claimed of a GPU, in one command and under nine minutes; without one it says so and claims nothing.

    python benchmarks/gpu.py [--minutes 8.5] [--sizes 125M 350M 1.3B] [--json FILE]

On one GPU in bf16, sequences of 2,048 tokens, for each size: the trainer's own step (with and without torch.compile,
activation checkpointing, each attention kernel that can run, ZeRO stages) beside the same shapes written as minimal
trainers write them: one module, autocast, fused AdamW, torch.compile. Tokens a second, MFU by 6·N·D over the data
sheet's dense peak, peak memory beside its prediction. Rows are measured from the most telling to the least, and what
the time does not allow is left out and named. Needs no data: tokens are random.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.flops import six_nd
from sweep_analysis.memory import peak, setting_of
from sweep_analysis.recipe import Data, Hyperparameters, Training, resolve
from sweep_analysis.scale import parse_scale
from sweep_analysis.shape import Shape
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.ranks import ALONE, join
from sweep_trainer.meter import peak_flops

LENGTH, VOCABULARY = 2048, 50_304
SHAPES = {"125M": (12, 768, 12), "350M": (24, 1024, 16), "1.3B": (24, 2048, 16)}
"""Layers, width and heads, as the GPT-3 paper's table 2.1 has them (Brown et al. 2020, arXiv:2005.14165)."""
SEQUENCES = {"125M": 16, "350M": 8, "1.3B": 4}
SETTLE, STEPS = 5, 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU on this machine: nothing was measured, and nothing is claimed of one.")
        return 0
    deadline = time.monotonic() + 60 * options.minutes
    rows, left_out = [], []
    for name, size, measure in cases(options.sizes):
        if time.monotonic() > deadline:
            left_out.append(f"{size} {name}")
            continue
        try:
            row = {"size": size, "case": name, **measure()}
        except Exception as error:  # noqa: BLE001  # one kernel that is not installed must not cost the other rows
            row = {"size": size, "case": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        rows.append(row)
        print(told(row), flush=True)
        torch.cuda.empty_cache()
    if left_out:
        print(f"not measured within {options.minutes} minutes: {', '.join(left_out)}")
    if options.json:
        about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "peakFlops": peak_flops()}
        options.json.write_text(json.dumps({**about, "rows": rows, "leftOut": left_out}, indent=1))
    return 0


def told(row: dict[str, Any]) -> str:
    start = f"{row['size']:>5}  {row['case']:<28}"
    if "failed" in row:
        return f"{start} {row['failed']}"
    mfu = f"{row['mfu']:6.1%}" if row["mfu"] is not None else "   -  "
    predicted = f" (predicted {row['predictedBytes'] / 1e9:.1f})" if row.get("predictedBytes") else ""
    return f"{start} {row['tokensPerSecond']:10,.0f} tokens/s  MFU {mfu}  {row['memoryBytes'] / 1e9:5.1f} GB{predicted}"


def cases(sizes: list[str]) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """(name, size, measurement), the most telling first: ours and the minimal one at every size, then variants."""
    for size in reversed(sizes):
        yield "ours, compiled", size, lambda size=size: ours(size, compile=True)
        yield "minimal, compiled", size, lambda size=size: minimal(size, compiled=True)
    largest = sizes[-1]
    for kernel in ("Fa4", "Fa3", "Fa2", "Sdpa"):
        yield f"ours, {kernel}, compiled", largest, lambda kernel=kernel: ours(largest, compile=True, attention=kernel)
    yield "ours, not compiled", largest, lambda: ours(largest)
    yield "ours, checkpointing", largest, lambda: ours(largest, compile=True, activation_checkpointing=True)
    for stage in (0, 1, 2, 3):
        zero = DeepSpeed(zero_stage=stage)
        yield f"ours, ZeRO {stage}", largest, lambda zero=zero: ours(largest, engine="DeepSpeed", deepspeed=zero)
    for size in sizes[:-1]:
        yield "ours, not compiled", size, lambda size=size: ours(size)


def ours(size: str, **fields: Any) -> dict[str, Any]:
    """The trainer's own step."""
    sequences = SEQUENCES[size]
    training = Training(
        data=Data(corpus="Classics"),
        sequence_length=LENGTH,
        batch_tokens=sequences * LENGTH,
        precision="bf16",
        micro_batch=sequences,
        **fields,
    )
    hyper = shaped(resolve(training, parse_scale(size), (sequences * LENGTH * 1000,)), size)
    if training.engine == "DeepSpeed":
        from sweep_trainer.engines.zero import Zero

        join(ALONE)
        engine: Any = Zero(training, hyper, 0, 8, ALONE)
    else:
        engine = PlainTorch(hyper, 0, 8, execution=training)
    batch = np.random.default_rng(0).integers(0, VOCABULARY, (sequences, LENGTH + 1))

    def step() -> None:
        engine.step(batch, hyper.learning_rate)

    row = timed(step, sequences * LENGTH, engine.parameters)
    predicted = peak(hyper.shape, LENGTH, setting_of(training, hyper, 1)).total_bytes
    return {**row, "attention": engine.attention, "predictedBytes": predicted}


def shaped(hyper: Hyperparameters, size: str) -> Hyperparameters:
    """The recipe with the published shape instead of the one by our own rule."""
    layers, width, heads = SHAPES[size]
    shape = Shape(layers=layers, width=width, heads=heads, hidden=8 * round(width / 3), vocabulary=VOCABULARY)
    return hyper.changed(shape=shape)


def minimal(size: str, *, compiled: bool) -> dict[str, Any]:
    """The same shape as minimal trainers write it: autocast, SDPA, fused AdamW, clip, torch.compile."""
    layers, width, heads = SHAPES[size]
    torch.set_float32_matmul_precision("high")
    model: Any = Minimal(layers, width, heads).cuda()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if compiled else model
    sequences = SEQUENCES[size]
    tokens = torch.randint(0, VOCABULARY, (sequences, LENGTH + 1), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return timed(step, sequences * LENGTH, parameters)


class Minimal(nn.Module):
    """A decoder of the same matrices, in the fewest lines."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, hidden = heads, 8 * round(width / 3)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "one": nn.RMSNorm(width),
                    "qkv": nn.Linear(width, 3 * width, bias=False),
                    "out": nn.Linear(width, width, bias=False),
                    "two": nn.RMSNorm(width),
                    "up": nn.Linear(width, 2 * hidden, bias=False),
                    "down": nn.Linear(hidden, width, bias=False),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width)
        angles = torch.outer(torch.arange(LENGTH), 10_000.0 ** (-torch.arange(0, width // heads, 2) / (width // heads)))
        self.register_buffer("cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None], persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens[:, :-1])
        B, T, w = x.shape
        for block in self.blocks:
            q, k, v = block["qkv"](block["one"](x)).view(B, T, 3, self.heads, w // self.heads).unbind(2)
            q, k, v = (t.transpose(1, 2) for t in (self.turned(q), self.turned(k), v))
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["out"](attended.transpose(1, 2).reshape(B, T, w))
            gate, up = block["up"](block["two"](x)).chunk(2, -1)
            x = x + block["down"](functional.silu(gate) * up)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1).to(x.dtype)


def timed(step: Callable[[], None], tokens: int, parameters: int) -> dict[str, Any]:
    """Tokens a second over the steps after the first few, and the peak memory."""
    for _ in range(SETTLE):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    speed = STEPS * tokens / (time.perf_counter() - started)
    peak_ = peak_flops()
    return {
        "parameters": parameters,
        "tokensPerSecond": speed,
        "mfu": six_nd(parameters, speed) / peak_ if peak_ else None,
        "memoryBytes": torch.cuda.max_memory_allocated(),
    }


if __name__ == "__main__":
    sys.exit(main())
