"""Documents from every format: tokenised once, split by hash, mixed by weight, read in an order that repeats."""

import base64
import gzip
import itertools
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import forbid

from sweep_analysis.measure import Evaluation, Task
from sweep_analysis.recipe import Data, Training
from sweep_analysis.sources import TokenizerFile, format_of
from sweep_trainer.corpus import BadDataError, DataError
from sweep_trainer.data import Prepared, batches, open_prepared, prepare, shards
from sweep_trainer.data.mixture import PERIOD, Mixture
from sweep_trainer.data.progress import Bar
from sweep_trainer.data.readers import documents
from sweep_trainer.data.tasks import questions_of
from sweep_trainer.data.tokenizers import HuggingFace
from sweep_trainer.spike import batch_of, batches_of

TEXTS = [f"document {i} says " + " ".join(f"w{(i * j) % 97}" for j in range(60)) for i in range(400)]


def lines(path: Path, rows: Sequence[dict[str, Any]] | None = None) -> Path:
    content = "\n".join(json.dumps(row) for row in (rows or [{"text": text} for text in TEXTS])) + "\n"
    path.write_bytes({".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)(content.encode()))
    return path


def zstd(content: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(content)


def parquet(path: Path) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.table({"text": TEXTS, "id": range(len(TEXTS))}), path, row_group_size=64)
    return path


def parquet_of(text: bytes, *, damage: bool = False) -> bytes:
    """One row whose text is said to be UTF-8; with half of its compressed page overwritten."""
    import pyarrow
    from pyarrow import parquet as files

    said = [None, pyarrow.py_buffer(np.array([0, len(text)], "<i4").tobytes()), pyarrow.py_buffer(text)]
    file = pyarrow.BufferOutputStream()
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, said)})
    files.write_table(table, file, use_dictionary=False, write_statistics=False)
    content = bytearray(file.getvalue())
    content[30:60] = b"\xff" * 30 if damage else content[30:60]
    return bytes(content)


def gzip_of_a_wrong_block() -> bytes:
    """Well begun, and then a block of a type that there is none of."""
    content = bytearray(gzip.compress(b'{"text": "x"}\n' * 99, mtime=0))
    content[10] |= 0b110
    return bytes(content)


def zstd_cut_behind_a_line() -> bytes:
    """What was written of a frame when its writer ended: whole lines, and nothing that says so."""
    import zstandard

    frame = zstandard.ZstdCompressor().compressobj()
    return frame.compress(b'{"text": "x"}\n' * 99) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def saved_dataset(path: Path) -> Path:
    """The layout that `datasets.Dataset.save_to_disk` writes."""
    import pyarrow
    from pyarrow import ipc

    path.mkdir()
    parts = [f"data-{i:05d}-of-00002.arrow" for i in range(2)]
    for part, texts in zip(parts, (TEXTS[:150], TEXTS[150:]), strict=True):
        table = pyarrow.table({"text": texts})
        with (path / part).open("wb") as file, ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": part} for part in parts]}))
    return path


def token_file(path: Path) -> Path:
    stream = np.frombuffer(b"\0".join(text.encode() for text in TEXTS) + b"\0", np.uint8)
    np.save(path, stream) if path.suffix == ".npy" else stream.tofile(path)
    return path


def of(*files: Path, **fields: Any) -> Training:
    source = {"name": "web", "files": [str(file) for file in files]}
    data = {"sources": [source], "validation_tokens": 1024, "validation_share": 0.2} | fields.pop("data", {})
    return Training.model_validate({"data": data, "sequence_length": 16, "batch_tokens": 128} | fields)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "web.jsonl": lines,
    "web.jsonl.gz": lines,
    "web.jsonl.zst": lines,
    "web.parquet": parquet,
    "web": saved_dataset,
    "web.bin": token_file,
    "web.npy": token_file,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_same_documents_gives_the_same_tokens(name: str, tmp_path: Path, cache: Path) -> None:
    data = prepare(of(FORMATS[name](tmp_path / name)), tmp_path, cache)
    text = bytes(data.train).decode() + bytes(np.fromfile(next(cache.glob("*/validation.tokens")), np.uint8)).decode()
    assert sorted(text.split("\0")[:-1]) == sorted(TEXTS)
    if name in ("web.bin", "web.npy"):
        return  # their documents' hashes are those of ids
    like = prepare(of(lines(tmp_path / "like.jsonl")), tmp_path, tmp_path / "other")
    assert (data.data_digest, data.validation_digest) == (like.data_digest, like.validation_digest)


