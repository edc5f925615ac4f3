"""What the models will read, made ready before anything of a ladder is written.

Owns the call of the trainer's `prepare` and the comparison with the data of a ladder that stands already. Reads no text
itself.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from sweep_analysis.document import Document
from sweep_analysis.recipe import Training

CACHE_VARIABLE = "SCALINGSWEEP_CACHE"


class DataError(Exception):
    """The data cannot be used; the text is one sentence with the remedy."""


class Prepared(Document):
    """What `prepare` says of the data."""

    model_config = ConfigDict(extra="ignore")

    train_tokens: int = Field(gt=0)
    validation_tokens: int = Field(gt=0)
    data_digest: str
    validation_digest: str
    tokenizer_digest: str
    path: str


def cache_folder() -> Path:
    """Where prepared data lies: $SCALINGSWEEP_CACHE, or this user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("scalingsweep")


def prepare(training: Training, root: Path, cache: Path) -> Prepared:
    """Have the trainer check and prepare the data. Raises DataError with the trainer's own sentence."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="scalingsweep-training-") as order:
        json.dump(training.to_json(), order)
        order.flush()
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own program
            [sys.executable, "-m", "sweep_trainer", "prepare", order.name, "--root", str(root), "--cache", str(cache)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        if done.returncode < 0:
            raise DataError(f"the data could not be prepared: ended by signal {-done.returncode}")
        if said and "No module named" in said[-1]:
            raise DataError(
                f"the trainer is not installed ({said[-1].split(': ', 1)[-1]}); install scalingsweep[trainer]"
            )
        unsaid = f"the data could not be prepared: exit status {done.returncode}"
        raise DataError(said[-1].removeprefix("sweep_trainer prepare: ") if said else unsaid)
    try:
        return Prepared.model_validate_json(done.stdout)
    except ValidationError:
        raise DataError(f"the data could not be prepared: the trainer answered {done.stdout[:100]!r}") from None


def as_kept(prepared: Prepared, manifest: Path) -> dict[str, Any]:
    """The document for data.json; the manifest's path is kept so that other commands can name it."""
    return {**prepared.to_json(), "manifest": str(manifest)}


def changed_since(kept: dict[str, Any], prepared: Prepared) -> str | None:
    """One sentence when the data is no longer what the ladder began with."""
    for field, what in (
        ("dataDigest", "text"),
        ("validationDigest", "validation set"),
        ("tokenizerDigest", "tokenizer"),
    ):
        now = prepared.to_json()[field]
        if kept.get(field) not in (None, now):
            return (
                f"the data's {what} has changed since the ladder began ({str(kept[field])[:19]}… then, {now[:19]}… now)"
                " and losses would not be comparable; put it back, or start a ladder of its own in another --workdir"
            )
    return None
