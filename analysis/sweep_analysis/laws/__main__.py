"""`python -m sweep_analysis.laws`: the page of the laws, from their declarations.

Owns the layout of docs/laws.md; a test holds that page against this command.
"""

import sys

from sweep_analysis.laws import LAWS
from sweep_analysis.laws.base import Law

FAMILIES = {
    "Loss over size, data and compute": (
        "Chinchilla", "SaturatingCompute", "OverTraining", "BrokenPower", "KaplanParameters", "KaplanTokens",
        "KaplanCompute", "KaplanParametersTokens", "KaplanParametersSteps",
    ),
    "Data and architecture": ("RepeatedData", "FineGrainedExperts", "RoutedExperts", "ContextLength"),
    "After pre-training": (
        "FineTuning", "InstructionData", "DownstreamSigmoid", "DownstreamExponential", "RewardBestOfN",
        "RewardReinforcement", "ConstantOffset",
    ),
    "Batch and learning rate": ("CriticalBatch", "BatchTradeoff", "StepLearningRate", "StepBatch"),
}  # fmt: skip

TRIED = {  # laws whose published numbers come out of published runs
    "Chinchilla": "the runs of Hoffmann et al., of Gemstones and of Porian et al. ([published.md](published.md))",
    "OverTraining": "the runs of Gadre et al. ([published.md](published.md))",
    "RepeatedData": "the worked example of its paper ([published.md](published.md)) and synthetic truth",
}
UNTRIED = "synthetic truth, which it recovers; no published runs of it are at hand"

