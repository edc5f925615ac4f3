"""The ladder that narrows the target's forecast most for its price: optimal design by exchange.

Owns the design (sizes, token/parameter ratios, seeds a rung), its price in FLOPs and the search. The criterion is the
forecaster's own predictive scale (`predictive.SETTINGS`) at the law that is assumed, so that what the search narrows
is what will be printed. Simulates nothing: `rehearsal` does.

A design is scale-free: steps between rungs (as ratios of compute) and what each rung trains. The budget then fixes
the largest size, and every exchange is compared at the same cost.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweep_analysis import predictive, surface
from sweep_analysis.recipe import Schedule
from sweep_analysis.surface import Floats

BRANCH = Schedule().decay
"""Share of a smaller token count that its own decay branch trains again."""
SEED_SD = (6e-4, 1e18)
"""sd of the loss between seeds, nats per token, at and beyond so many FLOPs; its square falls as C^−0.5 below
(`predictive.SEED_DECAY`), which gives the .02–.03 nats seen at 1e11."""
RUNGS = (3, 8)
"""Fewest: below three sizes nothing can be forecast. Most: further rungs hold hardly any information."""
JUDGED = 5
"""Rungs a ladder should have: three to begin forecasting, two to be judged, as an automatic launch demands."""
STEPS = (2.0, 2.8, 4.0, 5.6)
"""Compute of a rung's largest record over that of the one before. Longer steps surprise the forecaster on the way, and
its own past errors then widen the target's forecast, which the criterion does not see."""
LEAST_GROWTH = 1.2
"""Model size of a rung over that of the one before, at least: sizes must increase, and be told apart once built."""
RATIO_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Token/parameter ratios on offer, times the target's own."""
SEEDS = (1, 2, 3)
LARGEST_SHARE = 0.25
"""No run of a ladder takes more than this share of the target's compute: it would be the target, not a forecast."""
SMALLEST = 20_000
"""Parameters below which models of the ladder's family are not on their law."""
WORTH = 0.03
"""Each rung waits for the one before it: one more is taken only where it narrows by more than this."""
GAIN = 1e-3
"""An exchange that narrows by less is not made."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: a size, the token counts that branch from its trunk, and how many seeds."""

    parameters: float
    """N."""
    ratios: tuple[float, ...]
    """D/N, ascending."""
    seeds: int = 1

    @property
    def flops(self) -> float:
        """6·N times the tokens that are trained: the trunk, and a decay branch for each smaller count."""
        return 6.0 * self.parameters**2 * self.seeds * _weight(self.ratios)

    @property
    def largest(self) -> float:
        """6·N·D of its largest record."""
        return 6.0 * self.parameters**2 * self.ratios[-1]


@dataclass(frozen=True, slots=True)
class Design:
    """A ladder, smallest rung first, and how wide its target's forecast is expected to be."""

    steps: tuple[Step, ...]
    half_width: float
    """Of ln L at 95 %, by the criterion."""

    @property
    def flops(self) -> float:
        return sum(step.flops for step in self.steps)

    @property
    def largest(self) -> float:
        """6·N·D of the largest record."""
        return max(step.largest for step in self.steps)


class TooLittleError(ValueError):
    """The budget does not carry three rungs; the text says what would."""

    def __init__(self, text: str, least: float) -> None:
        super().__init__(text)
        self.least = least
        """FLOPs that would."""


def even(target: tuple[float, float], flops: float, *, rungs: int = 5, step: float = 10.0,
         factors: Sequence[float] = (0.5, 1.0, 2.0), law: Floats | None = None) -> Design:  # fmt: skip
    """The usual ladder at a price: even steps in log C, the same ratios and one seed on every rung.

    Its half-width is nan unless a law (5,) is given.
    """
    ratios = tuple(_two_digits(target[1] / target[0] * f) for f in factors)
    sizes = [step ** (-j / 2) for j in range(rungs)][::-1]
    unit = sum(Step(size, ratios).flops for size in sizes)
    top = min(math.sqrt(flops / unit), _largest_size(target, ratios[-1]))
    steps = tuple(Step(top * size, ratios) for size in sizes)
    return Design(steps, math.nan if law is None else criterion(steps, target, law))


