"""One run, from its order to its records.

Owns the training loop: trunk and branches, evaluation, checkpoints, and when each is due. Engines carry out the steps,
`data` says what is read, `report` and `storage` write. An attempt that is killed at any moment and started again gives
the same losses to the last digit on the same machine with the same number of threads: data order and learning rate are
pure functions of the step, and a checkpoint holds all the rest.

    trunk ──────┬───────────┬──── … the first steps of every token count are shared
                └ decay → record at D₁
                            └ decay → record at D₂
"""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save

from sweep_analysis.document import digest_of
from sweep_analysis.recipe import Hyperparameters, resolve
from sweep_analysis.record import (
    Curve,
    FailureReason,
    FlopCounts,
    ParameterCounts,
    Progress,
    Record,
    RunReference,
)
from sweep_analysis.rung import RunOrder
from sweep_trainer import VERSION, checkpoint
from sweep_trainer.checkpoint import Checkpoint, Position
from sweep_trainer.data import Prepared, open_prepared
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Engine, State
from sweep_trainer.failure import RunError
from sweep_trainer.files import write_atomically
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.report import Report, now
from sweep_trainer.schedule import Segment, learning_rate, segments
from sweep_trainer.storage import LearningCurve, locked

_TICK_SECONDS = 1.0
"""How often progress is written and the loss is looked at."""
_EVALUATION_TOKENS = 4_096
"""At most so many tokens are evaluated between two looks at the interruption."""
_DIVERGED_AT = 3.0
"""A step whose loss is above this multiple of ln V (what guessing costs) is divergence, as is a record above ln V.

Models of 20 to 67 thousand parameters at 30 times the best learning rate stay below 1.3 ln V at every step and end at
0.57 ln V: a bad record, and the gate's to judge. At 100 times they pass 7 ln V within six steps.
"""

log = logging.getLogger(__name__)


def run(order: RunOrder, interruption: Interruption, report: Report, *, begun: float) -> None:
    """Carry out an order until all its records are reported. `begun`: `time.monotonic()` when the attempt started.

    Raises Interrupted after a checkpoint when asked to stop, RunError, DataError or OSError when it cannot go on.
    """
    try:
        hyper = resolve(order.training, order.run.parameters, order.run.tokens, order.run.learning_rate_factor)
    except ValueError as error:
        raise RunError(FailureReason.BAD_CONFIGURATION, str(error)) from None
    with locked(Path(order.storage), order.attempt, interruption):
        plan = segments(hyper)
        steps = plan[-1].first + plan[-1].stop - plan[-1].start
        report.carry_over()
        done = set(order.run.tokens) <= set(report.records)
        report.progress(
            Progress(
                attempt=order.attempt,
                step=steps if done else 0,
                steps=steps,
                tokens=max(order.run.tokens) if done else 0,
                phase="Done" if done else "Starting",
                last_updated=now(),
            )
        )
        if done:
            log.info("all records were measured by earlier attempts")
            return
        data = open_prepared(order.training, Path(order.cache))
        engine = PlainTorch(hyper, order.run.seed, order.threads)
        if engine.parameters != order.run.parameters:
            raise RunError(
                FailureReason.BAD_CONFIGURATION,
                f"the run asks for {order.run.parameters:,} parameters, its recipe builds {engine.parameters:,};"
                f" plan the run with {engine.parameters:,}",
            )
        log.info("%s parameters on %d threads; %s", f"{engine.parameters:,}", order.threads, engine.path)
        _Loop(order, hyper, plan, steps, data, engine, interruption, report, begun).run()


