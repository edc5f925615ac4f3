"""A choice without a start: every constant from wide ranges by all other origins, scored on one of the marks' four.

    python benchmarks/blind.py [--data FOLDER] --further FOLDER --fresh FOLDER [--write]

The ranges were written down before any of this was scored, around S1 and as wide as its words allow; whether there is
a kernel is drawn as well. The scale's constants, its structure among them (widening, 12/m, what lies below the past's
tokens, the power of d), are found by likelihood on the others from values that leave all of it out. Three rules: the
likeliest of the settings, their average weighing as likelihood, and the average of some drawn anew around that. Prints
the table; --write puts it into docs/forecasts.md.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import choosing
import numpy as np
import tuning
from calibration import FOUR, variants_table, with_thinnings, write
from classics import S1
from fresh_ladders import fresh
from further_ladders import further
from scipy.stats import qmc

from sweep_analysis.kriging import Kernel
from sweep_analysis.ladders import Ladder, published
from sweep_analysis.predictive import Settings

ROOT = Path(__file__).parents[1]
DRAWN, DRAWN_ANEW = 64, 32
AROUND = 0.25
"""Of a range, up and down, within which is drawn anew."""
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
STRUCTURE = ("drift", "bend", *tuning.STRUCTURE, "rungs_power")
NOTHING_NEW = replace(S1, drift=1e-4, bend=1e-3, inflation=1.0, **choosing.LITTLE)
"""S1's scale, and of all that it has not as little as a logarithm can start from."""

Place = tuple[float, ...]
"""A setting in the unit cube, one coordinate a range."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("SCALINGSWEEP_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", help="folder of the four origins' runs")
    parser.add_argument("--further", type=Path, required=True, help="folder of the six further origins' runs")
    parser.add_argument("--fresh", type=Path, required=True, help="folder of the four fresh origins' runs")
    parser.add_argument("--write", action="store_true", help="rewrite the table of docs/forecasts.md")
    options = parser.parse_args()
    try:
        four, others = published(options.data), [*further(options.further), *fresh(options.fresh)]
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: name the folder of the published runs", file=sys.stderr)
        return 2
    text = scored(Choice([*four, *others]), four)
    print(text)
    if options.write:
        write("blind", text)
    return 0


def drawn(count: int = DRAWN, *, seed: int = 0) -> list[Place]:
    """So many places, filling the cube evenly."""
    points = qmc.Sobol(len(RANGES), rng=np.random.default_rng(seed)).random(count)
    return [tuple(point) for point in points.tolist()]


def drawn_around(place: Place) -> list[Place]:
    """Places that fill the part of the cube within `AROUND` of this one."""
    low, high = (np.clip(np.array(place) + way * AROUND, 0.0, 1.0) for way in (-1, 1))
    return [tuple(point) for point in (low + (high - low) * np.array(drawn(DRAWN_ANEW, seed=1))).tolist()]


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
        """The scale by the others, structure too, in the middle of all ranges: where each setting starts."""
        if out not in self.starts:
            t = self.table((0.5,) * len(RANGES))
            keep = tuple(o for o in t.origins if o != out)
            self.starts[out] = tuning.likeliest(t, NOTHING_NEW, keep, 600, (*SCALE, *STRUCTURE))
        return self.starts[out]

    def surprise(self, place: Place, out: str) -> float:
        """Negative log likelihood a forecast on the others, with the scale's constants that are likeliest there."""
        if (place, out) not in self.surprises:
            t = self.table(place)
            keep = tuple(o for o in t.origins if o != out)
            found = tuning.likeliest(t, self.start(out), keep, 100, SCALE)
            self.surprises[place, out] = tuning.loss(t, found, keep)
        return self.surprises[place, out]

    def likeliest(self, out: str) -> Place:
        return min(drawn(), key=lambda place: self.surprise(place, out))

    def averaged(self, out: str) -> Place:
        """The mean of the places drawn."""
        return self._mean(drawn(), out)

    def averaged_anew(self, out: str) -> Place:
        """The mean of places drawn around the mean."""
        return self._mean(drawn_around(self.averaged(out)), out)

    def _mean(self, places: list[Place], out: str) -> Place:
        """Each weighing as its likelihood to the power of the number of ladders."""
        surprises = np.array([self.surprise(place, out) for place in places])
        ladders = sum(ladder.origin != out for ladder in self.whole)
        weights = np.exp(-ladders * (surprises - surprises.min()))
        return tuple(np.average(places, axis=0, weights=weights).tolist())

    def tuned(self, place: Place, out: str) -> tuple[Settings, float]:
        """Every constant of the scale on the others, bend and inflation by coverage as in what ships."""
        t = self.table(place)
        keep = tuple(o for o in t.origins if o != out)
        return tuning.tune(t, self.start(out), keep, evaluations=400, free=(*SCALE, *STRUCTURE))


RULES: dict[str, Callable[[Choice, str], Place]] = {
    "the likeliest of those drawn": Choice.likeliest,
    "their average, weighing as likelihood": Choice.averaged,
    "the average of some drawn anew around it": Choice.averaged_anew,
}


def scored(choice: Choice, four: list[Ladder]) -> str:
    """A row a rule: what it chose without one of the four, on that one."""
    rows = {}
    for name, rule in RULES.items():
        places = {out: rule(choice, out) for out in sorted({ladder.origin for ladder in four})}
        tables = {out: choice.table(place) for out, place in places.items()}
        rows[name] = (tables, {out: choice.tuned(place, out) for out, place in places.items()})
    return variants_table(rows, {FOUR: four})


if __name__ == "__main__":
    raise SystemExit(main())
