"""The training loop: trunk and branches, and what is due between steps.

Owns the order of a run: which segment, when losses are read, when a checkpoint or a record is due, how it goes on from
a checkpoint and back to one after a spike. Engines carry out the steps, `data` says what is read, `report` and
`storage` write.

An attempt that is killed at any moment and started again gives the same losses to the last digit on the same machine
with the same number of threads: data order and learning rate are pure functions of the step, and a checkpoint holds all
the rest.

    trunk ──────┬───────────┬──── … the first steps of every token count are shared
                └ decay → record at D₁
                            └ decay → record at D₂
"""

import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from sweep_analysis.document import digest_of
from sweep_analysis.execution import Spikes
from sweep_analysis.recipe import Hyperparameters
from sweep_analysis.record import Curve, FailureReason, Progress
from sweep_analysis.rung import RunOrder
from sweep_trainer import VERSION
from sweep_trainer.checkpoint import Checkpoint, Checkpoints, Position
from sweep_trainer.curve import CURVE, LearningCurve
from sweep_trainer.data import Prepared
from sweep_trainer.engines.protocol import Engine, State
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.evaluate import Evaluator
from sweep_trainer.failure import RunError
from sweep_trainer.interruption import Interrupted, Interruption
from sweep_trainer.meter import Meter, memory_bytes
from sweep_trainer.outcome import put_export, record_of
from sweep_trainer.outlets import Outlets
from sweep_trainer.report import Report, now
from sweep_trainer.schedule import Segment, learning_rate
from sweep_trainer.spike import SpikeWatch, batch_of
from sweep_trainer.stall import StallAlarm
from sweep_trainer.storage import DamagedError, Folder, Storage, patiently

_TICK_SECONDS = 1.0
"""How often progress is written and the loss is looked at."""
_DIVERGED_AT = 3.0
"""A step whose loss is above this multiple of what guessing costs (ln V) is divergence, as is a record above it.

Models of 20 to 67 thousand parameters at 30 times the best learning rate stay below 1.3 ln V at every step and end at
0.57 ln V: a bad record, and the gate's to judge. At 100 times they pass 7 ln V within six steps.
"""

log = logging.getLogger(__name__)


class _Rewind(Exception):  # noqa: N818  # not an error: the loop goes back and tries other batches
    """A spike: raised where it is found, with the step that showed it."""

    def __init__(self, step: int, why: str) -> None:
        super().__init__(why)
        self.step = step