def criterion(steps: Sequence[Step], target: tuple[float, float], law: Floats) -> float:
    """Half-width of ln L at 95 % that the forecaster is expected to give the target after these rungs."""
    width = max(len(step.ratios) for step in steps)
    ratios = np.array([[*step.ratios, *[step.ratios[-1]] * (width - len(step.ratios))] for step in steps])
    held = np.array([[1.0] * len(s.ratios) + [0.0] * (width - len(s.ratios)) for s in steps])
    sizes = np.log([step.parameters for step in steps])
    seeds = np.array([float(step.seeds) for step in steps])
    return float(_half_width(sizes[None], np.log(ratios)[None], held[None], seeds[None], target, law)[0])


def best_ladder(
    target: tuple[float, float],
    flops: float,
    law: Floats,
    *,
    smallest: float = SMALLEST,
    least_step: float = STEPS[0],
    told: Callable[[float], None] = lambda share: None,
) -> Design:
    """The design of least predictive variance at the target (N, D) that `flops` pay for.

    law: (5,) E, A, B, alpha, beta assumed. smallest: N of the smallest rung at least. least_step: compute ratio of
    neighbouring rungs at least. told: called with the share of the search that is done. Raises TooLittleError.
    """
    steps = tuple(s for s in STEPS if s >= least_step * 0.999) or (least_step,)
    search = _Search(target, law, smallest, steps)
    design = search.best(flops, told)
    ceiling = 6.0 * LARGEST_SHARE * target[0] * target[1]
    while design.largest >= 0.999 * ceiling:  # the last run may grow no more: is all of the money of use?
        try:
            cheaper = search.best(0.7 * design.flops)
        except TooLittleError:
            break
        if cheaper.half_width > design.half_width * (1.0 + WORTH):
            break
        design = cheaper
    return design


@dataclass(frozen=True, slots=True)
class _Genes:
    """Indices: the step before each rung from the second on, and what each rung trains."""

    gaps: tuple[int, ...]
    options: tuple[int, ...]


