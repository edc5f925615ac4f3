"""Six further origins of published runs: which files they are, which runs count, and how these become rungs.

Written down and committed before the first score on them was seen; the method then was version 3, which none of them
had helped to settle. Looks at no loss to choose what is scored, save that Step law's grids count by their best run.
Downloads nothing; a folder holds files of four public repositories (docs/forecasts.md names their revisions):

    loss-to-loss/sweep.csv, loss-to-loss/extrapolation.csv    KempnerInstitute/loss-to-loss-notebooks, data/
    isoflops.csv        Open-Athena/scaling-law-analysis, data/isoflops/transform/
    curves.csv.gz       google-deepmind/scaling_laws_for_routing, data/
    dense_lr_bs_loss.csv    step-law/steplaw, data/
"""

import csv
import gzip
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sweep_analysis.forecast import Point
from sweep_analysis.ladders import LEAST_RATIO, Ladder, by_compute, by_size

TOKENS_PER_STEP = 256 * 2048
"""Of Clark et al.: 250,000 steps are their 130 billion tokens."""


def further(folder: Path, *, least_ratio: float = LEAST_RATIO) -> list[Ladder]:
    """Every ladder of these files, whole, as `ladders.published`. Raises FileNotFoundError when one is missing."""
    every = [*_loss_to_loss(folder), *_isoflops(folder), *_routing(folder), *_step_law(folder)]
    return [replace(ladder, rungs=planned(ladder.rungs, least_ratio)) for ladder in every]


def _loss_to_loss(folder: Path) -> list[Ladder]:
    """Brandfonbrener et al. 2024: IsoFLOP curves on six corpora, validation loss on its own each; one of 1e21."""
    every = [*rows(folder / "loss-to-loss/sweep.csv"), *rows(folder / "loss-to-loss/extrapolation.csv")]
    return [
        Ladder(
            "Loss-to-loss", corpus, _by_budget((r["iso_flop"], point(r, "params", "tokens", "val_loss")) for r in of)
        )
        for corpus, of in _split(every, "data")
    ]


def _isoflops(folder: Path) -> list[Ladder]:
    """Three origins that Open Athena brought into one form: Marin's on three corpora, (Mis)fitting's, and Llama 3's.

    Llama 3's losses are read off its figure, in the figure's unit. Two extractions of Chinchilla are no new origin.
    """
    origins = {"marin_202603": "Marin", "misfitting": "(Mis)fitting", "llama_3": "Llama 3"}
    return [
        Ladder(
            origins[of[0]["source"]],
            name,
            _by_budget((r["budget"], point(r, "params", "tokens", "loss")) for r in of),
        )
        for name, of in _split(rows(folder / "isoflops.csv"), "experiment")
        if of[0]["source"] in origins and of[0]["condition"] != "exp_loss"
    ]


def _routing(folder: Path) -> list[Ladder]:
    """Clark et al. 2022, dense models at the end of their training, a rung a size; mid-schedule losses are no runs."""
    dense = [
        r for r in rows(folder / "curves.csv.gz") if r["router_type"] == "Dense" and float(r["flop_increase"]) == 1
    ]
    last = max(float(r["step"]) for r in dense)
    ends = [{**r, "tokens": str(last * TOKENS_PER_STEP)} for r in dense if float(r["step"]) == last]
    points = finite(point(r, "dense_parameter_count", "tokens", "loss_validation", r["hyper_id"]) for r in ends)
    return [Ladder("Routing", "dense", by_size(points))]


def _step_law(folder: Path) -> list[Ladder]:
    """Li et al. 2025: a grid of learning rates and batches at each (N, D); the best of each is the run that counts."""
    points = best_of_each(point(r, "N", "D", "smooth loss") for r in rows(folder / "dense_lr_bs_loss.csv"))
    return [
        Ladder("Step law", "dense, by compute", by_compute(points)),
        Ladder("Step law", "dense, by size", by_size(points)),
    ]


def best_of_each(points: Iterable[Point]) -> list[Point]:
    """The run of lowest loss at each (N, D) of a grid of hyper-parameters."""
    best: dict[tuple[float, float], Point] = {}
    for p in finite(points):
        at = p.parameters, p.tokens
        best[at] = min(p, best.get(at, p), key=lambda q: q.loss)
    return list(best.values())


def planned(rungs: Iterable[Sequence[Point]], least_ratio: float) -> tuple[tuple[Point, ...], ...]:
    """Rungs less the runs planned below that many tokens per parameter."""
    kept = (tuple(p for p in rung if p.tokens >= least_ratio * p.parameters) for rung in rungs)
    return tuple(rung for rung in kept if rung)


def _by_budget(points: Iterable[tuple[str, Point]]) -> tuple[tuple[Point, ...], ...]:
    rungs: dict[float, list[Point]] = {}
    for budget, p in points:
        if math.isfinite(p.loss):
            rungs.setdefault(float(budget), []).append(p)
    return tuple(tuple(rungs[budget]) for budget in sorted(rungs))


def point(row: dict[str, str], N: str, D: str, loss: str, run: str = "") -> Point:
    """A run from three columns of a row; it is named by its (N, D) where no name is given."""
    parameters, tokens = float(row[N]), float(row[D])
    return Point(parameters, tokens, float(row[loss] or "nan"), run or f"{parameters:g} on {tokens:g}")


def finite(points: Iterable[Point]) -> list[Point]:
    return [p for p in points if math.isfinite(p.loss)]


def _split(rows: Iterable[dict[str, str]], key: str) -> list[tuple[str, list[dict[str, str]]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return sorted(groups.items())


def rows(path: Path) -> list[dict[str, str]]:
    """Every row of a CSV file, gzipped or not."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(io.StringIO(text)))
