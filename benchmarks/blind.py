"""A choice without a start: every constant from wide ranges by the other nine origins, scored on the tenth.

    python benchmarks/blind.py [--data FOLDER] --further FOLDER [--write]

The ranges were written down before any of this was scored, around S1 and as wide as its words allow; whether there is
a kernel is drawn as well. The scale's constants, its structure among them (widening, 12/m, what lies below the past's
tokens, the power of d), are found by likelihood on the nine from values that leave all of it out. Three rules: the
likeliest of the settings, their average weighing as likelihood, and a coordinate search from the likeliest. Prints
the table; --write puts it into docs/forecasts.md.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tuning
from calibration import FOUR, SIX, variants_table, with_thinnings, write
from classics import S1
from further_ladders import further
from scipy.stats import qmc

from sweep_analysis.kriging import Kernel
from sweep_analysis.ladders import Ladder, published
from sweep_analysis.predictive import Settings

ROOT = Path(__file__).parents[1]
DRAWN = 64
STEP = 0.25
"""Of a range, up and down, in the coordinate search."""
RANGES = {
    "entropy_at": (0.0, 1.0),
    "entropy_slope": (0.0, 0.4),
    "entropy_beyond": (0.0, 0.4),
    "entropy_doubt": (0.0, 0.1),
    "alpha": (0.20, 0.60),
    "beta": (0.20, 0.60),
    "E's sd": (0.05, 0.2),
    "a, b's sd": (0.15, 0.6),
    "alpha's sd": (0.1, 0.4),
    "beta's sd": (0.2, 0.8),
    "fit_floor": (0.0013, 0.012),
    "fit_off_optimum": (0.017, 0.15),
    "oversized": (1.0, 4.0),
    "fit_adapts": (0.0, 1.0),
    "fit_adapts_from": (1.0, 10.0),
    "recency": (0.75, 3.0),
    "outlier": (1.25, 5.0),
    "a kernel": (0.0, 1.0),
    "alike": (0.05, 0.95),
    "ratio_reach": (0.5, 8.0),
    "compute_reach": (0.5, 8.0),
    "run_fades": (0.05, 1.0),
}
"""Constants of fit and kernel. A range that begins above nothing is even in the logarithm."""
SCALE = ("fit_factor", "floor", "off_optimum", "memory", "prior_weight")
STRUCTURE = ("drift", "bend", "bend_power", "widening", "few_records", "below_data", "rungs_power")
NOTHING_NEW = replace(S1, drift=1e-4, bend=1e-3, bend_power=1.0, few_records=0.5, below_data=0.005, inflation=1.0)
"""S1's scale, and of all that it has not as little as a logarithm can start from."""

