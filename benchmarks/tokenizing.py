"""How fast text becomes prepared data, against the plain `tokenizers` library on the same text.

    python benchmarks/tokenizing.py [--megabytes 40] [--json FILE]

The corpus Classics, repeated with a number in each document, as JSON lines; a byte-level BPE of 8,192 tokens trained on
it. Plain: the library's `encode_batch_fast` on documents that stand in memory already, in the portions that `prepare`
takes, and nothing else. Ours: `prepare` from the file to the cache: reading, parsing, hashing, splitting, tokenising,
writing, digesting. They take turns in one process; the best of each is told, in megabytes per second of CPU time over
all threads: that is what a busy machine disturbs least, and what the work costs.
"""

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sweep_analysis.recipe import Training
from sweep_trainer.corpus import classics
from sweep_trainer.data import prepare
from sweep_trainer.data.shards import _TEXT_AT_ONCE

_DOCUMENT = 4_000
"""Characters of a document, about a web page's."""


def documents(megabytes: float) -> list[str]:
    """Documents of text, no two alike."""
    text = classics().decode()
    pieces = [text[at : at + _DOCUMENT] for at in range(0, len(text), _DOCUMENT)]
    wanted = round(megabytes * 1e6 / _DOCUMENT)
    return [f"{i} {pieces[i % len(pieces)]}" for i in range(wanted)]


def trained(texts: list[str], path: Path) -> Tokenizer:
    """A byte-level BPE of 8,192 tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts[:1000], trainer)
    made.save(str(path))
    return made


def portions(texts: list[str]) -> Iterator[list[str]]:
    """As many documents together as `prepare` takes."""
    portion: list[str] = []
    size = 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if size >= _TEXT_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def plain(tokenizer: Tokenizer, texts: list[str]) -> float:
    """CPU seconds of the library alone, all of its threads together."""
    began = time.process_time()
    for portion in portions(texts):
        tokenizer.encode_batch_fast(portion, add_special_tokens=False)
    return time.process_time() - began


def ours(training: Training, cache: Path) -> float:
    """CPU seconds from the file to the cache."""
    began = time.process_time()
    prepare(training, Path(), cache)
    return time.process_time() - began


def measured(megabytes: float, repeats: int) -> dict[str, Any]:
    """Both, in turns."""
    texts = documents(megabytes)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        tokenizer = trained(texts, here / "tokenizer.json")
        file = here / "classics.jsonl"
        with file.open("w") as lines:
            lines.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        data = {"sources": [{"name": "classics", "files": [str(file)]}], "validationTokens": 8192}
        common = {"data": data, "sequenceLength": 1024}
        bpe = {"path": str(here / "tokenizer.json"), "vocabulary": 8192, "endOfDocument": 0}
        recipes = {
            "BPE": Training.model_validate(common | {"tokenizer": "HuggingFace", "tokenizerFile": bpe}),
            "bytes": Training.model_validate(common),
        }
        seconds: dict[str, list[float]] = {"plain": [], "BPE": [], "bytes": []}
        for repeat in range(repeats):
            seconds["plain"].append(plain(tokenizer, texts))
            for name, training in recipes.items():
                seconds[name].append(ours(training, here / f"cache-{repeat}-{name}"))
    size = sum(map(len, texts)) / 1e6
    speed = {name: size / min(times) for name, times in seconds.items()}
    return {
        "megabytes": round(size, 1),
        "documents": len(texts),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "repeats": repeats,
        "load": round(os.getloadavg()[0], 1),
        "megabytesPerCpuSecond": {name: round(value, 2) for name, value in speed.items()},
        "ratio": round(speed["BPE"] / speed["plain"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    found = measured(options.megabytes, options.repeats)
    for name, what in (("plain", "tokenizers alone"), ("BPE", "prepare, the same BPE"), ("bytes", "prepare, bytes")):
        print(f"{what:24}{found['megabytesPerCpuSecond'][name]:8.2f} MB per CPU second")
    print(f"prepare reaches {found['ratio']:.0%} of the library's own speed ({found['cores']} cores)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
