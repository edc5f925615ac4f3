"""Prepared data: text turned into tokens, split, cached by digest, and read back in an order that repeats.

Owns the split, the cache and the order of batches. Reads text through `corpus.py`; knows nothing of models.
Needs numpy, never torch.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Training, vocabulary_of
from sweep_trainer.corpus import DataError, classics, read_files
from sweep_trainer.files import write_atomically

_BLOCK = 16_384
_SMALLEST_BLOCK = 256
_EVERY = 40
"""Every 40th block is validation: spread over the text, since a tail would be another text than the rest."""

Tokens = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """A data set as a run sees it."""

    train: Tokens
    """The training stream, memory-mapped."""
    validation: Tokens
    """(windows, sequence_length + 1): the same validation tokens for every run of the recipe."""
    sequence_length: int
    data_digest: str
    validation_digest: str
    tokenizer_digest: str
    path: Path

    @property
    def sequences(self) -> int:
        """Training sequences in one epoch; each predicts `sequence_length` tokens."""
        return (len(self.train) - 1) // self.sequence_length

    @property
    def train_tokens(self) -> int:
        """Distinct training tokens."""
        return self.sequences * self.sequence_length

    @property
    def validation_tokens(self) -> int:
        """Validation tokens that an evaluation predicts."""
        return int(self.validation.shape[0]) * self.sequence_length

    def batch(self, seed: int, step: int, sequences: int) -> Tokens:
        """Training step `step` of a run: (sequences, sequence_length + 1), a pure function of (seed, step).

        Every epoch visits each sequence once, in an order of its own.
        """
        rows = np.arange(step * sequences, (step + 1) * sequences)
        epochs, places = np.divmod(rows, self.sequences)
        if epochs[0] == epochs[-1]:
            chosen = _order(seed, int(epochs[0]), self.sequences)[places]
        else:
            chosen = np.array(
                [_order(seed, int(epoch), self.sequences)[place] for epoch, place in zip(epochs, places, strict=True)]
            )
        starts = chosen * self.sequence_length
        batch: Tokens = self.train[starts[:, None] + np.arange(self.sequence_length + 1)]
        return batch

    def summary(self) -> dict[str, Any]:
        """What `prepare` prints."""
        return {
            "trainTokens": self.train_tokens,
            "validationTokens": self.validation_tokens,
            "dataDigest": self.data_digest,
            "validationDigest": self.validation_digest,
            "tokenizerDigest": self.tokenizer_digest,
            "path": str(self.path),
        }


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, sequences: int) -> npt.NDArray[np.intp]:
    """The order of one epoch: sequences sorted by a keyed hash (splitmix64), the same on every machine and version."""
    key = int.from_bytes(hashlib.sha256(f"order\0{seed}\0{epoch}".encode()).digest()[:8], "big")
    z = np.arange(1, sequences + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")


def prepare(training: Training, root: Path, cache: Path) -> Prepared:
    """Read the recipe's text, check it, and put its tokens into the cache unless they are there already.

    `root` is where relative paths start. Raises DataError, with nothing written, when the text cannot be used.
    """
    paths = [(root / file).resolve() for file in training.data.files]
    text = classics() if training.data.corpus else read_files(paths)
    source = ", ".join(map(str, paths)) or f"corpus {training.data.corpus}"
    train, validation = split(np.frombuffer(text, np.uint8), training, source)
    content = train.tobytes() + validation.tobytes()
    file_digest = "sha256:" + hashlib.sha256(content).hexdigest()
    index = {
        "train": len(train),
        "validation": len(validation),
        "file": file_digest,
        "dataDigest": digest_of({"tokens": file_digest, "train": len(train), "tokenizer": tokenizer_digest(training)}),
    }
    cache.mkdir(parents=True, exist_ok=True)
    target = _tokens_path(cache, index)
    if not (target.is_file() and _digest_of_file(target) == file_digest):
        write_atomically(target, content)
    write_atomically(_index_path(training, paths, cache), json.dumps(index).encode())
    return _open(index, training, target)


def open_prepared(training: Training, cache: Path) -> Prepared:
    """The prepared data of a recipe whose paths are absolute; prepared anew where the cache lacks it or is damaged.

    Raises DataError when that is needed and the text is gone.
    """
    try:
        paths = [Path(file).resolve() for file in training.data.files]
        index = json.loads(_index_path(training, paths, cache).read_bytes())
        target = _tokens_path(cache, index)
        if _digest_of_file(target) == index["file"]:
            return _open(index, training, target)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # whatever is wrong with the cache, the sources settle it
    return prepare(training, Path(), cache)


def split(tokens: Tokens, training: Training, source: str) -> tuple[Tokens, Tokens]:
    """Training and validation streams of a text: every 40th block of 16 KB is validation.

    A small text is cut into smaller blocks, and gives more of them where the validation set needs it. Raises DataError
    when it cannot hold one validation set and one training sequence.
    """
    length, wanted = training.sequence_length, training.data.validation_tokens
    windows = wanted // length
    if windows == 0:
        raise DataError(f"data.validationTokens ({wanted:,}) is less than one sequence of {length:,} tokens; raise it")
    needed = windows * length + 1
    block = _BLOCK
    while block > _SMALLEST_BLOCK and len(tokens) < 2 * _EVERY * block:
        block //= 2
    blocks = len(tokens) // block
    held_out = np.zeros(blocks, bool)
    at_least = -(-needed // block)
    if blocks // _EVERY >= at_least:
        held_out[_EVERY - 1 :: _EVERY] = True
    elif at_least <= blocks:
        held_out[np.arange(1, at_least + 1) * blocks // at_least - 1] = True
    mask = np.zeros(len(tokens), bool)
    mask[: blocks * block] = np.repeat(held_out, block)
    train, validation = tokens[~mask], tokens[mask]
    if len(train) < length + 1 or len(validation) < needed:
        least = at_least * block + length + 1
        raise DataError(
            f"{source} has {len(tokens):,} tokens, too few for {needed - 1:,} of validation and one training sequence;"
            f" give at least {least:,}, or lower data.validationTokens"
        )
    return train, validation


def tokenizer_digest(training: Training) -> str:
    """Digest of the tokenizer's identity; losses are compared only where it agrees."""
    return digest_of({"tokenizer": training.tokenizer, "vocabulary": vocabulary_of(training)})


