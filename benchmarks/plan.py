"""The designed ladder against ladders evenly spaced in log C, at equal cost, over simulated climbs.

    python benchmarks/plan.py [--climbs 64] [--write FILE.json]

For each target and each budget (as a share of the target's FLOPs) the design of `scalingsweep plan` and several even
ladders are climbed by the real forecaster over laws drawn around published ones, with the wobble of runs and rungs seen
in published ladders. Every ladder of a row meets the same laws and the same seeds. A ratio above 1: the even ladder's
interval of the target is so many times as wide.
"""

import argparse
import json
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from sweep_analysis.flops import six_nd
from sweep_analysis.plan.ladder import Design, best_ladder, even
from sweep_analysis.plan.prior import assume
from sweep_analysis.plan.rehearsal import rehearse
from sweep_analysis.scale import format_scale

TARGETS = ((1e9, 2e10), (7e9, 1.4e11), (7e10, 1.4e12), (1e9, 1e11))
SHARES = (0.005, 0.02, 0.1, 0.3)
EVEN: dict[str, dict[str, Any]] = {
    "5 rungs, 10x, 3 ratios": {"rungs": 5, "step": 10.0},
    "5 rungs, 4x, 3 ratios": {"rungs": 5, "step": 4.0},
    "7 rungs, 2x, 3 ratios": {"rungs": 7, "step": 2.0},
    "5 rungs, 4x, 2 ratios": {"rungs": 5, "step": 4.0, "factors": (0.5, 1.0)},
}


def main() -> None:
    """Print the table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--climbs", type=int, default=64, help="simulated climbs of each ladder (default: 64)")
    parser.add_argument("--write", type=Path, metavar="FILE.json", help="write the rows there")
    options = parser.parse_args()
    law = assume().expected
    rows = []
    print("| target | budget | design | covered | " + " | ".join(EVEN) + " |")
    print("|---|---:|---:|---:|" + "---:|" * len(EVEN))
    for target in TARGETS:
        for share in SHARES:
            flops = share * six_nd(*target)
            design = best_ladder(target, flops, law)
            mine = rehearse(design, target, climbs=options.climbs)
            others: dict[str, Design] = {name: even(target, design.flops, **form) for name, form in EVEN.items()}
            told = {name: rehearse(other, target, climbs=options.climbs) for name, other in others.items()}
            ratios = {name: other.half_width / mine.half_width for name, other in told.items()}
            rows.append(
                {
                    "target": list(target),
                    "budgetShare": share,
                    "flops": design.flops,
                    "design": mine.to_json(),
                    "rungs": [[s.parameters, list(s.ratios), s.seeds] for s in design.steps],
                    "even": {name: other.to_json() for name, other in told.items()},
                    "ratios": ratios,
                    "costs": {name: other.flops / design.flops for name, other in others.items()},
                }
            )
            name = f"{format_scale(target[0])} on {format_scale(target[1])}"
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios.values())
            width, covered = f"±{100 * mine.half_width:.1f} %", f"{100 * mine.coverage:.0f} %"
            print(f"| {name} | {100 * share:g} % | {width} | {covered} | {cells} |", flush=True)
    means = [geometric_mean([row["ratios"][name] for row in rows]) for name in EVEN]  # type: ignore[index]  # rows are plain JSON values
    print("| geometric mean | | | | " + " | ".join(f"**{mean:.2f}**" for mean in means) + " |")
    if options.write:
        options.write.write_text(json.dumps({"climbs": options.climbs, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
