"""The calibration of the forecast's intervals, from published runs to the tables in docs/forecasts.md, in one command.

    python benchmarks/calibration.py [--data FOLDER] [--further FOLDER] [--write]
    python benchmarks/calibration.py --fresh FOLDER [--write]

Leaves each origin out in turn: the scale's constants are tuned on all others, that one is scored; and again with the
constants of fit and kernel chosen there too, by each rule of `choosing`. Then version 3 on the origins that came after
it, S1 and the classic intervals, and the constants that ship (tuned on all). --data holds the four origins of
`ladders`, --further the six of `further_ladders`; without the latter only the four are played. Prints the tables;
--write puts them into docs/forecasts.md and benchmarks/results/calibration.json, and needs both. --fresh tunes nothing:
it scores the method as it ships, and its forerunners, on the four origins of `fresh_ladders` alone.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import choosing
import classics
import numpy as np
import tuning
from fresh_ladders import fresh
from further_ladders import further

from sweep_analysis.backtest import JUMPS, Method, Row, Score, SurfaceReplay, replay, report, row
from sweep_analysis.ladders import Ladder, published, thin
from sweep_analysis.predictive import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "forecasts.md"
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
FOUR, SIX = "four", "six"
NAMES = {FOUR: "the four origins of the marks", SIX: "the six that came later"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("SCALINGSWEEP_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", help="folder of the four origins' runs")
    parser.add_argument("--further", type=Path, help="folder of the six further origins' runs")
    parser.add_argument("--fresh", type=Path, help="folder of the four fresh origins' runs: only these are scored")
    parser.add_argument("--write", action="store_true", help="rewrite the tables of docs/forecasts.md and the results")
    options = parser.parse_args()
    if options.fresh and options.further:
        parser.error("--fresh stands alone: it scores its own origins and tunes nothing on any other")
    if options.write and not (options.further or options.fresh):
        parser.error("--write needs --further: the tables of docs/forecasts.md are of all ten origins")
    try:
        if options.fresh:
            return _on_fresh(fresh(options.fresh), keep=options.write)
        whole = {FOUR: published(options.data)}
        if options.further:
            whole[SIX] = further(options.further)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: name the folder of the published runs", file=sys.stderr)
        return 2
    every = [ladder for ladders in whole.values() for ladder in ladders]
    ladders = with_thinnings(every)

    tables = {name: tuning.table(ladders, settings) for name, settings in choosing.VARIANTS.items()}
    found = {name: _tuned_without(t, choosing.VARIANTS[name]) for name, t in tables.items()}
    rules = _by_rules(every, ladders, tables, found)
    shipped = tables[choosing.DEFAULT]
    from_nothing = _from_nothing(*rules[AVERAGED])
    tuned, _ = tuning.tune(shipped, choosing.NEUTRAL, shipped.origins)
    everywhere = {name: tuning.tune(t, choosing.VARIANTS[name], t.origins)[1] for name, t in tables.items()}
    mean = choosing.averaged(everywhere, len(every))

    sections: dict[str, str] = {}
    documents: dict[str, object] = {}
    for number, some in whole.items():
        name = NAMES[number]
        left_out, declined = _leave_one_out(with_thinnings(some), found[choosing.DEFAULT])
        averaged, also_declined = _leave_one_out(with_thinnings(some), rules[AVERAGED][1])
        nothing, nothing_declined = _leave_one_out(with_thinnings(some), from_nothing)
        sections[f"Leave one origin out, {name}: scale constants tuned on all others"] = _report_table(left_out)
        sections[f"… {name}, constants of fit and kernel averaged anew as well"] = _origins_table("averaged", averaged)
        sections[f"… {name}, widening, power of d, few records and few tokens found from nothing as well"] = (
            _origins_table("from nothing", nothing)
        )
        documents[number] = {
            "leaveOneOriginOut": _document(left_out, declined),
            "constantsAveraged": _document(averaged, also_declined),
            "structureFromNothing": _document(nothing, nothing_declined),
        }
    sections["Other rules for the same choice"] = variants_table(rules, whole)
    sections["One thing changed at a time: scale constants tuned on all others"] = variants_table(
        {name: (dict.fromkeys(t.origins, t), found[name]) for name, t in tables.items()}, whole
    )
    if SIX in whole:
        sections["Before any score was seen: S1 and version 3 on the six, and as shipped since"] = _versions_table(
            whole[SIX]
        )
    sections["As shipped, and its forerunners, on the four"] = _versions_table(whole[FOUR])
    sections["Whole ladders of the four, by other methods"] = _methods_table(whole[FOUR])
    sections["With the runs below one token per parameter"] = _unfiltered_table(options.data)
    text = "\n\n".join(f"**{title}**\n\n{body}" for title, body in sections.items())
    print(text)
    likeliest = {o: choosing.likeliest({name: f[o][1] for name, f in found.items()}) for o in shipped.origins}
    print("\nlikeliest, by origin left out:", likeliest)
    print("structure, by origin left out:", {o: _structure(s) for o, (s, _) in from_nothing.items()})
    print("tuned on all:", {k: round(v, 4) for k, v in asdict(tuned).items() if isinstance(v, float)})
    print("averaged on all:", asdict(mean))
    if options.write:
        documents |= {"likeliest": likeliest, "tuned": asdict(tuned), "averaged": asdict(mean)}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
        write("calibration", text)
    return 0


def _on_fresh(ladders: list[Ladder], *, keep: bool) -> int:
    """Print what the method that ships is worth on ladders that it was not settled on, S1 and version 3 below it."""
    thinned = with_thinnings(ladders)
    scores, declined = _replayed(thinned, classics.VERSIONS["version 4"])
    rest = [_origins_table(name, _replayed(thinned, classics.VERSIONS[name])[0]) for name in ("version 3", "S1")]
    text = "\n".join([_report_table(scores), *(line for table in rest for line in table.splitlines()[2:])])
    print(f"{text}\n\nrungs declined: {declined}")
    if keep:
        write("fresh", text)
    return 0


def write(name: str, text: str) -> None:
    """Put a table where docs/forecasts.md keeps it."""
    before, _, rest = DOCS.read_text().partition(f"<!-- {name} -->\n")
    _, _, after = rest.partition(f"<!-- /{name} -->")
    DOCS.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}")


def with_thinnings(ladders: Iterable[Ladder]) -> list[Ladder]:
    """Every ladder, followed by its thinnings."""
    return [variant for ladder in ladders for variant in (ladder, *thin(ladder))]


def _document(scores: Sequence[Score], declined: int) -> object:
    summary = report(scores, declined)
    assert summary is not None
    return summary.to_json()


Tuned = dict[str, tuple[Settings, float]]
"""Origin left out → scale constants found on the others, and their negative log likelihood there."""


Tables = dict[str, tuning.Table]
"""Origin left out → forecasts under the constants of fit and kernel that were chosen without it."""
AVERAGED = "averaged, weighing as likelihood"


def _tuned_without(table: tuning.Table, start: Settings) -> Tuned:
    """Scale constants, each origin left out in turn."""
    return {origin: _tuned_on(table, start, origin) for origin in table.origins}


def _tuned_on(table: tuning.Table, start: Settings, out: str) -> tuple[Settings, float]:
    return tuning.tune(table, start, tuple(o for o in table.origins if o != out))


def _leave_one_out(ladders: list[Ladder], found: Tuned) -> tuple[list[Score], int]:
    """Scores of every ladder by what was found without its origin, and how many rungs were declined."""
    results = [replay(x, partial(SurfaceReplay, settings=found[x.origin][0])) for x in ladders]
    return [score for scores, _ in results for score in scores], sum(declined for _, declined in results)


def _by_rules(
    whole: list[Ladder], ladders: list[Ladder], tables: Tables, found: dict[str, Tuned]
) -> dict[str, tuple[Tables, Tuned]]:
    """What each rule of choosing, at work on all origins but one, gives that one."""
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


def _from_nothing(tables: Tables, chosen: Tuned) -> Tuned:
    """The scale found anew on all origins but one, its structure free and begun from what S1 has of it."""
    free = (*tuning.FREE, *tuning.STRUCTURE)
    begin = {name: getattr(choosing.NEUTRAL, name) for name in (*tuning.FREE, "bend", "inflation")} | choosing.LITTLE
    found = {}
    for out, table in tables.items():
        start = replace(chosen[out][0], **begin)
        found[out] = tuning.tune(table, start, tuple(o for o in table.origins if o != out), evaluations=400, free=free)
    return found


def _without(column: str, table: str) -> str:
    """A table less one column."""
    rows = [line.split("|") for line in table.splitlines()]
    at = [cell.strip() for cell in rows[0]].index(column)
    return "\n".join("|".join(cells[:at] + cells[at + 1 :]) for cells in rows)


def variants_table(variants: dict[str, tuple[Tables, Tuned]], whole: dict[str, list[Ladder]]) -> str:
    """A row a variant: forecasts of the origins of `whole` by the table and the scale constants found without each."""
    lines = [
        "| | least origin, near | far | "
        + " | ".join(f"{name}: covered | width | ≤ 3x | far covered | far width" for name in whole)
        + " |",
        "|---|---|---|" + "---|" * 5 * len(whole),
    ]
    for name, (tables, found) in variants.items():
        t = next(iter(tables.values()))  # which tasks there are is the same in all
        worth = {"covered": np.zeros(len(t.runs)), "width": np.zeros(len(t.runs))}
        for origin, (settings, _) in found.items():
            there = t.origin == t.origins.index(origin)
            for key, values in tuning.worth(tables[origin], settings).items():
                worth[key][there] = values[there]
        covered, width = worth["covered"], worth["width"]
        least = [min(tuning.by_origin(t, covered, tuple(found), far=far)) for far in (False, True)]
        cells = [name, *(f"{value:.3f}" for value in least)]
        for ladders in whole.values():
            here = (t.scored > 0) & np.isin(t.origin, [t.origins.index(x.origin) for x in ladders])
            near, far = here & (t.far == 0), here & (t.far > 0)
            short = near & (t.jump <= JUMPS[0] * 1.001)
            cells += [f"{covered[near].mean():.3f}", f"{np.median(width[near]):.2%}", f"{np.median(width[short]):.2%}"]
            cells += [f"{covered[far].mean():.3f}", f"{np.median(width[far]):.2%}"]
        lines.append(f"| {' | '.join(cells)} |")
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


def _versions_table(ladders: list[Ladder]) -> str:
    thinned = with_thinnings(ladders)
    tables = [_origins_table(name, _replayed(thinned, method)[0]) for name, method in classics.VERSIONS.items()]
    return "\n".join([tables[0], *(line for table in tables[1:] for line in table.splitlines()[2:])])


def _origins_table(name: str, scores: list[Score]) -> str:
    summary = report(scores, 0)
    assert summary is not None
    lines = [HEAD, _line(f"{name}, next rung", row(name, [s for s in scores if not s.far]))]
    lines += [_line(f"· {r.group}", r) for r in summary.by_origin]
    lines.append(_line("· three past rungs", summary.by_past_rungs[0]))
    lines.append(_line("· jump ≤ 3x", summary.by_jump[0]))
    lines.append(_line(f"{name}, far", summary.far[0]))
    return "\n".join(lines)


def _structure(settings: Settings) -> dict[str, float]:
    return {name: round(getattr(settings, name), 3) for name in tuning.STRUCTURE}


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
