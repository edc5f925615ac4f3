"""The predictive distribution of log losses from a ladder's past, rung after rung.

Owns the priors, the weights, the scale of a forecast, and what the ladder's own past errors do to it; docs/forecasts.md
tells the method and how its constants were found. Works on plain arrays: who may be forecast, and in which words, is
`forecast`'s business. Knows no clock and draws no random number.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sweep_analysis import surface
from sweep_analysis.kriging import Kernel, Known, Places
from sweep_analysis.surface import Floats

Counts = NDArray[np.intp]
PASSES = 3
"""Fits of one past: weights, robust weights and noise level follow from the fit before."""
SEED_DECAY = 0.5
"""Seed variance falls as C^−0.5 …"""
SEED_SD = 0.006
"""… from this sd of ln L at 1e11 FLOPs, before any replicate was seen.

It meets both the .0005–.0007 nats of published runs at 1e17 and byte-level models of 27k–100k parameters, whose seeds
differ by .005–.03 nats.
"""
SEED_PRIOR = 2.0
"""Replicates (degrees of freedom) that this expectation is worth."""
LARGEST_SURPRISE = 36.0
"""Squared deviations count as at most (6 sd)²: one freak run must not blind the ladder for good."""
NEIGHBOURS = 80
"""Past records at most, those of most compute, whose deviations from the law are carried on: few enough that LAPACK
inverts their matrix on one thread, and to the same bits wherever it runs."""
MOST_RUNGS = 14
"""Past rungs beyond these no longer narrow a forecast where `rungs_power` is used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The method's constants. Log-loss units throughout; 0.01 is one percent of loss."""

    entropy_at: float = 0.5
    """logit of E's share of the lowest past loss at 1e19 FLOPs, the prior's mean."""
    entropy_slope: float = 0.1
    """… and its rise per decade of compute: the more is spent, the less is left to reduce."""
    entropy_beyond: float = 0.2
    """… and its further rise beyond 1e21: few runs are known there, and the published laws say .4 a decade in all."""
    entropy_doubt: float = 0.03
    """sd of ln E added per decade beyond 1e17–1e21 FLOPs, where the two numbers above were learnt."""
    prior_mean: tuple[float, float] = (0.40, 0.40)
    """alpha, beta."""
    prior_deviation: tuple[float, float, float, float, float] = (0.12, 0.30, 0.30, 0.20, 0.40)
    """sd of ln E, ln a, ln b, ln alpha, ln beta."""
    fit_floor: float = 0.0022
    """sd of a well-split run's residual in the fit."""
    fit_off_optimum: float = 0.04
    """Residual sd per unit of x = ln L − ln L at the law's best split of the same compute, in the fit."""
    oversized: float = 2.0
    """x counts so many times where the model is larger than that split has it: few tokens are the worse extreme."""
    fit_adapts: float = 0.6
    """Power of the past's own leave-one-out mean square by which the fit's noise level follows the ladder's."""
    fit_adapts_from: float = 3.0
    """How many recent residuals are worth half of that power."""
    recency: float = 1.7
    """Residual variance grows by e^recency per e-fold of compute below the newest: the law is local."""
    outlier: float = 2.0
    """Leave-one-out |z| from which a record loses weight."""
    fit_factor: float = 0.32
    """Factor on the fit's own variance g'H⁻¹g."""
    floor: float = 0.0025
    """sd of what the law does not say of a well-split run."""
    off_optimum: float = 0.061
    """… and per unit of x."""
    below_data: float = 0.1
    """sd per e-fold of tokens below the smallest token count of the past: warm-up and schedule are not in the law."""
    rungs_power: float = 0.0
    """Forecast variance falls as (rungs/4)^−power; 0 since past errors say it better."""
    few_records: float = 12.0
    """Forecast sd grows as √(1 + (few/n)²) with n past records: priors were right on average, not on this ladder."""
    widening: float = 0.2
    """Forecast sd grows as √(1 + (widening·d)²), d = ln(C/C_max) of the past."""
    drift: float = 0.0013
    """Losses d e-folds ahead come out drift·d^bend_power below the surface: at every origin that was looked at."""
    bend: float = 0.0031
    """… give or take bend·d^bend_power, which no precision near the past makes smaller."""
    bend_power: float = 1.5
    """Of d, in both."""
    memory: float = 0.65
    """Weight of a past rung's surprise, per rung of age."""
    prior_weight: float = 2.0
    """Rungs' worth of trust in the scale before any rung was forecast."""
    inflation: float = 1.0
    """Factor on every scale, by which 95 % of next rungs are covered, origins weighing the same."""
    kernel: Kernel | None = field(default_factory=Kernel)
    """How far runs share what the law does not say of them; None carries nothing on from the past."""


SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Records as arrays, rung after rung, replicates of one (N, D) averaged; `rung` numbers the rungs from 0."""

    log_parameters: Floats
    log_tokens: Floats
    log_loss: Floats
    rung: Counts
    run: tuple[str, ...]
    """Which training run each record comes from."""
    noise: Floats
    """Variance of ln loss left by seeds: expected, and corrected by replicates."""
    seed_variance: float
    """Variance of one run's ln loss between seeds, at the largest compute."""
    replicated: bool
    """Whether any (N, D) has more than one run."""

    @property
    def log_compute(self) -> Floats:
        """ln(N·D); the factor 6 is left to who reports FLOPs."""
        return self.log_parameters + self.log_tokens

    @property
    def rungs(self) -> int:
        return int(self.rung[-1]) + 1


@dataclass(frozen=True, slots=True)
class Components:
    """A forecast of `m` records, taken apart."""

    mean: Floats
    """(m,) ln loss."""
    unknown: Floats
    """(m, m) what the fit does not know: J H⁻¹ J'."""
    off: Floats
    """(m,) x = ln L − ln L at the law's best split of the same compute."""
    below: Floats
    """(m,) e-folds of tokens below the past's smallest."""
    ahead: Floats
    """(m,) e-folds of compute above the past's largest."""
    left: Floats
    """(m, m) correlation of the unsaid that the past's own deviations leave open; its diagonal is the share left."""


@dataclass(frozen=True, slots=True)
class Predictive:
    """Joint Student-t predictive of `m` log losses."""

    mean: Floats
    covariance: Floats
    """(m, m) squared scales."""
    degrees_of_freedom: float
    mean_scale: float
    """Scale of the mean of the m deviations."""

    def half_widths(self, confidence: float) -> Floats:
        """Two-sided half-width of each record's interval, ln loss."""
        return quantile(confidence, self.degrees_of_freedom) * np.sqrt(np.diag(self.covariance))


