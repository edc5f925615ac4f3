"""`scalingsweep plan`: what a ladder will train and cost, before anything is paid for.

Owns the options, which of three questions is asked (a manifest; a target and a budget; a ladder that stands), and the
table of a manifest's rungs: exact sizes, FLOPs by both conventions, memory, and device time at the prices that an
earlier ladder on this machine measured. The other two questions have modules of their own.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep_analysis.rung import Run, judged
from sweep_analysis.scale import format_scale
from sweep_operator import budget
from sweep_operator.acceptance import Refused, accept
from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.capacity import capacity_of, misfit, needed_bytes
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.cli.ladder import open_ladder
from sweep_operator.cli.output import add_output, write
from sweep_operator.cli.placing import CLUSTER, add_place
from sweep_operator.clusters import Unavailable
from sweep_operator.clusters.local.memory import cores, run_bytes
from sweep_operator.live.table import duration, percent, table
from sweep_operator.live.table import flops as in_flops
from sweep_operator.manifest import ManifestError, read_manifest, read_policy


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument(
        "manifest",
        metavar="SWEEP.yaml|NAME",
        type=Path,
        nargs="?",
        help="the ScalingSweep to plan; or the name of one on a cluster, whose next runs are proposed",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=Path,
        help="with SWEEP.yaml: an earlier ladder, whose speed prices it; alone: propose that ladder's next runs",
    )
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    wanted = parser.add_argument_group("a ladder for a target")
    wanted.add_argument("--target", metavar="N:D", help="parameters and tokens: 7B:140B")
    wanted.add_argument("--budget", metavar="HOURS", help="GPU-hours the ladder may take: 5000h (or 200d)")
    wanted.add_argument("--smallest", metavar="N", help="smallest rung's parameters (default: a 5,000th of the target)")
    wanted.add_argument(
        "--sequence-length", metavar="TOKENS", type=int, help="default: 2048, below a million parameters 128"
    )
    wanted.add_argument("--manifest", metavar="FILE", type=Path, dest="write_to", help="write the ScalingSweep there")
    wanted.add_argument(
        "--data", metavar="FILE", nargs="+", help="the manifest's text files, or Classics (the default)"
    )
    wanted.add_argument("--force", action="store_true", help="write over an existing FILE")
    about = parser.add_argument_group("assumptions, and questions around the target")
    about.add_argument("--gpu", metavar="NAME", help="h100 (the default), h200, a100, …; a wrong name lists all")
    about.add_argument("--gpus", metavar="N", type=int, help="GPUs that train at once: for time and memory")
    about.add_argument("--mfu", metavar="LOW:HIGH", help="share of the peak that training reaches (default: 0.3:0.43)")
    about.add_argument("--price", metavar="DOLLARS", type=float, help="of one GPU-hour")
    about.add_argument("--corpus-tokens", metavar="TOKENS", help="distinct tokens that the corpus holds: 1T")
    about.add_argument("--inference-tokens", metavar="TOKENS", help="tokens that the target will serve: 2T")
    about.add_argument(
        "--labels", metavar="METRIC=VALUE", nargs="+", help="count the labels: accuracy=0.9 or accuracy=0.9±0.02"
    )
    about.add_argument("--pilot", metavar="FILE", type=Path, help="CSV of columns labels and METRIC: for tuning data")
    add_place(parser, local=False)
    add_output(parser)
    parser.set_defaults(execute=lambda options: execute(options, parser), name=None)


ONLY_WITH_TARGET = ("budget", "smallest", "sequence_length", "write_to", "data")


def execute(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Exit:
    """Show the plan that was asked for."""
    if options.target is not None:
        from sweep_operator.cli.plan_target import plan_target

        if options.manifest is not None:
            raise InputError(f"--target plans a new ladder and {options.manifest} is one already; name one of the two")
        if options.workdir is not None or options.policy is not None:
            raise InputError("--workdir and --policy belong to a ladder that stands; leave them out with --target")
        _off_cluster(options, "--target plans a new ladder")
        return plan_target(options)
    stray = next((name for name in ONLY_WITH_TARGET if getattr(options, name) is not None), None)
    if stray is not None or options.force:
        flag = {"write_to": "manifest"}.get(stray or "force", stray or "force").replace("_", "-")
        raise InputError(f"--{flag} belongs to a new ladder: add --target, as in --target 7B:140B --budget 5000h")
    from sweep_operator.cli.plan_next import plan_next

    if options.manifest is not None and options.workdir is None and _names_a_sweep(options.manifest):
        from sweep_operator.cli.cluster import answered

        options.name = str(options.manifest)
        return answered(plan_next)(options)
    if options.manifest is not None:
        _off_cluster(options, f"{options.manifest} is a file")
        return _plan_manifest(options)
    if options.workdir is None:
        parser.error("name a SWEEP.yaml, or --target 7B:140B --budget 5000h, or --workdir DIR of a ladder that stands")
    return plan_next(options)


def _names_a_sweep(manifest: Path) -> bool:
    """Whether it is a sweep's name on a cluster: no file, and no manifest's name either. A folder of that name may be
    the same sweep on this machine."""
    named = re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", str(manifest)) is not None
    return named and not manifest.is_file() and manifest.suffix not in (".yaml", ".yml", ".json")


def _off_cluster(options: argparse.Namespace, instead: str) -> None:
    for option in CLUSTER:
        if getattr(options, option) is not None:
            raise InputError(f"--{option} is for a sweep on a cluster, by its name, and {instead}; leave it out")


def _plan_manifest(options: argparse.Namespace) -> Exit:
    """The rungs of a manifest, and what surrounds its target."""
    try:
        sweep = read_manifest(options.manifest).sweep
        policy = read_policy(options.policy)
    except ManifestError as error:
        raise InputError(str(error)) from None
    verdict = accept(sweep, policy)
    if isinstance(verdict, Refused):
        raise InputError(f"{options.manifest}: {verdict.reason}: {verdict.message}")
    measured = _measured(options.workdir, sweep)
    steps = [(rung.name, rung.runs) for rung in verdict.rungs]
    plan = _plan(sweep, steps, verdict.target, measured)
    from sweep_operator.cli.plan_around import around, around_words, history_in

    history, served = history_in(options.workdir, sweep), sweep.spec.target.inference_tokens
    if sweep.spec.records:
        plan["imports"] = _imported(options.manifest, sweep, verdict.rungs[0].judged)
    plan |= around(
        options, sweep.spec.training, [(name, judged(runs)) for name, runs in steps], verdict.target, history, served
    )
    if options.output == "table":
        _print(plan)
        if "imports" in plan:
            print(f"records  {plan['imports']['message']}")
        print("\n".join(around_words(plan)))
    else:
        write(plan, options.output)
    return Exit.DONE


def _imported(manifest: Path, sweep: ScalingSweep, first: Sequence[Run]) -> dict[str, Any]:
    """What is imported, and what it says of the first rung; unknown here where it lies on a cluster."""
    from sweep_operator.clusters.local.earlier import imported
    from sweep_operator.judgement import forecast_of, forecast_sentence

    maps = [source.config_map for source in sweep.spec.records if source.config_map is not None]
    if maps:
        return {"message": f"ConfigMap {', '.join(maps)}: read on the cluster, when the first forecast is due"}
    try:
        imports = imported(sweep, manifest.resolve().parent)
    except Unavailable as finding:
        raise InputError(f"{manifest}: {finding}") from None
    outcome = forecast_of(sweep.changed(status=sweep.status.changed(imports=imports)), (), first)
    said = f"{imports.records} imported; the first rung: {forecast_sentence(outcome)}"
    return {"records": imports.records, "digest": imports.digest, "forecast": outcome.to_json(), "message": said}


def _measured(workdir: Path | None, sweep: ScalingSweep) -> Sequence[ScalingRun]:
    """Runs of an earlier ladder: of the folder that was named, else of this sweep's own where it stands."""
    if workdir is not None:
        return open_ladder(workdir)[0].runs()
    own = Path(sweep.metadata.name)
    return open_ladder(own)[0].runs() if (own / "sweep.json").exists() else ()


