"""Which law? The one that would have forecast the records' own last rungs best.

Owns the choice by held-out one-step error: each law is fitted to the first rungs and asked for the next, again and
again. In-sample error is shown and never decides. What was ruled out is said, and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from sweep_analysis.fit import Fit, fit_table
from sweep_analysis.laws import LAWS, Law, law_of
from sweep_analysis.laws.base import Array
from sweep_analysis.table import Records, Table, TableError, read

PER_DECADE = 4  # rungs of records that name none: quarter decades of compute
FLOOR_RUNGS = 7  # with fewer rungs no comparison may drop the floor E: it would do so at five, whatever the truth
CORE = ("parameters", "tokens", "flops", "loss")  # columns whose every row must be usable
USABLE = 1.0  # a mean held-out error of this many log units is no forecast


@dataclass(frozen=True, slots=True)
class Candidate:
    """One law, and how it did."""

    law: str
    chosen: bool
    steps: int  # forecasts of a next rung that it could make
    held_out: float | None  # mean absolute one-step error, relative, over the steps that all compared laws share
    in_sample: float | None  # root mean square residual over all records, relative
    reason: str  # why it was chosen or ruled out, one sentence

    def to_json(self) -> dict[str, Any]:
        """The candidate as plain JSON values; what was not measured is left out."""
        errors = {"heldOut": self.held_out, "inSample": self.in_sample}
        measured = {name: value for name, value in errors.items() if value is not None}
        return {"law": self.law, "chosen": self.chosen, "steps": self.steps, **measured, "reason": self.reason}


@dataclass(frozen=True, slots=True, repr=False)
class Choice:
    """The chosen law fitted to all records, and every candidate, best first."""

    fit: Fit
    candidates: tuple[Candidate, ...]

    @property
    def law(self) -> str:
        return self.fit.law

    def __repr__(self) -> str:
        return f"<Choice {self.law} among {len(self.candidates)} laws, by held-out error>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{c.law}</th><td>{_percent(c.held_out)}</td>"
            f"<td>{_percent(c.in_sample)}</td><td style='text-align:left'>{escape(c.reason)}</td></tr>"
            for c in self.candidates
        )
        head = "<tr><th></th><th>held out</th><th>in sample</th><th></th></tr>"
        return f"<div><table><thead>{head}</thead><tbody>{cells}</tbody></table></div>"

    def __str__(self) -> str:
        width = max(len(c.law) for c in self.candidates)
        rows = [f"{'law':<{width}}  held out  in sample  why"]
        for c in self.candidates:
            held, inside = _percent(c.held_out), _percent(c.in_sample)
            rows.append(f"{c.law:<{width}}  {held:>8}  {inside:>9}  {c.reason}")
        return "\n".join(rows)


def choose(records: Records, laws: Sequence[str | Law] | None = None, **reading: Any) -> Choice:
    """Choose among laws of loss by held-out one-step error.

    laws: those compared; when None, every law of loss whose axes the records have. Raises TableError when no law can be
    fitted, with the reasons, and ValueError on a law of anything but loss.
    """
    table, forms, reasons = _gathered(records, laws, reading)
    steps = _rungs(table)
    errors: dict[str, dict[int, float]] = {}
    fits: dict[str, Fit] = {}
    for form in forms:
        whole = fit_table(table, form)
        fits[form.name] = whole
        if not whole.usable:
            reasons[form.name] = f"ruled out ({whole.status}): {whole.message}"
            continue
        errors[form.name] = _one_step(table, form, steps)
        if not errors[form.name]:
            reasons[form.name] = "ruled out: no rung could be held out and leave it enough records"
    able = {name: found for name, found in errors.items() if found}
    if not able:
        raise TableError("no law can be chosen: " + "; ".join(f"{n}: {r}" for n, r in reasons.items()))
    # compare on shared steps; a law that can hardly be tried must not shrink the comparison of the others
    most = max(len(found) for found in able.values())
    for name in [n for n, found in able.items() if 2 * len(found) < most]:
        reasons[name] = f"ruled out: it could be tried on {len(able.pop(name))} of {most} steps"
    shared = sorted(set.intersection(*(set(found) for found in able.values())))
    held = {name: np.array([found[k] for k in shared]) for name, found in able.items()}
    best = _winner(held, fits, len(steps), reasons)
    order = sorted(reasons, key=lambda name: (name != best, name not in held, _mean(held.get(name)), name))
    candidates = tuple(
        Candidate(
            law=name,
            chosen=name == best,
            steps=len(errors.get(name, ())),
            held_out=float(held[name].mean()) if name in held else None,
            in_sample=_in_sample(fits.get(name)),
            reason=reasons[name],
        )
        for name in order
    )
    return Choice(fits[best], candidates)


def _gathered(
    records: Records, laws: Sequence[str | Law] | None, reading: Mapping[str, Any]
) -> tuple[Table, tuple[Law, ...], dict[str, str]]:
    """The table that every compared law can be fitted to, those laws, and why others of the records' columns are none.

    What a law of size, data and compute reads must be there in every row; a further column that is not (a tracker's
    `steps`, say) costs its own laws alone.
    """
    if laws is not None:
        forms = tuple(law_of(law) for law in laws)
        for form in forms:
            if form.response != "loss":
                raise ValueError(f"{form.name} is a law of {form.response}; the choice is among laws of loss")
        needs = dict.fromkeys(n for f in forms for n in (*(a.name for a in f.axes), f.response))
        return read(records, tuple(needs), **reading), forms, {}
    of_loss = [law for law in LAWS.values() if law.response == "loss"]
    levels = {a.name: a.levels for law in of_loss for a in law.axes if a.name not in CORE}
    further = tuple(levels)
    seen = read(records, ("loss",), also=further, **reading)
    has = {name for name in CORE if name in seen.named}
    if "parameters" in has and has & {"tokens", "flops"}:
        has |= {"tokens", "flops"}
    usable = {name for name in further if name in seen.columns}
    varied = {name for name in usable if np.ptp(seen[name]) > 0 or levels[name] < 2}  # a constant makes no candidate
    able, reasons = [], {}
    for law in of_loss:
        names = {a.name for a in law.axes}
        broken = sorted(name for name in names if name in further and name in seen.named and name not in usable)
        if names <= has | varied:
            able.append(law)
        elif broken and names <= has | varied | set(broken):
            reasons[law.name] = f"ruled out: not every row has {' and '.join(broken)} as a number greater than zero"
    if not able:
        found = ", ".join(sorted(seen.columns))
        raise TableError(f"{seen.source}: no columns that a law of loss needs, only {found}; map them with columns=…")
    needs = dict.fromkeys(n for f in able for n in (*(a.name for a in f.axes), "loss"))
    return read(records, tuple(needs), **reading), tuple(able), reasons


def _rungs(table: Table) -> list[Array]:
    """Row indices of each rung, ascending in compute (in the product of the axes where there is no compute)."""
    if {"parameters", "tokens"} <= table.columns.keys():
        scale = table["parameters"] * table["tokens"]
    elif "flops" in table.columns:
        scale = table["flops"]
    else:
        scale = np.prod([v for name, v in table.columns.items() if name != "loss"], axis=0)
    if "rung" in table.labels:
        names = np.array(table.labels["rung"])
        groups = [np.flatnonzero(names == name) for name in sorted(set(table.labels["rung"]))]
        return sorted(groups, key=lambda rows: float(scale[rows].max()))
    step = np.round(np.log10(scale) * PER_DECADE)
    return [np.flatnonzero(step == level) for level in np.unique(step)]


def _one_step(table: Table, form: Law, rungs: Sequence[Array]) -> dict[int, float]:
    """Held-out rung → mean absolute log error of the fit to all rungs before it."""
    errors = {}
    for k in range(1, len(rungs)):
        past = fit_table(table.take(np.concatenate(rungs[:k])), form)
        if not past.usable:
            continue
        rows = rungs[k]
        with np.errstate(all="ignore"):
            told = past.predict(**{a.name: table[a.name][rows] for a in form.axes})
            error = float(np.mean(np.abs(np.log(told / table["loss"][rows]))))
        errors[k] = error if np.isfinite(error) else np.inf
    return errors


def _winner(held: Mapping[str, Array], fits: Mapping[str, Fit], rungs: int, reasons: dict[str, str]) -> str:
    """The lowest mean error, or fewer constants where the excess is within one standard error. Fills `reasons`."""
    mean = {name: _mean(e) for name, e in held.items()}
    open_names = [n for n in held if mean[n] < USABLE] or list(held)
    floored = [n for n in open_names if fits[n].form.floor]
    if rungs < FLOOR_RUNGS and floored:
        shadowed = {n for n in open_names if any(_base(fits[n].form) <= _base(fits[f].form) for f in floored)}
        for name in shadowed - set(floored):
            reasons[name] = (
                f"ruled out: it has no floor, and {rungs} rungs are fewer than the {FLOOR_RUNGS} that could say so"
            )
        open_names = [n for n in open_names if n in floored or n not in shadowed]
    lowest = min(open_names, key=lambda n: (mean[n], len(fits[n].constants)))
    best = lowest
    for name in sorted(open_names, key=lambda n: len(fits[n].constants)):
        excess = held[name] - held[lowest]
        if len(fits[name].constants) >= len(fits[lowest].constants) or len(excess) < 3:
            continue
        if excess.mean() <= excess.std(ddof=1) / np.sqrt(len(excess)):
            best = name
            break
    count = len(next(iter(held.values())))
    for name in held:
        k, own = len(fits[best].constants), len(fits[name].constants)
        if name == best:
            simpler = f", within one standard error of {lowest} with fewer constants" if best != lowest else ""
            if rungs < FLOOR_RUNGS and not fits[name].form.floor and _untried(fits, held, fits[name].form):
                simpler += "; no law with a floor could be tried against it: add rungs"
            steps = f"{count} step{'s' if count > 1 else ''}"
            reasons[name] = f"chosen: {_percent(mean[name])} held-out error over {steps}{simpler}"
        elif name not in reasons and mean[name] < mean[best]:
            reasons[name] = (
                f"ruled out: {_percent(mean[name])} held-out error, not a standard error below {best}'s"
                f" {_percent(mean[best])}, with {own} constants against {k}"
            )
        elif name not in reasons:
            reasons[name] = (
                f"ruled out: {_percent(mean[name])} held-out error, against {_percent(mean[best])} of {best}"
            )
    return best


def _base(form: Law) -> set[str]:
    """What a law's axes are made of: compute is size times data."""
    return {n for a in form.axes for n in (("parameters", "tokens") if a.name == "flops" else (a.name,))}


def _untried(fits: Mapping[str, Fit], held: Mapping[str, Array], form: Law) -> bool:
    """Whether a law with a floor fits the records in the place of this one, but could not forecast any of them."""
    rivals = [fit for name, fit in fits.items() if name not in held and fit.usable and fit.form.floor]
    return any(_base(form) <= _base(fit.form) for fit in rivals)


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.2f} %"


def _mean(errors: Array | None) -> float:
    return float("inf") if errors is None or not errors.size else float(errors.mean())


def _in_sample(fit: Fit | None) -> float | None:
    if fit is None or not fit.usable:
        return None
    told = fit.predict(**{a.name: fit.table[a.name] for a in fit.form.axes})
    return float(np.sqrt(np.mean(np.log(told / fit.table[fit.form.response]) ** 2)))
