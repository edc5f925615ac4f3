"""Worlds to try the gate in: ladders whose truth is known, climbed with the real forecasts and verdicts.

Owns the worlds (a healthy law, and eleven ways in which a ladder goes wrong), the records they give, and the climb.
Every draw comes from the seed it is given: the same seed gives the same ladder. Trains nothing and knows no clock.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from sweep_analysis import flops
from sweep_analysis.forecast import forecast, planned_records, points_of
from sweep_analysis.gate import Evidence, Outcome, Thresholds, Verdict, judge
from sweep_analysis.record import Failure, FailureReason, FlopCounts, ParameterCounts, Record, RunReference
from sweep_analysis.rung import Purpose, Run

SEED_SD = 6e-4
"""sd of the loss between seeds in published runs, nats per token, at 1e18 FLOPs and beyond."""
BOWL = 0.01
"""ln L rises by this times ln²(learning rate / best): 1.9 % at 4x, 12 % at 30x."""
DIVERGES_AT = 40.0
"""Learning rates this many times too high end in NaN."""


class World(StrEnum):
    """What is true of a ladder."""

    HEALTHY = "Healthy"
    """The law holds to the end."""
    ROUGH = "Rough"
    """The law holds up to a wobble of each run (sd 0.3 %) and of each rung (sd 0.2 %), as in published ladders."""
    BEND = "Bend"
    """From the broken rung on, losses lie 3 % above the law."""
    PLATEAU = "Plateau"
    """From the broken rung on, nothing improves any more."""
    COLD_START = "ColdStart"
    """The first three rungs hardly learn; then the law takes over."""
    EMERGENT = "Emergent"
    """At the broken rung the loss drops 6 % below the law, and stays there."""
    DATA_EXHAUSTED = "DataExhausted"
    """The corpus ends: from the broken rung on the data is repeated more than 16 times."""
    SLOW = "Slow"
    """The law's exponents are so small that compute buys next to nothing."""
    BAD_RUN = "BadRun"
    """One run of the broken rung has a learning rate 30 times too high."""
    BAD_RUNG = "BadRung"
    """Every run of the broken rung has."""
    DIVERGED = "Diverged"
    """The broken rung's learning rate is 3 times too high, and one of its runs diverges."""
    MISSING = "Missing"
    """A record of the broken rung never arrives."""
    DUPLICATED = "Duplicated"
    """A record of the broken rung arrives twice, with different losses."""


SOUND = (World.HEALTHY, World.ROUGH)
"""Worlds whose ladder deserves to be climbed to the end."""


@dataclass(frozen=True, slots=True)
class Design:
    """A ladder as planned: one model size a rung."""

    sizes: tuple[int, ...]
    ratios: tuple[int, ...]
    """Tokens per parameter, all from one run."""
    seeds: tuple[int, ...] = (1,) * 8
    """Replicates a rung."""
    seed_sd: float = SEED_SD
    seed_decay: float = 0.0
    """sd falls as (N/N₀)^−decay over the rungs."""
    warmup: int = 3

    def rung(self, number: int, factor: float = 1.0) -> tuple[Run, ...]:
        """The runs of one rung."""
        N = self.sizes[number]
        tokens = tuple(N * ratio for ratio in self.ratios)
        return tuple(
            Run(parameters=N, tokens=tokens, seed=seed, learning_rate_factor=factor)
            for seed in range(self.seeds[number])
        )