def _open(index: dict[str, Any], training: Training, path: Path) -> Prepared:
    stream: Tokens = np.memmap(path, np.uint8, mode="r")
    train, held_out = stream[: index["train"]], stream[index["train"] :]
    windows = training.data.validation_tokens // training.sequence_length
    last = len(held_out) - training.sequence_length - 1
    starts = np.arange(windows) * last // max(1, windows - 1)  # evenly over the held-out text
    validation = held_out[starts[:, None] + np.arange(training.sequence_length + 1)]
    return Prepared(
        train=train,
        validation=validation,
        sequence_length=training.sequence_length,
        data_digest=index["dataDigest"],
        validation_digest=digest_of(
            {"tokens": hashlib.sha256(validation.tobytes()).hexdigest(), "sequenceLength": training.sequence_length}
        ),
        tokenizer_digest=tokenizer_digest(training),
        path=path,
    )


def _tokens_path(cache: Path, index: dict[str, Any]) -> Path:
    return cache / f"{index['dataDigest'].removeprefix('sha256:')[:24]}.tokens"


def _index_path(training: Training, paths: list[Path], cache: Path) -> Path:
    asked = {
        "data": training.data.to_json() | {"files": [str(path) for path in paths]},
        "tokenizer": training.tokenizer,
        "sequenceLength": training.sequence_length,
    }
    return cache / f"{digest_of(asked).removeprefix('sha256:')[:24]}.index.json"


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
