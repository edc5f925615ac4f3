"""Whether a sweep makes sense, beyond what its schema can say, and what exactly its rungs will train.

Owns the resolution of a ladder into runs (exact parameter counts, whole batches) and the reasons of `Accepted=False`.
Pure: it reads a spec and a status, never a cluster.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from sweep_analysis.fit import identifies
from sweep_analysis.recipe import Training, at_context, shape_of, whole_batches
from sweep_analysis.rung import Purpose, Run, Rung
from sweep_analysis.scale import format_scale
from sweep_operator.api import TARGET, Generate, RungRuns, RungSpec, RungState, ScalingSweep, SweepSpec
from sweep_operator.capacity import misfit, undivided
from sweep_operator.policy import Policy

MAX_RUNS = 64
MAX_RECORDS = 2048
"""Of a whole ladder: with a forecast for each, and most rungs run twice, the status still fits into 1.5 MB of etcd."""
MAX_TOKENS = 2**53
"""JSON's readers keep whole numbers exactly up to here."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ladder and the target as they will be trained."""

    rungs: tuple[Rung, ...]
    target: Run


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing (more) will be started, and what would be right."""

    reason: str
    message: str


def accept(sweep: ScalingSweep, policy: Policy) -> Accepted | Refused:
    """Check a sweep against its own logic, its past and the platform's policy; the first objection is returned."""
    spec = sweep.spec
    frozen = _frozen_field(sweep)
    if frozen:
        return Refused(
            "FrozenField", f"spec.{frozen} may not change once a forecast has been written; apply a new sweep"
        )
    try:
        rungs = tuple(_resolve_rung(spec.training, rung.name, rung.runs) for rung in _listed(spec))
        target = _run(
            spec.training, spec.target.parameters, (spec.target.tokens,), spec.target.seed, purpose=Purpose.TARGET
        )
    except ValueError as error:
        return Refused("InvalidSize", str(error))
    lacking = next((rung.name for rung in rungs if not rung.judged), None)
    if lacking is not None:
        return Refused(
            "NothingToJudge",
            f"rung {lacking!r} has no run at the target's context of {spec.training.sequence_length:,} tokens, by which"
            " it could be judged; add one without sequenceLength",
        )
    for objection in (
        _too_many_records(rungs),
        _unmountable(spec),
        _edited_after_start(sweep, rungs),
        _same_record_twice(rungs),
        _not_increasing(rungs),
        _target_below_ladder(spec, rungs, target),
        _unidentified(spec, rungs),
        _warmup_too_short(spec, rungs),
        _due("BatchDoesNotDivide", undivided, sweep, rungs, target),
        _due("DoesNotFit", misfit, sweep, rungs, target),
    ):
        if objection:
            return objection
    violation = policy.violation(sweep, rungs)
    if violation:
        return Refused("PolicyViolation", violation)
    return Accepted(rungs, target)


def _frozen_field(sweep: ScalingSweep) -> str | None:
    """The first field of the spec that differs from what it was when the first forecast was written."""
    before, now = sweep.status.frozen, sweep.spec.frozen_part
    if before and before.get("records") != now.get("records"):
        return "records"
    return next((field for field, digest in now.items() if field in before and before[field] != digest), None)


def _listed(spec: SweepSpec) -> Iterable[RungSpec]:
    return spec.ladder.rungs or _generated(spec.ladder.generate)


def _generated(rule: Generate | None) -> Iterable[RungSpec]:
    """Sizes evenly spaced in log N, named after themselves."""
    assert rule is not None, "a ladder has rungs or a rule"
    ratio = (rule.to / rule.from_) ** (1 / (rule.rungs - 1))
    sizes = [round(rule.from_ * ratio**i) for i in range(rule.rungs)]
    names = [format_scale(float(f"{size:.2g}")).lower().replace(".", "-") for size in sizes]
    if len(set(names)) < len(names):
        names = [f"{name}-{i + 1}" for i, name in enumerate(names)]
    for name, size in zip(names, sizes, strict=True):
        runs = RungRuns(parameters=size, tokens_per_parameter=rule.tokens_per_parameter, seeds=rule.seeds)
        yield RungSpec(name=name, runs=(runs,))


@lru_cache(maxsize=1024)
def _resolve_rung(training: Training, name: str, entries: tuple[RungRuns, ...]) -> Rung:
    """Kept, since every pass resolves the ladder of its sweep anew. Raises ValueError for a size that cannot be."""
    runs: dict[str, Run] = {}
    for entry in entries:
        exact = shape_of(training, entry.parameters).parameters
        tokens = tuple(round(ratio * exact) for ratio in entry.tokens_per_parameter)
        for seed in entry.seeds:
            run = _run(
                training, entry.parameters, tokens, seed, entry.learning_rate_factor, context=entry.sequence_length
            )
            runs[run.content_digest] = run
    if len(runs) > MAX_RUNS:
        raise ValueError(f"rung {name!r} has {len(runs)} runs; at most {MAX_RUNS} are taken")
    return Rung(name=name, runs=tuple(runs.values()))


def _run(
    training: Training,
    parameters: int,
    tokens: tuple[int, ...],
    seed: int,
    learning_rate_factor: float = 1.0,
    purpose: Purpose = Purpose.LADDER,
    context: int | None = None,
) -> Run:
    """The run as it will be trained; one at the recipe's own context is a run like any other."""
    if context is not None and context != training.sequence_length:
        training, purpose = at_context(training, context), Purpose.CONTEXT
    if max(tokens) > MAX_TOKENS:
        raise ValueError(
            f"{format_scale(max(tokens))} tokens are more than can be counted exactly; at most"
            f" {format_scale(MAX_TOKENS)} are taken"
        )
    return Run(
        parameters=shape_of(training, parameters).parameters,
        tokens=whole_batches(training, tokens),
        seed=seed,
        learning_rate_factor=learning_rate_factor,
        purpose=purpose,
        sequence_length=training.sequence_length if purpose is Purpose.CONTEXT else None,
    )


