"""An own trainer in plain Python, without any dependency: progress while it trains, a failure where it must give up.

It "trains" a bigram table on a text made up from the seed, so that it runs anywhere in a second; what surrounds it is
what any trainer needs: checkpoint on SIGTERM and leave with status 75, go on from there in the next attempt, report.
"""

import json
import math
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

PARAMETERS = int(os.environ["SCALINGSWEEP_PARAMETERS"])
TOKENS = [int(tokens) for tokens in os.environ["SCALINGSWEEP_TOKENS"].split(",")]
SEED = int(os.environ["SCALINGSWEEP_SEED"])
REPORT = Path(os.environ["SCALINGSWEEP_REPORT"])
STORAGE = Path(os.environ["SCALINGSWEEP_STORAGE"])
INTERRUPTED = 75

VOCABULARY = max(2, math.isqrt(PARAMETERS))  # a table of V x V counts is the model


def report(**document: object) -> None:
    """Replace the document; each writing of it is complete."""
    beside = REPORT.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(REPORT)


def text(seed: int):
    """An endless text: each token is near the one before."""
    generator, token = random.Random(seed), 0  # noqa: S311  # no secret depends on it
    while True:
        following = (token + generator.choice((0, 1, 1, 2, 3))) % VOCABULARY
        yield token, following
        token = following


def validation_loss(table: Counter) -> float:
    """Nats per token over the same 2,000 tokens for every run, with add-one smoothing."""
    rows: Counter = Counter()
    for (before, _), count in table.items():
        rows[before] += count
    stream = text(seed=-1)
    pairs = [next(stream) for _ in range(2000)]
    return -sum(math.log((table[p] + 1) / (rows[p[0]] + VOCABULARY)) for p in pairs) / len(pairs)


def main() -> int:
    asked_to_stop = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))
    checkpoint = STORAGE / "checkpoint.json"
    STORAGE.mkdir(parents=True, exist_ok=True)
    saved = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "table": [], "records": []}
    table = Counter({(before, after): count for before, after, count in saved["table"]})
    step, records = saved["step"], saved["records"]
    stream = text(SEED)
    for _ in range(step):
        next(stream)
    while step < TOKENS[-1]:
        table[next(stream)] += 1
        step += 1
        if step in TOKENS:
            loss = validation_loss(table)
            if not math.isfinite(loss):
                report(records=records, failure={"reason": "Diverged", "message": f"loss {loss} after {step} tokens"})
                return 1
            records.append({"tokens": step, "loss": loss, "validationDigest": "bigrams-2000"})
        if step in TOKENS or step % 10_000 == 0:
            report(records=records, progress={"step": step, "steps": TOKENS[-1], "tokens": step})
        if asked_to_stop:
            saved = {"step": step, "table": [[*pair, count] for pair, count in table.items()], "records": records}
            checkpoint.write_text(json.dumps(saved))
            return INTERRUPTED
    report(records=records, progress={"step": step, "steps": step, "tokens": step})
    return 0


if __name__ == "__main__":
    sys.exit(main())
