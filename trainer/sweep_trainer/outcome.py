"""What a run leaves behind: the resolved configuration, the final weights, the record.

Owns their content. The loop says when; `storage` and `report` write.
"""

import contextlib
import json
import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sweep_analysis.measure import TaskResult
from sweep_analysis.recipe import Hyperparameters, document_end_of
from sweep_analysis.record import Curve, FailureReason, FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import RunOrder
from sweep_trainer import VERSION
from sweep_trainer.data import Prepared
from sweep_trainer.engines.protocol import Engine, State
from sweep_trainer.evaluate import Evaluator, Losses
from sweep_trainer.export import files_of_export
from sweep_trainer.failure import RunError
from sweep_trainer.report import now
from sweep_trainer.spike import batches_of
from sweep_trainer.storage import Storage, patiently

CONFIGURATION = "configuration.json"
_VERSION = "trainer"
_WHAT = {
    "run.tokens": ("order", "run", "tokens"),
    "run.seed": ("order", "run", "seed"),
    "resolved": ("resolved",),
    "training.data": ("order", "training", "data"),
    "training.tokenizer": ("order", "training", "tokenizer"),
    "dataDigest": ("data", "dataDigest"),
    "startFrom's weights": ("startDigest",),
    _VERSION: ("versions", "trainer"),
}
"""What of a configuration a checkpoint must agree with, by the name that a person reads."""
_PACKAGES = ("torch", "numpy", "deepspeed", "ray", "transformers", "tokenizers")

log = logging.getLogger(__name__)


def configuration(
    order: RunOrder, hyper: Hyperparameters, data: Prepared, engine: Engine, world: int
) -> dict[str, Any]:
    """All that repeats the run: the order as it was given, what it resolved to, the data's digests, the versions."""
    versions: dict[str, str] = {"trainer": VERSION}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "order": order.to_json(),
        "resolved": hyper.to_json(),
        "parameters": engine.parameters,
        "steps": hyper.trained_steps,
        "stepsSaved": round(hyper.share_saved, 4),
        "startDigest": engine.start_digest,
        "data": data.summary() | {"epochs": max(order.run.tokens) / data.train_tokens},
        "engine": engine.path,
        "attention": engine.attention,
        "processes": world,
        "versions": versions,
    }


def told(hyper: Hyperparameters, data: Prepared, counts: int) -> str:
    """The resolved recipe in a few lines, for the log."""
    shape, last = hyper.shape, hyper.steps[-1]
    lines = [
        f"{shape.layers} layers of width {shape.width}, {shape.heads} heads of {shape.head_size}"
        f" ({shape.key_heads} for keys), {shape.hidden} hidden, {shape.vocabulary:,} token ids",
        f"{shape.parameters:,} parameters, {shape.non_embedding_parameters:,} without embeddings,"
        f" {shape.active_parameters:,} met by a token",
        f"batches of {hyper.batch_tokens:,} tokens in sequences of {hyper.sequence_length:,}; peak learning rate"
        f" {hyper.learning_rate:.4g} after {hyper.warmup_steps:,} steps; {hyper.schedule.kind}; {hyper.precision}",
        f"{last:,} steps, {last * hyper.batch_tokens / data.train_tokens:.2f} epochs of {data.train_tokens:,} tokens",
    ]
    if counts > 1:
        lines.append(f"one trunk for {counts} token counts saves {hyper.share_saved:.0%} of separate runs' steps")
    return "\n  ".join(lines)


def record_of(
    order: RunOrder,
    hyper: Hyperparameters,
    evaluator: Evaluator,
    tokens: int,
    losses: Losses,
    answers: tuple[TaskResult, ...],
    curve: Curve,
    seconds: float,
    left_out: tuple[tuple[int, int], ...] = (),
) -> Record:
    """The record at a token count, `seconds` after the attempt began; `left_out` as a checkpoint's position has it."""
    shape, data = hyper.shape, evaluator.data
    sequences = hyper.batch_tokens // hyper.sequence_length
    read = data.read(order.run.seed, batches_of(tokens // hyper.batch_tokens, left_out), sequences)
    return Record(
        run=RunReference(uid=order.uid, attempt=order.attempt, config_digest=order.config_digest),
        purpose=order.run.purpose,
        parameters=ParameterCounts(
            total=shape.parameters,
            non_embedding=shape.non_embedding_parameters,
            active=shape.active_parameters,
            untrained=evaluator.engine.untrained,
        ),
        tokens=tokens,
        unique_tokens=sum(source.unique for source in read),
        epochs=tokens / data.train_tokens,
        flops=FlopCounts(six_nd=hyper.flops_six_nd(tokens), detailed=hyper.flops_detailed(tokens)),
        seed=order.run.seed,
        loss=losses.total,
        validation_digest=data.validation_digest,
        tokenizer_digest=data.tokenizer_digest,
        gpu_seconds=seconds * evaluator.ranks.world,  # a device for each process
        curve=curve,
        evaluations=answers,
        domains=evaluator.domains(losses, read),
        context_length=hyper.sequence_length,
        attention=evaluator.engine.attention,
        start_digest=evaluator.engine.start_digest,
        steps_saved=round(hyper.share_saved, 4) if len(hyper.steps) > 1 else None,
        trainer_version=VERSION,
        finished_at=now(),
    )


def differing(before: Any, now: dict[str, Any]) -> tuple[str, ...]:
    """Where two configurations say other things about what is computed, in order: "run.seed: 3, now 4".

    How a run is carried out may change from attempt to attempt and is left out. `before` is what was read of a file.
    """
    pairs = ((name, _part(before, keys), _part(now, keys)) for name, keys in _WHAT.items())
    return tuple(line for name, old, new in pairs if old is not None for line in _lines(name, old, new))


def _part(document: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _lines(place: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = (*new, *(old.keys() - new.keys()))
        return [line for name in names for line in _lines(f"{place}.{name}", old.get(name), new.get(name))]
    return [] if old == new else [f"{place}: {json.dumps(old)}, now {json.dumps(new)}"]


def put_configuration(storage: Storage, document: dict[str, Any]) -> None:
    """Store the configuration beside the checkpoints.

    Raises RunError where another run's stands there already: its checkpoints would be thrown away. One that only
    another version of the trainer wrote is replaced, which the log says.
    """
    if CONFIGURATION in patiently(storage.names, storage):
        before: Any = None
        with contextlib.suppress(ValueError):
            before = json.loads(patiently(lambda: storage.get(CONFIGURATION), storage))
        changed = differing(before, document)
        if any(not line.startswith(_VERSION) for line in changed):
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"{storage.address('').rstrip('/')} holds a run of another configuration ({'; '.join(changed)[:800]});"
                " give this one a folder of its own, or empty that one",
            )
        if changed:
            log.warning("%s: checkpoints of that version are not used", "; ".join(changed))
    content = json.dumps(document, indent=1).encode()
    patiently(lambda: storage.put(CONFIGURATION, content), storage)


def put_export(storage: Storage, weights: State, order: RunOrder, hyper: Hyperparameters, record: Record) -> None:
    """Store the final model as others read it, under `export-<tokens>/`."""
    end = document_end_of(order.training) if order.training.data.sources else None
    for name, content in files_of_export(weights, order.training, hyper, record, end).items():
        path = f"export-{record.tokens}/{name}"
        patiently(lambda path=path, content=content: storage.put(path, content), storage)  # type: ignore[misc]  # the loop's values are bound
