"""Published runs as ladders: which file is which origin, what its rungs are, and how ladders are thinned.

Owns the data side of the back-test's protocol: nothing here looks at a loss to choose what is scored. Downloads
nothing; the files are named in docs/forecasts.md.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep_analysis.forecast import Point

RUNGS_PER_DECADE = 4
"""Rungs of a ladder that names none: quarter decades of compute, which is 1.8x a step."""
LEAST_RATIO = 1.0
"""Porian's grids go down to 0.005 tokens per parameter, where a run ends inside its warm-up; nobody plans such a run.
The rule looks at the design alone, never at an outcome, and touches no other origin."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Runs in rungs, in the order they would have been climbed."""

    origin: str
    """Who trained them: ladders of one origin are never on both sides of a tuning."""
    name: str
    rungs: tuple[tuple[Point, ...], ...]
    thinned: bool = False


def by_compute(points: Iterable[Point], per_decade: int = RUNGS_PER_DECADE) -> tuple[tuple[Point, ...], ...]:
    """Rungs of equal ratio in C = 6ND, empty ones left out."""
    return _grouped(points, lambda p: float(round(math.log10(6.0 * p.parameters * p.tokens) * per_decade)))


def by_size(points: Iterable[Point]) -> tuple[tuple[Point, ...], ...]:
    """One rung a model size; sizes within 10 % of one another are one."""
    return _grouped_by_gap(points, lambda p: p.parameters, 1.1)


def thin(ladder: Ladder) -> list[Ladder]:
    """The same ladder climbed with longer steps, and with fewer runs.

    Every second and every third rung from each start, and four runs a rung, spread evenly over its sizes.
    """
    variants = [(f"every {step} from {first}", ladder.rungs[first::step]) for step in (2, 3) for first in range(step)]
    variants.append(("4 runs a rung", tuple(_spread(rung, 4) for rung in ladder.rungs)))
    return [
        Ladder(ladder.origin, f"{ladder.name} ({name})", rungs, thinned=True)
        for name, rungs in variants
        if len(rungs) >= 4 and rungs != ladder.rungs
    ]


def published(folder: Path, *, least_ratio: float = LEAST_RATIO) -> list[Ladder]:
    """Every published ladder found in `folder`. Raises FileNotFoundError when a file is missing.

    Runs planned with fewer than `least_ratio` tokens per parameter are left out.
    """
    ladders = [*_chinchilla(folder), *_gadre(folder), *_gemstones(folder), *_porian(folder)]
    return [replace(ladder, rungs=_planned(ladder.rungs, least_ratio)) for ladder in ladders]


def _planned(rungs: Iterable[Sequence[Point]], least_ratio: float) -> tuple[tuple[Point, ...], ...]:
    kept = (tuple(p for p in rung if p.tokens >= least_ratio * p.parameters) for rung in rungs)
    return tuple(rung for rung in kept if rung)


def _chinchilla(folder: Path) -> list[Ladder]:
    """Hoffmann et al. 2022 as read off its figures, twice: Epoch's 240 points and kyo-takano's 234. One origin."""
    epoch = sorted(
        _points(folder / "epoch_chinchilla_svg_extracted.csv", N="Model Size", C="Training FLOP", loss="loss"),
        key=lambda p: p.loss,
    )[:240]  # the published fit drops the five highest losses, which are misread colours
    kyo = _points(folder / "kyotakano_llm_df.csv", N="N", D="D", loss="loss")
    return [
        Ladder("Chinchilla", "Epoch's extraction", by_compute(epoch)),
        Ladder("Chinchilla", "kyo-takano's extraction", by_compute(kyo)),
    ]


def _gadre(folder: Path) -> list[Ladder]:
    """Gadre et al. 2024: 104 runs on three training sets, C4 validation loss."""
    rows = _rows(folder / "gadre_overtraining_104runs.csv")
    ladders = []
    for dataset in sorted({row["dataset"] for row in rows}):
        points = [
            Point(float(r["N"]), float(r["D"]), float(r["loss_c4_val"]), r["name"])
            for r in rows
            if r["dataset"] == dataset
        ]
        ladders += [
            Ladder("Gadre", f"{dataset}, by compute", by_compute(points, 2)),
            Ladder("Gadre", f"{dataset}, by size", by_size(points)),
        ]
    return ladders


def _gemstones(folder: Path) -> list[Ladder]:
    """McLeish et al. 2025: 22 models, ten checkpoints each; the checkpoints of one model are one run."""
    points = _points(
        folder / "gemstones_hot.csv", N="params_active_precise", D="tokens", loss="final_loss", run="run_name"
    )
    return [
        Ladder("Gemstones", "hot, by compute", by_compute(points)),
        Ladder("Gemstones", "hot, by size", by_size(points)),
    ]


def _porian(folder: Path) -> list[Ladder]:
    """Porian et al. 2024: 15 configurations of IsoFLOP curves, a rung a budget."""
    rows = _rows(folder / "porian_isoflop_points.csv")
    keys = ("file", "dataset", "hparams", "warmup", "decay", "param_count", "val")
    ladders: dict[str, dict[float, list[Point]]] = {}
    for row in rows:
        name = " ".join(row[key] for key in keys)
        flops, N = float(row["flops"]), float(row["N"])
        point = Point(N, flops / (6.0 * N), float(row["loss"]), f"{N:g} at {flops:g}")
        ladders.setdefault(name, {}).setdefault(flops, []).append(point)
    return [
        Ladder("Porian", name, tuple(tuple(rungs[flops]) for flops in sorted(rungs))) for name, rungs in ladders.items()
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _points(path: Path, *, N: str, loss: str, D: str = "", C: str = "", run: str = "") -> list[Point]:
    points = []
    for number, row in enumerate(_rows(path)):
        parameters = float(row[N])
        tokens = float(row[D]) if D else float(row[C]) / (6.0 * parameters)
        points.append(Point(parameters, tokens, float(row[loss]), row[run] if run else str(number)))
    return points


def _grouped_by_gap(
    points: Iterable[Point], size: Callable[[Point], float], ratio: float
) -> tuple[tuple[Point, ...], ...]:
    """Points of nearly one size together: within `ratio` of the smallest of their group."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: (size(p), p.parameters, p.tokens, p.loss, p.run)):
        if groups and size(point) <= ratio * size(groups[-1][0]):
            groups[-1].append(point)
        else:
            groups.append([point])
    return tuple(map(tuple, groups))


def _grouped(points: Iterable[Point], key: Callable[[Point], float]) -> tuple[tuple[Point, ...], ...]:
    groups: dict[float, list[Point]] = {}
    for point in points:
        groups.setdefault(key(point), []).append(point)
    return tuple(tuple(groups[value]) for value in sorted(groups))


def _spread(rung: Sequence[Point], count: int) -> tuple[Point, ...]:
    """`count` runs of a rung, evenly spread over its sizes."""
    ordered = sorted(rung, key=lambda p: (p.parameters, p.tokens, p.run))
    if len(ordered) <= count:
        return tuple(ordered)
    return tuple(ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count))