def _largest(rung: Rung) -> int:
    return max(run.parameters for run in rung.judged)


def _edited_after_start(sweep: ScalingSweep, rungs: tuple[Rung, ...]) -> Refused | None:
    """A rung that has started stays as it is; rungs after it may still be edited, appended or dropped."""
    started = [r for r in sweep.status.rungs if r.revision == 1 and r.state is not RungState.PENDING]
    for status, rung in zip((r for r in started if r.name != "target"), [*rungs, *[None] * len(started)], strict=False):
        if rung is None or rung.name != status.name or rung.runs != status.runs:
            return Refused(
                "RungStarted", f"rung {status.name!r} has started and can no longer be edited; edit later rungs"
            )
    return None


def _too_many_records(rungs: tuple[Rung, ...]) -> Refused | None:
    owed = sum(len(run.tokens) for rung in rungs for run in rung.runs)
    if owed <= MAX_RECORDS:
        return None
    return Refused(
        "LadderTooLarge",
        f"the ladder owes {owed:,} records; at most {MAX_RECORDS:,} are taken, since all of their forecasts are kept"
        " with the sweep; name fewer runs, seeds or token counts",
    )


def _unmountable(spec: SweepSpec) -> Refused | None:
    """Storage that no pod could mount as it is written is refused before anything is paid for: it is frozen later."""
    if spec.storage is None or spec.storage.mounted is None:
        return None
    uri, (claim, path) = spec.storage.uri, spec.storage.mounted
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", claim):
        return Refused("InvalidStorage", f"storage.uri {uri} names no claim that can be; write pvc://CLAIM/PATH")
    if ".." in path.split("/"):
        said = f"storage.uri {uri} leads out of its claim; write pvc://CLAIM/PATH without '..'"
        return Refused("InvalidStorage", said)
    return None


def _same_record_twice(rungs: tuple[Rung, ...]) -> Refused | None:
    """A rung is judged record by record, so two of its runs may not owe the same one at different learning rates."""
    for rung in rungs:
        owed = Counter(
            (run.parameters, tokens, run.seed, run.sequence_length) for run in rung.runs for tokens in run.tokens
        )
        (parameters, tokens, seed, _), times = owed.most_common(1)[0]
        if times > 1:
            return Refused(
                "DuplicateRuns",
                f"rung {rung.name!r} trains {format_scale(parameters)} parameters on {format_scale(tokens)} tokens"
                f" {times} times with seed {seed}; give the runs seeds of their own",
            )
    return None


def _not_increasing(rungs: tuple[Rung, ...]) -> Refused | None:
    for before, after in pairwise(rungs):
        if _largest(after) <= _largest(before):
            return Refused(
                "SizesNotIncreasing",
                f"rungs {before.name!r} and {after.name!r} both come out at {_largest(after):,} parameters;"
                " put their sizes further apart",
            )
    return None


def _target_below_ladder(spec: SweepSpec, rungs: tuple[Rung, ...], target: Run) -> Refused | None:
    largest = max((run for rung in rungs for run in rung.judged), key=lambda run: run.parameters * max(run.tokens))
    if target.parameters * max(target.tokens) > largest.parameters * max(largest.tokens):
        return None
    return Refused(
        "TargetBelowLadder",
        f"the target ({format_scale(spec.target.parameters)} parameters on {format_scale(spec.target.tokens)} tokens)"
        f" costs no more than the ladder's largest run ({format_scale(largest.parameters)}"
        f" on {format_scale(max(largest.tokens))});"
        " raise the target or end the ladder earlier",
    )


def _unidentified(spec: SweepSpec, rungs: tuple[Rung, ...]) -> Refused | None:
    sentence = identifies(_design(rungs), spec.law)
    return Refused("DesignCannotIdentify", sentence) if sentence else None


def _warmup_too_short(spec: SweepSpec, rungs: tuple[Rung, ...]) -> Refused | None:
    """A ladder that would be held for certain at its first judged rung is refused before anything is paid for."""
    warmup = spec.gate.warmup_rungs
    if warmup >= len(rungs) or identifies(_design(rungs[:warmup]), spec.law) is None:
        return None
    needed = next(
        (k for k in range(warmup, len(rungs) + 1) if identifies(_design(rungs[:k]), spec.law) is None), len(rungs)
    )
    return Refused(
        "WarmupTooShort",
        f"rung {rungs[warmup].name!r} cannot be forecast from the {warmup} before it, so it could never be promoted;"
        f" set gate.warmupRungs to {needed}, or give the first rungs more sizes",
    )


def _due(
    reason: str,
    objection: Callable[[ScalingSweep, str, Run], str | None],
    sweep: ScalingSweep,
    rungs: tuple[Rung, ...],
    target: Run,
) -> Refused | None:
    """The first objection to a run on its devices, of what is yet to start; of a target only if it may start."""
    newest = {rung.name: rung.state for rung in sweep.status.rungs}  # a later revision replaces an earlier one
    started = {name for name, state in newest.items() if state is not RungState.PENDING}
    due = [(rung.name, run) for rung in rungs for run in rung.runs]
    if sweep.spec.target.launch != "Never":
        due.append((TARGET, target))
    for name, run in due:
        said = objection(sweep, name, run) if name not in started else None
        if said:
            return Refused(reason, f"{'the target' if name == TARGET else f'rung {name!r}'}: {said}")
    return None


def _design(rungs: Iterable[Rung]) -> list[tuple[float, float]]:
    return [(run.parameters, tokens) for rung in rungs for run in rung.judged for tokens in run.tokens]
