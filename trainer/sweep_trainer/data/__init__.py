"""What is trained on: read, tokenised once, split, mixed, and read back in an order that repeats.

    hub     → readers                                        files that the Hugging Face hub has, once into the cache
    readers → tokenizers → examples → shards (the cache)     documents of `data.sources`
    corpus  → text (split into blocks, the cache)            one stream of text: `data.corpus`, `data.files`
                         both → batches (and mixture)        what a run sees

Needs numpy, never torch.
"""

from pathlib import Path

from sweep_analysis.recipe import Training
from sweep_trainer.data.batches import Prepared
from sweep_trainer.data.shards import open_prepared as open_sources
from sweep_trainer.data.shards import prepare as prepare_sources
from sweep_trainer.data.tasks import questions_of
from sweep_trainer.data.text import open_prepared as open_text
from sweep_trainer.data.text import prepare as prepare_text
from sweep_trainer.data.text import split

__all__ = ["Prepared", "open_prepared", "prepare", "split"]


def prepare(training: Training, root: Path, cache: Path) -> Prepared:
    """Read the recipe's data, check it, and put its tokens into the cache unless they are there already.

    `root` is where relative paths start. Raises DataError when the data, or a task of
    the evaluation, cannot be used.
    """
    training = training.rooted(root)
    questions_of(training)
    return prepare_sources(training, cache) if training.data.sources else prepare_text(training, cache)


def open_prepared(training: Training, cache: Path) -> Prepared:
    """The prepared data of a recipe whose paths are absolute; prepared anew where the cache lacks it or is damaged.

    Raises DataError when that is needed and the sources are gone.
    """
    return open_sources(training, cache) if training.data.sources else open_text(training, cache)