def _plan(
    sweep: ScalingSweep, steps: Sequence[tuple[str, tuple[Run, ...]]], target: Run, measured: Sequence[ScalingRun]
) -> dict[str, Any]:
    """The plan as one document; times are device seconds, None where nothing was measured."""
    rungs = [_step(sweep, name, runs, measured) for name, runs in steps]
    goal = _step(sweep, "target", (target,), measured)
    compute = sum(rung["flops"]["sixND"] for rung in rungs)
    for rung in rungs:
        rung["share"] = rung["flops"]["sixND"] / compute
    largest = max(run.parameters * run.tokens[-1] for _, runs in steps for run in judged(runs))
    parallel = sweep.spec.limits.parallelism or cores()
    times = [rung["gpuSeconds"] for rung in rungs]
    return {
        "sweep": sweep.metadata.name,
        "rungs": rungs,
        "target": goal,
        "jump": target.parameters * target.tokens[-1] / largest,
        "flops": compute,
        "gpuSeconds": None if None in times else sum(times),
        "parallelism": parallel,
    }


def _step(sweep: ScalingSweep, name: str, runs: tuple[Run, ...], measured: Sequence[ScalingRun]) -> dict[str, Any]:
    training = sweep.spec.training
    recipes = [run.resolved(training) for run in runs]
    trained = [budget.trained_tokens(training, run) for run in runs]
    cost = budget.cost_of(training, runs, measured)
    capacity = capacity_of(sweep, sweep.spec.placement_of(name))
    return {
        "name": name,
        "runs": len(runs),
        "parameters": sorted({run.parameters for run in runs}),
        "tokens": sorted({tokens for run in runs for tokens in run.tokens}),
        "contexts": sorted({recipe.sequence_length for recipe in recipes}),
        "flops": {
            "sixND": cost.flops,
            "detailed": sum(recipe.flops_detailed(tokens) for recipe, tokens in zip(recipes, trained, strict=True)),
        },
        "memoryBytes": max(run_bytes(recipe) for recipe in recipes),
        "gpuSeconds": cost.gpu_seconds[1] if cost.gpu_seconds else None,
        **({} if capacity is None else {"gpuMemory": _gpu_memory(sweep, name, runs, capacity)}),
    }


