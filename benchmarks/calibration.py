"""The calibration of the forecast's intervals, from published runs to the table in docs/forecasts.md, in one command.

    python benchmarks/calibration.py [--data FOLDER] [--write]

Leaves each origin out in turn: the scale's constants are tuned on the other three, the fourth is scored; and again with
the constants of fit and kernel chosen there too, by each rule of `choosing`, or by nobody: mixed, ladder by ladder, as
`mixing` says. Then S1 and the classic intervals on the
same rungs, and the constants that ship (tuned on all four origins). Prints the tables; --write puts them into
docs/forecasts.md and benchmarks/results/calibration.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import choosing
import classics
import mixing
import numpy as np
import tuning

from sweep_analysis.backtest import JUMPS, Method, Row, Score, SurfaceReplay, replay, report, row
from sweep_analysis.ladders import Ladder, published, thin
from sweep_analysis.predictive import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "forecasts.md"
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"


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

    tables = {name: tuning.table(ladders, settings) for name, settings in choosing.VARIANTS.items()}
    found = {name: _tuned_without(t, choosing.VARIANTS[name]) for name, t in tables.items()}
    rules = _by_rules(whole, ladders, tables, found)
    left_out, declined = _leave_one_out(ladders, found[choosing.DEFAULT])
    averaged, declined_averaged = _leave_one_out(ladders, rules[AVERAGED][1])
    shipped = tables[choosing.DEFAULT]
    tuned, _ = tuning.tune(shipped, choosing.NEUTRAL, shipped.origins, evaluations=300)
    everywhere = {
        name: tuning.tune(t, choosing.VARIANTS[name], t.origins, evaluations=300)[1] for name, t in tables.items()
    }
    mean = choosing.averaged(everywhere, len(whole))
    mixtures = _mixtures(ladders)
    strict = [x for o, (s, _) in mixtures[MIXED][1].items() for x in tuning.scores(mixtures[MIXED][0][o], s, o)]

    sections = {
        "Leave one origin out: scale constants tuned on the other three": report_table(left_out),
        "… with the constants of fit and kernel averaged anew as well, over what was tried": origins_table(
            "averaged", averaged
        ),
        "Other rules for the same choice": _variants_table(rules),
        "Nothing of the fit chosen: 192 settings drawn at random, mixed by each ladder's own past": _without(
            "mean of rung", origins_table("mixed", strict)
        ),
        "Other ways to mix": _variants_table(mixtures),
        "One thing changed at a time: scale constants tuned on the other three": _variants_table(
            {name: (dict.fromkeys(t.origins, t), found[name]) for name, t in tables.items()}
        ),
        "Whole ladders, by other methods": _methods_table(whole),
        "As shipped, and S1": _two_table(ladders),
        "With the runs below one token per parameter": _unfiltered_table(options.data),
    }
    text = "\n\n".join(f"**{title}**\n\n{body}" for title, body in sections.items())
    print(text)
    likeliest = {o: choosing.likeliest({name: f[o][1] for name, f in found.items()}) for o in shipped.origins}
    print("\nlikeliest, by origin left out:", likeliest)
    print("tuned on all four:", {k: round(v, 4) for k, v in asdict(tuned).items() if isinstance(v, float)})
    print("averaged on all four:", asdict(mean))
    if options.write:
        summary, other = report(left_out, declined), report(averaged, declined_averaged)
        strictly = report(strict, 0)
        assert summary is not None
        assert other is not None
        assert strictly is not None
        RESULTS.parent.mkdir(exist_ok=True)
        document = {
            "leaveOneOriginOut": summary.to_json(),
            "constantsAveraged": other.to_json(),
            "mixedByOwnPast": _less("meanCoverage", strictly.to_json()),
            "likeliest": likeliest,
            "tuned": asdict(tuned),
            "averaged": asdict(mean),
        }
        RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        write_between("calibration", text)
    return 0


Tuned = dict[str, tuple[Settings, float]]
"""Origin left out → scale constants found on the others, and their negative log likelihood there."""


Tables = dict[str, tuning.Table]
"""Origin left out → forecasts under the constants of fit and kernel that were chosen without it."""
AVERAGED = "averaged, weighing as likelihood"


def _tuned_without(table: tuning.Table, start: Settings) -> Tuned:
    """Scale constants, each origin left out in turn."""
    return {origin: _tuned_on(table, start, origin) for origin in table.origins}


def _tuned_on(table: tuning.Table, start: Settings, out: str) -> tuple[Settings, float]:
    return tuning.tune(table, start, tuple(o for o in table.origins if o != out), evaluations=300)


def _leave_one_out(ladders: list[Ladder], found: Tuned) -> tuple[list[Score], int]:
    """Scores of every origin by what was found without it, and how many rungs were declined."""
    scores: list[Score] = []
    declined = 0
    for origin, (settings, _) in found.items():
        there = [ladder for ladder in ladders if ladder.origin == origin]
        replayed, abstained = _replayed(there, partial(SurfaceReplay, settings=settings))
        scores += replayed
        declined += abstained
    return scores, declined


def _by_rules(
    whole: list[Ladder], ladders: list[Ladder], tables: Tables, found: dict[str, Tuned]
) -> dict[str, tuple[Tables, Tuned]]:
    """What each rule of choosing, at work on three origins, gives the fourth."""
    rules: dict[str, Callable[[choosing.Surprises, int], Settings]] = {
        AVERAGED: choosing.averaged,
        "averaged evenly": lambda seen, n: choosing.averaged(seen, 0),
        "averaged, weights to the power of ten": lambda seen, n: choosing.averaged(seen, 10 * n),
        "the likeliest alone": lambda seen, n: choosing.VARIANTS[choosing.likeliest(seen)],
        "every constant averaged on its own": choosing.averaged_one_by_one,
        "nothing chosen: the fit's constants as in S1": lambda seen, n: choosing.AS_IN_S1,
    }
    given = {}
    for rule, choose in rules.items():
        there: Tables = {}
        tuned: Tuned = {}
        for origin in tables[choosing.DEFAULT].origins:
            independent = sum(ladder.origin != origin for ladder in whole)
            chosen = choose({name: f[origin][1] for name, f in found.items()}, independent)
            there[origin] = tuning.table(ladders, chosen)
            tuned[origin] = _tuned_on(there[origin], chosen, origin)
        given[rule] = (there, tuned)
    return given


MIXED = "as above"


def _mixtures(ladders: list[Ladder]) -> dict[str, tuple[Tables, Tuned]]:
    """What each way to mix gives the origins, its scale tuned on the other three."""
    drawn = [
        [tuning.table(ladders, settings) for settings in mixing.drawn(count, box, seed=seed)]
        for seed, (box, count) in enumerate(mixing.DRAWS)
    ]
    together = [member for members in drawn for member in members]
    usual = mixing.Weighing()
    ways = {
        MIXED: (together, usual),
        "the first half of the draws": ([x for members in drawn for x in members[: len(members) // 2]], usual),
        "the other half": ([x for members in drawn for x in members[len(members) // 2 :]], usual),
        "those from the box alone": (drawn[0], usual),
        "those from the box twice as wide alone": (drawn[1], usual),
        **{name: (together, how) for name, how in mixing.WAYS.items()},
        "the middle of the box, and no mixture": ([tuning.table(ladders, mixing.middle())], usual),
    }
    given = {}
    for name, (members, how) in ways.items():
        there: Tables = {}
        tuned: Tuned = {}
        blind = None if how.others else mixing.mixed(members, how, ())
        for origin in members[0].origins:
            others = tuple(o for o in members[0].origins if o != origin)
            there[origin] = blind or mixing.mixed(members, how, others)
            tuned[origin] = tuning.tune(
                there[origin], mixing.START, others, evaluations=600, free=mixing.SCALE, held=mixing.HELD
            )
        given[name] = (there, tuned)
    return given


def _less(key: str, document: object) -> object:
    """A document less one key, at every depth."""
    if isinstance(document, dict):
        return {name: _less(key, value) for name, value in document.items() if name != key}
    return [_less(key, value) for value in document] if isinstance(document, list) else document


def _without(column: str, table: str) -> str:
    """A table less one column."""
    rows = [line.split("|") for line in table.splitlines()]
    at = [cell.strip() for cell in rows[0]].index(column)
    return "\n".join("|".join(cells[:at] + cells[at + 1 :]) for cells in rows)


def _variants_table(variants: dict[str, tuple[Tables, Tuned]]) -> str:
    lines = [
        "| | covered | least origin | median width | jump ≤ 3x | far covered | far width |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (tables, found) in variants.items():
        t = next(iter(tables.values()))  # which tasks there are is the same in all
        worth = {"covered": np.zeros(len(t.runs)), "width": np.zeros(len(t.runs))}
        for origin, (settings, _) in found.items():
            there = t.origin == t.origins.index(origin)
            for key, values in tuning.worth(tables[origin], settings).items():
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


def write_between(mark: str, text: str) -> None:
    """Put `text` between docs/forecasts.md's comments of that name."""
    before, _, rest = DOCS.read_text().partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- /{mark} -->")
    DOCS.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")


def report_table(scores: list[Score]) -> str:
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
    lines = [_without("mean of rung", HEAD)]
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
    tables = [origins_table(name, _replayed(ladders, classics.METHODS[name])[0]) for name in ("S1", "ours")]
    return "\n".join([tables[0], *tables[1].splitlines()[2:]])


def origins_table(name: str, scores: list[Score]) -> str:
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
