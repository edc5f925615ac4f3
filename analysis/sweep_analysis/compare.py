"""Two corpora held against each other: by offset and slope of one shared law, with a test that they differ.

Owns the comparison of two sets of records under one law, and the test whether loss on another text is a constant
offset. Losses must be in the same unit and of the same tokenizer: nothing here can see that they are not.
"""

import numpy as np
from scipy import special

from sweep_analysis.document import Document
from sweep_analysis.fit import FitStatus, Interval, fit_table
from sweep_analysis.laws import Law, law_of
from sweep_analysis.laws.base import Array
from sweep_analysis.laws.transfer import Compared
from sweep_analysis.solve import Objective
from sweep_analysis.table import Records, Table, TableError, read


class Comparison(Document):
    """How the second corpus differs from the first: ln L2 − ln L1 = offset + slope·ln(C / centre)."""

    law: str
    offset: Interval
    """Relative difference of loss at the centre: +0.02 is 2 % worse."""
    slope: Interval
    """Change of that difference for each e-fold of compute; negative: the second gains with scale."""
    centre: float
    """Geometric mean of the records' compute, FLOPs."""
    p_value: float
    """Chance of a difference this large if offset and slope were both zero (Wald F test)."""
    status: FitStatus
    message: str

    def __repr__(self) -> str:
        return f"<Comparison by {self.law}: {self.message}>"

    __str__ = __repr__


class OffsetTest(Document):
    """Whether loss on another text is the loss plus a constant."""

    offset: Interval
    """Mean difference, nats per token."""
    slope: Interval
    """Of the other loss over the loss; 1 where the offset is constant."""
    p_value: float
    """Chance of a slope this far from 1 if the offset were constant (t test)."""

    def __repr__(self) -> str:
        return f"<OffsetTest: offset {self.offset}, slope {self.slope} against 1, p = {self.p_value:.2g}>"

    __str__ = __repr__


def compare_corpora(
    first: Records, second: Records, law: str | Law = "Chinchilla", *, confidence: float = 0.95, **reading: object
) -> Comparison:
    """Fit one law to both sets of records, with an offset and a slope for the second, by least squares.

    The law has one floor for both; where corpora differ in entropy, that is part of the offset. Raises TableError when
    either set is empty or together they cannot identify the law.
    """
    base = law_of(law)
    if not {a.name for a in base.axes} <= {"parameters", "tokens", "flops"}:
        raise TableError(f"corpora are compared along compute, and {base.name} is not a law of it; Chinchilla is")
    needs = (*(a.name for a in base.axes), base.response)
    tables = [read(r, needs, **reading) for r in (first, second)]  # type: ignore[arg-type]  # checked by read
    form = Compared(base)
    corpus = np.repeat([-0.5, 0.5], [len(t) for t in tables])
    columns = {name: np.concatenate([t[name] for t in tables]) for name in needs}
    joint = fit_table(Table({**columns, "corpus": corpus}), form, Objective(np.inf), confidence=confidence)
    if not joint.usable:
        raise TableError(f"the two sets cannot be compared by {base.name}: {joint.message}")
    centre = float(np.sum(np.log([joint.units[a.name] for a in base.axes])))
    shift = np.zeros((2, len(form.constants)))
    shift[0, -2:] = 1.0, centre
    shift[1, -1] = 1.0
    estimate = shift @ np.array(list(joint.constants.values()))
    covariance = shift @ joint.covariance @ shift.T
    freedom = max(1, len(corpus) - len(form.constants))
    F = float(estimate @ np.linalg.solve(covariance, estimate)) / 2.0
    p = float(special.fdtrc(2, freedom, F))
    offset, slope = _intervals(estimate, covariance, freedom, confidence)
    sixfold = 1.0 if any(a.name == "flops" for a in base.axes) else 6.0
    verdict = "differ" if p < 1 - confidence else "cannot be told apart"
    return Comparison(
        law=base.name,
        offset=Interval(**{k: float(np.expm1(v)) for k, v in dict(offset).items()}),
        slope=slope,
        centre=float(np.exp(centre)) * sixfold,
        p_value=p,
        status=joint.status,
        message=(
            f"the corpora {verdict} (p = {p:.2g}): loss on the second is {_percent(np.expm1(offset.value))} at "
            f"{np.exp(centre) * sixfold:.3g} FLOPs, and changes by {_percent(slope.value * np.log(10))} a decade"
        ),
    )


def _percent(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f} %"  # no minus before nothing


def offset_test(records: Records, *, confidence: float = 0.95, **reading: object) -> OffsetTest:
    """Whether `other_loss` is `loss` plus a constant (Kaplan et al. 2020, §3.2.2), by the slope of one over the other.

    Raises TableError below four records or at a single loss.
    """
    table = read(records, ("loss", "other_loss"), **reading)  # type: ignore[arg-type]  # checked by read
    x, y = table["loss"], table["other_loss"]
    if len(x) < 4 or float(np.ptp(x)) == 0.0:
        raise TableError(f"{len(x)} records at {len(np.unique(x))} losses; a slope needs 4 at different losses")
    u = x - x.mean()
    slope = float(u @ y) / float(u @ u)
    residual = y - y.mean() - slope * u
    freedom = len(x) - 2
    variance = float(residual @ residual) / freedom
    estimate = np.array([float(np.mean(y - x)), slope])
    covariance = np.diag([variance / len(x), variance / float(u @ u)])
    offset, slope_interval = _intervals(estimate, covariance, freedom, confidence)
    t = abs(slope - 1.0) / max(float(np.sqrt(covariance[1, 1])), 1e-300)
    return OffsetTest(offset=offset, slope=slope_interval, p_value=float(2.0 * special.stdtr(freedom, -t)))


def _intervals(estimate: Array, covariance: Array, freedom: int, confidence: float) -> list[Interval]:
    t = float(special.stdtrit(freedom, 0.5 + confidence / 2))
    half = t * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return [Interval(value=float(v), low=float(v - h), high=float(v + h)) for v, h in zip(estimate, half, strict=True)]
