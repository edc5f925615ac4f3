"""The one minimiser: sums of Huber losses over residuals, many fits at a time.

Objective, for each fit r:  sum_i  w_ri · huber_delta(residual_i(c_r)),  residual = ln f − ln y (or f − y), each term
weighted again where the law lies above the record, when the objective is asymmetric.

Damped Newton on the active set: the Hessian counts points inside ±delta in full, and the damping adds the weights of
the majorising quadratic, w·min(1, delta/|r|) (iteratively reweighted least squares), which always descends. Undamped
it ends in few steps once the active set is known; damped it cannot fail to improve. All fits of a batch advance
together, so that bootstrap refits cost array arithmetic and not Python.

Refuses to choose starting points, to judge a solution, or to use more threads than its caller's: sums run in blocks
of fixed size, and so give the same bits on any number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep_analysis.laws.base import Array, Law

BLOCK = 1024  # rows in one matrix product; below the size at which BLAS would start threads
LARGEST_STEP = 1.0  # in a coordinate (a logarithm, mostly) and one iteration


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised."""

    delta: float  # width of the quadratic part, in units of the residual; infinity: least squares
    relative: bool = True  # residual ln f − ln y, else f − y
    asymmetry: float = 1.0  # weight of records that lie below the law, against 1 for those above it

    def target(self, y: Array) -> Array:
        """What the residual is measured from."""
        return np.log(y) if self.relative else y

    def sided(self, r: Array, weights: Array) -> Array:
        """Weights, with the asymmetry in them."""
        return weights if self.asymmetry == 1.0 else weights * np.where(r > 0, self.asymmetry, 1.0)


@dataclass(frozen=True, slots=True)
class Solution:
    """R minimisations. Coordinates are logarithms for positive constants."""

    z: Array  # (R, k) coordinates
    objective: Array  # (R,)
    converged: NDArray[np.bool_]  # (R,) the step left to take is negligible
    iterations: NDArray[np.int64]  # (R,)


def constants_of(law: Law, z: Array) -> Array:
    """Coordinates (R, k) → constants (R, k)."""
    if law.positive.all():
        return np.exp(z)
    return np.where(law.positive, np.exp(np.where(law.positive, z, 0.0)), z)


def coordinates_of(law: Law, c: Array) -> Array:
    """Constants (R, k) → coordinates (R, k)."""
    return np.where(law.positive, np.log(np.where(law.positive, c, 1.0)), c)


def residuals(law: Law, z: Array, x: Sequence[Array], target: Array, relative: bool) -> tuple[Array, Array]:
    """Residuals (R, n) and their derivative in the coordinates (R, k, n)."""
    c = constants_of(law, z)
    return _residuals(law, c, np.where(law.positive, c, 1.0), x, target, relative)


def _residuals(
    law: Law, c: Array, chain: Array, x: Sequence[Array], target: Array, relative: bool
) -> tuple[Array, Array]:
    """Residuals at constants c (R, k), and their derivative times `chain` (R, k), that of the constants."""
    value, jacobian = law.evaluate(c, x)
    assert jacobian is not None
    jacobian *= chain[:, :, None]
    if not relative:
        return value - target, jacobian
    jacobian /= value[:, None, :]
    return np.log(value) - target, jacobian


