"""Twenty laptop ladders, each with seeds of its own: how often does the target land in its forecast's interval?

    python benchmarks/laptop_seeds.py train FOLDER [--ladders 20]      trains them (about two minutes each on two cores)
    python benchmarks/laptop_seeds.py score                            forecasts each target from the kept records

`train` keeps every record in benchmarks/results/laptop_seeds.json; `score` replays the forecasts of the present
method on them and prints the table of docs/laptop.md. No prior is fitted on these ladders: they are only scored.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sweep_analysis.forecast import NoForecast, Point, forecast

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "laptop_seeds.json"
RUNGS_SEEDS = 10
"""Distance between the seeds of two ladders."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train_parser = commands.add_parser("train")
    train_parser.add_argument("folder", type=Path)
    train_parser.add_argument("--ladders", type=int, default=20)
    train_parser.set_defaults(execute=lambda o: train(o.folder, o.ladders))
    commands.add_parser("score").set_defaults(execute=lambda o: score())
    options = parser.parse_args()
    return int(options.execute(options))


def train(folder: Path, ladders: int) -> int:
    """Climb the ladders one after another; an interrupted call continues."""
    yaml = YAML()
    kept = []
    for ladder in range(ladders):
        manifest = yaml.load(ROOT / "examples" / "laptop.yaml")
        for rung in manifest["spec"]["ladder"]["rungs"]:
            for runs in rung["runs"]:
                runs["seeds"] = [RUNGS_SEEDS * ladder + seed for seed in runs["seeds"]]
        manifest["spec"]["target"]["seed"] = RUNGS_SEEDS * ladder
        manifest["spec"]["gate"]["promotion"] = "Automatic"
        here = folder / f"ladder-{ladder:02d}"
        path = folder / f"ladder-{ladder:02d}.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        yaml.dump(manifest, path)
        command = [Path(sys.executable).parent / "scalingsweep", "run", path, "--workdir", here]
        ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
        kept.append({"ladder": ladder, "exit": ended, "rungs": _records(here)})
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"ladder {ladder}: exit status {ended}", flush=True)
    return 0


def _records(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """Accepted records by rung, as (parameters, tokens, seed, loss)."""
    rungs: dict[str, list[dict[str, Any]]] = {}
    for run in sorted((workdir / "runs").iterdir()):
        spec = json.loads((run / "run.json").read_text())["spec"]
        status = json.loads((run / "status.json").read_text())
        for record in status.get("accepted", []):
            row = {
                "parameters": record["parameters"]["total"],
                "tokens": record["tokens"],
                "seed": record["seed"],
                "loss": record["loss"],
                "purpose": record["purpose"],
                "revision": spec["revision"],
            }
            rungs.setdefault(spec["rung"], []).append(row)
    return rungs


def score() -> int:
    """Forecast every target from its own ladder and compare."""
    rows = []
    for ladder in json.loads(RESULTS.read_text()):
        target = ladder["rungs"].get("target")
        if target is None:
            rows.append((ladder["ladder"], None, None))
            continue
        history = [
            [Point(r["parameters"], r["tokens"], r["loss"], f"{r['parameters']}-{r['seed']}") for r in records]
            for name, records in ladder["rungs"].items()
            if name != "target"
        ]
        history.sort(key=lambda rung: rung[0].parameters)
        expected = forecast(history, [(target[0]["parameters"], target[0]["tokens"])])
        rows.append((ladder["ladder"], target[0]["loss"], expected))
    print("ladder  forecast [low, high]       observed  error   inside")
    inside, widths, errors = 0, [], []
    for number, loss, expected in rows:
        if loss is None or isinstance(expected, NoForecast) or expected is None:
            print(f"{number:6d}  the target was not launched")
            continue
        p = expected.predictions[0]
        hit = p.low <= loss <= p.high
        inside += hit
        widths.append((p.high - p.low) / p.loss)
        errors.append(math.log(loss / p.loss))
        verdict = "yes" if hit else "no"
        print(f"{number:6d}  {p.loss:.4f} [{p.low:.4f}, {p.high:.4f}]  {loss:.4f}  {errors[-1]:+.2%}  {verdict}")
    print(
        f"{inside} of {len(rows)} inside; median full width {statistics.median(widths):.2%};"
        f" median error {statistics.median(map(abs, errors)):.2%}, mean {statistics.fmean(errors):+.2%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
