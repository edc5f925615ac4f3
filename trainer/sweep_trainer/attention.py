"""Causal self-attention: which kernel computes it, and the proof that it does.

Owns the choice (`training.attention`) and the probe behind it: one forward and one backward pass with the run's own
dtype, head size and device, held against the plain formula. An import proves nothing (FlashAttention 4 installs a
namespace that FlashAttention 2 would also have), nor does a library's word that it is active; the probe does.

q is (B, T, h, d), k and v (B, T, k, d): k divides h, and each key head serves h/k query heads.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sweep_analysis.recipe import Attention
from sweep_trainer.documents import Documents

log = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 8e-3}
"""Largest difference from the plain formula in fp32, relative to its largest value: a few roundings of the dtype."""
_PROBE_TOKENS = 128


class Attend(Protocol):
    """A kernel: softmax(scale · q·kᵀ, causal, within documents) · v, as (B, T, h, d)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, documents: Documents | None, scale: float) -> Tensor: ...


class AttentionError(Exception):
    """The kernel that the recipe names cannot run here; the text is one sentence with the reason."""


@dataclass(frozen=True)
class Choice:
    """The kernel that a run computes with."""

    name: Attention
    version: str
    why: str
    """Why not those before it, where `Auto` was asked for."""
    attend: Attend

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def sdpa(q: Tensor, k: Tensor, v: Tensor, documents: Documents | None, scale: float) -> Tensor:
    """PyTorch's own, which picks the flash kernel of the device where there is no mask."""
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, h, T, d)
    mask = None if documents is None else documents.mask
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def plain(q: Tensor, k: Tensor, v: Tensor, documents: Documents | None, scale: float) -> Tensor:
    """The formula, in fp32: what a kernel is held against."""
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.float().transpose(1, 2) for x in (q, k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)))
    T = q.shape[2]
    mask = torch.ones(T, T, dtype=torch.bool, device=q.device).tril() if documents is None else documents.mask
    scores = (scale * q @ k.transpose(-1, -2)).masked_fill(~mask, float("-inf"))  # (B, h, T, T)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@dataclass(frozen=True)
class _Flash:
    """One generation of FlashAttention (Dao 2023, arXiv:2307.08691)."""

    module: str
    package: str
    capabilities: Callable[[tuple[int, int]], bool]
    needs: str

    def load(self, device: torch.device) -> tuple[Attend, str]:
        """The kernel and its version. Raises AttentionError where the device or the package is missing."""
        if device.type != "cuda":
            raise AttentionError(f"needs a CUDA device, and this run computes on {device.type}")
        capability = torch.cuda.get_device_capability(device)
        if not self.capabilities(capability):
            raise AttentionError(f"needs {self.needs}, and this device is of {capability[0]}.{capability[1]}")
        try:
            module = importlib.import_module(self.module)
            whole, packed = module.flash_attn_func, module.flash_attn_varlen_func
        except (ImportError, AttributeError) as error:
            raise AttentionError(f"{self.module} cannot be imported: {error}") from None
        try:
            found = version(self.package)
        except PackageNotFoundError:
            found = "of unknown version"
        return _attend_by(whole, packed), found


def _attend_by(whole: Callable[..., Any], packed: Callable[..., Any]) -> Attend:
    """FlashAttention's two entries behind one signature: equal lengths, and documents laid end to end."""

    def attend(q: Tensor, k: Tensor, v: Tensor, documents: Documents | None, scale: float) -> Tensor:
        if documents is None:
            return _first(whole(q, k, v, softmax_scale=scale, causal=True))
        bounds, longest = documents.bounds
        flat = (x.flatten(0, 1) for x in (q, k, v))  # (B·T, h, d)
        lengths = {"cu_seqlens_q": bounds, "cu_seqlens_k": bounds, "max_seqlen_q": longest, "max_seqlen_k": longest}
        return _first(packed(*flat, **lengths, softmax_scale=scale, causal=True)).view(q.shape)

    return attend


def _first(result: Any) -> Tensor:
    """Some generations return the log-sums beside the output."""
    out: Tensor = result[0] if isinstance(result, tuple) else result
    return out


_FLASH: dict[Attention, _Flash] = {
    "Fa4": _Flash("flash_attn.cute", "flash-attn-4", lambda c: c[0] in (9, 10), "compute capability 9 or 10"),
    "Fa3": _Flash("flash_attn_interface", "flash_attn_3", lambda c: c[0] == 9, "compute capability 9"),
    "Fa2": _Flash("flash_attn", "flash-attn", lambda c: c[0] >= 8, "compute capability 8 or higher"),
}


def choose(
    wanted: Attention,
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    key_heads: int,
    head_size: int,
    *,
    documents: bool,
) -> Choice:
    """The kernel that was named, or the first of all that proves itself.

    Raises AttentionError with the reason when the one that was named cannot run, or none can.
    """
    passed_over: list[str] = []
    for name in (*_FLASH, "Sdpa") if wanted == "Auto" else (wanted,):
        try:
            if name == "Sdpa":
                attend, found = sdpa, str(torch.__version__)
            elif dtype == torch.float32:
                raise AttentionError("computes in bf16 and fp16 alone, and the precision is fp32")
            else:
                attend, found = _FLASH[name].load(device)
            _probe(attend, device, dtype, heads, key_heads, head_size, documents=documents)
        except AttentionError as error:
            passed_over.append(f"{name} {error}")
            continue
        return Choice(name, found, "; ".join(passed_over), attend)
    raise AttentionError(f"attention {'; '.join(passed_over)}; choose another, or Auto")


def _probe(
    attend: Attend,
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    key_heads: int,
    head_size: int,
    *,
    documents: bool,
) -> None:
    """One forward and one backward pass against the formula. Raises AttentionError where they differ or fail."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, _PROBE_TOKENS, h, head_size) for h in (heads, key_heads, key_heads, heads)]
    q, k, v, g = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    ends = torch.rand(2, _PROBE_TOKENS, generator=generator) < 0.05
    parted = Documents(ends.to(device)) if documents else None
    scale = head_size**-0.5
    try:
        ours = _passes(attend, (q, k, v), g, parted, scale)
    except Exception as error:  # noqa: BLE001  # a kernel may fail in any way; none of them may end the run unexplained
        raise AttentionError(f"does not run here: {str(error).strip().splitlines()[0]}") from None
    for what, mine, right in zip(
        ("output", "gradient of q", "gradient of k", "gradient of v"),
        ours,
        _passes(plain, (q.float(), k.float(), v.float()), g.float(), parted, scale),
        strict=True,
    ):
        difference = ((mine.float() - right).abs().max() / right.abs().max()).item()
        if not difference <= _TOLERANCE[dtype]:
            raise AttentionError(f"computes a wrong {what} here: off by {difference:.2g} of its largest value")


def _passes(
    attend: Attend, inputs: Sequence[Tensor], g: Tensor, documents: Documents | None, scale: float
) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = attend(leaves[0], leaves[1], leaves[2], documents, scale)
    return [out.detach(), *torch.autograd.grad(out, leaves, g.to(out.dtype))]