@dataclass
class Loop:
    """One attempt on one rank; all ranks take the same way through it."""

    order: RunOrder
    hyper: Hyperparameters
    plan: tuple[Segment, ...]
    steps: int
    """Steps of the whole run, decay branches included."""
    data: Prepared
    engine: Engine
    evaluator: Evaluator
    interruption: Interruption
    report: Report | None
    """The first rank's; what is due once is due by its clock and told by it."""
    begun: float
    ranks: Ranks
    storage: Storage
    folder: Path
    """Of this machine: the curve grows here."""
    recorded: set[int]
    """Token counts whose records are there."""
    outlets: Outlets
    alarm: StallAlarm
    trunk: State | None = None
    training_seconds: float = 0.0
    left_out: tuple[tuple[int, int], ...] = ()
    _loss: float | None = None
    _last: dict[str, float | None] = field(default_factory=dict)
    _unread: list[tuple[Segment, int, float]] = field(default_factory=list)
    """(segment, step, learning rate) of the steps whose losses the engine still holds."""

    def run(self) -> None:
        self.batch = self.hyper.batch_tokens // self.hyper.sequence_length
        self.meter = Meter(self.hyper.batch_tokens, self.hyper.shape.active_parameters, self.ranks.world)
        weights = self.engine.start_digest
        identity = digest_of(
            [self.order.config_digest, self.data.data_digest, VERSION, *([weights] if weights is not None else [])]
        )
        self.checkpoints = Checkpoints(self.storage, identity, self.ranks, self.order.training.checkpoints)
        rule = self.order.training.spikes
        self._spikes = SpikeWatch(rule) if rule else None
        self._begin = self.engine.state() if rule or self.checkpoints.exists() else {}
        at = self._past_what_is_recorded(self._resume())
        if rule is None:
            self._begin = {}
        self._open_curve(at)
        self.alarm.alive()
        self._saved = self._ticked = time.monotonic()
        while at.segment < len(self.plan):
            try:
                self._segment(at.segment, at.step)
                following = at.segment + 1
                start = self.plan[following].start if following < len(self.plan) else 0
                at = Position(following, start, 0, 0.0)
            except _Rewind as spike:
                at = self._rewound(spike)
        self.checkpoints.settle()
        self._show("Done", len(self.plan) - 1, self.plan[-1].stop)

    def _open_curve(self, at: Position) -> None:
        """The curve up to a position; where the folder is a passing one, from what lies beside the checkpoints."""
        path = self.folder / CURVE
        passing = self.ranks.first and not isinstance(self.storage, Folder)
        if passing and CURVE in patiently(self.storage.names, self.storage):
            try:
                path.write_bytes(patiently(lambda: self.storage.get(CURVE), self.storage))
            except DamagedError as error:
                log.warning("%s: the learning curve goes on without it", error)
        self.curve = LearningCurve(path, at.executed)

    def _rewound(self, spike: _Rewind) -> Position:
        """Go back to the newest checkpoint, and leave out the batches from there to the spike."""
        assert self._spikes is not None, "without a rule nothing is a spike"
        if not self._spikes.allows(len(self.left_out)):
            raise RunError(
                FailureReason.DIVERGED,
                f"{spike} at step {spike.step + 1:,}, after {len(self.left_out)} rewinds; lower the learning rate",
            )
        before = self.left_out
        self.alarm.rest()
        self.checkpoints.settle()
        self._unread.clear()
        self.engine.measured()
        self.engine.load(self._begin)  # where there is no checkpoint yet
        self.trunk = None
        at = self._past_what_is_recorded(self._resume())
        self.left_out = (*before, (at.step, max(1, spike.step - at.step + 1)))
        self._spikes = SpikeWatch(self.order.training.spikes or Spikes())
        self._open_curve(at)
        self.alarm.alive()
        log.warning("%s at step %d; going on from step %d without the batches between", spike, spike.step + 1, at.step)
        return at

    def _segment(self, index: int, step: int) -> None:
        """Train one segment from `step` on; a branch ends in its record and gives way to the trunk."""
        segment, seed, ranks = self.plan[index], self.order.run.seed, self.ranks
        if self._is_recorded(index):
            return  # by an earlier attempt, whose checkpoints since then are lost
        if segment.branch is not None and index + 1 < len(self.plan) and self.trunk is None:
            self.trunk = self.engine.state()
        while step < segment.stop:
            self._validate_if_due(index, step)
            rate = learning_rate(self.hyper, step, segment)
            with self.meter.waiting():
                batch = self.data.batch(seed, batch_of(step, self.left_out), self.batch, ranks.rank, ranks.world)
            with self.meter.stepping():
                self.engine.step(batch, rate)
            self._unread.append((segment, step, rate))
            step += 1
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
        """What is due by the clock is due by the first rank's: reading losses and saving take all ranks."""
        self.interruption.nothing_to_save(False)  # not before the first step, which may wait minutes for a compiler
        now_, first = time.monotonic(), self.ranks.first
        asked, tick, due, busy = self.ranks.any(
            self.interruption.requested,
            first and now_ - self._ticked >= _TICK_SECONDS,
            first and now_ - self._saved >= self.order.training.checkpoint_seconds,
            self.checkpoints.busy,
        )
        if asked:
            self._leave(index, step)
        if tick:
            self.alarm.alive()
            self._read_losses()
            self._show("Training", index, step)
            self._ticked = time.monotonic()
        if due and not busy:
            self._save(index, step)

    def _leave(self, index: int, step: int) -> None:
        self._save(index, step)
        self.checkpoints.settle()
        raise Interrupted

    def _measure(self, index: int) -> None:
        """Evaluate at a branch's end and report the record."""
        self.interruption.nothing_to_save(False)
        segment = self.plan[index]
        tokens = self._tokens_of(segment)
        self._show("Evaluating", index, segment.stop)
        look = partial(self._look, index, segment.stop)
        losses = self.evaluator.losses(look)
        if not losses.total < self.hyper.guessing:
            raise self._diverged(losses.total, segment.stop)
        answers = self.evaluator.answers(look)
        self.curve.flush()
        weights = self.engine.weights()
        self.recorded.add(tokens)
        if self.report is None:
            return
        file = save(
            weights,
            {"shape": self.hyper.shape.model_dump_json(by_alias=True), "configDigest": self.order.config_digest},
        )
        patiently(lambda: self.storage.put(f"model-{tokens}.safetensors", file), self.storage)
        self.checkpoints.settle()  # or one that is on its way might put the curve that it read before over this one
        patiently(self._put_curve, self.storage)
        curve = Curve(uri=self._curve_uri, digest=self.curve.digest)
        seconds = time.monotonic() - self.begun
        record = record_of(
            self.order, self.hyper, self.evaluator, tokens, losses, answers, curve, seconds, self.left_out
        )
        if tokens == max(self.order.run.tokens):
            put_export(self.storage, weights, self.order, self.hyper, record)
        self.report.record(record)
        log.info("%s tokens: %.4f nats/token", f"{tokens:,}", losses.total)

    def _look(self, index: int, step: int) -> None:
        """Between two batches of an evaluation: leave when asked to, and say that nothing hangs."""
        if self.ranks.any(self.interruption.requested)[0]:
            self._leave(index, step)
        self.alarm.alive()

    def _validate_if_due(self, index: int, step: int) -> None:
        """Note the validation loss before the step, at each share of the run that the recipe asks for."""
        interval, executed = self.evaluator.interval, self._executed(index, step)
        if interval is None or executed == 0 or executed % interval:
            return
        self._read_losses()
        self._show("Evaluating", index, step)
        losses = self.evaluator.losses(partial(self._look, index, step))
        point: dict[str, Any] = {"step": executed, "tokens": step * self.hyper.batch_tokens}
        if self.plan[index].branch is not None:
            point["branch"] = self._tokens_of(self.plan[index])
        point |= {"validationLoss": losses.total, "perplexity": math.exp(min(losses.total, 700.0))}
        if len(losses.by_domain) > 1:
            point["domains"] = losses.by_domain
        self.curve.add(point)

    def _read_losses(self) -> None:
        """Fetch the losses of the steps since the last look, note them, and stop a run that has come apart."""
        with self.meter.settling():
            measured = self.engine.measured()
        for (segment, step, rate), (loss, norm) in zip(self._unread, measured, strict=True):
            objection = self._spikes.objection(loss) if self._spikes else None
            if objection:
                raise _Rewind(step, objection)
            if not math.isfinite(loss) or loss > _DIVERGED_AT * self.hyper.guessing:
                raise self._diverged(loss, step + 1)
            point = {"step": segment.first + step + 1 - segment.start, "tokens": (step + 1) * self.hyper.batch_tokens}
            if segment.branch is not None:
                point["branch"] = self._tokens_of(segment)
            whole_norm = norm if math.isfinite(norm) else None  # fp16 overflowed and the step was left out
            self.curve.add(point | {"loss": loss, "learningRate": rate, "gradientNorm": whole_norm})
            self._last = {"gradientNorm": whole_norm, "learningRate": rate}
        self._unread.clear()
        if measured:
            self._loss = sum(loss for loss, _ in measured) / len(measured)

    def _diverged(self, loss: float, step: int) -> RunError:
        return RunError(
            FailureReason.DIVERGED,
            f"loss {loss:.3g} at step {step:,} (guessing costs {self.hyper.guessing:.2f}) with a peak"
            f" learning rate of {self.hyper.learning_rate:.3g}; lower it",
        )

    def _is_recorded(self, index: int) -> bool:
        segment = self.plan[index]
        return segment.branch is not None and self._tokens_of(segment) in self.recorded

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
        seconds = self.training_seconds + self.meter.seconds
        position = Position(index, step, self._executed(index, step), seconds, self.left_out)
        self.checkpoints.write(Checkpoint(position, self.engine.state(), self.trunk), before=self._put_curve)
        self._saved = time.monotonic()

    def _put_curve(self) -> None:
        """Where the curve grows in a passing folder, put it where it lasts."""
        if self.ranks.first and not isinstance(self.storage, Folder):
            self.storage.put(CURVE, self.curve.path.read_bytes())

    @property
    def _curve_uri(self) -> str:
        if isinstance(self.storage, Folder):
            return self.curve.path.absolute().as_uri()
        return self.storage.address(CURVE)

    def _resume(self) -> Position:
        """Take up the newest usable checkpoint, or begin at the first step."""
        for saved in self.checkpoints.read():
            missing = self._records_missing_before(saved.position.segment)
            if missing:
                log.warning("the record at %s tokens is lost; a checkpoint after it is not used", f"{missing[0]:,}")
                continue
            try:
                self.engine.load(saved.state)
            except (KeyError, ValueError, RuntimeError) as error:
                log.warning("a checkpoint does not fit the model (%s) and is not used", error)
                self.engine.load(self._begin)
                continue
            self.trunk = saved.trunk
            self.training_seconds = max(0.0, saved.position.training_seconds - self.meter.seconds)
            self.left_out = saved.position.left_out
            log.info("going on from step %d", saved.position.executed)
            return saved.position
        if self.checkpoints.exists():
            log.warning("%s: no checkpoint can be used, the run starts over", FailureReason.CHECKPOINT_UNREADABLE)
            self.checkpoints.clear()
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
        if self.report is None:
            return
        executed = self._executed(index, step)
        speed = self.meter.tokens_per_second
        left = (self.steps - executed) * self.hyper.batch_tokens
        progress = {
            "attempt": self.order.attempt,
            "step": executed,
            "steps": self.steps,
            "tokens": step * self.hyper.batch_tokens,
            "loss": self._loss,
            "tokensPerSecond": speed,
            "mfu": self.meter.mfu,
            "memoryBytes": memory_bytes(),
            "dataWait": self.meter.data_wait,
            "rewinds": len(self.left_out) or None,
            "etaSeconds": left / speed if speed else None,
            "phase": phase,
            "trainingSeconds": self.training_seconds + self.meter.seconds,
            "lastUpdated": now(),
        }
        said = Progress.model_validate(progress | self._last)
        self.report.progress(said)
        self.outlets.progress(said)