@dataclass
class _Loop:
    order: RunOrder
    hyper: Hyperparameters
    plan: tuple[Segment, ...]
    steps: int
    """Steps of the whole run, decay branches included."""
    data: Prepared
    engine: Engine
    interruption: Interruption
    report: Report
    begun: float
    trunk: State | None = None
    training_seconds: float = 0.0
    _steps_here: int = 0
    _seconds_here: float = 0.0
    _loss: float | None = None
    _unread: list[tuple[Segment, int, float]] = field(default_factory=list)
    """(segment, step, learning rate) of the steps whose losses the engine still holds."""

    def run(self) -> None:
        self.storage = Path(self.order.storage)
        self.batch = self.hyper.batch_tokens // self.hyper.sequence_length
        self.identity = digest_of([self.order.config_digest, self.data.data_digest, VERSION])
        at = self._past_what_is_recorded(self._resume())
        self.curve = LearningCurve(self.storage / "curve.jsonl", at.executed)
        self._saved = self._ticked = time.monotonic()
        self.interruption.nothing_to_save(False)
        self._segment(at.segment, at.step)
        for index in range(at.segment + 1, len(self.plan)):
            self._segment(index, self.plan[index].start)
        self._show("Done", len(self.plan) - 1, self.plan[-1].stop)

    def _segment(self, index: int, step: int) -> None:
        """Train one segment from `step` on; a branch ends in its record and gives way to the trunk."""
        segment = self.plan[index]
        if self._is_recorded(index):
            return  # by an earlier attempt, whose checkpoints since then are lost
        if segment.branch is not None and index + 1 < len(self.plan) and self.trunk is None:
            self.trunk = self.engine.state()
        while step < segment.stop:
            rate = learning_rate(self.hyper, step, segment)
            batch = self.data.batch(self.order.run.seed, step, self.batch)
            started = time.perf_counter()
            self.engine.step(batch, rate)
            self._seconds_here += time.perf_counter() - started
            self._unread.append((segment, step, rate))
            step += 1
            self._steps_here += 1
            self._between_steps(index, step)
        if segment.branch is not None:
            self._read_losses()
            self._measure(index)
            if self.trunk is not None:
                self._return_to_trunk()
                self._save(index + 1, self.plan[index + 1].start)  # what was measured need not be trained again

    def _return_to_trunk(self) -> None:
        assert self.trunk is not None, "a branch that is not the last one sets the trunk's state aside"
        self.engine.load(self.trunk)
        self.trunk = None

    def _between_steps(self, index: int, step: int) -> None:
        if self.interruption.requested:
            self._leave(index, step)
        now_ = time.monotonic()
        if now_ - self._ticked >= _TICK_SECONDS:
            self._read_losses()
            self._show("Training", index, step)
            self._ticked = time.monotonic()
        if now_ - self._saved >= self.order.training.checkpoint_seconds:
            self._save(index, step)

    def _leave(self, index: int, step: int) -> None:
        self._save(index, step)
        raise Interrupted

    def _measure(self, index: int) -> None:
        """Evaluate at a branch's end and report the record."""
        segment = self.plan[index]
        tokens = self._tokens_of(segment)
        self._show("Evaluating", index, segment.stop)
        loss = self._evaluate(index)
        if not loss < math.log(self.hyper.shape.vocabulary):
            raise self._diverged(loss, segment.stop)
        self.curve.flush()
        weights = save(
            self.engine.weights(),
            {"shape": self.hyper.shape.model_dump_json(by_alias=True), "configDigest": self.order.config_digest},
        )
        write_atomically(self.storage / f"model-{tokens}.safetensors", weights)
        shape = self.hyper.shape
        self.report.record(
            Record(
                run=RunReference(
                    uid=self.order.uid, attempt=self.order.attempt, config_digest=self.order.config_digest
                ),
                purpose=self.order.run.purpose,
                parameters=ParameterCounts(
                    total=shape.parameters, non_embedding=shape.non_embedding_parameters, active=shape.parameters
                ),
                tokens=tokens,
                unique_tokens=min(tokens, self.data.train_tokens),
                epochs=tokens / self.data.train_tokens,
                flops=FlopCounts(six_nd=self.hyper.flops_six_nd(tokens), detailed=self.hyper.flops_detailed(tokens)),
                seed=self.order.run.seed,
                loss=loss,
                validation_digest=self.data.validation_digest,
                tokenizer_digest=self.data.tokenizer_digest,
                gpu_seconds=time.monotonic() - self.begun,
                curve=Curve(uri=self.curve.path.absolute().as_uri(), digest=self.curve.digest),
                trainer_version=VERSION,
                finished_at=now(),
            )
        )
        log.info("%s tokens: %.4f nats/token", f"{tokens:,}", loss)

    def _evaluate(self, index: int) -> float:
        """Validation cross-entropy, nats per token, always over the same tokens in the same batches."""
        rows = max(1, _EVALUATION_TOKENS // self.hyper.sequence_length)
        windows = self.data.validation
        nats = 0.0
        for start in range(0, len(windows), rows):
            batch = windows[start : start + rows]
            if self.interruption.requested:
                self._leave(index, self.plan[index].stop)
            nats += self.engine.evaluate(batch) * len(batch)
        return nats / len(windows)

    def _read_losses(self) -> None:
        """Fetch the losses of the steps since the last look, note them, and stop a run that has come apart."""
        measured = self.engine.measured()
        for (segment, step, rate), (loss, norm) in zip(self._unread, measured, strict=True):
            if not math.isfinite(loss) or loss > _DIVERGED_AT * math.log(self.hyper.shape.vocabulary):
                raise self._diverged(loss, step + 1)
            point = {"step": segment.first + step + 1 - segment.start, "tokens": (step + 1) * self.hyper.batch_tokens}
            if segment.branch is not None:
                point["branch"] = self._tokens_of(segment)
            self.curve.add(point | {"loss": loss, "learningRate": rate, "gradientNorm": norm})
        self._unread.clear()
        if measured:
            self._loss = sum(loss for loss, _ in measured) / len(measured)

    def _diverged(self, loss: float, step: int) -> RunError:
        return RunError(
            FailureReason.DIVERGED,
            f"loss {loss:.3g} at step {step:,} (guessing costs {math.log(self.hyper.shape.vocabulary):.2f}) with a peak"
            f" learning rate of {self.hyper.learning_rate:.3g}; lower it",
        )

    def _is_recorded(self, index: int) -> bool:
        segment = self.plan[index]
        return segment.branch is not None and self._tokens_of(segment) in self.report.records

    def _records_missing_before(self, index: int) -> list[int]:
        """Token counts that were passed before segment `index` and of which no record is left."""
        passed = [i for i in range(index) if self.plan[i].branch is not None and not self._is_recorded(i)]
        return [self._tokens_of(self.plan[i]) for i in passed]

    def _tokens_of(self, segment: Segment) -> int:
        return segment.stop * self.hyper.batch_tokens

    def _executed(self, index: int, step: int) -> int:
        segment = self.plan[index]
        return segment.first + step - segment.start

    def _save(self, index: int, step: int) -> None:
        self._show("Checkpointing", index, step)
        self._read_losses()
        self.curve.flush()
        position = Position(index, step, self._executed(index, step), self.training_seconds + self._seconds_here)
        checkpoint.write(self.storage, self.identity, Checkpoint(position, self.engine.state(), self.trunk))
        self._saved = time.monotonic()

    def _resume(self) -> Position:
        """Take up the newest usable checkpoint, or begin at the first step."""
        begin = self.engine.state()
        for saved in checkpoint.read(self.storage, self.identity):
            missing = self._records_missing_before(saved.position.segment)
            if missing:
                log.warning("the record at %s tokens is lost; a checkpoint after it is not used", f"{missing[0]:,}")
                continue
            try:
                self.engine.load(saved.state)
            except (KeyError, ValueError, RuntimeError) as error:
                log.warning("a checkpoint does not fit the model (%s) and is not used", error)
                self.engine.load(begin)
                continue
            self.trunk = saved.trunk
            self.training_seconds = saved.position.training_seconds
            log.info("going on from step %d", saved.position.executed)
            return saved.position
        if checkpoint.exists(self.storage):
            log.warning("%s: no checkpoint can be used, the run starts over", FailureReason.CHECKPOINT_UNREADABLE)
            checkpoint.clear(self.storage)
        return Position(0, self.plan[0].start, 0, 0.0)

    def _past_what_is_recorded(self, at: Position) -> Position:
        """Where to go on when the attempt was killed between a branch's record and the checkpoint after it."""
        if not self._is_recorded(at.segment) or at.segment + 1 == len(self.plan):
            return at
        if self.trunk is not None:
            self._return_to_trunk()
        following = self.plan[at.segment + 1]
        return Position(at.segment + 1, following.start, following.first, at.training_seconds)

    def _show(self, phase: str, index: int, step: int) -> None:
        executed = self._executed(index, step)
        speed = self._steps_here * self.hyper.batch_tokens / self._seconds_here if self._seconds_here else 0.0
        left = (self.steps - executed) * self.hyper.batch_tokens
        self.report.progress(
            Progress.model_validate(
                {
                    "attempt": self.order.attempt,
                    "step": executed,
                    "steps": self.steps,
                    "tokens": step * self.hyper.batch_tokens,
                    "loss": self._loss,
                    "tokensPerSecond": speed,
                    "etaSeconds": left / speed if speed else None,
                    "phase": phase,
                    "trainingSeconds": self.training_seconds + self._seconds_here,
                    "lastUpdated": now(),
                }
            )
        )
