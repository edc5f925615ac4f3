"""Names and digests of children: pure functions of what they are, so that asking twice makes one."""

import hashlib
from functools import lru_cache

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Training
from sweep_analysis.rung import Run
from sweep_operator.api import ScalingSweep


def run_name(sweep: ScalingSweep, rung: str, revision: int, run: Run) -> str:
    """`<sweep, ≤ 20>-<rung, ≤ 12>-<8 hex>`; the digits digest sweep UID, rung, revision and the run itself."""
    identity = "\0".join((sweep.metadata.uid, rung, str(revision), _digest(run)))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"{sweep.metadata.name[:20].rstrip('-.')}-{rung[:12].rstrip('-')}-{digest}".replace(".", "-")


@lru_cache(maxsize=16_384)
def _digest(run: Run) -> str:
    """Kept, since every pass names every run of its sweep anew."""
    return run.content_digest


def config_digest(training: Training, run: Run) -> str:
    """Of all that repeats a run: resolved hyperparameters, data, tokenizer, token counts and seed."""
    return digest_of(
        {
            "hyperparameters": run.resolved(training).to_json(),
            "data": training.data.to_json(),
            "tokenizer": training.tokenizer,
            "tokens": list(run.tokens),
            "seed": run.seed,
        }
    )


def label_value(text: str) -> str:
    """The text as a label's value, at most 63 characters: shortened, and told apart by a digest, where it is longer."""
    if len(text) <= 63:
        return text
    return f"{text[:54].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
