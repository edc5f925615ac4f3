"""Ladders whose outcome is known, climbed by the real decisions over a world that is one formula.

The reconcilers' own `ladder.decide` writes the forecasts and verdicts; only the training is made up.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sweep_analysis.flops import six_nd
from sweep_analysis.record import (
    Failure,
    FailureReason,
    FlopCounts,
    ParameterCounts,
    Progress,
    Record,
    RunReference,
)
from sweep_analysis.rung import Run
from sweep_operator.api import Attempt, RunState, RunStatus, ScalingRun, ScalingSweep
from sweep_operator.budget import trained_tokens
from sweep_operator.clusters.local.store import Store, sweep_uid
from sweep_operator.conditions import timestamp
from sweep_operator.ladder import decide
from sweep_operator.policy import Policy

START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
SLOTS = 2
SECONDS_PER_FLOP = 1.0e-11


def law(parameters: float, tokens: float) -> float:
    """Nats per token, about what bytes of English give at these sizes."""
    return 1.05 + 18.0 / parameters**0.33 + 60.0 / tokens**0.36


@dataclass
class World:
    """What training gives. `penalty` multiplies the loss of a run of a rung."""

    penalty: Callable[[str, Run], float] = lambda rung, run: 1.0
    noise: float = 0.003
    corpus: int = 10_000_000
    """Tokens of the training set."""
    preempted: str = ""
    """A rung whose first run loses its first attempt to the machine."""
    failed: str = ""
    """A rung whose first run fails for good."""

    def loss(self, rung: str, run: Run, tokens: int) -> float:
        seed = random.Random(f"{run.parameters}/{tokens}/{run.seed}/{run.learning_rate_factor}")
        return law(run.parameters, tokens) * self.penalty(rung, run) * math.exp(seed.gauss(0, self.noise))


def manifest(**spec: Any) -> ScalingSweep:
    """A laptop ladder of five rungs and a target."""
    given = {
        "target": {"parameters": 300_000, "tokens": 6_000_000, "launch": "Automatic", "maxLoss": 2.0},
        "ladder": {
            "generate": {"from": 24_000, "to": 165_000, "rungs": 5, "tokensPerParameter": [10, 20], "seeds": [0]}
        },
        "gate": {"warmupRungs": 3, "tolerance": 0.01, "maxHalfWidth": 0.08},
        "budget": {"gpuHours": 0.5},
        "training": {"data": {"corpus": "Classics"}},
        **spec,
    }
    name = "laptop"
    return ScalingSweep.model_validate({"metadata": {"name": name, "uid": sweep_uid("default", name)}, "spec": given})


@dataclass
class Climb:
    """A ladder in the making; `now` is the world's clock."""

    sweep: ScalingSweep
    world: World
    children: tuple[ScalingRun, ...] = ()
    now: datetime = START

    def go(self, passes: int = 10_000) -> "Climb":
        """Take decisions until nothing is left to do, or so many of them."""
        for _ in range(passes):
            decision = decide(self.sweep, self.children, Policy(), self.now)
            if decision.status is not None:
                self.sweep = self.sweep.changed(status=decision.status)
                self.now += timedelta(milliseconds=120)
            elif decision.create:
                self._train(decision.create)
            else:
                break
        return self

    def _train(self, created: tuple[ScalingRun, ...]) -> None:
        free = [self.now] * SLOTS
        for child in created:
            slot = free.index(min(free))
            trained, free[slot] = self._trained(child, free[slot])
            self.children = (*self.children, trained)
        self.now = max(free) + timedelta(milliseconds=80)

    def _trained(self, child: ScalingRun, start: datetime) -> tuple[ScalingRun, datetime]:
        run, rung = child.spec.run, child.spec.rung
        uid = child.metadata.name
        flops = six_nd(run.parameters, trained_tokens(self.sweep.spec.training, run))
        seconds = flops * SECONDS_PER_FLOP
        first = all(c.spec.rung != rung for c in self.children)
        attempts: tuple[Attempt, ...] = ()
        if first and rung == self.world.preempted:
            cut = start + timedelta(seconds=0.4 * seconds)
            attempts = (self._attempt(1, start, cut, "Preempted"),)
            start = cut + timedelta(seconds=0.3)
        end = start + timedelta(seconds=seconds)
        if first and rung == self.world.failed:
            failure = Failure(
                attempt=1, reason=FailureReason.DIVERGED, message="the loss became NaN at step 40", at=timestamp(end)
            )
            status = RunStatus(
                state=RunState.FAILED, attempt=1, attempts=(self._attempt(1, start, end, "Diverged"),),
                failures=(failure,), counted_failures=1, flops=flops,
            )  # fmt: skip
        else:
            number = len(attempts) + 1
            status = RunStatus(
                state=RunState.SUCCEEDED, attempt=number,
                attempts=(*attempts, self._attempt(number, start, end, "Succeeded")),
                accepted=tuple(self._record(child, tokens, number, end) for tokens in run.tokens), flops=flops,
            )  # fmt: skip
        return child.changed(metadata=child.metadata.changed(uid=uid), status=status), end

    def _attempt(self, number: int, start: datetime, end: datetime, outcome: str) -> Attempt:
        seconds = (end - start).total_seconds()
        return Attempt(
            attempt=number, started_at=timestamp(start), ended_at=timestamp(end), outcome=outcome, gpu_seconds=seconds
        )

    def _record(self, child: ScalingRun, tokens: int, attempt: int, end: datetime) -> Record:
        run = child.spec.run
        return Record(
            run=RunReference(uid=child.metadata.name, attempt=attempt, config_digest=child.spec.config_digest),
            purpose=run.purpose,
            parameters=ParameterCounts(
                total=run.parameters, non_embedding=int(run.parameters * 0.7), active=run.parameters
            ),
            tokens=tokens,
            unique_tokens=min(tokens, self.world.corpus),
            epochs=max(1.0, tokens / self.world.corpus),
            flops=FlopCounts(six_nd=six_nd(run.parameters, tokens), detailed=5.2 * run.parameters * tokens),
            seed=run.seed,
            loss=self.world.loss(child.spec.rung, run, tokens),
            validation_digest="sha256:" + "a" * 64,
            tokenizer_digest="sha256:" + "b" * 64,
            gpu_seconds=six_nd(run.parameters, tokens) * SECONDS_PER_FLOP,
            context_length=run.sequence_length or self.sweep.spec.training.sequence_length,
            trainer_version="0.1.0",
            finished_at=timestamp(end),
        )

    def write(self, workdir: Path) -> Path:
        """The folder that a driver would have left behind, learning curves included."""
        workdir.mkdir(parents=True, exist_ok=True)
        store = Store(workdir)
        store.write_sweep(self.sweep)
        stored = store.sweep()
        assert stored is not None
        store.write_sweep_status(stored, self.sweep.status)
        for child in self.children:
            store.create_run(child)
            store.write_run_status(child, child.status)
            if child.status.progress is not None:
                report = workdir / "runs" / child.metadata.name / "report" / "progress.json"
                report.write_text(json.dumps(child.status.progress.to_json()))
            if child.status.accepted:
                write_curve(workdir / "runs" / child.metadata.name / "storage" / "curve.jsonl", child)
        return workdir


