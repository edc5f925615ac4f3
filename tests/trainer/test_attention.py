"""Attention: the kernel that is chosen has proved itself, and a refusal says why."""

import sys
import types

import pytest
import torch
from torch import Tensor

from sweep_trainer import attention
from sweep_trainer.attention import AttentionError, choose, plain, sdpa
from sweep_trainer.documents import Documents

CPU = torch.device("cpu")


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_takes_pytorchs_own_on_a_cpu_and_says_why_not_the_others(
    key_heads: int, documents: bool, dtype: torch.dtype
) -> None:
    choice = choose("Auto", CPU, dtype, 4, key_heads, 16, documents=documents)
    assert choice.name == "Sdpa"
    assert choice.version == torch.__version__
    reason = "the precision is fp32" if dtype == torch.float32 else "needs a CUDA device, and this run computes on cpu"
    assert all(f"{name} " in choice.why for name in ("Fa4", "Fa3", "Fa2"))
    assert reason in choice.why


@pytest.mark.parametrize("name", ["Fa4", "Fa3", "Fa2"])
def test_a_kernel_that_is_named_and_cannot_run_is_refused_with_the_reason(name: attention.Attention) -> None:
    with pytest.raises(AttentionError, match=rf"attention {name} needs a CUDA device, and this run computes on cpu"):
        choose(name, CPU, torch.bfloat16, 4, 4, 64, documents=False)


def formula(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool) -> Tensor:
    assert causal
    return plain(q, k, v, None, softmax_scale).to(q.dtype)


def probe(attend: attention.Attend) -> None:
    attention._probe(attend, CPU, torch.bfloat16, 4, 2, 16, documents=False)


def test_the_probe_passes_what_computes_the_formula() -> None:
    probe(attention._attend_by(formula, formula))
    probe(attention._attend_by(lambda *x, **y: (formula(*x, **y), "log-sums"), formula))


def test_a_kernel_that_computes_something_else_is_refused() -> None:
    def not_causal(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool) -> Tensor:
        return sdpa(q, k, v, Documents(torch.zeros(q.shape[:2], dtype=torch.bool)), 2 * softmax_scale)

    with pytest.raises(AttentionError, match="computes a wrong output here: off by"):
        probe(attention._attend_by(not_causal, not_causal))


def test_a_kernel_with_a_wrong_backward_pass_is_refused() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return 1.5 * g

    def attend(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool) -> Tensor:
        return formula(q, Wrong.apply(k), v, softmax_scale, causal)

    with pytest.raises(AttentionError, match="computes a wrong gradient of k here"):
        probe(attention._attend_by(attend, attend))


def test_a_kernel_that_fails_is_refused_with_its_own_first_line() -> None:
    def broken(*args: object, **more: object) -> Tensor:
        raise RuntimeError("no kernel image is available\nfor execution")

    with pytest.raises(AttentionError, match=r"does not run here: no kernel image is available$"):
        probe(attention._attend_by(broken, broken))


def test_an_import_alone_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention 4 leaves a namespace called `flash_attn` without FlashAttention 2's entries."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    with pytest.raises(AttentionError, match=r"flash_attn cannot be imported: .*flash_attn_func"):
        attention._FLASH["Fa2"].load(torch.device("cuda"))


def test_a_device_of_another_generation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(AttentionError, match=r"needs compute capability 8 or higher, and this device is of 7\.5"):
        attention._FLASH["Fa2"].load(torch.device("cuda"))


def test_documents_begin_behind_every_end() -> None:
    ends = torch.tensor([[0, 0, 1, 0, 1, 1, 0]], dtype=torch.bool)
    documents = Documents(ends)
    assert documents.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
    bounds, longest = documents.bounds
    assert bounds.tolist() == [0, 3, 5, 6, 7]
    assert longest == 3
    seen = documents.mask[0, 0].int().tolist()
    assert seen[4] == [0, 0, 0, 1, 1, 0, 0]
    assert seen[6] == [0, 0, 0, 0, 0, 0, 1]
