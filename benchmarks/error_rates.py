"""How often the gate is right: ladders of worlds whose truth is known, climbed with real forecasts and verdicts.

    python benchmarks/error_rates.py [--ladders 1000] [--processes 2] [--write]

Prints, world by world, which verdict was given where; how many healthy ladders were ever held; how often a broken rung
was caught; what wrong promotions cost against promoting blindly and always holding; and the confusion of phases and
patterns. --write puts the tables into docs/gate.md and the counts into benchmarks/results/error_rates.json.
"""

import argparse
import json
import multiprocessing
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from sweep_analysis.forecast import points_of
from sweep_analysis.gate import Outcome, Thresholds
from sweep_analysis.phases import read
from sweep_analysis.simulate import SOUND, Design, Truth, World, climb, draw

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "gate.md"
RESULTS = ROOT / "benchmarks" / "results" / "error_rates.json"

LAPTOP = Design(
    sizes=(20_000, 27_000, 46_000, 67_000, 96_000, 163_000),
    ratios=(10, 20),
    seeds=(4, 2, 2, 2, 2, 1),
    seed_sd=0.02,
    seed_decay=1.0,
)
"""Byte-level models with replicates; seed sd .02 nats at the smallest, falling as 1/N."""
NOISY = (World.HEALTHY, World.ROUGH, World.BEND)
CELLS: list[tuple[str, World, float, Design | None]] = [
    *((f"{world.value}, noise {noise:g}x", world, noise, None) for world in NOISY for noise in (1.0, 3.0, 10.0)),
    ("Healthy, laptop", World.HEALTHY, 1.0, LAPTOP),
    ("Bend, laptop", World.BEND, 1.0, LAPTOP),
    *((world.value, world, 1.0, None) for world in World if world not in NOISY),
]
COSTLY = (World.BEND, World.PLATEAU, World.DATA_EXHAUSTED, World.SLOW)
"""Worlds in which every rung beyond the broken one is wasted."""
PHASES = {World.COLD_START: "ColdStart", World.PLATEAU: "Plateau"}
PATTERNS = {World.EMERGENT: "Emergent", World.DATA_EXHAUSTED: "OutOfData", World.SLOW: "Slow"}
READ = (World.HEALTHY, World.ROUGH, World.COLD_START, World.PLATEAU, World.EMERGENT, World.DATA_EXHAUSTED, World.SLOW)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladders", type=int, default=1000, help="a world (default: 1000)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="rewrite the tables of docs/gate.md and the results")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for name, world, noise, design in CELLS:
            one = partial(_ladder, world, noise, design)
            results[name] = pool.map(one, range(options.ladders), chunksize=25)
    text = "\n\n".join((_verdicts(results), _costs(results), _confusion(results)))
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        counts = {name: dict(Counter(r["ended"] for r in rows).most_common()) for name, rows in results.items()}
        RESULTS.write_text(json.dumps({"ladders": options.ladders, "ended": counts}, indent=1) + "\n")
        before, _, rest = DOCS.read_text().partition("<!-- error rates -->\n")
        _, _, after = rest.partition("<!-- /error rates -->")
        DOCS.write_text(f"{before}<!-- error rates -->\n{text}\n<!-- /error rates -->{after}")
    return 0


def _ladder(world: World, noise: float, design: Design | None, seed: int) -> dict[str, Any]:
    """One ladder's outcome, as plain values."""
    truth = draw(world, seed, noise=noise, design=design)
    limits = Thresholds(
        judged_rungs=len(truth.design.sizes) - truth.design.warmup, max_half_width=0.06 if design else 0.05
    )
    climbed = climb(truth, limits)
    held, (_, last) = climbed.held_at, climbed.verdicts[-1]
    first_try = next((v for number, v in climbed.verdicts if number == truth.broken), None)
    retuned = [v.retune for _, v in climbed.verdicts if v.retune is not None]
    widths = [
        check.numbers["halfWidth"]
        for number, verdict in climbed.verdicts
        for check in verdict.checks
        if check.name == "ForecastSharpEnough" and "halfWidth" in check.numbers and number == truth.broken
    ]
    where = "" if held is None else "before " if held < truth.broken else "at " if held == truth.broken else "after "
    hours = list(climbed.gpu_hours)
    full = [sum(run.flops for run in truth.design.rung(i)) / 4e14 / 3600 for i in range(len(truth.design.sizes))]
    broken = truth.design.warmup if world is World.SLOW else truth.broken
    return {
        "ended": "climbed" if held is None else f"{where}{last.outcome.value}/{last.reason.value}",
        "held": held is not None,
        "caught": first_try is not None and first_try.outcome is not Outcome.PASS,
        "reached": first_try is not None,
        "retuned": retuned,
        "half_width": widths[0] if widths else None,
        "wasted": sum(hours[broken + 1 :]),
        "wasted_blindly": sum(full[broken + 1 :]),
        "full": sum(full),
        "spent": sum(hours),
        "read": _reading(truth) if world in READ else None,
    }


