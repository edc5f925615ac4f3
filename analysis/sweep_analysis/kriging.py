"""What a law leaves unsaid of past runs, carried to the runs like them: kriging of the residuals of a fit.

Runs lie off any smooth surface together: those of one token/parameter ratio and nearly one compute (schedule, warm-up
and batch follow the ratio), and the checkpoints of one run. Owns the correlation between two records' deviations and
what is left of it once the past's are known. Refuses to say how large deviations are: `predictive` scales them.

    corr(i, j) = alike·exp(−|Δ ln D/N|/ratio_reach − |Δ ln ND|/compute_reach)
               + (1 − alike)·[same run]·exp(−run_fades·|Δ ln D|)

Both parts are products of exponential kernels, so the sum is positive definite (Rasmussen & Williams 2006, §4.2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep_analysis.surface import Floats

LARGEST = 6.0
"""Deviations count as at most so many sd: a freak record must not move its neighbours far."""
LEAST_OPEN = 0.02
"""Share of the variance that stays open even where the very record is known."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """How far deviations are shared."""

    alike: float = 0.6
    """Share of a deviation's variance that runs of one ratio and compute have in common."""
    ratio_reach: float = 2.0
    """e-folds of D/N over which that fades to 1/e …"""
    compute_reach: float = 4.0
    """… and of compute."""
    run_fades: float = 0.3
    """The rest stays with the run itself, its correlation fading as D^−0.3 from checkpoint to checkpoint."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where `n` records lie, each with the number of its training run."""

    log_parameters: Floats
    log_tokens: Floats
    run: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.run)


def correlation(kernel: Kernel, one: Places, other: Places) -> Floats:
    """(n, m) correlation of the deviations of `one`'s records with those of `other`'s."""
    n, d = (a[:, None] - b for a, b in ((one.log_parameters, other.log_parameters), (one.log_tokens, other.log_tokens)))
    alike = np.exp(-np.abs(d - n) / kernel.ratio_reach - np.abs(d + n) / kernel.compute_reach)
    own = (one.run[:, None] == other.run) * np.exp(-kernel.run_fades * np.abs(d))
    return np.asarray(kernel.alike * alike + (1.0 - kernel.alike) * own)


class Known:
    """The deviations of past records, in units of their expected sd."""

    def __init__(self, kernel: Kernel, places: Places, deviations: Floats, noise: Floats) -> None:
        """`deviations` and `noise`, the variance that seeds add to them, are (n,); n may be 0."""
        self.kernel, self.places = kernel, places
        self._inverse = np.linalg.inv(correlation(kernel, places, places) + np.diag(noise + 1e-9))
        # einsum and no matrix product here and below: BLAS splits large ones over threads, and then rounds differently
        self._weighted = np.einsum("nk,k->n", self._inverse, np.clip(deviations, -LARGEST, LARGEST))

    def carried_to(self, planned: Places) -> tuple[Floats, Floats]:
        """Expected deviations (m,) of planned records, and the correlation (m, m) that stays open between them.

        Its diagonal is the share of the variance that the past does not explain. Replicates of one (N, D) deviate
        from the law alike; only their seeds differ, which is not told here.
        """
        across = correlation(self.kernel, planned, self.places)
        together = correlation(self.kernel, planned, planned)
        same = (planned.log_parameters[:, None] == planned.log_parameters) & (
            planned.log_tokens[:, None] == planned.log_tokens
        )
        told = np.einsum("ik,jk->ij", np.einsum("in,nk->ik", across, self._inverse), across)
        left = np.where(same, 1.0, together) - told
        diagonal = np.arange(len(planned))
        left[diagonal, diagonal] = np.maximum(left[diagonal, diagonal], LEAST_OPEN)
        return np.einsum("in,n->i", across, self._weighted), left