class History:
    """A ladder's past, fitted at every length: the first rung, the first two, … all of them."""

    def __init__(self, evidence: Evidence, settings: Settings = SETTINGS, *, only_whole: bool = False) -> None:
        """`only_whole` fits the whole past alone, for who needs no scale."""
        self.evidence, self.settings = evidence, settings
        lengths = np.arange(1, evidence.rungs + 1)
        self.lengths = lengths[-1:] if only_whole else lengths
        self._numbers: dict[Hashable, int] = {}
        self._deviations: dict[int, Known] = {}
        self._fit()

    def _fit(self) -> None:
        s, evidence = self.settings, self.evidence
        seen = evidence.rung[None, :] < self.lengths[:, None]
        lowest = np.argmin(np.where(seen, evidence.log_loss, np.inf), axis=1)
        c = evidence.log_compute
        self.newest = np.max(np.where(seen, c, -np.inf), axis=1)  # (K,) ln(N·D)
        self.least_tokens = np.min(np.where(seen, evidence.log_tokens, np.inf), axis=1)
        self.anchor = np.stack(
            [evidence.log_parameters[lowest], evidence.log_tokens[lowest], evidence.log_loss[lowest]], axis=-1
        )
        u = evidence.log_parameters - self.anchor[:, :1]
        v = evidence.log_tokens - self.anchor[:, 1:2]
        mean, deviation = self._prior(6.0 * np.exp(c[lowest]), np.exp(evidence.log_loss[lowest]))
        losses = np.broadcast_to(evidence.log_loss, u.shape)
        age = np.exp(np.clip(s.recency * (self.newest[:, None] - c), 0.0, 200.0))
        robust, off, level = np.ones_like(u), np.zeros_like(u), np.ones((len(u), 1))
        start = mean
        for _ in range(PASSES):
            plain = (s.fit_floor**2 + (s.fit_off_optimum * off) ** 2) * age
            weights = seen * robust / (plain * level + evidence.noise)
            fits = surface.fit(u, v, losses, weights, mean, deviation, start)
            start = fits.theta
            fitted = surface.log_loss(fits.theta, u, v)
            J = surface.jacobian(fits.theta, u, v)
            leverage = np.clip(weights * np.einsum("kni,kij,knj->kn", J, fits.covariance, J), 0.0, 0.95)
            residuals = losses - fitted
            z = np.abs(residuals) * np.sqrt(weights / (1.0 - leverage))
            typical = 1.4826 * _medians(z, seen)
            z = np.where(seen, z / np.maximum(1.0, typical), 0.0)
            robust = np.clip(robust * (s.outlier / np.maximum(z, s.outlier)) ** 2, 1e-4, 1.0)
            off = surface.excess(fits.theta, u, v, s.oversized)
            # How large the residuals are against what was assumed of them, recent ones first.
            squares = np.minimum(residuals**2 / ((plain + evidence.noise) * (1.0 - leverage)), LARGEST_SURPRISE)
            counted = seen * (1.0 - leverage) / age
            self.residual_count = counted.sum(axis=1)
            self.residual_square = (counted * squares).sum(axis=1) / self.residual_count
            level = self._level()[:, None]
        self.fits, self.residuals, self.off = fits, residuals, off

    def _prior(self, compute: Floats, lowest_loss: Floats) -> tuple[Floats, Floats]:
        """Mean and sd of the logs of (E, a, b, alpha, beta) at anchors of `compute` FLOPs; a, b share what E leaves."""
        s = self.settings
        decades = np.log10(compute / 1e19)
        logit = s.entropy_at + s.entropy_slope * decades + s.entropy_beyond * np.maximum(0.0, decades - 2.0)
        share = 1.0 / (1.0 + np.exp(-logit))
        half = np.log((1.0 - share) * lowest_loss / 2.0)
        alpha, beta = (np.full_like(half, np.log(value)) for value in s.prior_mean)
        mean = np.stack([np.log(share * lowest_loss), half, half, alpha, beta], axis=-1)
        deviation = np.tile(s.prior_deviation, (len(half), 1))
        unseen = np.maximum(0.0, np.abs(decades) - 2.0)
        deviation[:, 0] = np.hypot(deviation[:, 0], s.entropy_doubt * unseen)
        return mean, deviation

    def _level(self) -> Floats:
        """(K,) factor on the fit's variances: the past's own mean square, as far as its count is worth."""
        s = self.settings
        trust = self.residual_count / (self.residual_count + s.fit_adapts_from)
        return np.asarray(np.exp(trust * s.fit_adapts * np.log(0.05 + self.residual_square)))

    def row(self, k: int) -> int:
        """Where the past of the first `k` rungs stands in the arrays."""
        return int(np.searchsorted(self.lengths, k))

    def components(self, k: int, log_parameters: Floats, log_tokens: Floats, run: Sequence[Hashable]) -> Components:
        """Forecast records at (ln N, ln D) from the first `k` rungs, taken apart.

        A record keeps of the past's deviations from the law what runs of its ratio, or its own run's checkpoints, had.
        """
        s, row = self.settings, self.row(k)
        theta = self.fits.theta[row]
        u, v = log_parameters - self.anchor[row, 0], log_tokens - self.anchor[row, 1]
        J = surface.jacobian(theta, u, v)
        off = surface.excess(theta, u, v, s.oversized)
        ahead = np.maximum(0.0, log_parameters + log_tokens - self.newest[row])
        planned = Places(log_parameters, log_tokens, self._numbered(run))
        carried, left = self._known(k).carried_to(planned)
        return Components(
            mean=surface.log_loss(theta, u, v) + carried * self._expected(row, off) - s.drift * ahead**s.bend_power,
            unknown=J @ np.linalg.solve(self.fits.precision[row], J.T),
            off=off,
            below=np.maximum(0.0, self.least_tokens[row] - log_tokens),
            ahead=ahead,
            left=left,
        )

    def _expected(self, row: int, off: Floats) -> Floats:
        """sd of residuals as the fit expects them, whatever their age."""
        s = self.settings
        level = self._level()[row]
        return np.asarray(np.sqrt((s.fit_floor**2 + (s.fit_off_optimum * off) ** 2) * level))

    def _known(self, k: int) -> Known:
        """The deviations of the first `k` rungs, those of the newest `NEIGHBOURS` records where there are more."""
        if k not in self._deviations:
            e, row, kernel = self.evidence, self.row(k), self.settings.kernel
            past = np.flatnonzero(e.rung < k) if kernel else np.array([], dtype=np.intp)
            past = np.sort(past[np.argsort(-e.log_compute[past], kind="stable")[:NEIGHBOURS]])
            sd = self._expected(row, self.off[row, past])
            places = Places(e.log_parameters[past], e.log_tokens[past], self._numbered([e.run[i] for i in past]))
            deviations, noise = self.residuals[row, past] / sd, e.noise[past] / sd**2
            self._deviations[k] = Known(kernel or Kernel(), places, deviations, noise)
        return self._deviations[k]

    def _numbered(self, run: Sequence[Hashable]) -> Counts:
        """A number for each training run."""
        return np.array([self._numbers.setdefault(name, len(self._numbers)) for name in run], dtype=np.intp)

    def growth(self, k: int, ahead: Floats) -> Floats:
        """Factor on a record's sd, before the ladder's own past errors."""
        s = self.settings
        level = (min(k, MOST_RUNGS) / 4.0) ** -s.rungs_power
        level *= 1.0 + (s.few_records / np.count_nonzero(self.evidence.rung < k)) ** 2
        return np.asarray(np.sqrt(level * (1.0 + (s.widening * ahead) ** 2)))

    def bent(self, ahead: Floats) -> Floats:
        """(m,) sd of ln loss by which the law may have bent by then, one way for all records of a rung."""
        return np.asarray(self.settings.bend * ahead**self.settings.bend_power)

    def covariance(self, k: int, parts: Components) -> Floats:
        """(m, m) squared scales before seeds, bends and the ladder's own past errors: what fit and neighbours leave."""
        s = self.settings
        sd = np.sqrt(s.floor**2 + (s.off_optimum * parts.off) ** 2 + (s.below_data * parts.below) ** 2)
        growth = self.growth(k, parts.ahead)
        return np.asarray((s.fit_factor * parts.unknown + parts.left * np.outer(sd, sd)) * np.outer(growth, growth))

    @cached_property
    def surprises(self) -> Floats:
        """(K−1,) how far each later rung lay from its forecast: mean of min(z², 36), or median of z² if larger."""
        e, values = self.evidence, []
        for k in range(1, e.rungs):
            here = e.rung == k
            runs = [name for name, inside in zip(e.run, here, strict=True) if inside]
            parts = self.components(k, e.log_parameters[here], e.log_tokens[here], runs)
            variance = np.diag(self.covariance(k, parts)) + self.bent(parts.ahead) ** 2 + e.noise[here]
            squares = (e.log_loss[here] - parts.mean) ** 2 / variance
            # Capped run by run, save where most of the rung is that far off: that is no freak run.
            values.append(max(np.mean(np.minimum(squares, LARGEST_SURPRISE)), np.median(squares)))
        return np.array(values)

    def own_scale(self, k: int) -> tuple[float, float]:
        """(λ², ν) after `k` rungs: ν = prior weight + Σω, λ² = (prior weight + Σ ω q)/ν, ω = memory^age."""
        s, q = self.settings, self.surprises[: k - 1]
        weights = s.memory ** np.arange(len(q) - 1, -1, -1)
        nu = s.prior_weight + float(weights.sum())
        return (s.prior_weight + float(weights @ q)) / nu, nu

    def predict(self, k: int, log_parameters: Floats, log_tokens: Floats, run: Sequence[Hashable]) -> Predictive:
        """Joint predictive of planned records from the first `k` rungs; records of one `run` share its seed's noise."""
        s = self.settings
        parts = self.components(k, log_parameters, log_tokens, run)
        number = self._numbered(run)
        same_run = number[:, None] == number
        falls = np.exp(-SEED_DECAY / 2.0 * (log_parameters + log_tokens - self.evidence.log_compute.max()))
        seeds = np.where(same_run, self.evidence.seed_variance, 0.0) * np.outer(falls, falls)
        square, nu = self.own_scale(k)
        bent = self.bent(parts.ahead)
        joint = s.inflation**2 * (square * (self.covariance(k, parts) + seeds) + np.outer(bent, bent))
        return Predictive(parts.mean, joint, nu, float(np.sqrt(joint.mean())))


def _medians(values: Floats, seen: NDArray[np.bool_]) -> Floats:
    """(K, 1) median of each row's `seen` values, without the masked arrays that numpy's nanmedian makes of few."""
    ordered = np.sort(np.where(seen, values, np.inf), axis=1)
    count = seen.sum(axis=1, keepdims=True)
    pairs = np.take_along_axis(ordered, np.concatenate([(count - 1) // 2, count // 2], axis=1), axis=1)
    return np.asarray(pairs.mean(axis=1, keepdims=True))


def quantile(confidence: float, degrees_of_freedom: float) -> float:
    """Two-sided Student-t quantile: half-width in units of the scale."""
    from scipy.special import stdtrit  # here, since reading a status must not wait for scipy

    return float(stdtrit(degrees_of_freedom, 0.5 + confidence / 2.0))