def test_what_datasets_itself_saves_is_read(tmp_path: Path, cache: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    like = prepare(of(lines(tmp_path / "like.jsonl")), tmp_path, tmp_path / "other")
    assert prepare(of(tmp_path / "saved"), tmp_path, cache).data_digest == like.data_digest
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})}).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"splits holds several splits; name one of them: .*splits/train"):
        prepare(of(tmp_path / "splits"), tmp_path, cache)


def test_plain_text_is_cut_into_documents_behind_lines(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "plain.txt"
    file.write_text("\n".join(f"line {i} λ" for i in range(40_000)) + "\n")
    data = prepare(of(file), tmp_path, cache)
    assert "".join(bytes(data.train).decode().split("\0")).endswith("\n")
    assert all(piece.endswith("\n") for piece in bytes(data.train).decode().split("\0")[:-1])


def test_a_document_is_validation_by_its_own_hash_whatever_else_there_is(tmp_path: Path) -> None:
    def held_out(texts: Sequence[str]) -> set[str]:
        file = lines(tmp_path / "some.jsonl", [{"text": text} for text in texts])
        prepare(of(file, data={"validation_tokens": 1024}), tmp_path, tmp_path / f"cache-{len(texts)}")
        found = next((tmp_path / f"cache-{len(texts)}").glob("*/validation.tokens"))
        return set(found.read_bytes().decode().split("\0")[:-1])

    few, many = held_out(TEXTS[:200]), held_out(TEXTS)
    assert few == many & set(TEXTS[:200])
    assert 0.1 < len(many) / len(TEXTS) < 0.3


def test_no_document_is_both_trained_on_and_validation_even_when_it_occurs_twice(tmp_path: Path, cache: Path) -> None:
    data = prepare(of(lines(tmp_path / "twice.jsonl", [{"text": text} for text in TEXTS * 2])), tmp_path, cache)
    held_out = next(cache.glob("*/validation.tokens")).read_bytes().decode().split("\0")[:-1]
    assert not set(held_out) & set(bytes(data.train).decode().split("\0")[:-1])


def test_several_shards_hold_what_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines(tmp_path / "web.jsonl")
    whole = prepare(of(file), tmp_path, tmp_path / "whole")
    monkeypatch.setattr(shards, "_SHARD_TOKENS", 9_000)
    monkeypatch.setattr(shards, "_TEXT_AT_ONCE", 5_000)
    parts = prepare(of(file), tmp_path, tmp_path / "parts")
    assert len(parts.streams[0].shards) > 3
    assert parts.data_digest == whole.data_digest
    assert b"".join(map(bytes, parts.streams[0].shards)) == bytes(whole.train)
    n = parts.streams[0].units
    rows = parts.batch(0, 0, n)
    starts = [s[: (len(s) - 1) // 16 * 16].reshape(-1, 16) for s in parts.streams[0].shards]
    assert sorted(map(bytes, rows[:, :16])) == sorted(map(bytes, np.concatenate(starts)))


def test_data_are_tokenised_once_by_however_many_processes_ask_at_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, calls, whole = lines(tmp_path / "web.jsonl"), [], shards._written
    monkeypatch.setattr(shards, "_written", lambda *args: calls.append(1) or whole(*args))
    threads = [threading.Thread(target=prepare, args=(of(file), tmp_path, cache)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    open_prepared(of(file), cache)
    assert len(calls) == 1
    assert not list(cache.glob(".*"))


def test_changed_files_are_tokenised_anew_and_a_damaged_shard_too(tmp_path: Path, cache: Path) -> None:
    file = lines(tmp_path / "web.jsonl")
    first = prepare(of(file), tmp_path, cache)
    shard = next(cache.glob("*/train-00000.tokens"))
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    assert open_prepared(of(file), cache).data_digest == first.data_digest
    assert bytes(open_prepared(of(file), cache).train) != bytes(content)
    lines(file, [{"text": text + "!"} for text in TEXTS])
    os.utime(file, ns=(1, 1))
    assert prepare(of(file), tmp_path, cache).data_digest != first.data_digest


def test_tokenising_that_is_killed_leaves_nothing_behind(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path / "web.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_held_out", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(of(file), tmp_path, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    prepare(of(file), tmp_path, cache)


def bpe(path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(path))
    return path


def with_tokenizer(kind: str, path: Path, vocabulary: int = 512, end: int = 0) -> dict[str, Any]:
    file = {"path": str(path), "vocabulary": vocabulary, "end_of_document": end}
    return {"tokenizer": kind, "tokenizer_file": file}


def test_a_tokenizers_file_gives_ids_that_decode_to_the_documents(tmp_path: Path, cache: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    file = bpe(tmp_path / "tokenizer.json")
    data = prepare(of(lines(tmp_path / "web.jsonl"), **with_tokenizer("HuggingFace", file)), tmp_path, cache)
    assert data.train.dtype == np.uint16
    ids = np.split(data.train, np.flatnonzero(data.train == 0) + 1)[:-1]
    loaded = tokenizers.Tokenizer.from_file(str(file))
    assert {loaded.decode(one[:-1].tolist()) for one in ids} <= set(TEXTS)
    assert len(ids) > 250


def test_a_tiktoken_file_gives_ids_that_decode_to_the_documents(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("tiktoken", reason="the package tiktoken is not installed")
    pairs = [bytes([i]) for i in range(256)] + [b"do", b"cu", b"says"[:2], b" w"]
    file = tmp_path / "ranks.tiktoken"
    file.write_text("\n".join(f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(pairs)))
    training = of(lines(tmp_path / "web.jsonl"), **with_tokenizer("Tiktoken", file, 300, 260))
    data = prepare(training, tmp_path, cache)
    first = data.train[: np.flatnonzero(data.train == 260)[0]]
    assert b"".join(pairs[i] for i in first).decode() in TEXTS
    with pytest.raises(DataError, match=r"gives id 5 to text; set tokenizerFile\.endOfDocument to a free one, 260"):
        prepare(of(lines(tmp_path / "web.jsonl"), **with_tokenizer("Tiktoken", file, 300, 5)), tmp_path, cache)


def refused(training: Training, cache: Path, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as refusal:
        prepare(training, Path("/"), cache)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_does_not_fit_the_recipe_is_refused(tmp_path: Path, cache: Path) -> None:
    text, file = lines(tmp_path / "web.jsonl"), bpe(tmp_path / "tokenizer.json")
    refused(of(text, **with_tokenizer("HuggingFace", file, 300)), cache, r"ids up to 399, .* set it to 400 or more")
    refused(of(text, **with_tokenizer("HuggingFace", file, 512, 450)), cache, "has no token 450")
    refused(of(text, **with_tokenizer("HuggingFace", text)), cache, "is not a tokenizers file")
    refused(of(text, **with_tokenizer("HuggingFace", tmp_path / "gone")), cache, "gone cannot be read")
    refused(of(text, **with_tokenizer("Tiktoken", file)), cache, "is not a file of tiktoken's ranks")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"", "a.jsonl holds no documents"),
        ("a.jsonl", b'{"text": ""}\n', "a.jsonl holds no documents"),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', r"a\.jsonl: line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl: line 1 is not an object"),
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl: line 1 has no field text; it has body"),
        ("a.jsonl", b'{"text": {"x": 1}}\n', "line 1: text is neither text nor a list of token ids"),
        ("a.jsonl", b'{"text": [1, 900]}\n', r"holds token id 900, which the vocabulary of 256 has not"),
        ("a.jsonl", b'{"text": "a\\u0000b"}\n', "holds a zero byte, which ends documents for tokenizer Bytes"),
        ("a.jsonl", b'{"text": "too short"}\n', "too few for 1,024 of validation and one sequence of 16"),
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz is not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99, mtime=0)[:-9], "a.jsonl.gz is not a whole gzip file"),
        ("a.jsonl.zst", b"not zstd", "a.jsonl.zst is not a whole zstd file"),
        ("a.jsonl.gz", gzip_of_a_wrong_block(), "a.jsonl.gz is not a whole gzip file"),
        ("a.jsonl.zst", zstd_cut_behind_a_line(), r"a\.jsonl\.zst is not a whole zstd file \(it ends within a frame"),
        ("a.jsonl", b'{"text": "a\\ud800b"}\n', "line 1: text holds half a surrogate pair at character 1; remove it"),
        ("a.jsonl", b'{"text": [1, %d]}\n' % 10**30, "line 1: text is neither text nor a list of token ids"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", r"a\.jsonl: line 1 is not JSON that can be read"),
        ("a.parquet", b"not parquet", "a.parquet is not a Parquet file"),
        ("a.parquet", parquet_of(b"gr\xfc\xdfe"), r"a\.parquet holds text that is not UTF-8 .* convert it"),
        ("a.parquet", parquet_of(b"whole" * 999, damage=True), r"a\.parquet is damaged \(.+\); make it anew"),
        ("a.npy", b"not numpy", "a.npy is not a NumPy file"),
        ("a.txt", b"gr\xfc\xdfe", "a.txt is not UTF-8"),
    ],
)
def test_a_shard_that_cannot_be_used_is_named_with_the_reason(
    name: str, content: bytes, sentence: str, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(of(tmp_path / name), cache, sentence)
    assert not list(cache.glob("*/index.json")) or "too few" in sentence


def test_files_that_are_not_there_are_named(tmp_path: Path, cache: Path) -> None:
    refused(of(tmp_path / "gone.jsonl"), cache, r"source web: .*gone\.jsonl does not exist; relative paths")
    refused(of(tmp_path / "*.jsonl"), cache, r"source web: no file matches .*\*\.jsonl")
    refused(of(tmp_path, data={}), cache, "has no readable state.json")


def test_a_column_that_is_missing_is_refused_with_those_there_are(tmp_path: Path, cache: Path) -> None:
    source = {"name": "web", "files": [str(parquet(tmp_path / "a.parquet"))], "field": "body"}
    refused(of(data={"sources": [source]}), cache, "has no column body; it has text, id")


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Files of two sources, told apart by what stands in them."""
    of_a = [{"text": "a" * 200 + str(i)} for i in range(200)]
    of_b = [{"text": f"{i:5d}" + "b" * 99} for i in range(300)]
    return [lines(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate((of_a, of_b))]


def mixed(two: list[Path], cache: Path, weights: tuple[float, float] = (3, 1)) -> Prepared:
    parts = enumerate(zip(weights, two, strict=True))
    sources = [{"name": f"s{i}", "weight": weight, "files": [str(file)]} for i, (weight, file) in parts]
    return prepare(of(data={"sources": sources}), Path("/"), cache)


def test_a_mixture_has_its_shares_in_every_stretch(two: list[Path], cache: Path) -> None:
    data = mixed(two, cache)
    for step in range(5):
        batch = data.batch(0, step, 64)
        of_a = sum(b"aa" in bytes(row) for row in batch)
        assert 46 <= of_a <= 50
    assert [domain.name for domain in data.domains] == ["s0", "s1"]
    assert data.domains[0].stop - data.domains[0].first == 48
    assert len(data.validation) == 64


def test_changed_weights_tokenise_nothing_anew(two: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mixed(two, cache)
    monkeypatch.setattr(shards, "_written", lambda *args: 1 / 0)
    other = mixed(two, cache, (1, 1))
    assert other.data_digest == first.data_digest
    assert other.validation_digest != first.validation_digest


def test_the_pattern_of_a_mixture_is_spread_evenly_and_counts_itself() -> None:
    mixture = Mixture([5, 3, 1e-9])
    places = np.arange(3 * PERIOD)
    source, place = mixture.at(places)
    for i in range(3):
        assert np.array_equal(place[source == i], np.arange((source == i).sum()))
    for stop in (1, 7, 1000, PERIOD, 2 * PERIOD + 17):
        counts = mixture.counts(stop)
        assert counts == np.bincount(source[:stop], minlength=3).tolist()
        assert abs(counts[0] - stop * 5 / 8) <= 2
    assert mixture.shares[2] == 1


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_batch_is_the_same_however_many_ranks_share_it(world: int, two: list[Path], cache: Path) -> None:
    data = mixed(two, cache)
    whole = data.batch(7, 3, 64)
    shares = [data.batch(7, 3, 64, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(shares), whole)
    assert not np.array_equal(data.batch(8, 3, 64), whole)


def test_what_was_read_of_each_source_is_counted(two: list[Path], cache: Path) -> None:
    data = mixed(two, cache)
    tokens = 64 * 16 * 40
    read = {one.name: one for one in data.read(0, [(0, 40)], 64)}
    rows = np.concatenate([data.batch(0, step, 64) for step in range(40)])
    of_a = sum(b"aa" in bytes(row) for row in rows)
    assert read["s0"].tokens == of_a * 16
    assert read["s0"].tokens + read["s1"].tokens == tokens
    assert read["s0"].epochs == pytest.approx(of_a / data.streams[0].units)
    assert read["s0"].unique == min(read["s0"].tokens, data.streams[0].tokens)


def test_batches_that_were_left_out_count_neither_as_read_nor_as_unique(two: list[Path], cache: Path) -> None:
    data = mixed(two, cache)
    for steps, left_out in ((8, ((3, 2),)), (60, ((3, 2), (20, 7), (21, 30))), (400, ((3, 200), (90, 100)))):
        path = [batch_of(step, left_out) for step in range(steps)]
        ranges = batches_of(steps, left_out)
        assert [batch for first, stop in ranges for batch in range(first, stop)] == path
        source, place = data._mixture.at(np.concatenate([np.arange(64 * at, 64 * at + 64) for at in path]))
        for i, one in enumerate(data.read(5, ranges, 64)):
            units = data._units(i, 5, place[source == i])
            assert one.tokens == len(units) * 16
            assert one.unique == len(np.unique(units)) * 16
            assert one.epochs == pytest.approx(len(units) / data.streams[i].units)


def test_an_order_too_long_to_sort_still_visits_every_sequence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for units in (1, 2, 5, 1000, 4097):
        placed = batches._placed(123, units, np.arange(units))
        assert sorted(placed.tolist()) == list(range(units))
    long = batches._placed(123, 4097, np.arange(4097))
    assert abs(np.corrcoef(long, np.arange(4097))[0, 1]) < 0.1
    assert not np.array_equal(long, batches._placed(124, 4097, np.arange(4097)))
    assert np.array_equal(batches._placed(123, 4097, np.array([5, 70])), long[[5, 70]])


def test_a_terminal_sees_a_bar_and_a_log_sees_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    moments = itertools.count(step=20.0)
    monkeypatch.setattr("sweep_trainer.data.progress.time.monotonic", lambda: next(moments))
    with caplog.at_level("INFO"), Bar("tokenising web", 4) as bar:
        bar.at(1.0, 3_000_000)
    assert "tokenising web:  25%, 3.0 M tokens, 120 s left" in caplog.text
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Bar("tokenising web", 4) as bar:
        bar.at(2.0, 3_000_000)
    assert "tokenising web [###############...............]  50%" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["web.jsonl", "web.txt", "tokenizer.json", "questions.jsonl"])
def test_every_file_of_the_data_that_may_not_be_read_is_bad_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.touch()
    forbid(monkeypatch, name)
    task = Task(name="asked", kind="MultipleChoice", data=str(path))
    recipe = Training(data=Data(corpus="Classics"), evaluation=Evaluation(tasks=(task,)))
    read: Callable[[], object] = {
        "tokenizer.json": lambda: HuggingFace(TokenizerFile(path=str(path), vocabulary=300, end_of_document=0)),
        "questions.jsonl": lambda: questions_of(recipe),
    }.get(name, lambda: list(documents(path, format_of(name), ("text",), vocabulary=256, end=0)))
    with pytest.raises(BadDataError, match=rf"{name} may not be read \(Permission denied\); give the trainer's user"):
        read()
