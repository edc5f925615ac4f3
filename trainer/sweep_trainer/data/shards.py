"""Documents tokenised once: split by hash, written as shards, kept in the cache under a digest, opened again.

Owns the cache of `data.sources`: a folder a source, made beside its place under a lock and renamed into it, so that it
is whole or absent however many processes ask for it at once. A document is validation when the hash of its text falls
below the recipe's share: the same ones whatever else the source holds, on every rung and at every size.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sweep_analysis.document import digest_of
from sweep_analysis.objective import Objective
from sweep_analysis.recipe import Training, document_end_of, vocabulary_of
from sweep_analysis.sources import Source
from sweep_trainer.corpus import BadDataError, DataError
from sweep_trainer.data.batches import (
    Domain,
    Prepared,
    Stream,
    Tokens,
    tokenizer_digest,
    validation_digest_of,
    windows,
)
from sweep_trainer.data.examples import Layout
from sweep_trainer.data.mixture import whole_parts
from sweep_trainer.data.progress import Bar
from sweep_trainer.data.readers import Document, documents, dtype_of, files_of
from sweep_trainer.data.tokenizers import Ids, Tokenizer, tokenizer_of

_FORMAT = 1
_VALIDATION = "validation.tokens"
_SHARD_TOKENS = 1 << 25
"""Tokens of a shard, at least; the last of a source holds what is left."""
_TEXT_AT_ONCE = 1 << 21
"""Characters tokenised together."""
_CHECKED_WHOLE = 1 << 28
"""Shards of a source that are smaller than this together are read back and digested whenever they are opened; of larger
ones the sizes are checked."""

log = logging.getLogger(__name__)


def prepare(training: Training, cache: Path) -> Prepared:
    """Tokenise every source that the cache lacks or whose files have changed. Raises DataError."""
    tokenizer = tokenizer_of(training)
    with contextlib.suppress(FileNotFoundError):
        for source in training.data.sources:
            _tokenised(training, source, tokenizer, cache, files_of(source, cache))
        return _opened(training, cache, tokenizer.file_digest)
    raise DataError(f"{cache}: prepared data were removed while they were read; start again")


def open_prepared(training: Training, cache: Path) -> Prepared:
    """The prepared sources; tokenised anew where the cache lacks one or it is damaged. Raises DataError."""
    try:
        return _opened(training, cache, tokenizer_of(training).file_digest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        log.info("preparing data, since the cache has none to offer: %s", error)
    return prepare(training, cache)


def _opened(training: Training, cache: Path, tokenizer_file: str | None) -> Prepared:
    """What the cache holds of all sources. Raises OSError, ValueError or KeyError where something is amiss."""
    length, sources = training.sequence_length, training.data.sources
    layout = _layout(training)
    parts = whole_parts([s.weight for s in sources], max(len(sources), training.data.validation_tokens // length))
    streams, validation, domains, digests = [], [], [], []
    at = 0
    for source, count in zip(sources, parts, strict=True):
        folder = _folder(training, source, cache)
        index = json.loads((folder / "index.json").read_bytes())
        _check(folder, index)
        dtype = np.dtype(index["dtype"])
        shards = tuple(_mapped(folder / name, dtype) for name in index["train"])
        stream = Stream(source.name, source.weight, shards, length, layout.rows_in_unit)
        chosen = _chosen(_mapped(folder / _VALIDATION, dtype), count, length, layout.rows_in_unit)
        if stream.units == 0 or chosen is None:
            raise _too_small(training, source, index, count)
        streams.append(stream)
        validation.append(chosen)
        domains.append(Domain(source.name, at, at + len(chosen)))
        at += len(chosen)
        digests.append(index["digest"])
    whole: Tokens = np.concatenate(validation)
    identity = tokenizer_digest(training, tokenizer_file)
    return Prepared(
        streams=tuple(streams),
        validation=whole,
        domains=tuple(domains),
        sequence_length=length,
        data_digest=digest_of({"sources": digests, "tokenizer": identity}),
        validation_digest=validation_digest_of(whole, length),
        tokenizer_digest=identity,
        path=cache,
    )


def _mapped(path: Path, dtype: np.dtype[Any]) -> Tokens:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _chosen(held_out: Tokens, count: int, length: int, rows_in_unit: int) -> Tokens | None:
    """The validation rows of one source: windows evenly over a text, or the first whole units; None if too few."""
    if rows_in_unit == 0:
        return windows(held_out, count, length) if len(held_out) >= count * length + 1 else None
    rows = held_out.reshape(-1, length + 1)
    wanted = max(1, count // rows_in_unit) * rows_in_unit
    return rows[:wanted] if len(rows) >= wanted else None


def _too_small(training: Training, source: Source, index: dict[str, Any], count: int) -> BadDataError:
    share, wanted = training.data.validation_share, count * training.sequence_length
    return BadDataError(
        f"source {source.name} has {index['documents']:,} documents, {index['tokens']['train']:,} tokens for training"
        f" and {index['tokens']['validation']:,} held out by validationShare {share:g}: too few for {wanted:,} of"
        f" validation and one sequence of {training.sequence_length:,}; give more, raise data.validationShare, or lower"
        " data.validationTokens or sequenceLength"
    )


def _tokenised(
    training: Training, source: Source, tokenizer: Tokenizer, cache: Path, files: Sequence[tuple[Path, Any]]
) -> None:
    """Put one source into the cache unless it is there and its files are what they were."""
    folder = _folder(training, source, cache)
    stamp = [[str(path), *_stamp(path)] for path, _ in files]
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        try:
            index = json.loads((folder / "index.json").read_bytes())
            if index["files"] == stamp and index["tokenizer"] == tokenizer.file_digest:
                _check(folder, index)
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass  # made anew
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            index = _written(training, source, tokenizer, files, beside)
            index |= {"files": stamp, "tokenizer": tokenizer.file_digest}
            (beside / "index.json").write_text(json.dumps(index, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def _written(
    training: Training, source: Source, tokenizer: Tokenizer, files: Sequence[tuple[Path, Any]], folder: Path
) -> dict[str, Any]:
    """Tokenise the files into shards; returns the index."""
    layout, vocabulary = _layout(training), vocabulary_of(training)
    dtype = np.dtype(np.int32) if layout.signed else np.dtype(dtype_of(vocabulary))
    train = _Shards(folder, "train-{:05d}.tokens", dtype)
    held_out = _Shards(folder, _VALIDATION, dtype)
    fields = layout.fields or (source.field,)
    count = 0
    with Bar(f"tokenising {source.name}", len(files)) as bar:
        for place, (path, form) in enumerate(files):
            here = 0
            read = documents(path, form, fields, vocabulary=vocabulary, end=tokenizer.end)
            for batch, share in _batches(read):
                here += len(batch)
                ids = _ids(path, batch, tokenizer, vocabulary)
                marks = [_held_out(document, training.data.validation_share) for document in batch]
                for target, wanted in ((train, False), (held_out, True)):
                    mine = [one for one, mark in zip(ids, marks, strict=True) if mark is wanted]
                    target.add(layout.laid(mine))
                bar.at(place + share, train.tokens + held_out.tokens)
            if here == 0:
                raise BadDataError(f"source {source.name}: {path} holds no documents; leave it out or name another")
            count += here
    if layout.left_out > layout.taken:
        raise BadDataError(
            f"source {source.name}: {layout.left_out:,} of {layout.left_out + layout.taken:,} examples are longer than"
            f" a sequence of {training.sequence_length:,} tokens; raise training.sequenceLength"
        )
    if layout.left_out:
        log.warning("%s: %d examples longer than a sequence are left out", source.name, layout.left_out)
    train.close()
    held_out.close()
    (folder / _VALIDATION).touch()
    return {
        "format": _FORMAT,
        "dtype": dtype.name,
        "train": train.names,
        "sizes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "digest": digest_of([train.digest, held_out.digest]),
        "digests": [train.digest, held_out.digest],
        "tokens": {"train": train.tokens, "validation": held_out.tokens},
        "documents": count,
        "leftOut": layout.left_out,
    }


class _Shards:
    """Tokens on their way into files of at least `_SHARD_TOKENS`; a name without a number is one file."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._file: BinaryIO | None = None
        self._in_file = 0
        self._digest = hashlib.sha256()
        self.names: list[str] = []
        self.tokens = 0

    def add(self, parts: Iterable[Ids]) -> None:
        """Append tokens; a shard that is large enough ends behind them."""
        content = np.concatenate([np.empty(0, self._dtype), *(part.astype(self._dtype) for part in parts)])
        if not len(content):
            return
        if self._file is None:
            self.names.append(self._name.format(len(self.names)))
            self._file, self._in_file = (self._folder / self.names[-1]).open("wb"), 0
        self._file.write(content.data)
        self._digest.update(content.data)
        self._in_file += len(content)
        self.tokens += len(content)
        if self._in_file >= _SHARD_TOKENS and "{" in self._name:
            self.close()

    def close(self) -> None:
        """End the last shard, down to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    @property
    def digest(self) -> str:
        """Of all tokens, in order."""
        return "sha256:" + self._digest.hexdigest()


def _batches(read: Iterator[tuple[Document, float]]) -> Iterator[tuple[list[Document], float]]:
    """Documents that are not empty, by the `_TEXT_AT_ONCE`."""
    batch: list[Document] = []
    size, share = 0, 0.0
    for document, share in read:
        if not len(document[-1]):
            continue
        batch.append(document)
        size += sum(map(len, document))
        if size >= _TEXT_AT_ONCE:
            yield batch, share
            batch, size = [], 0
    if batch:
        yield batch, share


def _ids(path: Path, batch: list[Document], tokenizer: Tokenizer, vocabulary: int) -> list[tuple[Ids, ...]]:
    """The token ids of documents; ids that a file holds itself are held against the vocabulary."""
    texts = [field for document in batch for field in document if isinstance(field, str)]
    try:
        tokenised = iter(tokenizer.ids(texts))
    except DataError as error:
        raise type(error)(f"{path}: {error}") from None
    found: list[tuple[Ids, ...]] = []
    for document in batch:
        ids = tuple(next(tokenised) if isinstance(field, str) else np.asarray(field, np.int64) for field in document)
        for field, own in zip(document, ids, strict=True):
            if not isinstance(field, str) and len(own) and (own.max() >= vocabulary or own.min() < 0):
                raise BadDataError(
                    f"{path} holds token id {int(own.max() if own.max() >= vocabulary else own.min()):,}, which the"
                    f" vocabulary of {vocabulary:,} has not; name the tokenizer that it was made with"
                )
        found.append(ids)
    return found


def _held_out(document: Document, share: float) -> bool:
    """Whether a document is validation, by the hash of its text, or of its prompt, which no split then divides."""
    first = document[0]
    content = first.encode() if isinstance(first, str) else np.asarray(first, "<i8").tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") < share * 2.0**64


def _layout(training: Training) -> Layout:
    return Layout(training.objective or Objective(), training.sequence_length, document_end_of(training))


def _check(folder: Path, index: dict[str, Any]) -> None:
    """Raises ValueError where a shard is not what was written."""
    if index["format"] != _FORMAT:
        raise ValueError(f"{folder} has another format")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != "index.json"}
    if sizes != index["sizes"]:
        raise ValueError(f"{folder} is damaged: its files have other sizes than were written")
    if sum(sizes.values()) > _CHECKED_WHOLE:
        return
    for names, digest in zip((index["train"], [_VALIDATION]), index["digests"], strict=True):
        found = hashlib.sha256()
        for name in names:
            found.update((folder / name).read_bytes())
        if "sha256:" + found.hexdigest() != digest:
            raise ValueError(f"{folder} is damaged: {names[0]} has another digest than was written")


def _folder(training: Training, source: Source, cache: Path) -> Path:
    """Where a source's tokens lie: named after all that decides them, weights left out."""
    objective, layout = training.objective or Objective(), _layout(training)
    asked = {
        "files": list(source.files),
        "format": source.format,
        "fields": list(layout.fields or (source.field,)),
        "objective": objective.kind,
        "tokenizer": training.tokenizer,
        "tokenizerFile": training.tokenizer_file.to_json() if training.tokenizer_file else None,
        "rows": training.sequence_length if layout.rows_in_unit else None,
        "validationShare": training.data.validation_share,
    }
    return cache / f"{source.name}-{digest_of(asked).removeprefix('sha256:')[:24]}"


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file, or of the newest in a folder."""
    inside = [file.stat() for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path.stat()]
    return [sum(one.st_size for one in inside), max((one.st_mtime_ns for one in inside), default=0)]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go of it with the file, however this process ends
        yield
