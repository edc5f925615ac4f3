"""The forecast as it ships, on published ladders that nobody had looked at when it was settled.

    python benchmarks/unseen.py FOLDER [--write]

Which runs count and how they become rungs is written here and was committed before the first score was seen; the method
and its constants are those that ship (version 3), settled on other origins. The protocol is that of `backtest` and
`ladders`: the same thinnings, the same least tokens per parameter, nothing filtered by outcome. FOLDER holds four files
of public repositories (docs/forecasts.md names their revisions); nothing is downloaded.

    loss-to-loss/sweep.csv, loss-to-loss/extrapolation.csv    KempnerInstitute/loss-to-loss-notebooks, data/
    isoflops.csv        Open-Athena/scaling-law-analysis, data/isoflops/transform/
    curves.csv.gz       google-deepmind/scaling_laws_for_routing, data/
    dense_lr_bs_loss.csv    step-law/steplaw, data/

Prints the table; --write puts it into docs/forecasts.md and benchmarks/results/unseen.json.
"""

import argparse
import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import calibration
import classics

from sweep_analysis.backtest import Score, replay, report
from sweep_analysis.forecast import Point
from sweep_analysis.ladders import LEAST_RATIO, Ladder, by_compute, by_size, thin

RESULTS = calibration.ROOT / "benchmarks" / "results" / "unseen.json"
TOKENS_PER_STEP = 256 * 2048
"""Of Clark et al.: 250,000 steps are their 130 billion tokens."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the four repositories' files")
    parser.add_argument("--write", action="store_true", help="rewrite the table of docs/forecasts.md and the results")
    options = parser.parse_args()
    try:
        everything = ladders(options.folder)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: this file's head says where each comes from", file=sys.stderr)
        return 2
    planned = [ladder for whole in everything if (ladder := _planned(whole)).rungs]
    ours, declined = _replayed(planned, "ours")
    tables = {
        "Ladders nobody had looked at: as shipped": calibration.report_table(ours),
        "… by origin, and S1": _both(planned),
        "… with the runs below one token per parameter": _both(everything),
    }
    text = "\n\n".join(f"**{title}**\n\n{body}" for title, body in tables.items())
    print(text)
    print(f"\n{len(planned)} ladders before thinning; {declined} rungs declined")
    if options.write:
        summary = report(ours, declined)
        assert summary is not None
        RESULTS.write_text(json.dumps(summary.to_json(), indent=1, ensure_ascii=False) + "\n")
        calibration.write_between("unseen", text)
    return 0


def ladders(folder: Path) -> list[Ladder]:
    """Every ladder of the four files, whole. Raises FileNotFoundError when one is missing."""
    return [*_loss_to_loss(folder), *_isoflops(folder), *_routing(folder), *_step_law(folder)]


def _loss_to_loss(folder: Path) -> list[Ladder]:
    """Brandfonbrener et al. 2024: IsoFLOP curves on six corpora, validation loss on its own each; one of 1e21."""
    rows = [*_rows(folder / "loss-to-loss/sweep.csv"), *_rows(folder / "loss-to-loss/extrapolation.csv")]
    return [
        Ladder(
            "Loss-to-loss", corpus, _by_budget((r["iso_flop"], _point(r, "params", "tokens", "val_loss")) for r in of)
        )
        for corpus, of in _split(rows, "data")
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
            _by_budget((r["budget"], _point(r, "params", "tokens", "loss")) for r in of),
        )
        for name, of in _split(_rows(folder / "isoflops.csv"), "experiment")
        if of[0]["source"] in origins and of[0]["condition"] != "exp_loss"
    ]


def _routing(folder: Path) -> list[Ladder]:
    """Clark et al. 2022, dense models at the end of their training, a rung a size; mid-schedule losses are no runs."""
    dense = [
        r for r in _rows(folder / "curves.csv.gz") if r["router_type"] == "Dense" and float(r["flop_increase"]) == 1
    ]
    last = max(float(r["step"]) for r in dense)
    rows = [{**r, "tokens": str(last * TOKENS_PER_STEP)} for r in dense if float(r["step"]) == last]
    points = _finite(_point(r, "dense_parameter_count", "tokens", "loss_validation", r["hyper_id"]) for r in rows)
    return [Ladder("Routing", "dense", by_size(points))]


def _step_law(folder: Path) -> list[Ladder]:
    """Li et al. 2025: a grid of learning rates and batches at each (N, D); the best of each is the run that counts."""
    rows = _rows(folder / "dense_lr_bs_loss.csv")
    every = _finite(_point(r, "N", "D", "smooth loss", f"{r['N']} on {r['D']}") for r in rows)
    best: dict[str, Point] = {}
    for point in every:
        best[point.run] = min(point, best.get(point.run, point), key=lambda p: p.loss)
    points = list(best.values())
    return [
        Ladder("Step law", "dense, by compute", by_compute(points)),
        Ladder("Step law", "dense, by size", by_size(points)),
    ]


def _both(whole: list[Ladder]) -> str:
    s1, ours = (calibration.origins_table(name, _replayed(whole, name)[0]) for name in ("S1", "ours"))
    return "\n".join([s1, *ours.splitlines()[2:]])


def _replayed(whole: list[Ladder], name: str) -> tuple[list[Score], int]:
    found = [replay(variant, classics.METHODS[name]) for ladder in whole for variant in (ladder, *thin(ladder))]
    return [score for scores, _ in found for score in scores], sum(declined for _, declined in found)


def _planned(ladder: Ladder) -> Ladder:
    kept = (tuple(p for p in rung if p.tokens >= LEAST_RATIO * p.parameters) for rung in ladder.rungs)
    return replace(ladder, rungs=tuple(rung for rung in kept if rung))


def _by_budget(points: Iterable[tuple[str, Point]]) -> tuple[tuple[Point, ...], ...]:
    rungs: dict[float, list[Point]] = {}
    for budget, point in points:
        if math.isfinite(point.loss):
            rungs.setdefault(float(budget), []).append(point)
    return tuple(tuple(rungs[budget]) for budget in sorted(rungs))


def _point(row: dict[str, str], N: str, D: str, loss: str, run: str = "") -> Point:
    parameters, tokens = float(row[N]), float(row[D])
    return Point(parameters, tokens, float(row[loss] or "nan"), run or f"{parameters:g} on {tokens:g}")


def _finite(points: Iterable[Point]) -> list[Point]:
    return [p for p in points if math.isfinite(p.loss)]


def _split(rows: Iterable[dict[str, str]], key: str) -> list[tuple[str, list[dict[str, str]]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return sorted(groups.items())


def _rows(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(io.StringIO(text)))


if __name__ == "__main__":
    sys.exit(main())
