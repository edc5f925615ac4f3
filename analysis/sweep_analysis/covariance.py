"""How well a fit is determined: its condition number, and the covariance of its constants.

Owns the sandwich estimate and its change of units. Says nothing of runs beyond the data: those need a forecast.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sweep_analysis import solve
from sweep_analysis.laws.base import Array, Law


def condition_of(J: Array) -> float:
    """Condition number of the Jacobian (k, n), columns of unit length (zero columns make it infinite)."""
    gram = solve.product(J[None], J[None])[0]
    size = np.sqrt(np.diag(gram))
    if not (size > 0).all():
        return float("inf")
    values = np.linalg.eigvalsh(gram / size / size[:, None])
    return float(np.sqrt(values[-1] / values[0])) if values[0] > values[-1] * 1e-15 else float("inf")


def covariance_of(r: Array, J: Array, goal: solve.Objective, run: Sequence[str] | None) -> Array:
    """Sandwich covariance of a Huber M-estimate (Huber 1981, §7.6), (k, k) in coordinates of the fit.

    The bread takes the density of residuals near zero from a window n^(-1/5) robust standard deviations wide, since
    delta alone may hold too few points. Records of one run are one cluster, where there are more runs than twice the
    constants; below four records a constant one variance is taken for all.
    """
    k, n = J.shape
    delta, sides = goal.delta, goal.sided(r, np.ones(n))
    psi = np.clip(r, -delta, delta) * sides
    # a fit passes through as many records as it has constants, near enough: those say nothing of the noise
    spread = 1.4826 * float(np.median(np.sort(np.abs(r))[k:]))
    window = max(delta, spread * n**-0.2)
    gram = solve.product(J[None], J[None])[0]
    if window < np.inf:
        inside = (np.abs(r) <= window).astype(float)
        density = max(float(inside.sum()) - k, 1.0) / (n - k)
        # few points: towards one density for all
        inside = (n * inside * (density / max(float(inside.mean()), 1.0 / n)) + 2 * k * density) / (n + 2 * k)
        bread = solve.product((J * (inside * sides))[None], J[None])[0] * min(1.0, delta / window)
    else:
        bread = solve.product((J * sides)[None], J[None])[0]
    inverse = np.linalg.pinv(bread, rcond=1e-14, hermitian=True)
    clusters = None if run is None else np.unique(np.array(run), return_inverse=True)[1]
    # a record that the fit leans on shows too small a residual (the jackknife's correction, MacKinnon & White 1985)
    lean = np.minimum(((np.linalg.pinv(gram, rcond=1e-14, hermitian=True) @ J) * J).sum(0), 0.9)
    score = J * psi / np.where(np.abs(r) <= delta, 1.0 - lean, np.sqrt(1.0 - lean))
    if clusters is not None and 2 * k < clusters.max() + 1 < n:
        summed = np.zeros((k, clusters.max() + 1))
        np.add.at(summed.T, clusters, score.T)
        groups = summed.shape[1]
        meat = solve.product(summed[None], summed[None])[0] * groups / (groups - 1)
    elif n > 4 * k:
        meat = solve.product(score[None], score[None])[0]
    else:
        meat = gram * float(np.mean(psi**2)) * n / (n - k)
    return np.asarray(inverse @ meat @ inverse)


def transported(form: Law, z: Array, units: Mapping[str, float], covariance: Array) -> Array:
    """The covariance carried from the fit's own units to those of the records; the derivative is by complex step."""
    k = len(z)
    stepped = z[None] + 1e-30j * np.eye(k)
    c = np.where(form.positive, np.exp(np.where(form.positive, stepped, 0)), stepped)
    public = form.to_units(c, units)
    slope = public.imag / 1e-30
    slope = np.where(form.positive, slope / public.real, slope)  # (k in, k out)
    return np.asarray(slope.T @ covariance @ slope)