class _Search:
    """Coordinate exchange over the steps and options of ladders of a fixed number of rungs."""

    def __init__(self, target: tuple[float, float], law: Floats, smallest: float, steps: Sequence[float]) -> None:
        self.target, self.law, self.smallest = target, law, smallest
        self.gaps = np.log(np.array(steps))
        menu = sorted({_two_digits(target[1] / target[0] * f) for f in RATIO_FACTORS})
        own = _two_digits(target[1] / target[0])
        sets = [c for n in (1, 2, 3) for c in itertools.combinations(menu, n)]
        self.options = [(ratios, seeds) for ratios in sets for seeds in SEEDS]
        self.ratios = np.log(np.array([[*r, *[r[-1]] * (3 - len(r))] for r, _ in self.options]))
        self.held = np.array([[1.0] * len(r) + [0.0] * (3 - len(r)) for r, _ in self.options])
        self.seeds = np.array([float(s) for _, s in self.options])
        self.weight = np.array([s * _weight(r) for r, s in self.options])
        self.most = np.log(np.array([r[-1] for r, _ in self.options]))
        pair = tuple(sorted({own, _two_digits(own * 0.5)}))
        self.start = self.options.index((pair, 1))

    def best(self, flops: float, told: Callable[[float], None] = lambda share: None) -> Design:
        """The narrowest ladder at that price, of the fewest rungs that come near it. Raises TooLittleError."""
        found: list[tuple[float, _Genes]] = []
        counts = range(RUNGS[0], RUNGS[1] + 1)
        for done, rungs in enumerate(counts):
            told(done / len(counts))
            answer = self.exchanged(rungs, flops)
            if answer is not None:
                found.append(answer)
        told(1.0)
        if not found:
            least = self.least(RUNGS[0])
            raise TooLittleError(
                f"{flops:.3g} FLOPs do not carry {RUNGS[0]} rungs from {self.smallest:,.0f} parameters up;"
                f" {least:.3g} would be the least",
                least,
            )
        full = [pair for pair in found if len(pair[1].options) >= JUDGED] or found[-1:]
        narrowest = min(half for half, _ in full)
        half, genes = next(pair for pair in full if pair[0] <= narrowest * (1.0 + WORTH))  # fewest rungs first
        return Design(self.steps_of(genes, flops), half)

    def exchanged(self, rungs: int, flops: float) -> tuple[float, _Genes] | None:
        """The best ladder of so many rungs from two starts, or None where the money does not reach down that far."""
        best: tuple[float, _Genes] | None = None
        for gap in sorted({0, len(self.gaps) // 2}):
            genes = _Genes((gap,) * (rungs - 1), (self.start,) * rungs)
            value = float(self._values([genes], flops)[0])
            while True:
                around = list(self._neighbours(genes))
                values = self._values(around, flops)
                i = int(np.argmin(values))
                if not values[i] < value * (1.0 - GAIN):
                    break
                value, genes = float(values[i]), around[i]
            if math.isfinite(value) and (best is None or value < best[0]):
                best = value, genes
        return best

    def least(self, rungs: int) -> float:
        """The fewest FLOPs that so many rungs, two ratios each, take from the smallest size on."""
        sizes = [self.smallest * math.exp(0.5 * self.gaps[0] * j) for j in range(rungs)]
        return float(sum(6.0 * size**2 * self.weight[self.start] for size in sizes)) * 1.001

    def steps_of(self, genes: _Genes, flops: float) -> tuple[Step, ...]:
        """The rungs, smallest first; the budget has fixed the largest size."""
        sizes = np.exp(self._sizes([genes], flops)[0])
        return tuple(Step(float(N), *self.options[o]) for N, o in zip(sizes, genes.options, strict=True))

    def _neighbours(self, genes: _Genes) -> Iterator[_Genes]:
        for place, own in enumerate(genes.options):
            for option in range(len(self.options)):
                if option != own:
                    yield _Genes(genes.gaps, (*genes.options[:place], option, *genes.options[place + 1 :]))
        for place, own in enumerate(genes.gaps):
            for gap in range(len(self.gaps)):
                if gap != own:
                    yield _Genes((*genes.gaps[:place], gap, *genes.gaps[place + 1 :]), genes.options)

    def _sizes(self, many: Sequence[_Genes], flops: float) -> Floats:
        """(M, K) ln N: steps are between the largest records of neighbouring rungs, whatever their ratios."""
        gaps = self.gaps[np.array([genes.gaps for genes in many])]
        below = np.concatenate([np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1], np.zeros((len(many), 1))], axis=1)
        options = np.array([genes.options for genes in many])
        price = np.sum(self.weight[options] / np.exp(self.most[options]) * np.exp(-below), axis=1)
        top = np.minimum(np.log(flops / price), math.log(6.0 * LARGEST_SHARE * self.target[0] * self.target[1]))
        return np.asarray((top[:, None] - below - math.log(6.0) - self.most[options]) / 2)

    def _values(self, many: Sequence[_Genes], flops: float) -> Floats:
        sizes = self._sizes(many, flops)
        options = np.array([genes.options for genes in many])
        half = _half_width(sizes, self.ratios[options], self.held[options], self.seeds[options], self.target, self.law)
        ratios = np.exp(self.ratios[options]).reshape(len(many), -1)
        two = np.ptp(ratios, axis=1) > 0.05 * ratios.max(axis=1)  # one ratio cannot tell the exponents apart
        grown = np.diff(sizes, axis=1).min(axis=1) >= math.log(LEAST_GROWTH)
        return np.where((sizes[:, 0] >= math.log(self.smallest)) & two & grown, half, np.inf)


def _half_width(
    sizes: Floats, log_ratios: Floats, held: Floats, seeds: Floats, target: tuple[float, float], law: Floats
) -> Floats:
    """(M,) half-width of ln L at 95 %. sizes, seeds (M, K); log_ratios and held, the mask of real ones, (M, K, 3)."""
    s = predictive.SETTINGS
    E, A, B, alpha, beta = law
    many, rungs = sizes.shape
    top, ratio = sizes[:, -1], math.log(target[1] / target[0])
    theta = np.stack(
        [
            np.full(many, math.log(E)),
            math.log(A) - alpha * top,
            math.log(B) - beta * (top + ratio),
            np.full(many, math.log(alpha)),
            np.full(many, math.log(beta)),
        ],
        axis=-1,
    )
    u = np.broadcast_to((sizes - top[:, None])[..., None], log_ratios.shape)
    v = u + log_ratios - ratio
    u, v = u.reshape(many, -1), v.reshape(many, -1)
    mask = held.reshape(many, -1)
    log_loss = surface.log_loss(theta, u, v)
    off = surface.excess(theta, u, v, s.oversized)
    c = u + v + 2.0 * top[:, None] + ratio
    newest = np.max(np.where(mask > 0, c, -np.inf), axis=1)
    age = np.exp(np.clip(s.recency * (newest[:, None] - c), 0.0, 200.0))
    plain = (s.fit_floor**2 + (s.fit_off_optimum * off) ** 2) * age
    sd = SEED_SD[0] * np.maximum(1.0, SEED_SD[1] / (6.0 * np.exp(c))) ** (predictive.SEED_DECAY / 2) / np.exp(log_loss)
    noise = sd**2 / np.repeat(seeds, log_ratios.shape[-1], axis=1)
    J = surface.jacobian(theta, u, v)
    H = np.swapaxes((mask / (plain + noise))[..., None] * J, -1, -2) @ J
    deviation = np.tile(s.prior_deviation, (many, 1))
    decades = np.maximum(0.0, np.abs((newest + math.log(6.0)) / math.log(10.0) - 19.0) - 2.0)
    deviation[:, 0] = np.hypot(deviation[:, 0], s.entropy_doubt * decades)
    diagonal = np.arange(5)
    H[:, diagonal, diagonal] += deviation**-2.0
    there_u = (math.log(target[0]) - top)[:, None]
    there_v = there_u.copy()
    g = surface.jacobian(theta, there_u, there_v)
    unknown = np.einsum("mi,mi->m", g[:, 0], np.linalg.solve(H, g[:, 0, :, None])[..., 0])
    apart = surface.excess(theta, there_u, there_v, s.oversized)[:, 0]
    ahead = np.maximum(0.0, math.log(target[0] * target[1]) - newest)
    # what neighbours' deviations explain is left out: little of it reaches as far as a target
    variance = s.fit_factor * unknown + s.floor**2 + (s.off_optimum * apart) ** 2
    freedom = s.prior_weight + float(np.sum(s.memory ** np.arange(rungs - 1)))
    factor = s.inflation * predictive.quantile(0.95, freedom)
    few = 1.0 + (s.few_records / mask.sum(axis=1)) ** 2
    near = variance * few * (1.0 + (s.widening * ahead) ** 2)
    return np.asarray(factor * np.sqrt(near + (s.bend * ahead**s.bend_power) ** 2))


def _weight(ratios: Sequence[float]) -> float:
    """Tokens trained over N: the largest ratio, and a decay branch of each smaller one."""
    return ratios[-1] + BRANCH * sum(ratios[:-1])


def _largest_size(target: tuple[float, float], ratio: float) -> float:
    """N of the largest run at that ratio."""
    return math.sqrt(LARGEST_SHARE * target[0] * target[1] / ratio)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