Place = tuple[float, ...]
"""A setting in the unit cube, one coordinate a range."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("SCALINGSWEEP_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", help="folder of the four origins' runs")
    parser.add_argument("--further", type=Path, required=True, help="folder of the six further origins' runs")
    parser.add_argument("--write", action="store_true", help="rewrite the table of docs/forecasts.md")
    options = parser.parse_args()
    try:
        whole = {FOUR: published(options.data), SIX: further(options.further)}
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: name the folder of the published runs", file=sys.stderr)
        return 2
    text = scored(Choice([ladder for ladders in whole.values() for ladder in ladders]), whole)
    print(text)
    if options.write:
        write("blind", text)
    return 0


def drawn(count: int = DRAWN, *, seed: int = 0) -> list[Place]:
    """So many places, filling the cube evenly."""
    points = qmc.Sobol(len(RANGES), rng=np.random.default_rng(seed)).random(count)
    return [tuple(point) for point in points.tolist()]


def settings_at(place: Place) -> Settings:
    """The constants at a place in the cube; those of the scale as S1 has them, and nothing that it has not."""
    v = {}
    for (name, (low, high)), u in zip(RANGES.items(), place, strict=True):
        v[name] = low * (high / low) ** u if low > 0.0 else low + (high - low) * u
    reaches = Kernel(v["alike"], v["ratio_reach"], v["compute_reach"], v["run_fades"])
    own = {name: value for name, value in v.items() if hasattr(NOTHING_NEW, name)}
    return replace(
        NOTHING_NEW,
        prior_mean=(v["alpha"], v["beta"]),
        prior_deviation=(v["E's sd"], v["a, b's sd"], v["a, b's sd"], v["alpha's sd"], v["beta's sd"]),
        kernel=reaches if v["a kernel"] >= 0.5 else None,
        **own,
    )


class Choice:
    """What was computed on the way, so that origins left out share it."""

    def __init__(self, whole: Sequence[Ladder]) -> None:
        self.whole = whole
        self.ladders = with_thinnings(whole)
        self.tables: dict[Place, tuning.Table] = {}
        self.surprises: dict[tuple[Place, str], float] = {}
        self.starts: dict[str, Settings] = {}

    def table(self, place: Place) -> tuning.Table:
        if place not in self.tables:
            self.tables[place] = tuning.table(self.ladders, settings_at(place))
        return self.tables[place]

    def start(self, out: str) -> Settings:
        """The scale by the nine, structure too, in the middle of all ranges: where every setting's own scale starts."""
        if out not in self.starts:
            t = self.table((0.5,) * len(RANGES))
            keep = tuple(o for o in t.origins if o != out)
            self.starts[out] = tuning.likeliest(t, NOTHING_NEW, keep, 600, (*SCALE, *STRUCTURE))
        return self.starts[out]

    def surprise(self, place: Place, out: str) -> float:
        """Negative log likelihood a forecast on the nine, with the scale's constants that are likeliest there."""
        if (place, out) not in self.surprises:
            t = self.table(place)
            keep = tuple(o for o in t.origins if o != out)
            found = tuning.likeliest(t, self.start(out), keep, 100, SCALE)
            self.surprises[place, out] = tuning.loss(t, found, keep)
        return self.surprises[place, out]

    def likeliest(self, out: str) -> Place:
        return min(drawn(), key=lambda place: self.surprise(place, out))

    def averaged(self, out: str) -> Place:
        """The mean place, each weighing as its likelihood to the power of the number of ladders."""
        surprises = np.array([self.surprise(place, out) for place in drawn()])
        ladders = sum(ladder.origin != out for ladder in self.whole)
        weights = np.exp(-ladders * (surprises - surprises.min()))
        return tuple(np.average(drawn(), axis=0, weights=weights).tolist())

    def searched(self, out: str) -> Place:
        """One constant after the other moved up or down from the likeliest while that is likelier, once through all."""
        best = self.likeliest(out)
        for i in range(len(RANGES)):
            for step in (STEP, -STEP):
                moved = (*best[:i], min(1.0, max(0.0, best[i] + step)), *best[i + 1 :])
                if self.surprise(moved, out) < self.surprise(best, out):
                    best = moved
                    break
        return best

    def tuned(self, place: Place, out: str) -> tuple[Settings, float]:
        """Every constant of the scale on the nine, bend and inflation by coverage as in what ships."""
        t = self.table(place)
        keep = tuple(o for o in t.origins if o != out)
        return tuning.tune(t, self.start(out), keep, evaluations=400, free=(*SCALE, *STRUCTURE))


RULES: dict[str, Callable[[Choice, str], Place]] = {
    "the likeliest of those drawn": Choice.likeliest,
    "their average, weighing as likelihood": Choice.averaged,
    "a coordinate search from the likeliest": Choice.searched,
}


def scored(choice: Choice, whole: dict[str, list[Ladder]]) -> str:
    """A row a rule: what it chose on nine origins, on the tenth."""
    rows = {}
    for name, rule in RULES.items():
        places = {out: rule(choice, out) for out in choice.table(drawn()[0]).origins}
        tables = {out: choice.table(place) for out, place in places.items()}
        rows[name] = (tables, {out: choice.tuned(place, out) for out, place in places.items()})
    return variants_table(rows, whole)


if __name__ == "__main__":
    raise SystemExit(main())
