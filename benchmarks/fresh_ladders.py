"""Four origins that nobody had looked at when version 4 of the method was settled: files, runs that count, rungs.

Written down and committed before the first score on them was seen, by the rules of `further_ladders`: losses are those
at the end of a run, the best of a grid of hyper-parameters counts, nothing else looks at a loss. IsoFLOP curves become
rungs of compute; a grid of sizes and tokens becomes rungs of compute and rungs of size. Ladders below four rungs give
no forecast and are left out, as is any origin of fewer than twelve planned runs. Downloads nothing; a folder holds
files of four public repositories (docs/forecasts.md names their revisions):

    olmo-ladder/190M-0.5xC.csv …    allenai/OLMo-ladder, src/scripts/paper/data/ladder-runs/
    gbsz_min.csv                    OpenEuroLLM/dense_english_scaling_laws, data/best_HPs/
    xlstm/isoflop_….pkl             NX-AI/xlstm_scaling_laws, data/
    datablations_contour_losses.csv IBM/ColPret, aggregated_eval/
"""

import io
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from further_ladders import best_of_each, finite, planned, point, rows

from sweep_analysis.forecast import Point
from sweep_analysis.ladders import LEAST_RATIO, Ladder, by_compute, by_size

LEAST_RUNGS = 4
OLMO_SIZES = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840, "3B": 3169537280}
OLMO_LENGTHS = ("0.5xC", "1xC-rerun", "2xC", "5xC", "10xC")
"""Of the two logs of each 1xC design the rerun, which was evaluated as often as its neighbours."""
OLMO_LOSS = "eval/c4_en-validation/CrossEntropyLoss"
XLSTM = {
    "Llama, context 8192": ("isoflop_llama_ctx8192", "isoflop_llama_ctx8192_flops_chinchilla"),
    "mLSTM, context 16384": ("isoflop_mlstm_ctx16384",),
}
"""Of the files that are published in full, those whose budgets make four rungs. Llama's two differ in how a budget
counts attention, and in nothing that a run would know of."""
BUILDING_BLOCKS = {
    "builtins": {"slice"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
}
"""All that a table of logs is made of; a pickle that names anything else is refused."""


def fresh(folder: Path, *, least_ratio: float = LEAST_RATIO) -> list[Ladder]:
    """Every ladder of these files, whole, as `further_ladders`. Raises FileNotFoundError when a file is missing."""
    every = [*_olmo(folder), *_open_euro_llm(folder), *_xlstm(folder), *_datablations(folder)]
    ladders = [replace(ladder, rungs=planned(ladder.rungs, least_ratio)) for ladder in every]
    return [ladder for ladder in ladders if len(ladder.rungs) >= LEAST_RUNGS]


def _olmo(folder: Path) -> list[Ladder]:
    """Bhagia et al. 2024: five sizes at 10 to 200 tokens per parameter, each with a schedule of its own; C4 loss."""
    points = []
    for size, parameters in OLMO_SIZES.items():
        for length in OLMO_LENGTHS:
            end = rows(folder / f"olmo-ladder/{size}-{length}.csv")[-1]
            tokens, loss = float(end["throughput/total_tokens"]), float(end[OLMO_LOSS])
            points.append(Point(parameters, tokens, loss, f"{size}-{length}"))
    return [
        Ladder("OLMo ladder", "by compute", by_compute(finite(points))),
        Ladder("OLMo ladder", "by size", by_size(finite(points))),
    ]


def _open_euro_llm(folder: Path) -> list[Ladder]:
    """OpenEuroLLM's dense models on English: six sizes, 6 to 300 billion tokens; the best of each grid."""
    points = best_of_each(point(r, "N", "D", "loss") for r in rows(folder / "gbsz_min.csv"))
    return [
        Ladder("OpenEuroLLM", "by compute", by_compute(points)),
        Ladder("OpenEuroLLM", "by size", by_size(points)),
    ]


def _xlstm(folder: Path) -> list[Ladder]:
    """Beck et al. 2025: IsoFLOP curves of two architectures on DCLM, validation loss; the best rate of each."""
    ladders = []
    for name, files in XLSTM.items():
        runs = [run for file in files for run in logged(folder / f"xlstm/{file}_wandb_data.pkl")]
        ladders.append(Ladder("xLSTM", name, by_compute(best_of_each(finished(runs)))))
    return ladders


def _datablations(folder: Path) -> list[Ladder]:
    """Muennighoff et al. 2023 on C4: the runs of one epoch. Their IsoFLOP curves have one run at most sizes."""
    points = [
        point(r, "num_params", "token_num", "openLM_loss", r["model_args"])
        for r in rows(folder / "datablations_contour_losses.csv")
        if r["data"] == "c4" and float(r["epochs"]) == 1
    ]
    return [Ladder("Datablations", "C4, one epoch", by_compute(finite(points)))]


class Run:
    """Stands in for the class that the logs were pickled from: what it had is found as attributes."""


def finished(runs: Iterable[Any]) -> Iterator[Point]:
    """Runs that were trained to the step they were planned for, with the validation loss logged there or later."""
    for run in runs:
        size, data = run.summary.get("model/"), run.summary.get("dataset/")
        curve = run.logs.get("val/.dclm_loss")
        if not size or not data or curve is None or not len(curve):
            continue
        steps, context = data["num_train_steps"], int(run.name.split("ctx")[1].split("_")[0])
        if curve["_step"].iloc[-1] >= steps:
            tokens = float(steps * data["global_batch_size"] * context)
            yield Point(float(size["num_params"]), tokens, float(curve.iloc[-1, -1]), run.name)


def logged(path: Path) -> list[Any]:
    """The runs of a file, whatever group they are in."""
    return [run for group in _Tables(io.BytesIO(path.read_bytes())).load().values() for run in group]


class _Tables(pickle.Unpickler):
    """Loads tables of logs and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "WandBRunData":
            return Run
        if name not in BUILDING_BLOCKS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a table of logs")
        return super().find_class(module, name)