INTRODUCTION = """# Laws

Written by `python -m sweep_analysis.laws > docs/laws.md` from the declarations in `analysis/sweep_analysis/laws/`.

```python
import sweep_analysis as sa

fit = sa.fit("runs.csv", law="Chinchilla", columns={"parameters": "N", "tokens": "D", "loss": "L"})
fit                                            # constants with intervals, status, condition number
fit.forecast(parameters=7e9, tokens=1.4e11)    # loss with an interval that covers what comes next
sa.choose("runs.csv")                          # which law would have forecast these records best
sa.optimal_split(fit, 1e23)                    # parameters and tokens for a budget
```

The same from a shell:

```console
$ scalingsweep fit runs.csv --law Chinchilla --columns parameters=N,tokens=D,loss=L -o json
$ scalingsweep fit runs.csv --choose
$ scalingsweep forecast runs.csv --at parameters=7B,tokens=140B
```

`records` may be Record objects, a dict of arrays, a list of dicts, a pandas or polars frame, or the path of a CSV, JSON
lines or Parquet file. N counts parameters by one convention for all records, D training tokens; losses are nats per
token; C is 6·N·D training FLOPs. Exports of experiment trackers need the map alone: W&B's table of runs by the names in
its header (`parameters=config.n,tokens=config.tokens,loss=val/loss,run=Name`), MLflow's likewise (`params.n`,
`metrics.loss`), nested objects by dots; `missing="drop"` (`--drop-missing`) leaves out runs that crashed. What looks
like mixed units (bits, billions) or contradictory runs is said in `fit.warnings`, and changed by nobody but you.

**What is minimised.** The sum over records of Huber(delta = 1e-3) of ln(predicted) − ln(observed); for laws of
accuracy, error and reward, squares of predicted − observed. `delta`, `residual` and `asymmetry` change it. For fixed
exponents most laws are linear in their other constants: exact non-negative least squares on a grid of exponents finds
the basins, and a damped Newton method on the active set of the Huber loss polishes the best of them. Everything is done
in units of the records' geometric means, and records are sorted first, so that units change nothing but the constants,
and order nothing at all.

**How fast.** `python benchmarks/fit.py DATA --chinchilla`: the shortest of three runs (PyPI once) at raised priority
on two cores (AMD EPYC) with nothing else to do; 240 records are the points of Chinchilla's figure 4, 20 every twelfth
of them, and a forecast is of one far target after nine (or sixteen) rungs:

| | time | objective |
|---|---:|---:|
| fit, 240 records | 3.0 ms | 0.001018274018 |
| the published recipe on the same records, 4,500 starts of L-BFGS-B | 12 s | 0.001018274018 |
| fit by PyPI `chinchilla`'s objective (mean asymmetric error) | 20 ms | 0.025578471 |
| PyPI `chinchilla` 0.2.0 itself, 3,125 starts | 70 s | 0.025578577 |
| fit, 20 records | 2.2 ms | |
| fit, 100,000 records | 0.11 s | |
| 4,000 bootstrap refits of 240 records | 0.30 s | |
| calibrated forecast, 20 records (240 records), the machine busy with other work | 7.9 ms (37 ms) | |
| peak memory of 10,000, 100,000 and 1,000,000 records | 3, 20 and 198 MiB | |

Where other work keeps the cores busy the recipe slows down more than the fit: 250 s against 3.5 ms.

**Intervals.** `fit.parameters` come from the sandwich covariance (records of one run are one cluster);
`sa.bootstrap(fit, 4000)` refits (seed 0 unless given, the same on any number of threads). Both are about the constants
alone, and much too narrow for a run beyond the data:
`fit.forecast` asks the calibrated method for the Chinchilla surface. All other laws forecast with the spread of their
refits, and never gate a ladder.

**A fit that was refused is a value**: `fit.status` and `fit.message` say what is missing and what would supply it.

| status | meaning |
|---|---|
| `Converged` | the minimum was found and the records determine every constant |
| `AtBound` | a constant ended where the data no longer determine it |
| `IllConditioned` | constants trade off, or a term's size is open 7x either way; predictions near the data still hold |
| `NotConverged` | the minimiser stopped early; look for outliers |
| `TooFewPoints` | not more records than constants; nothing is fitted |
| `Unidentified` | the design cannot tell the constants apart (one token/parameter ratio, say); nothing is fitted |

**Choosing among laws.** `sa.choose(records)` fits each law to the first rungs, asks it for the next, and so on: the
lowest held-out error wins, or a law with fewer constants where it is within one standard error. With fewer than seven
rungs a law without a floor is never preferred to one with, over the same axes, that could be tried. Candidates are all
laws of loss whose columns are there. What was ruled out is said, and why (`scalingsweep fit RECORDS --choose`):

```console
$ scalingsweep fit figure-4.csv --choose      # Chinchilla's 240 points
law                     held out  in sample  why
OverTraining              0.73 %     0.76 %  chosen: 0.73 % held-out error over 14 steps
Chinchilla                1.08 %     0.75 %  ruled out: 1.08 % held-out error, against 0.73 % of OverTraining
SaturatingCompute         1.18 %     2.03 %  ruled out: 1.18 % held-out error, against 0.73 % of OverTraining
```

It answers which *form* those records speak for. The forecast of a ladder does not choose: its method was calibrated
with the Chinchilla surface and priors on its constants ([forecasts.md](forecasts.md)).

**Approaches 1 and 2 of Chinchilla** read the frontier off the runs: `sa.envelope_frontier(curves)` from learning curves
(rows with a `run`), `sa.isoflop_frontier(records)` from IsoFLOP curves. `sa.optimal_split(fit, flops)` is approach 3,
with `inference_tokens=` for models that will serve; `sa.penalty(fit, N, D)` prices any other split.

**Two corpora**: `sa.compare_corpora(first, second)` fits one law to both, with an offset and a slope between them, and
tests whether they differ; `sa.offset_test(records)` tests whether loss on another text is the loss plus a constant.

**Over-fitting** (Kaplan et al. 2020): `laws.kaplan.tokens_against_overfitting(N)` = 5·10³·N^0.74 tokens keep its cost
below noise, and `laws.kaplan.overfitting(constants, N, D)` is that cost.

**Figures** (the extra `report`): `sa.figures.fit_figure(fit, at={...})` draws a fit of any law with its records and the
forecast asked for, `residuals_figure(misfits_of(fit))` what it leaves, `frontier_figure(frontier)` the frontier. Each
is a matplotlib `Figure` as wide as a paper's text (`savefig("fit.pdf")`; `layout=` for other widths), which a notebook
shows as it is; `sa.figures.interactive(figure, title)` makes it one page that tells its values. All are in
[tutorial.ipynb](tutorial.ipynb).

**Loss → metric**: `sa.compound(metric_fit, fit.forecast(...).loss)` carries the loss's interval through the second law.
"""


def page() -> str:
    """docs/laws.md."""
    assert {name for names in FAMILIES.values() for name in names} == set(LAWS), "every law stands in one family"
    parts = [INTRODUCTION]
    for family, names in FAMILIES.items():
        parts.append(f"## {family}\n")
        parts += [_entry(LAWS[name]) for name in names]
    return "\n".join(parts)


def _entry(law: Law) -> str:
    lines = [f"### {law.name}", "", f"$${law.equation}$$", "", f"{law.citation}.", ""]
    lines += [f"*Use it for*: {law.use}", "", f"*It cannot tell*: {law.limits}", ""]
    lines += [f"*Tested on*: {TRIED.get(law.name, UNTRIED)}.", ""]
    axes = ", ".join(f"`{a.name}` ({a.symbol}, {a.unit})" for a in law.axes)
    lines += [f"Columns: {axes} → `{law.response}` ({law.response_unit}).", ""]
    lines += ["| constant | unit | meaning | published |", "|---|---|---|---|"]
    for c in law.constants:
        published = f"{law.published[c.name]:.6g}" if c.name in law.published else ""
        lines.append(f"| {c.name} | {c.unit} | {c.meaning} | {published} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