def write_curve(path: Path, child: ScalingRun, points: int = 300) -> None:
    """A trunk up to the largest token count, and a decay branch for every smaller one, as the trainer writes them."""
    run = child.spec.run
    noise = random.Random(child.metadata.name)
    lines = []
    for record in sorted(child.status.accepted, key=lambda r: r.tokens):
        last = record is child.status.accepted[-1]
        begin = 0 if last else int(0.7 * points)
        for step in range(begin, points):
            tokens = record.tokens * (step + 1) / points
            share = max(0.0, (tokens / record.tokens - 0.7) / 0.3)
            loss = law(run.parameters, max(tokens, 2_000)) * (1.06 - 0.06 * share) * record.loss
            loss = loss / law(run.parameters, record.tokens) + 2.0 * math.exp(-tokens / 60_000) + noise.gauss(0, 0.02)
            lines.append({"step": step, "tokens": int(tokens), "loss": loss, "learningRate": 3e-3, "gradientNorm": 0.6})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def finished() -> Climb:
    """Five rungs and the target, all as the law says; one run was preempted on the way."""
    return Climb(manifest(), World(preempted="39k")).go()


def held() -> Climb:
    """The law bends at the last rung: 12 % more loss, whatever is tried."""
    return Climb(manifest(), World(penalty=lambda rung, run: 1.12 if rung == "160k" else 1.0)).go()


