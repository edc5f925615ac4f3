"""The calibration of the forecast's intervals, from published runs to the table in docs/forecasts.md, in one command.

    python benchmarks/calibration.py [--data FOLDER] [--write]

Leaves each origin out in turn: the scale's constants are tuned on the other three, the fourth is scored; and once more
with the constants of the fit chosen there too, among CANDIDATES. Then S1 and the classic intervals on the same rungs,
and the constants that ship (tuned on all four origins). Prints the tables; --write puts them into docs/forecasts.md
and benchmarks/results/calibration.json.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import classics
import numpy as np
import tuning

from sweep_analysis.backtest import JUMPS, Method, Row, Score, SurfaceReplay, replay, report, row
from sweep_analysis.kriging import Kernel
from sweep_analysis.ladders import Ladder, published, thin
from sweep_analysis.predictive import SETTINGS, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "forecasts.md"
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"

NEUTRAL = replace(SETTINGS, fit_factor=1.0, floor=0.003, off_optimum=0.05, memory=0.75, prior_weight=4.0)
"""Where every tuning starts."""
CANDIDATES = {
    "as shipped": NEUTRAL,
    "E prior wider": replace(NEUTRAL, prior_deviation=(0.24, 0.30, 0.30, 0.20, 0.40)),
    "E prior steeper": replace(NEUTRAL, entropy_slope=0.2),
    "E prior flat": replace(NEUTRAL, entropy_slope=0.0, entropy_beyond=0.0),
    "exponents as in S1": replace(NEUTRAL, prior_mean=(0.34, 0.39)),
    "wider on a and b": replace(NEUTRAL, prior_deviation=(0.12, 0.60, 0.60, 0.20, 0.40)),
    "no noise adaptation": replace(NEUTRAL, fit_adapts=0.0),
    "less recency": replace(NEUTRAL, recency=1.3),
    "more recency": replace(NEUTRAL, recency=2.1),
    "lower floor": replace(NEUTRAL, fit_floor=0.0015),
    "higher floor": replace(NEUTRAL, fit_floor=0.0032),
    "nothing carried from the past": replace(NEUTRAL, kernel=None),
    "runs less alike": replace(NEUTRAL, kernel=Kernel(alike=0.3)),
    "runs alike over short distances": replace(NEUTRAL, kernel=Kernel(ratio_reach=1.0, compute_reach=2.0)),
    "too large no worse than too small": replace(NEUTRAL, oversized=1.0),
    "less widening": replace(NEUTRAL, widening=0.25),
}
"""What was set by hand, one thing changed at a time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("SCALINGSWEEP_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", help="folder of the published runs")
    parser.add_argument("--write", action="store_true", help="rewrite the tables of docs/forecasts.md and the results")
    options = parser.parse_args()
    try:
        whole = published(options.data)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: name the folder of the published runs with --data", file=sys.stderr)
        return 2
    ladders = [variant for ladder in whole for variant in (ladder, *thin(ladder))]

    tables = {name: tuning.table(ladders, settings) for name, settings in CANDIDATES.items()}
    found = {name: _tuned_without(name, t) for name, t in tables.items()}
    left_out, declined, _ = _leave_one_out(ladders, {"as shipped": found["as shipped"]})
    rechosen, _, chosen = _leave_one_out(ladders, found)
    shipped = tables["as shipped"]
    tuned, _ = tuning.tune(shipped, NEUTRAL, shipped.origins, evaluations=300)

    sections = {
        "Leave one origin out: scale constants tuned on the other three": _report_table(left_out),
        f"… with the constants of the fit chosen anew as well, among {len(CANDIDATES)}": _origins_table(
            "rechosen", rechosen
        ),
        "One thing changed at a time: scale constants tuned on the other three": _variants_table(tables, found),
        "Whole ladders, by other methods": _methods_table(whole),
        "As shipped, and S1": _two_table(ladders),
        "With the runs below one token per parameter": _unfiltered_table(options.data),
    }
    text = "\n\n".join(f"**{title}**\n\n{body}" for title, body in sections.items())
    print(text)
    print("\nfit constants chosen, by origin left out:", chosen)
    print("tuned on all four:", {k: round(v, 4) for k, v in asdict(tuned).items() if isinstance(v, float)})
    if options.write:
        summary = report(left_out, declined)
        RESULTS.parent.mkdir(exist_ok=True)
        document = {"leaveOneOriginOut": summary.to_json() if summary else {}, "chosen": chosen, "tuned": asdict(tuned)}
        RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        before, _, rest = DOCS.read_text().partition("<!-- calibration -->\n")
        _, _, after = rest.partition("<!-- /calibration -->")
        DOCS.write_text(f"{before}<!-- calibration -->\n{text}\n<!-- /calibration -->{after}")
    return 0


Tuned = dict[str, tuple[Settings, float]]
"""Origin left out → scale constants found on the others, and their negative log likelihood there."""


def _tuned_without(name: str, table: tuning.Table) -> Tuned:
    """A candidate's scale constants, each origin left out in turn."""
    return {
        origin: tuning.tune(table, CANDIDATES[name], tuple(o for o in table.origins if o != origin), evaluations=300)
        for origin in table.origins
    }