def _reading(truth: Truth) -> tuple[str, str, str, str]:
    """True and read phase and pattern: at the broken rung, at a cold start's third, at a sound ladder's last."""
    last = len(truth.design.sizes) - 1
    number = 2 if truth.world is World.COLD_START else min(truth.broken, last)
    rungs = []
    for i in range(number + 1):
        results = [truth.results(run, i) for run in truth.design.rung(i)]
        rungs.append(points_of(record for result in results if isinstance(result, list) for record in result))
    seen = read(rungs)
    return (
        PHASES.get(truth.world, "Scaling"),
        seen.phase.value,
        PATTERNS.get(truth.world, "Ordinal"),
        seen.pattern.value,
    )


def _verdicts(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| world | ladders | ever held | broken rung caught | how the ladders ended |",
        "|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        world = next(w for n, w, _, _ in CELLS if n == name)
        reached = [r for r in rows if r["reached"]]
        caught = f"{sum(r['caught'] for r in reached) / len(reached):.1%} of {len(reached)}" if reached else "–"
        if world in (*SOUND, World.SLOW, World.COLD_START):
            caught = "–"
        ended = Counter(r["ended"] for r in rows).most_common()
        shown = ", ".join(f"{end} {count / len(rows):.1%}" for end, count in ended[:4])
        if any(r["retuned"] for r in rows):
            factors = Counter(f"{r['retuned'][0]:.3g}" for r in rows if r["retuned"]).most_common(3)
            shown += "; retuned with " + ", ".join(f"{factor} ({count / len(rows):.1%})" for factor, count in factors)
        held = sum(r["held"] for r in rows) / len(rows)
        lines.append(f"| {name} | {len(rows)} | {held:.1%} | {caught} | {shown} |")
    widths = sorted(r["half_width"] for r in results["Bend, noise 1x"] if r["half_width"] is not None)
    tenth, half, ninth = (widths[int(len(widths) * q)] for q in (0.1, 0.5, 0.9))
    lines += [
        "",
        f"Half-width (95 %) of the forecasts that met the bend at noise 1x: median {half:.2%},"
        f" 10–90 % {tenth:.2%}–{ninth:.2%}.",
    ]
    narrow = [r for r in results["Bend, noise 1x"] if r["reached"] and r["half_width"] and r["half_width"] <= half]
    wide = [r for r in results["Bend, noise 1x"] if r["reached"] and r["half_width"] and r["half_width"] > half]
    lines.append(
        f"Caught below that median: {sum(r['caught'] for r in narrow) / len(narrow):.1%}; above it:"
        f" {sum(r['caught'] for r in wide) / len(wide):.1%}."
    )
    return "\n".join(lines)


def _costs(results: dict[str, list[dict[str, Any]]]) -> str:
    costly = [r for name, world, _, _ in CELLS for r in results[name] if world in COSTLY]
    sound = [r for name, world, _, _ in CELLS for r in results[name] if world in SOUND]
    full = sum(r["full"] for r in costly)
    wasted, blindly = sum(r["wasted"] for r in costly), sum(r["wasted_blindly"] for r in costly)
    extra = sum(r["spent"] for r in sound if not r["held"]) / sum(r["full"] for r in sound if not r["held"]) - 1.0
    held = sum(r["held"] for r in sound) / len(sound)
    per = len(costly)
    return "\n".join(
        [
            "| policy | GPU-hours wasted past a broken rung, a ladder | share of the ladder's cost |"
            " sound ladders stopped |",
            "|---|---|---|---|",
            f"| this gate | {wasted / per:.3g} | {wasted / full:.2%} | {held:.2%} |",
            f"| promote blindly | {blindly / per:.3g} | {blindly / full:.2%} | 0 % |",
            "| always hold | 0 | 0 % | 100 % |",
            "",
            f"GPU-hours at 400 TFLOP/s; {per} ladders that bend, plateau, run out of data or are slow,"
            f" {len(sound)} sound ones."
            f" Diagnoses and reruns cost the sound ladders {extra:.2%}.",
        ]
    )


def _confusion(results: dict[str, list[dict[str, Any]]]) -> str:
    read_rows = [r["read"] for rows in results.values() for r in rows if r["read"]]
    return "\n\n".join(
        _matrix(title, Counter((r[i], r[i + 1]) for r in read_rows)) for title, i in (("phase", 0), ("pattern", 2))
    )


def _matrix(title: str, counts: Counter[tuple[str, str]]) -> str:
    names = sorted({name for pair in counts for name in pair})
    lines = [f"| true {title} \\ read | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for true in names:
        total = sum(counts[true, seen] for seen in names)
        if total:
            cells = " | ".join(f"{counts[true, seen] / total:.1%}" for seen in names)
            lines.append(f"| {true} ({total}) | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