def _gpu_memory(sweep: ScalingSweep, name: str, runs: tuple[Run, ...], capacity: float) -> dict[str, Any]:
    """What the hungriest run needs of each device, and why it does not fit where it does not."""
    hungriest = max(runs, key=lambda run: needed_bytes(sweep, name, run))
    said = misfit(sweep, name, hungriest)
    needed = needed_bytes(sweep, name, hungriest)
    return {"neededBytes": needed, "capacityBytes": capacity, **({"doesNotFit": said} if said else {})}


def _print(plan: dict[str, Any]) -> None:
    several = len({context for step in (*plan["rungs"], plan["target"]) for context in step["contexts"]}) > 1
    known = any("gpuMemory" in step for step in (*plan["rungs"], plan["target"]))
    memory = ("MEMORY", "MEMORY/GPU") if known else ("MEMORY",)
    sizes = ("PARAMETERS", "TOKENS", "CONTEXT") if several else ("PARAMETERS", "TOKENS")
    header = ("RUNG", "RUNS", *sizes, "FLOPS (6ND)", "FLOPS (DETAILED)", "SHARE", *memory, "GPU-TIME")
    rows = [
        (
            step["name"],
            str(step["runs"]),
            _sizes(step["parameters"]),
            _sizes(step["tokens"]),
            *((", ".join(f"{context:,}" for context in step["contexts"]),) if several else ()),
            in_flops(step["flops"]["sixND"]),
            in_flops(step["flops"]["detailed"]),
            percent(step.get("share")),
            f"{step['memoryBytes'] / 2**20:,.0f} MiB",
            *((_per_gpu(step),) if known else ()),
            duration(step["gpuSeconds"]),
        )
        for step in (*plan["rungs"], plan["target"])
    ]
    print(table(header, rows, right=(1, *range(len(sizes) + 2, len(header)))))
    print(f"\nladder   {in_flops(plan['flops'])} FLOPs in all; the target is {plan['jump']:.3g} times its largest run")
    if plan["gpuSeconds"] is None:
        print("time     unknown: nothing was measured on this machine yet (--workdir names a ladder that was)")
    else:
        wall = plan["gpuSeconds"] / plan["parallelism"]
        spent = duration(plan["gpuSeconds"])
        print(f"time     about {spent} of device time, {duration(wall)} with {plan['parallelism']} runs at once")
    for step in (*plan["rungs"], plan["target"]):
        if said := step.get("gpuMemory", {}).get("doesNotFit"):  # the target's alone, and of one that is never launched
            print(f"memory   {step['name']} does not fit: {said}")


def _per_gpu(step: dict[str, Any]) -> str:
    """`41.7 of 80 GiB`, where the memory of a device is known."""
    if "gpuMemory" not in step:
        return "-"
    needed, capacity = (step["gpuMemory"][key] / 2**30 for key in ("neededBytes", "capacityBytes"))
    return f"{needed:.3g} of {capacity:.3g} GiB"


def _sizes(values: Sequence[int]) -> str:
    """Exact numbers where there is room for them."""
    if len(values) <= 2:
        return ", ".join(f"{value:,}" for value in values)
    return f"{format_scale(values[0])} … {format_scale(values[-1])} ({len(values)})"
