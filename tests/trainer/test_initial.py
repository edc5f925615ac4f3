"""The weights that a run starts from: mapped from their file, digested, and put into the model exactly."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save_file

from sweep_analysis.shape import Model, shape_for
from sweep_trainer import initial
from sweep_trainer.failure import RunError
from sweep_trainer.initial import take_up
from sweep_trainer.model import Decoder

SHAPE = shape_for(30_000, 257, Model())


def weights(path: Path, seed: int, dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(SHAPE, 16, seed)
    save_file({name: p.detach().to(dtype) for name, p in model.named_parameters()}, path)
    return model


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which files a process maps")
def test_the_file_is_mapped_while_its_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    weights(path, 1)
    read, digest, _ = initial._read(str(path))
    assert any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())
    assert read
    assert digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_takes_up_every_weight_and_keeps_them_when_the_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    first, second = weights(path, 1), Decoder(SHAPE, 16, 2)
    take_up(second, str(path))
    path.write_bytes(save({"other": np.zeros(3)}))
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_weights_in_bf16_are_taken_up_as_the_numbers_that_they_are(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    first, second = weights(path, 1, torch.bfloat16), Decoder(SHAPE, 16, 2)
    take_up(second, str(path))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16).float(), other)


def test_a_file_that_is_written_while_its_tensors_are_copied_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    weights(path, 1)

    class Rewritten(Decoder):
        def named_parameters(self, *args: object, **named: object) -> object:  # type: ignore[override]  # as it is asked for what to copy
            path.write_bytes(path.read_bytes())
            return super().named_parameters()

    with pytest.raises(RunError, match="changed while it was read"):
        take_up(Rewritten(SHAPE, 16, 2), str(path))


def test_numbers_of_a_kind_that_is_not_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "eighths.safetensors"
    weights(path, 1, torch.float8_e4m3fn)
    with pytest.raises(RunError, match="numbers of a kind that is not read here"):
        take_up(Decoder(SHAPE, 16, 2), str(path))


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base.safetensors"
    model = weights(path, 1)
    load = initial.load_file

    def written_meanwhile(file: Path) -> object:
        weights(path, 3)
        return load(file)

    monkeypatch.setattr(initial, "load_file", written_meanwhile)
    with pytest.raises(RunError, match="changed while it was read"):
        take_up(model, str(path))


def test_what_is_no_safetensors_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    for content in (b"", b"no such thing"):
        path.write_bytes(content)
        with pytest.raises(RunError, match="cannot be read as safetensors"):
            take_up(Decoder(SHAPE, 16, 0), str(path))