def stopped() -> Climb:
    """As held, with a budget that carries a diagnosis: no learning rate and no other seed explains it."""
    return Climb(
        manifest(budget={"gpuHours": 2}),
        World(penalty=lambda rung, run: 1.12 if rung == "160k" else 1.0),
    ).go()


def retuned() -> Climb:
    """A rung that was trained with a learning rate four times too high, and rerun whole as revision 2."""
    return Climb(
        manifest(), World(penalty=lambda rung, run: 1.12 if rung == "100k" and run.learning_rate_factor > 0.5 else 1.0)
    ).go()


def asked() -> Climb:
    """The ladder is climbed, and the target waits for a person's yes."""
    target = {"parameters": 300_000, "tokens": 6_000_000, "launch": "Approval"}
    return Climb(manifest(target=target), World()).go()


def contexts() -> Climb:
    """Each rung is trained at two other context lengths as well: longer is better."""
    plan = {"tokensPerParameter": [10, 20]}
    rungs = [
        {"name": name, "runs": [{"parameters": N, **own, **plan} for own in ({}, *other)]}
        for name, N in (("24k", "24K"), ("39k", "39K"), ("63k", "63K"), ("100k", "102K"), ("160k", "165K"))
        for other in [({"sequenceLength": 32}, {"sequenceLength": 2048})]
    ]
    gain = {None: 1.0, 32: 1.3, 2048: 0.9}
    return Climb(manifest(ladder={"rungs": rungs}), World(penalty=lambda rung, run: gain[run.sequence_length])).go()


def foretold() -> Climb:
    """The ladder is climbed; the target is forecast and not to be trained. No budget is set."""
    return Climb(manifest(target={"parameters": "1M", "tokens": "20M"}, budget={}), World()).go()


def fresh() -> Climb:
    """The first forecast is written, one run of the first rung is on its way, nothing has finished."""
    climb = Climb(manifest(), World()).go(1)
    created = decide(climb.sweep, (), Policy(), climb.now).create
    running = RunStatus(
        state=RunState.RUNNING, attempt=1, attempts=(Attempt(attempt=1, started_at=timestamp(climb.now)),),
        progress=Progress(
            attempt=1, step=40, steps=240, tokens=81_920, loss=3.91, tokens_per_second=41_000, eta_seconds=12.0,
            last_updated=timestamp(climb.now + timedelta(seconds=3)),
        ),
    )  # fmt: skip
    climb.children = tuple(child.changed(status=running) for child in created)
    status = decide(climb.sweep, climb.children, Policy(), climb.now).status
    if status is not None:
        climb.sweep = climb.sweep.changed(status=status)
    return climb


STORIES: dict[str, Callable[[], Climb]] = {
    "finished": finished,
    "held": held,
    "stopped": stopped,
    "retuned": retuned,
    "asked": asked,
    "foretold": foretold,
    "contexts": contexts,
    "fresh": fresh,
}


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of one of the stories; made once, not to be written to (copy it for that)."""
    made: dict[str, Path] = {}

    def tell(name: str) -> Path:
        if name not in made:
            made[name] = STORIES[name]().write(tmp_path_factory.mktemp(name))
        return made[name]

    return tell
