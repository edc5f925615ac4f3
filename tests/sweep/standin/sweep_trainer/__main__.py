"""Orders in, records by a law out. `$STANDIN` (JSON) scripts its behaviour:

seconds: how long a run takes; failures: {"<parameters>": [reason, …]} one for each attempt; crash: attempts that die by
SIGKILL; bend: {"<parameters>": factor} multiplies that size's losses; silent: true keeps it from checkpointing on
SIGTERM.
"""

import hashlib
import json
import math
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from sweep_analysis.recipe import Training, resolve
from sweep_analysis.record import (
    ExitStatus,
    Failure,
    FlopCounts,
    ParameterCounts,
    Progress,
    Record,
    RecordSet,
    RunReference,
)
from sweep_analysis.rung import RunOrder

STEPS = 40
stopping = False


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(path: Path, document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document.to_json()))
    temporary.replace(path)


def loss_of(order: RunOrder, tokens: int) -> float:
    n = order.run.parameters
    digest = hashlib.sha256(f"{n}/{tokens}/{order.run.seed}".encode()).digest()
    noise = (digest[0] / 255 - 0.5) * 0.004
    badly_tuned = 0.02 * math.log(order.run.learning_rate_factor) ** 2
    return (1.2 + 14 / n**0.34 + 60 / tokens**0.37) * (1 + noise + badly_tuned)


def train(path: str) -> int:
    script = json.loads(os.environ.get("STANDIN", "{}"))
    order = RunOrder.model_validate_json(Path(path).read_text())
    signal.signal(signal.SIGTERM, stop)
    storage, report = Path(order.storage), Path(order.report)
    storage.mkdir(parents=True, exist_ok=True)
    parent = os.getppid()
    print(f"attempt {order.attempt} of {order.name}", flush=True)
    reasons = script.get("failures", {}).get(str(order.run.parameters), [])
    if order.attempt <= len(reasons):
        failure = Failure(attempt=order.attempt, reason=reasons[order.attempt - 1], message="as scripted", at=now())
        write(report / f"failure-{order.attempt}.json", failure)
        return ExitStatus.FAILED
    recipe = resolve(order.training, order.run.parameters, order.run.tokens, order.run.learning_rate_factor)
    bend = script.get("bend", {}).get(str(order.run.parameters), 1.0)
    checkpoint = storage / "step"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    begun = time.monotonic()
    last = order.run.tokens[-1]
    while step < STEPS:
        if stopping and not script.get("silent"):
            return ExitStatus.INTERRUPTED
        if os.getppid() != parent:
            return ExitStatus.INTERRUPTED
        if order.attempt in script.get("crash", []) and step == STEPS // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(script.get("seconds", 0.2) / STEPS)
        step += 1
        if step % 4 == 0:
            temporary = storage / "step.new"
            temporary.write_text(str(step))
            temporary.replace(checkpoint)
            progress = Progress(
                attempt=order.attempt,
                step=step,
                steps=STEPS,
                tokens=last * step // STEPS,
                loss=3.0,
                tokens_per_second=1000.0,
                eta_seconds=(STEPS - step) * script.get("seconds", 0.2) / STEPS,
                training_seconds=time.monotonic() - begun,
                last_updated=now(),
            )
            write(report / "progress.json", progress)
    records = [
        Record(
            run=RunReference(uid=order.uid, attempt=order.attempt, config_digest=order.config_digest),
            purpose=order.run.purpose,
            parameters=ParameterCounts(
                total=order.run.parameters,
                non_embedding=recipe.shape.non_embedding_parameters,
                active=order.run.parameters,
            ),
            tokens=tokens,
            unique_tokens=tokens,
            epochs=1.0,
            flops=FlopCounts(six_nd=recipe.flops_six_nd(tokens), detailed=recipe.flops_detailed(tokens)),
            seed=order.run.seed,
            loss=loss_of(order, tokens) * bend,
            validation_digest="sha256:v",
            tokenizer_digest="sha256:t",
            gpu_seconds=time.monotonic() - begun,
            context_length=recipe.sequence_length,
            trainer_version="stand-in",
            finished_at=now(),
        )
        for tokens in order.run.tokens
    ]
    write(report / f"records-{order.attempt}.json", RecordSet(attempt=order.attempt, records=tuple(records)))
    return ExitStatus.DONE


def stop(*_) -> None:
    global stopping
    stopping = True


def prepare(path: str, root: str) -> int:
    training = Training.model_validate_json(Path(path).read_text())
    digest = hashlib.sha256()
    for name in training.data.files:
        file = Path(root) / name
        if not file.exists():
            print(f"{file}: there is no such file; name a text file under training.data.files", file=sys.stderr)
            return 2
        digest.update(file.read_bytes())
    answer = {"trainTokens": 10**9, "validationTokens": 65536, "dataDigest": f"sha256:{digest.hexdigest()}"}
    answer |= {"validationDigest": "sha256:v", "tokenizerDigest": "sha256:t", "path": "/nowhere"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        sys.exit(prepare(sys.argv[2], sys.argv[sys.argv.index("--root") + 1]))
    sys.exit(train(sys.argv[2]))
