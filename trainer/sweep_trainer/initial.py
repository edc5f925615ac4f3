"""The weights that a run starts from when its objective names some.

Owns reading them: a final model of an earlier run, or an exported folder. Refuses weights of another shape by naming
the first tensor that differs. Reads safetensors alone: pickles can run code.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sweep_analysis.record import FailureReason
from sweep_trainer.failure import RunError
from sweep_trainer.llama import Weights, from_llama
from sweep_trainer.model import Decoder, Scorer, fixed


@torch.no_grad()
def take_up(model: nn.Module, path: str) -> str:
    """Put the file's weights into the model; a reward model keeps its own output. Returns the digest of what was read.

    Raises RunError."""
    file = _file(path)
    tensors, digest, before = _read(path)
    weights = _named(tensors, path, model)
    for name, parameter in model.named_parameters():
        if isinstance(model, Scorer) and name == "output":
            continue
        found = weights.get(name)
        if found is None:
            raise _refused(f"{path} has no {name}, which this recipe's model has")
        if found.shape != tuple(parameter.shape):
            raise _refused(
                f"{path}: {name} is {_sizes(found.shape)} and this recipe's is {_sizes(tuple(parameter.shape))};"
                " name weights of the same shape, or set training.model and parameters to theirs"
            )
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(found)))
    for name, buffer in fixed(model).items():
        if name in weights and weights[name].shape == tuple(buffer.shape):
            buffer.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))
    if not _is_still(file, before):  # mapped pages are read no sooner than they are copied
        raise _changed(path)
    return digest


def _read(path: str) -> tuple[Weights, str, tuple[int, int, int]]:
    """The file's tensors, its digest and its identity. It is mapped and not held, since it may be large: of one and the
    same content only where the identity is still the same once the tensors were copied."""
    file = _file(path)
    try:
        before = _identity(file)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        tensors = load_file(file)
        after = _identity(file)
    except OSError as error:
        raise _refused(f"objective.startFrom: {path} cannot be read ({error.strerror})") from None
    except SafetensorError as error:
        raise _refused(f"objective.startFrom: {path} cannot be read as safetensors ({error})") from None
    if before != after:
        raise _changed(path)
    halves = {name: t.float() if t.dtype is torch.bfloat16 else t for name, t in tensors.items()}  # numpy has none
    try:
        return {name: tensor.numpy() for name, tensor in halves.items()}, f"sha256:{digest}", before
    except TypeError as error:
        raise _refused(f"objective.startFrom: {path} holds numbers of a kind that is not read here ({error})") from None


def _identity(file: Path) -> tuple[int, int, int]:
    """By which a file that is another, or was written since, is told from the one that was looked at."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: str) -> RunError:
    return _refused(f"objective.startFrom: {path} changed while it was read; name weights that are finished")


def _is_still(file: Path, before: tuple[int, int, int]) -> bool:
    try:
        return _identity(file) == before
    except OSError:
        return False


def _named(weights: Weights, path: str, model: nn.Module) -> Weights:
    """The tensors by the names of the model's parameters."""
    if isinstance(model, Decoder) and "model.embed_tokens.weight" in weights:
        try:
            return from_llama(weights, model.shape, model.logit_factor, model.query_factor)
        except KeyError as error:
            raise _refused(f"{path} has no {error.args[0]}, which this recipe's model needs") from None
        except ValueError as error:
            raise _refused(f"{path} {error}") from None
    return {f"model.{name}": tensor for name, tensor in weights.items()} if not isinstance(model, Decoder) else weights


def _file(path: str) -> Path:
    return Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _refused(sentence: str) -> RunError:
    return RunError(FailureReason.BAD_CONFIGURATION, sentence)