def objective_of(law: Law, z: Array, x: Sequence[Array], y: Array, goal: Objective) -> Array:
    """The objective (R,) alone, every record with weight 1; infinite where the law has no value."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value = law.evaluate(constants_of(law, z), x, jacobian=False)[0]
        r = (np.log(value) if goal.relative else value) - goal.target(y)
        total = (goal.sided(r, np.ones_like(r)) * huber(r, goal.delta)).sum(-1)
    return np.where(np.isfinite(total), total, np.inf)


def huber(r: Array, delta: float) -> Array:
    """r²/2 inside ±delta, delta·(|r| − delta/2) outside (Huber 1964)."""
    a = np.abs(r)
    inner = np.minimum(a, delta)
    return inner * (a - 0.5 * inner)


def product(left: Array, right: Array) -> Array:
    """(R, k, n) times (R, m, n) over n → (R, k, m), in blocks of fixed size."""
    total = left[:, :, :BLOCK] @ right[:, :, :BLOCK].transpose(0, 2, 1)
    for start in range(BLOCK, left.shape[2], BLOCK):
        total = total + left[:, :, start : start + BLOCK] @ right[:, :, start : start + BLOCK].transpose(0, 2, 1)
    return np.asarray(total)


def minimise(
    law: Law,
    x: Sequence[Array],
    y: Array,
    start: Array,
    goal: Objective,
    *,
    weights: Array | None = None,
    tolerance: float = 1e-10,
    iterations: int = 400,
) -> Solution:
    """Minimise from each row of `start` (R, k coordinates).

    y: (n,), or (R, n) for responses that differ between fits. weights: (R, n) or (1, n), ones when None.

    tolerance: relative decrease of the objective that the next step would bring, below which a fit has converged.
    """
    target, delta = goal.target(y), goal.delta
    # The search moves linear constants themselves and the logarithms of the others: where a floor tends to zero, its
    # logarithm would have far to go through a bent valley.
    curved = law.curved
    low, high = (np.where(curved, b, constants_of(law, b[None])[0]) for b in law.bounds)

    def constants(z: Array) -> Array:
        return np.where(curved, np.exp(np.where(curved, z, 0.0)), z)

    def at(z: Array, target: Array) -> tuple[Array, Array]:
        c = constants(z)
        return _residuals(law, c, np.where(curved, c, 1.0), x, target, goal.relative)

    begin = constants_of(law, np.clip(np.array(start, dtype=np.float64), *law.bounds))
    z = np.where(curved, np.log(np.where(curved, begin, 1.0)), begin)
    count = len(z)
    target = np.atleast_2d(target)
    w = np.broadcast_to(np.ones_like(target[:1]) if weights is None else weights, (count, target.shape[1]))
    done_z, done_objective = z.copy(), np.full(count, np.inf)
    converged, used = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)

    live = np.arange(count)
    floor = 1e-26 * w.sum(1)  # residuals of 1e-13 are rounding
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        r, J = at(z, target)
        objective = (goal.sided(r, w) * huber(r, delta)).sum(1)
        damping = np.ones(count)
        for step in range(iterations):
            size = np.maximum(np.abs(r), 1e-300)
            sided = goal.sided(r, w)
            gradient = product(J, (sided * np.minimum(np.maximum(r, -delta), delta))[:, None, :])[:, :, 0]
            curvature = sided * ((size <= delta) + damping[:, None] * np.minimum(1.0, delta / size))
            H = product(J * curvature[:, None, :], J)
            held = ((z <= low) & (gradient > 0)) | ((z >= high) & (gradient < 0))
            at_edge = bool(held.any())
            if at_edge:
                H = np.where(held[:, :, None] | held[:, None, :], 0.0, H)
                gradient = np.where(held, 0.0, gradient)
            diagonal = np.einsum("rii->ri", H)  # a view: what is added below is added to H
            top = diagonal.max(1, keepdims=True) + 1e-300
            diagonal *= 1.0 + 1e-3 * damping[:, None]
            diagonal += 1e-11 * top
            if at_edge:
                diagonal += np.where(held, top, 0.0)
            move = -np.linalg.solve(H, gradient[:, :, None])[:, :, 0]
            move /= np.maximum(1.0, np.abs(move * curved).max(1, keepdims=True) / LARGEST_STEP)
            predicted = -0.5 * (gradient * move).sum(1)

            z_new = np.minimum(np.maximum(z + move, low), high)
            r_new, J_new = at(z_new, target)
            objective_new = (goal.sided(r_new, w) * huber(r_new, delta)).sum(1)
            better = objective_new <= objective  # False for NaN
            small = predicted <= np.maximum(tolerance * objective, floor)
            settled = small & (damping <= 1.0)
            stuck = ~better & (damping > 1e9)
            damping = np.where(better, np.maximum(0.2 * damping, 1e-7), 8.0 * damping)
            all_better = bool(better.all())
            z = z_new if all_better else np.where(better[:, None], z_new, z)
            objective = objective_new if all_better else np.where(better, objective_new, objective)
            used[live] += 1
            ended = settled | stuck
            if step == iterations - 1 or ended.any():
                out = np.ones_like(ended) if step == iterations - 1 else ended
                done_z[live[out]], done_objective[live[out]] = z[out], objective[out]
                # stuck: no step of any damping improves, to rounding; a minimum when the step wanted is small
                converged[live[out]] = (settled | (stuck & (predicted <= 1e-6 * objective + floor)))[out]
                keep = ~out
                if not keep.any():
                    break
                live, z, objective, damping = live[keep], z[keep], objective[keep], damping[keep]
                floor, w = floor[keep], w[keep]
                target = target if len(target) == 1 else target[keep]
                better, r, J, r_new, J_new = better[keep], r[keep], J[keep], r_new[keep], J_new[keep]
            if all_better:
                r, J = r_new, J_new
            else:
                r = np.where(better[:, None], r_new, r)
                J = np.where(better[:, None, None], J_new, J)
    return Solution(coordinates_of(law, constants(done_z)), done_objective, converged, used)