def _leave_one_out(ladders: list[Ladder], found: dict[str, Tuned]) -> tuple[list[Score], int, dict[str, str]]:
    """Scores of every origin by what was likeliest on the others, how many rungs were declined, and what was chosen."""
    scores: list[Score] = []
    declined, chosen = 0, {}
    for origin in next(iter(found.values())):
        chosen[origin] = min(found, key=lambda name: found[name][origin][1])
        method = partial(SurfaceReplay, settings=found[chosen[origin]][origin][0])
        there, abstained = _replayed([ladder for ladder in ladders if ladder.origin == origin], method)
        scores += there
        declined += abstained
    return scores, declined, chosen


def _variants_table(tables: dict[str, tuning.Table], found: dict[str, Tuned]) -> str:
    lines = [
        "| | covered | least origin | median width | jump ≤ 3x | far covered | far width |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, t in tables.items():
        worth = {"covered": np.zeros(len(t.runs)), "width": np.zeros(len(t.runs))}
        for origin, (settings, _) in found[name].items():
            there = t.origin == t.origins.index(origin)
            for key, values in tuning.worth(t, settings).items():
                if key in worth:
                    worth[key][there] = values[there]
        covered, width = worth["covered"], worth["width"]
        near, far = (t.scored > 0) & (t.far == 0), (t.scored > 0) & (t.far > 0)
        least = min(covered[near & (t.origin == i)].mean() for i in range(len(t.origins)))
        short = near & (t.jump <= JUMPS[0] * 1.001)
        lines.append(
            f"| {name} | {covered[near].mean():.3f} | {least:.3f} | {np.median(width[near]):.2%} |"
            f" {np.median(width[short]):.2%} | {covered[far].mean():.3f} | {np.median(width[far]):.2%} |"
        )
    return "\n".join(lines)


def _replayed(ladders: list[Ladder], method: Method) -> tuple[list[Score], int]:
    results = [replay(ladder, method) for ladder in ladders]
    return [score for scores, _ in results for score in scores], sum(declined for _, declined in results)


HEAD = (
    "| | forecasts | covered (95 % interval) | frontier run | mean of rung | median width | score | median error |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _line(name: str, r: Row) -> str:
    return (
        f"| {name} | {r.forecasts} | {r.coverage:.3f} ({r.coverage_low:.3f}–{r.coverage_high:.3f}) |"
        f" {r.frontier_coverage:.3f} | {r.mean_coverage:.3f} | {r.median_width:.2%} | {r.interval_score:.2%} |"
        f" {r.median_error:.2%} |"
    )


def _report_table(scores: list[Score]) -> str:
    summary = report(scores, 0)
    assert summary is not None
    lines = [HEAD, _line("next rung, all", row("all", [s for s in scores if not s.far]))]
    lines += [_line(f"· {r.group}", r) for r in summary.by_origin]
    lines += [_line(f"· {r.group} past rungs", r) for r in summary.by_past_rungs]
    lines += [_line(f"· jump {r.group}", r) for r in summary.by_jump]
    lines += [_line("far, all" if r.group == "all" else f"· far, {r.group}", r) for r in summary.far]
    return "\n".join(lines)


def _methods_table(ladders: list[Ladder]) -> str:
    """Every method on whole ladders, and ours and S1 on the rungs that each classic does forecast."""
    replayed = {name: _replayed(ladders, method)[0] for name, method in classics.METHODS.items()}
    near = {
        name: {(s.origin, s.ladder, s.past_rungs): s for s in scores if not s.far} for name, scores in replayed.items()
    }
    lines = [
        HEAD.replace("| mean of rung ", "").replace(
            "|---|---|---|---|---|---|---|---|", "|---|---|---|---|---|---|---|"
        )
    ]
    for name in classics.METHODS:
        for other in dict.fromkeys((name, *(("S1", "ours") if name not in ("S1", "ours") else ()))):
            shared = near[name].keys() & near[other].keys()
            r = row(other, [near[other][key] for key in sorted(shared)])
            label = other if other == name else f"· {other}, on the same rungs"
            lines.append(
                f"| {label} | {r.forecasts} | {r.coverage:.3f} ({r.coverage_low:.3f}–{r.coverage_high:.3f}) |"
                f" {r.frontier_coverage:.3f} | {r.median_width:.2%} | {r.interval_score:.2%} | {r.median_error:.2%} |"
            )
    return "\n".join(lines)


def _two_table(ladders: list[Ladder]) -> str:
    tables = [_origins_table(name, _replayed(ladders, classics.METHODS[name])[0]) for name in ("S1", "ours")]
    return "\n".join([tables[0], *tables[1].splitlines()[2:]])


def _origins_table(name: str, scores: list[Score]) -> str:
    summary = report(scores, 0)
    assert summary is not None
    lines = [HEAD, _line(f"{name}, next rung", row(name, [s for s in scores if not s.far]))]
    lines += [_line(f"· {r.group}", r) for r in summary.by_origin]
    lines.append(_line("· three past rungs", summary.by_past_rungs[0]))
    lines.append(_line("· jump ≤ 3x", summary.by_jump[0]))
    lines.append(_line(f"{name}, far", summary.far[0]))
    return "\n".join(lines)


def _unfiltered_table(folder: Path) -> str:
    """Nothing left out by design either: Porian's grids down to 0.005 tokens per parameter."""
    ladders = [
        x for ladder in published(folder, least_ratio=0.0) if ladder.origin == "Porian" for x in (ladder, *thin(ladder))
    ]
    lines = [HEAD]
    for name in ("S1", "ours"):
        scores, _ = _replayed(ladders, classics.METHODS[name])
        lines.append(_line(f"{name}, Porian, next rung", row(name, [s for s in scores if not s.far])))
        lines.append(_line(f"{name}, Porian, far", row(name, [s for s in scores if s.far])))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