@dataclass(frozen=True, slots=True)
class Law:
    """L = E + A·(N/N₀)^−alpha + B·(D/D₀)^−beta at the ladder's first run (N₀, D₀)."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float


@dataclass(frozen=True, slots=True)
class Truth:
    """One world's ladder: what every run of it would give."""

    world: World
    design: Design
    law: Law
    broken: int
    """The rung at which the world departs from the law; the design's length where it never does."""
    noise: float
    """Multiplies the seed's sd."""
    seed: int

    def loss(self, run: Run, tokens: int, number: int) -> float:
        """Nats per token of one record on rung `number`; inf where the run diverges."""
        rng = np.random.default_rng([self.seed, run.parameters, tokens, run.seed, 1])
        place = np.random.default_rng([self.seed, run.parameters, tokens, 2])
        broken = number >= self.broken
        tokens_worth, size = float(tokens), float(run.parameters)
        if self.world is World.PLATEAU and broken:
            size, tokens_worth = self._capped(tokens)
        if self.world is World.DATA_EXHAUSTED:
            tokens_worth = _repeated(tokens, self.unique_tokens)
        loss = self._law(size, tokens_worth)
        if self.world is World.COLD_START:
            loss = self.ceiling - math.log1p(math.exp(8.0 * (self.ceiling - loss))) / 8.0
        deviation = {World.BEND: math.log1p(0.03), World.EMERGENT: math.log1p(-0.06)}.get(self.world, 0.0) * broken
        if self.world is World.ROUGH:
            wobble = np.random.default_rng([self.seed, number, 3])
            deviation += 0.003 * place.standard_normal() + 0.002 * wobble.standard_normal()
        sd = self.noise * self.design.seed_sd * (run.parameters / self.design.sizes[0]) ** -self.design.seed_decay
        mistuned = self._mistuning(run, number) * run.learning_rate_factor
        edge = 2.0 if self.world is World.DIVERGED and run.seed == 0 else DIVERGES_AT
        if mistuned > edge:
            return math.inf
        deviation += BOWL * math.log(mistuned) ** 2
        return float(loss * math.exp(deviation) + sd * rng.standard_normal())

    def _law(self, size: float, tokens: float) -> float:
        law, first = self.law, self.design
        N, D = size / first.sizes[0], tokens / (first.sizes[0] * first.ratios[0])
        return float(law.E + law.A * N**-law.alpha + law.B * D**-law.beta)

    def _capped(self, tokens: int) -> tuple[float, float]:
        """The last size and token count that still helped."""
        last = self.design.sizes[self.broken - 1]
        return float(last), float(min(tokens, last * self.design.ratios[-1]))

    def _mistuning(self, run: Run, number: int) -> float:
        """Learning rate over the best one, at factor 1."""
        if number != self.broken:
            return 1.0
        if self.world is World.BAD_RUNG:
            return 30.0
        if self.world is World.DIVERGED:
            return 3.0
        return 30.0 if self.world is World.BAD_RUN and run.seed == 0 else 1.0

    @property
    def ceiling(self) -> float:
        """The loss that a cold start does not get below: what the law says of the third rung's best."""
        size = self.design.sizes[2]
        return self._law(size, size * self.design.ratios[-1])

    @property
    def unique_tokens(self) -> int:
        """Size of the corpus: sixteen passes are reached between the last sound rung and the broken one."""
        last = self.design.sizes[min(self.broken, len(self.design.sizes) - 1)] * self.design.ratios[-1]
        return last // 20 if self.world is World.DATA_EXHAUSTED else 10 * last

    def results(self, run: Run, number: int, purpose: Purpose = Purpose.LADDER) -> list[Record] | Failure:
        """What training the run would report."""
        losses = [self.loss(run, tokens, number) for tokens in run.tokens]
        if any(math.isinf(loss) for loss in losses):
            return Failure(attempt=1, reason=FailureReason.DIVERGED, message="the loss became NaN")
        return [self._record(run, tokens, loss, purpose) for tokens, loss in zip(run.tokens, losses, strict=True)]

    def _record(self, run: Run, tokens: int, loss: float, purpose: Purpose) -> Record:
        N, unique = run.parameters, min(tokens, self.unique_tokens)
        C = flops.six_nd(N, tokens)
        return Record(
            run=RunReference(uid=run.content_digest[7:39], attempt=1, config_digest="sha256:simulated"),
            purpose=purpose,
            parameters=ParameterCounts(total=N, non_embedding=N, active=N),
            tokens=tokens,
            unique_tokens=unique,
            epochs=tokens / unique,
            flops=FlopCounts(six_nd=C, detailed=C),
            seed=run.seed,
            loss=loss,
            validation_digest="sha256:simulated",
            tokenizer_digest="sha256:simulated",
            gpu_seconds=C / 4e14,
            trainer_version="simulated",
            finished_at="2026-01-01T00:00:00Z",
        )


