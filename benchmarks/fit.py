"""How fast and how well a fit is found, against the published recipe and PyPI's `chinchilla`, in one run.

    python benchmarks/fit.py DATA_FOLDER [--json FILE] [--starts 4500] [--chinchilla]

The published recipe (Hoffmann et al. 2022, appendix D.3; Besiroglu et al. 2024): L-BFGS-B from each of a grid of 4,500
starts over (ln A, ln B, ln E, alpha, beta), on the sum of Huber(1e-3) losses of log residuals, the best kept. Written
here from that description. `--chinchilla` also runs that package (pip install chinchilla), which minimises another
objective from 3,125 starts and takes minutes.
"""

import argparse
import csv
import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from sweep_analysis.bootstrap import bootstrap
from sweep_analysis.fit import fit
from sweep_analysis.forecast import Point, forecast
from sweep_analysis.ladders import by_compute

Array = np.ndarray
GRID = {  # 6·6·5·5·5 = 4,500
    "a": np.linspace(0.0, 25.0, 6),
    "b": np.linspace(0.0, 25.0, 6),
    "e": np.linspace(-1.0, 1.0, 5),
    "alpha": np.linspace(0.0, 2.0, 5),
    "beta": np.linspace(0.0, 2.0, 5),
}
DELTA = 1e-3


