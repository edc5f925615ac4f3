"""What models read: the data of a recipe, their mixture, their tokenizer.

Owns the vocabulary of `training.data` and `training.tokenizer`, and the number of token ids, which the operator must
know without reading anything. Reads no file: the trainer does.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document

BYTES_VOCABULARY = 256
BYTES_END = 0
"""The byte that ends a document: text holds no zero bytes."""

HUB = "hf://datasets/"
"""How the address of a file begins that the Hugging Face hub has: OWNER/NAME[@REVISION]/PATH follows."""

TokenizerKind = Literal["Bytes", "HuggingFace", "Tiktoken"]
Format = Literal["Text", "JsonLines", "Parquet", "Dataset", "Tokens"]
File = Annotated[str, Field(min_length=1, max_length=1024)]

_FORMATS: tuple[tuple[tuple[str, ...], Format], ...] = (
    ((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst"), "JsonLines"),
    ((".parquet",), "Parquet"),
    ((".bin", ".npy"), "Tokens"),
)


def format_of(file: str) -> Format:
    """What a file's name says that it is; text when it says nothing, a saved dataset when it ends in a slash."""
    if file.endswith("/"):
        return "Dataset"
    return next((form for endings, form in _FORMATS if file.lower().endswith(endings)), "Text")


class TokenizerFile(Document):
    """A tokenizer on disk, and what the operator must know of it; the trainer checks both before the first step."""

    path: File
    """A `tokenizers` JSON file for HuggingFace, a file of base64 ranks for Tiktoken."""
    vocabulary: int = Field(ge=2, le=1 << 24)
    """Number of token ids the model has; may be more than the tokenizer's, for a round size."""
    end_of_document: int = Field(ge=0, lt=1 << 24)
    """Id of the token put after every document."""

    @model_validator(mode="after")
    def _end_is_a_token(self) -> "TokenizerFile":
        if self.end_of_document >= self.vocabulary:
            raise ValueError(f"endOfDocument ({self.end_of_document}) is not below vocabulary ({self.vocabulary})")
        return self


class Source(Document):
    """One part of a mixture; its validation loss is told apart from the others'."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Under which its losses are told."""
    files: tuple[File, ...] = Field(min_length=1, max_length=4096)
    """Files or folders, relative to the manifest's; `*` and `?` stand for parts of a name. Or
    hf://datasets/OWNER/NAME@REVISION/PATH, of the Hugging Face hub."""
    format: Format | None = None
    """By each file's name when left out: .jsonl, .jsonl.gz and .jsonl.zst, .parquet, folders that Hugging Face datasets
    saved, .bin and .npy of token ids, anything else UTF-8 text."""
    field: str = Field(default="text", min_length=1, max_length=256)
    """The key or column that holds a document's text; token ids too, where it holds lists of numbers."""
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Share of the training sequences, relative to the other sources'; kept to 1/4096."""


class Data(Document):
    """What the models read. Exactly one of corpus, files and sources."""

    corpus: Literal["Classics"] | None = None
    """`Classics`: public-domain English built from the packages of the `demo` extra (9.2 MB)."""
    files: tuple[File, ...] = Field(default=(), max_length=256)
    """Text files (UTF-8), read as one stream; relative paths start at the manifest's folder."""
    sources: tuple[Source, ...] = Field(default=(), max_length=64, exclude_if=lambda sources: not sources)
    """Documents in any format, mixed by weight; those whose hash falls below validationShare are validation."""
    validation_tokens: int = Field(default=65_536, ge=1_024)
    """How many validation tokens every evaluation reads; the same ones on every rung."""
    validation_share: float = Field(default=0.01, gt=0, le=0.5, exclude_if=lambda share: share == 0.01)
    """Share of the documents, by the hash of their text, that is kept from training; for sources alone."""

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if (self.corpus is not None) + bool(self.files) + bool(self.sources) != 1:
            raise ValueError("name exactly one of corpus, files and sources")
        if self.validation_share != 0.01 and not self.sources:
            raise ValueError("validationShare is for sources; of corpus and files, every 40th block is validation")
        documents = [file for file in self.files if format_of(file) != "Text"]
        if documents:
            raise ValueError(f"files takes plain text; put {documents[0]} under sources: [{{name: …, files: […]}}]")
        in_sources = [file for source in self.sources for file in source.files if not file.startswith(HUB)]
        away = [file for file in (*self.files, *in_sources) if "://" in file]
        if away:
            raise ValueError(f"{away[0]} is an address; data is read from files, so mount it or copy it first")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name; losses are told apart by it")
        return self

    def rooted(self, root: Path) -> "Data":
        """The same data with every path in full."""
        sources = tuple(s.model_copy(update={"files": _rooted(s.files, root)}) for s in self.sources)
        return self.model_copy(update={"files": _rooted(self.files, root), "sources": sources})


def _rooted(files: tuple[str, ...], root: Path) -> tuple[str, ...]:
    return tuple(rooted(file, root) for file in files)


def rooted(file: str, root: Path) -> str:
    """A path in full; a closing slash, which says that it is a folder, stays. An address is in full already."""
    if file.startswith(HUB):
        return file
    return str((root / file).resolve()) + ("/" if file.endswith("/") else "")