def draw(world: World, seed: int, *, noise: float = 1.0, design: Design | None = None) -> Truth:
    """A ladder of that world: design, law and broken rung drawn from the seed."""
    rng = np.random.default_rng([seed, list(World).index(world)])
    if design is None:
        growth = float(rng.choice([2.0, 2.5, 3.0]))
        first = 10.0 ** rng.uniform(7.0, 8.0)
        design = Design(
            sizes=tuple(1000 * round(first * growth**i / 1000) for i in range(6)),
            ratios=((10, 20), (10, 20, 40), (5, 20, 80))[rng.integers(3)],
        )
        if world in (World.BAD_RUN, World.DIVERGED):  # one run among several
            design = replace(design, seeds=(2,) * 8)
    reducible = rng.uniform(1.4, 2.2)
    share = rng.uniform(0.4, 0.6)
    slow = 0.06 if world is World.SLOW else 1.0
    law = Law(
        E=rng.uniform(1.5, 2.0),
        A=reducible * share,
        B=reducible * (1.0 - share),
        alpha=slow * rng.uniform(0.28, 0.40),
        beta=slow * rng.uniform(0.28, 0.45),
    )
    last = len(design.sizes)
    sound = world in (*SOUND, World.SLOW, World.COLD_START)
    broken = last if sound else int(rng.integers(design.warmup, last))
    return Truth(world, design, law, broken, noise, seed)


@dataclass(frozen=True, slots=True)
class Climb:
    """How one ladder went."""

    truth: Truth
    verdicts: tuple[tuple[int, Verdict], ...]
    """(rung, verdict) of every final verdict, in order; reruns after a retune included."""
    records: tuple[tuple[Record, ...], ...]
    """Accepted records of the promoted rungs."""
    gpu_hours: tuple[float, ...]
    """Of every rung trained, diagnoses and reruns included, at 400 TFLOP/s a GPU."""

    @property
    def held_at(self) -> int | None:
        """The rung that was not promoted; None when the ladder was climbed to its end."""
        number, last = self.verdicts[-1]
        return None if last.outcome in (Outcome.PASS, Outcome.NOT_JUDGED) else number


def climb(truth: Truth, thresholds: Thresholds | None = None) -> Climb:
    """Climb as the operator would: forecast, train, judge, diagnose, retune once, promote or stop."""
    design = truth.design
    limits = thresholds or Thresholds(judged_rungs=len(design.sizes) - design.warmup)
    earlier: list[tuple[Record, ...]] = []
    verdicts: list[tuple[int, Verdict]] = []
    hours: list[float] = []
    for number in range(len(design.sizes)):
        factor, spent = 1.0, 0.0
        for _ in range(2):  # as planned, and once more where the verdict retunes the rung
            planned = design.rung(number, factor)
            at, owed = planned_records(planned)
            foretold = forecast([points_of(rung) for rung in earlier], at, runs=owed)
            records, failures = _train(truth, planned, number)
            spent += sum(run.flops for run in planned) / 4e14 / 3600
            evidence = Evidence(
                rung=str(number),
                planned=planned,
                records=records,
                earlier=tuple(earlier),
                failures=failures,
                forecast=foretold,
                thresholds=limits,
                warmup=number < design.warmup,
            )
            verdict = judge(evidence)
            while verdict.experiments:
                for experiment in verdict.experiments:
                    found = _tried(truth, experiment.run, number)
                    evidence = replace(evidence, diagnosis=(*evidence.diagnosis, *found))
                    spent += experiment.run.flops / 4e14 / 3600
                verdict = judge(evidence)
            verdicts.append((number, verdict))
            if verdict.retune is None:
                break
            factor = verdict.retune
        hours.append(spent)
        if verdict.outcome not in (Outcome.PASS, Outcome.NOT_JUDGED):
            break
        earlier.append(records)
    return Climb(truth, tuple(verdicts), tuple(earlier), tuple(hours))


def _train(truth: Truth, planned: tuple[Run, ...], number: int) -> tuple[tuple[Record, ...], Mapping[str, Failure]]:
    records: list[Record] = []
    failures: dict[str, Failure] = {}
    for run in planned:
        result = truth.results(run, number)
        if isinstance(result, Failure):
            failures[run.content_digest] = result
        else:
            records += result
    if number == truth.broken and truth.world is World.MISSING:
        records.pop()
    if number == truth.broken and truth.world is World.DUPLICATED:
        records.append(records[-1].changed(loss=1.01 * records[-1].loss))
    return tuple(records), failures


def _tried(truth: Truth, run: Run, number: int) -> list[tuple[Run, Record | Failure]]:
    result = truth.results(run, number, Purpose.DIAGNOSIS)
    return [(run, result)] if isinstance(result, Failure) else [(run, record) for record in result]


def _repeated(tokens: float, unique: float) -> float:
    """D_eff = U + U·R*·(1 − e^(−R/R*)), R repeats beyond the first pass, R* = 15.4 (Muennighoff et al. 2023, eq. 5)."""
    repeats = max(0.0, tokens / unique - 1.0)
    return min(tokens, unique) + unique * 15.4 * (1.0 - math.exp(-repeats / 15.4))