def epoch(folder: Path) -> dict[str, Array]:
    """The 240 points of Chinchilla's figure 4."""
    with (folder / "epoch_chinchilla_svg_extracted.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    N, C, L = (np.array([float(r[c]) for r in rows]) for c in ("Model Size", "Training FLOP", "loss"))
    kept = np.sort(np.argsort(L)[:240])
    return {"parameters": N[kept], "tokens": C[kept] / (6.0 * N[kept]), "loss": L[kept]}


def published_recipe(data: dict[str, Array], starts: int) -> tuple[float, float, float]:
    """(seconds, best objective, share of starts within 0.1 % of it) over the first `starts` of a shuffled grid."""
    n, d, target = (np.log(data[k]) for k in ("parameters", "tokens", "loss"))

    def objective(p: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = p
        terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
        top = terms.max(axis=0)
        parts = np.exp(terms - top)
        total = parts.sum(axis=0)
        r = top + np.log(total) - target
        share = parts / total
        psi = np.clip(r, -DELTA, DELTA)
        size = np.abs(r)
        value = np.where(size <= DELTA, 0.5 * r * r, DELTA * (size - 0.5 * DELTA)).sum()
        by = share @ psi
        return float(value), np.array([by[0], by[1], by[2], -(share[0] * n) @ psi, -(share[1] * d) @ psi])

    grid = list(itertools.product(*GRID.values()))
    np.random.default_rng(0).shuffle(grid)
    began = time.perf_counter()
    found = np.array([minimize(objective, x0, jac=True, method="L-BFGS-B").fun for x0 in grid[:starts]])
    seconds = time.perf_counter() - began
    best = float(np.nanmin(found))
    return seconds * len(grid) / min(starts, len(grid)), best, float(np.mean(found <= best * 1.001))


def best_of(call: Callable[[], Any], repeats: int) -> float:
    """The shortest of several runs, seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def synthetic(records: int) -> dict[str, Array]:
    """A Chinchilla surface with half a percent of noise."""
    draw = np.random.default_rng(0)
    N = 10 ** draw.uniform(7, 10, records)
    D = N * 10 ** draw.uniform(0.7, 2, records)
    L = 1.8 + 480 / N**0.348 + 2085 / D**0.366
    return {"parameters": N, "tokens": D, "loss": L * np.exp(0.005 * draw.standard_normal(records))}


def peak_memory(records: int) -> float:
    """Peak of what a fit allocates, MiB."""
    data = synthetic(records)
    tracemalloc.start()
    fit(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def chinchilla_package(data: dict[str, Array]) -> dict[str, float]:
    """PyPI's chinchilla on the same records: its own objective from its own 3,125 starts."""
    import pandas as pd  # bench only
    from chinchilla import Chinchilla

    with tempfile.TemporaryDirectory() as folder:
        frame = pd.DataFrame({"N": data["parameters"], "D": data["tokens"], "loss": data["loss"]})
        frame.insert(0, "C", 6.0 * frame.N * frame.D)
        frame.to_csv(Path(folder) / "df.csv", index=False)
        grid = {
            "e": np.linspace(1.1, 1.5, 5),
            "a": np.linspace(1, 5, 5),
            "b": np.linspace(1, 5, 5),
            "alpha": np.linspace(0.1, 0.7, 5),
            "beta": np.linspace(0.1, 0.7, 5),
        }
        model = Chinchilla(folder, param_grid=grid, seed_ranges={"C": (1e18, 1e22), "N_to_D": (1, 100)}, log_level=40)
        began = time.perf_counter()
        model.fit()
        seconds = time.perf_counter() - began
        c = {k: float(v) for k, v in model.get_params().items()}
    return {"seconds": seconds, "asymmetric": asymmetric(data, c)}


def asymmetric(data: dict[str, Array], c: dict[str, float]) -> float:
    """Mean absolute error, records below the law counted ten times: that package's objective."""
    told = c["E"] + c["A"] * data["parameters"] ** -c["alpha"] + c["B"] * data["tokens"] ** -c["beta"]
    error = data["loss"] - told
    return float(np.mean(np.where(error < 0, -10.0 * error, error)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the published runs")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--starts", type=int, default=4500, help="starts of the recipe that are run; time is scaled up")
    parser.add_argument("--chinchilla", action="store_true", help="also run PyPI's chinchilla (minutes)")
    options = parser.parse_args(argv)
    if options.chinchilla and importlib.util.find_spec("chinchilla") is None:
        sys.exit("benchmarks/fit.py: --chinchilla needs the package: pip install chinchilla pandas")
    data = epoch(options.data)
    few = {k: v[::12] for k, v in data.items()}
    many = synthetic(100_000)

    figures: dict[str, Any] = {"cpus": os.cpu_count(), "starts": options.starts}
    ours = fit(data)
    figures["fit_240_seconds"] = best_of(lambda: fit(data), 50)
    figures["fit_240_objective"] = ours.objective
    figures["fit_20_seconds"] = best_of(lambda: fit(few), 50)
    for records, thinned in ((20, few), (240, data)):
        rungs = by_compute(Point(*run, str(i)) for i, run in enumerate(zip(*thinned.values(), strict=True)))
        call = partial(forecast, rungs, [(7e10, 1.4e12)])
        figures[f"forecast_{records}_seconds"] = best_of(call, 20)
    figures["fit_100000_seconds"] = best_of(lambda: fit(many), 3)
    figures["bootstrap_4000_seconds"] = best_of(lambda: bootstrap(ours, 4000, threads=2), 3)
    figures["bootstrap_4000_one_thread_seconds"] = best_of(lambda: bootstrap(ours, 4000, threads=1), 1)
    figures["peak_mib"] = {n: peak_memory(n) for n in (10_000, 100_000, 1_000_000)}
    seconds, objective, share = published_recipe(data, options.starts)
    figures |= {"recipe_seconds": seconds, "recipe_objective": objective, "recipe_share_within_0.1%": share}

    rows = [
        ("fit, 240 records", f"{1e3 * figures['fit_240_seconds']:.2f} ms", f"objective {ours.objective:.12f}"),
        ("published recipe, 4,500 starts", f"{seconds:.1f} s", f"objective {objective:.12f}; {share:.0%} of starts"),
        (
            "ratio of times",
            f"{seconds / figures['fit_240_seconds']:,.0f}",
            f"ours/theirs {ours.objective / objective:.9f}",
        ),
        ("fit, 20 records", f"{1e3 * figures['fit_20_seconds']:.2f} ms", ""),
        ("calibrated forecast, 20 records", f"{1e3 * figures['forecast_20_seconds']:.2f} ms", ""),
        ("calibrated forecast, 240 records", f"{1e3 * figures['forecast_240_seconds']:.2f} ms", ""),
        ("fit, 100,000 records", f"{figures['fit_100000_seconds']:.2f} s", ""),
        ("4,000 refits of 240, two threads", f"{figures['bootstrap_4000_seconds']:.2f} s", ""),
        ("4,000 refits of 240, one thread", f"{figures['bootstrap_4000_one_thread_seconds']:.2f} s", ""),
    ]
    rows += [(f"peak memory, {n:,} records", f"{mib:.0f} MiB", "") for n, mib in figures["peak_mib"].items()]
    if options.chinchilla:
        theirs = chinchilla_package(data)
        floor = fit(data, residual="absolute", delta=1e-9, asymmetry=10.0)
        took = best_of(lambda: fit(data, residual="absolute", delta=1e-9, asymmetry=10.0), 5)
        at_ours = asymmetric(data, dict(floor.constants))
        figures["chinchilla"] = theirs | {"ours_seconds": took, "ours_asymmetric": at_ours}
        rows.append(("PyPI chinchilla", f"{theirs['seconds']:.0f} s", f"asymmetric MAE {theirs['asymmetric']:.9f}"))
        rows.append(("ours, the same objective", f"{1e3 * took:.1f} ms", f"asymmetric MAE {at_ours:.9f}"))
    for name, took_text, note in rows:
        print(f"{name:<34} {took_text:>12}   {note}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
