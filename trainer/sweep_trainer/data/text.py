"""One stream of text as bytes: split by blocks, cached by digest, opened again.

Owns what becomes of `data.corpus` and `data.files`. Reads text through `corpus.py`; the order of batches is
`batches.py`'s.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Training
from sweep_trainer.corpus import BadDataError, classics, read_files
from sweep_trainer.data.batches import (
    Domain,
    Prepared,
    Stream,
    Tokens,
    tokenizer_digest,
    validation_digest_of,
    windows,
)
from sweep_trainer.files import write_atomically

_BLOCK = 16_384
_SMALLEST_BLOCK = 256
_EVERY = 40
"""Every 40th block is validation: spread over the text, since a tail would be another text than the rest."""


def prepare(training: Training, cache: Path) -> Prepared:
    """Read the recipe's text, check it, and put its tokens into the cache unless they are there already.

    Raises DataError, with nothing written, when the text cannot be used.
    """
    paths = [Path(file).resolve() for file in training.data.files]
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
    return prepare(training, cache)


def split(tokens: Tokens, training: Training, source: str) -> tuple[Tokens, Tokens]:
    """Training and validation streams of a text: every 40th block of 16 KB is validation.

    A small text is cut into smaller blocks, and gives more of them where the validation set needs it. Raises DataError
    when it cannot hold one validation set and one training sequence.
    """
    length, wanted = training.sequence_length, training.data.validation_tokens
    windows = wanted // length
    if windows == 0:
        raise BadDataError(
            f"data.validationTokens ({wanted:,}) is less than one sequence of {length:,} tokens; raise it"
        )
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
        raise BadDataError(
            f"{source} has {len(tokens):,} tokens, too few for {needed - 1:,} of validation and one training sequence;"
            f" give at least {least:,}, or lower data.validationTokens"
        )
    return train, validation


def _open(index: dict[str, Any], training: Training, path: Path) -> Prepared:
    stream: Tokens = np.memmap(path, np.uint8, mode="r")
    train, held_out = stream[: index["train"]], stream[index["train"] :]
    length = training.sequence_length
    validation = windows(held_out, training.data.validation_tokens // length, length)
    return Prepared(
        streams=(Stream("text", 1.0, (train,), length),),
        validation=validation,
        domains=(Domain("text", 0, len(validation)),),
        sequence_length=length,
        data_digest=index["dataDigest"],
        validation_digest=validation_digest_of(validation, length),
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
