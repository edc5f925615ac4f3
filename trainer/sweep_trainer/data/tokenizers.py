"""Text to token ids: bytes, Hugging Face `tokenizers` files, tiktoken files.

Owns the three, and the check that a file is what the recipe says: its ids fit the vocabulary, its end of document is
one of them. Adds no special tokens: the end of a document is put where documents end.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sweep_analysis.recipe import Training
from sweep_analysis.sources import BYTES_END, TokenizerFile
from sweep_trainer.corpus import BadDataError, unreadable

Ids = npt.NDArray[np.integer]


class Tokenizer(Protocol):
    """What is asked of each of them."""

    end: int
    """Id of the token behind each document."""
    file_digest: str | None
    """Of the file it was read from."""

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text."""
        ...


def tokenizer_of(training: Training) -> Tokenizer:
    """The recipe's tokenizer. Raises DataError where its file is missing, is none, or does not fit the recipe."""
    if training.tokenizer_file is None:
        return Bytes()
    if training.tokenizer == "HuggingFace":
        return HuggingFace(training.tokenizer_file)
    return Tiktoken(training.tokenizer_file)


class Bytes:
    """A token a byte of UTF-8; the zero byte, which text does not hold, ends a document."""

    end = BYTES_END
    file_digest: str | None = None

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        found = [np.frombuffer(text.encode(), np.uint8) for text in texts]
        for text in found:
            if BYTES_END in text:
                raise BadDataError("a document holds a zero byte, which ends documents for tokenizer Bytes; remove it")
        return list(found)


class HuggingFace:
    """A `tokenizers` JSON file."""

    def __init__(self, file: TokenizerFile) -> None:
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError:
            raise BadDataError(
                "tokenizer HuggingFace needs the package tokenizers; install scalingsweep[trainer]"
            ) from None
        self.file_digest: str | None = _digest(file.path)
        self.end = file.end_of_document
        try:
            self._loaded: Any = Loaded.from_file(file.path)
        except Exception as error:  # noqa: BLE001  # the library raises Exception itself
            raise BadDataError(f"{file.path} is not a tokenizers file ({error})") from None
        self._loaded.no_padding()
        self._loaded.no_truncation()
        _fits(file, max(self._loaded.get_vocab().values(), default=0))
        if self._loaded.id_to_token(self.end) is None:
            raise BadDataError(f"{file.path} has no token {self.end}, which tokenizerFile.endOfDocument names")

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._loaded.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in encoded]


class Tiktoken:
    """A file of base64 ranks, split as GPT-4's encoding does; the end of a document is the id behind the last rank, or
    any that the ranks leave free."""

    _PATTERN = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s"
    )

    def __init__(self, file: TokenizerFile) -> None:
        try:
            import tiktoken
            from tiktoken.load import load_tiktoken_bpe
        except ImportError:
            raise BadDataError(
                "tokenizer Tiktoken needs the package tiktoken; install scalingsweep[tiktoken]"
            ) from None
        self.file_digest: str | None = _digest(file.path)
        self.end = file.end_of_document
        try:
            ranks = load_tiktoken_bpe(file.path)
            self._loaded: Any = tiktoken.Encoding(
                Path(file.path).stem, pat_str=self._PATTERN, mergeable_ranks=ranks, special_tokens={}
            )
        except Exception as error:  # noqa: BLE001  # the library raises what its parts raise
            raise BadDataError(f"{file.path} is not a file of tiktoken's ranks ({error})") from None
        _fits(file, max(ranks.values(), default=0))
        if self.end in set(ranks.values()):
            raise BadDataError(
                f"{file.path} gives id {self.end} to text; set tokenizerFile.endOfDocument to a free one,"
                f" {max(ranks.values()) + 1} for example, and vocabulary above it"
            )

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._loaded.encode_ordinary_batch(list(texts), num_threads=os.cpu_count() or 1)
        return [np.array(one, np.uint32) for one in encoded]


def _digest(path: str) -> str:
    try:
        return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise unreadable(f"tokenizerFile {path}", error) from None


def _fits(file: TokenizerFile, largest: int) -> None:
    if largest >= file.vocabulary:
        raise BadDataError(
            f"{file.path} has ids up to {largest:,}, which do not fit tokenizerFile.vocabulary {file.vocabulary:,};"
            f" set it to {largest + 1:,} or more"
        )
