"""Prepared data as a run sees it: batches in an order that repeats, and the same validation tokens for every run.

Owns the order of sequences and the counting of what was read. A batch is a pure function of (seed, step, rank, world
size), so a run that is taken up anywhere reads what it would have read. Reads no text and writes nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Training, vocabulary_of
from sweep_trainer.data.mixture import Mixture

Tokens = npt.NDArray[np.integer]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SORTED = 1 << 20
"""Up to so many units an epoch's order is sorted once and kept (8 MB); beyond, each place is computed when asked."""


@dataclass(frozen=True)
class Stream:
    """The training tokens of one source, memory-mapped, and how sequences are cut from them.

    Of a text, sequences of T + 1 tokens begin every T tokens. Of rows (examples packed, answers in pairs), a unit is
    one or two whole rows of T + 1.
    """

    name: str
    weight: float
    shards: tuple[Tokens, ...]
    sequence_length: int
    rows_in_unit: int = 0
    """0 for text; 1 for packed examples; 2 for pairs of answers."""

    @property
    def _stride(self) -> int:
        return self.rows_in_unit * (self.sequence_length + 1) or self.sequence_length

    @property
    def _width(self) -> int:
        return max(1, self.rows_in_unit) * (self.sequence_length + 1)

    @cached_property
    def _before(self) -> npt.NDArray[np.intp]:
        """Units in all shards before each, and in all."""
        fits = ((len(shard) - self._width) // self._stride + 1 for shard in self.shards)
        return np.cumsum([0, *(max(0, units) for units in fits)])

    @property
    def units(self) -> int:
        """Units in one epoch."""
        return int(self._before[-1])

    @property
    def tokens(self) -> int:
        """Distinct training tokens that are predicted in one epoch."""
        return self.units * max(1, self.rows_in_unit) * self.sequence_length

    def take(self, units: npt.NDArray[np.intp]) -> Tokens:
        """(units · rows, T + 1) tokens."""
        shard = np.searchsorted(self._before, units, "right") - 1
        starts = (units - self._before[shard]) * self._stride
        if len(self.shards) == 1:
            flat: Tokens = self.shards[0][starts[:, None] + np.arange(self._width)]
        else:
            pairs = zip(shard, starts, strict=True)
            flat = np.stack([self.shards[i][at : at + self._width] for i, at in pairs])
        return flat.reshape(-1, self.sequence_length + 1)


@dataclass(frozen=True)
class Domain:
    """Where the validation windows of one source stand among all."""

    name: str
    first: int
    stop: int


@dataclass(frozen=True)
class Read:
    """What of one source a run has read."""

    name: str
    tokens: int
    unique: int
    epochs: float


@dataclass(frozen=True)
class Prepared:
    """A data set as a run sees it."""

    streams: tuple[Stream, ...]
    validation: Tokens
    """(windows, sequence_length + 1): the same validation tokens for every run of the recipe."""
    domains: tuple[Domain, ...]
    sequence_length: int
    data_digest: str
    validation_digest: str
    tokenizer_digest: str
    path: Path

    @property
    def train(self) -> Tokens:
        """The training stream of a single text."""
        return self.streams[0].shards[0]

    @property
    def sequences(self) -> int:
        """Training sequences in one epoch of every source; each predicts `sequence_length` tokens."""
        return self.train_tokens // self.sequence_length

    @property
    def train_tokens(self) -> int:
        """Distinct training tokens."""
        return sum(stream.tokens for stream in self.streams)

    @property
    def validation_tokens(self) -> int:
        """Validation tokens that an evaluation predicts."""
        return int(self.validation.shape[0]) * self.sequence_length

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture([stream.weight for stream in self.streams])

    @property
    def _rows_in_unit(self) -> int:
        return max(1, self.streams[0].rows_in_unit)

    def batch(self, seed: int, step: int, sequences: int, rank: int = 0, world: int = 1) -> Tokens:
        """Rank `rank`'s share of training step `step`: (sequences / world, sequence_length + 1).

        `sequences` are those of all ranks; a multiple of `world`, and of twice that where they come in pairs. Every
        epoch of a source visits each of its sequences once, in an order of its own.
        """
        units = sequences // self._rows_in_unit // world
        first = (step * world + rank) * units
        rows = np.arange(first, first + units)
        if len(self.streams) == 1:
            return self._of(0, seed, rows)
        source, place = self._mixture.at(rows)
        parts = [self._of(i, seed, place[source == i]) for i in range(len(self.streams))]
        batch = np.empty((units, self._rows_in_unit, self.sequence_length + 1), np.result_type(*parts))
        for i, part in enumerate(parts):
            batch[source == i] = part.reshape(-1, self._rows_in_unit, self.sequence_length + 1)
        return batch.reshape(-1, self.sequence_length + 1)

    def _of(self, source: int, seed: int, rows: npt.NDArray[np.intp]) -> Tokens:
        """The units that stand at `rows` of a source's endless order."""
        return self.streams[source].take(self._units(source, seed, rows))

    def _units(self, source: int, seed: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        stream = self.streams[source]
        epochs, places = np.divmod(rows, stream.units)
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs):
            here, key = epochs == epoch, _key(seed, int(epoch), source)
            chosen[here] = (
                _order(key, stream.units)[places[here]]
                if stream.units <= _SORTED
                else _placed(key, stream.units, places[here])
            )
        return chosen

    def read(self, seed: int, batches: Sequence[tuple[int, int]], sequences: int) -> tuple[Read, ...]:
        """What of each source a run has read in its training steps.

        `batches` are ranges in order (first, and the one after the last) of batches of so many sequences.
        """
        units = sequences // self._rows_in_unit
        edges = [[self._counts(batch * units) for batch in ends] for ends in batches]
        found = []
        for i, stream in enumerate(self.streams):
            ranges = [(first[i], stop[i]) for first, stop in edges]
            tokens_of_unit = self._rows_in_unit * self.sequence_length
            seen = sum(stop - first for first, stop in ranges) * tokens_of_unit
            unique = self._distinct(i, seed, ranges) * tokens_of_unit
            found.append(Read(stream.name, tokens=seen, unique=unique, epochs=seen / stream.tokens))
        return tuple(found)

    def _counts(self, units: int) -> list[int]:
        """How many of the first units come from each source."""
        return self._mixture.counts(units) if len(self.streams) > 1 else [units]

    def _distinct(self, source: int, seed: int, ranges: Sequence[tuple[int, int]]) -> int:
        """How many units of a source stand in ranges of its endless order, each counted once."""
        units = self.streams[source].units
        last = max((stop for _, stop in ranges), default=0)
        taken = 0
        for epoch in range(-(-last // units)):
            begin, end = epoch * units, (epoch + 1) * units
            here = sum(max(0, min(stop, end) - max(first, begin)) for first, stop in ranges)
            if here == units:
                return units
            taken += here
        if last <= units:
            return taken
        met = np.zeros(units, bool)  # batches were left out of each epoch: no two of them have the same gaps
        for first, stop in ranges:
            for at in range(first, stop, _SORTED):
                met[self._units(source, seed, np.arange(at, min(stop, at + _SORTED)))] = True
        return int(met.sum())

    def summary(self) -> dict[str, Any]:
        """What `prepare` prints."""
        told: dict[str, Any] = {
            "trainTokens": self.train_tokens,
            "validationTokens": self.validation_tokens,
            "dataDigest": self.data_digest,
            "validationDigest": self.validation_digest,
            "tokenizerDigest": self.tokenizer_digest,
            "path": str(self.path),
        }
        if len(self.domains) > 1:
            told["sources"] = {stream.name: stream.tokens for stream in self.streams}
        return told


def _key(seed: int, epoch: int, source: int) -> int:
    """64 bits for one epoch of one source; the first source has no number, so that a text alone keeps its order."""
    name = f"order\0{seed}\0{epoch}" + (f"\0{source}" if source else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@lru_cache(maxsize=128)
def _order(key: int, units: int) -> npt.NDArray[np.intp]:
    """The order of one epoch: units sorted by a keyed hash, the same on every machine and version."""
    return np.argsort(_mixed(np.arange(1, units + 1, dtype=np.uint64) * _GOLDEN + np.uint64(key)), kind="stable")


def _placed(key: int, units: int, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The units at some places of an order of many, without the whole order in memory.

    A Feistel network of four rounds permutes the numbers below a power of four; where it leaves the units, it is
    applied again until it does not (Black & Rogaway 2002, "Ciphers with arbitrary finite domains", §3).
    """
    half = np.uint64((max(2, int(units - 1).bit_length()) + 1) // 2)
    low = (np.uint64(1) << half) - np.uint64(1)
    at = places.astype(np.uint64)
    outside = np.ones(len(at), bool)
    while outside.any():
        left, right = at[outside] >> half, at[outside] & low
        for turn in range(4):
            left, right = right, left ^ (_mixed(right + np.uint64((key + turn * int(_GOLDEN)) % 2**64)) & low)
        at[outside] = (left << half) | right
        outside = at >= units
    return at.astype(np.intp)


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finalizer (Steele et al. 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def windows(held_out: Tokens, count: int, length: int) -> Tokens:
    """(count, length + 1) windows, evenly over the held-out tokens."""
    last = len(held_out) - length - 1
    starts = np.arange(count) * last // max(1, count - 1)
    chosen: Tokens = held_out[starts[:, None] + np.arange(length + 1)]
    return chosen


def validation_digest_of(validation: Tokens, length: int) -> str:
    """Digest of the validation tokens; losses are compared only where it agrees."""
    return digest_of({"tokens": hashlib.sha256(validation.tobytes()).hexdigest(), "sequenceLength": length})


def tokenizer_digest(training: Training, file_digest: str | None = None) -> str:
    """Digest of the tokenizer's identity; losses are compared only where it agrees."""
    identity = {"tokenizer": training.tokenizer, "vocabulary": vocabulary_of(training)}
    return digest_of(identity | ({"file": file_digest} if file_digest else {}))
