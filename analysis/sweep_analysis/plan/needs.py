"""The questions around a target: how to split its compute, which step shows a plateau, and what data it takes.

Owns the answers that follow from a law alone: compute-optimal and inference-aware splits, what an error in the
exponents costs, the smallest step at which a plateau could be seen, and repeated tokens. Labels stand in `labels`.
"""

import math

import numpy as np

from sweep_analysis import split
from sweep_analysis.document import Document
from sweep_analysis.plan.devices import Range
from sweep_analysis.plan.prior import Assumed, range_of
from sweep_analysis.surface import Floats

VISIBLE = 0.01
"""The fall of ln L that can be told from none: 1.96 sd of the difference of two rungs, each with a wobble of .0036
about its law (as in published ladders), and the gate's usual tolerance, which happens to be the same."""
EXPONENT_ERROR = 0.01


class Splits(Document):
    """How the target's compute could be split."""

    optimal_parameters: Range
    optimal_tokens: Range
    """Compute-optimal N* and D* at the target's C = 6·N·D."""
    excess_loss: Range
    """Relative excess of the target's loss over the optimum of the same FLOPs."""
    served_parameters: Range | None = None
    served_tokens: Range | None = None
    """The split of the same loss that takes the fewest FLOPs to train and serve `inference tokens`."""
    served_saving: float | None = None
    """Share of training plus inference FLOPs that it saves against the target's own split."""


class Plateau(Document):
    """The smallest step in compute between two rungs at which a plateau could be told from scaling."""

    step: float | None
    """C_next / C; None where no step up to 100 would show one."""
    per_doubling: float
    """Expected relative fall of the loss for twice the compute."""
    visible: float
    """The fall of ln L that a step must promise: the larger of rungs' wobble and the rung's own forecast interval."""


class Exponent(Document):
    """What 1 % in the exponents costs."""

    split: float
    """Relative error of N* at the target when the exponent of N*(C) is 1 % off over the jump from the ladder."""
    flops: float
    """Share of the target's FLOPs that this wrong split wastes."""
    loss: float
    """Relative error of the target's forecast when alpha and beta are both 1 % off."""


class Repetition(Document):
    """What the target needs of a corpus, and what reading it again is worth (Muennighoff et al. 2023)."""

    tokens: float
    corpus_tokens: float
    epochs: float
    effective_tokens: Range
    """Fresh tokens that the repeated ones are worth."""
    excess_loss: Range
    """Relative excess of the loss over one pass through as many fresh tokens."""
    missing: float
    """Tokens that the corpus lacks for a single pass."""


R_DATA = (15.387756, 0.15)
"""R_D*, repetitions at most worth this many times the fresh data, and the sd of its logarithm assumed here
(Muennighoff et al. 2023, arXiv:2305.16264, equation 5; the paper prints no standard error)."""


def splits(law: Assumed, parameters: float, tokens: float, inference_tokens: float | None = None) -> Splits:
    """Splits of the target's compute; intervals are those of the assumed laws."""
    C = 6.0 * parameters * tokens
    N, D = law.optimum(C)
    best = _loss(law.constants, N, D)
    answer = Splits(
        optimal_parameters=range_of(N),
        optimal_tokens=range_of(D),
        excess_loss=range_of(law.loss(parameters, tokens) / best - 1.0),
    )
    if not inference_tokens:
        return answer
    # of all splits that reach the target's own loss: from the FLOPs that reach it optimally
    E, _, _, alpha, beta = law.constants.T
    power = (alpha + beta) / (alpha * beta)
    reach = C * ((law.loss(parameters, tokens) - E) / (best - E)) ** -power
    n, d = split.served(law.constants, *split.optimum(law.constants, reach), inference_tokens)
    own = 6.0 * parameters * tokens + 2.0 * parameters * inference_tokens
    total = 6.0 * n[0] * d[0] + 2.0 * n[0] * inference_tokens
    return answer.changed(
        served_parameters=range_of(n), served_tokens=range_of(d), served_saving=max(0.0, 1.0 - float(total) / own)
    )


def plateau(law: Assumed, parameters: float, tokens: float, half_width: float = 0.0) -> Plateau:
    """From a run of (N, D) on, both grown alike. `half_width`: of the next rung's forecast, in ln L."""
    E, A, B, alpha, beta = law.expected

    def fall(step: float) -> float:
        grown = math.sqrt(step)
        before = E + A * parameters**-alpha + B * tokens**-beta
        after = E + A * (parameters * grown) ** -alpha + B * (tokens * grown) ** -beta
        return float(math.log(before / after))

    visible = max(VISIBLE, half_width)
    low, high = 1.0, 100.0
    if fall(high) < visible:
        return Plateau(step=None, per_doubling=-math.expm1(-fall(2.0)), visible=visible)
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fall(middle) >= visible else (middle, high)
    return Plateau(step=high, per_doubling=-math.expm1(-fall(2.0)), visible=visible)


def exponent_error(law: Assumed, parameters: float, tokens: float, jump: float) -> Exponent:
    """`jump`: the target's compute over the ladder's largest, where the split and the level are known."""
    row = law.expected
    E, A, B, alpha, beta = row
    C = 6.0 * parameters * tokens
    N, D = (float(v[0]) for v in law.optimum(C))
    share = beta / (alpha + beta)
    off = math.exp(EXPONENT_ERROR * share * math.log(max(jump, 1.0)))
    best, wrong = (float(E + A * (N * f) ** -alpha + B * (D / f) ** -beta) for f in (1.0, off))
    power = (alpha + beta) / (alpha * beta)
    anchor_n, anchor_d = parameters / math.sqrt(jump), tokens / math.sqrt(jump)
    bent = E + A * parameters**-alpha * math.exp(-EXPONENT_ERROR * alpha * math.log(parameters / anchor_n))
    bent += B * tokens**-beta * math.exp(-EXPONENT_ERROR * beta * math.log(tokens / anchor_d))
    level = float(law.loss(parameters, tokens)[0])
    return Exponent(
        split=off - 1.0, flops=((wrong - E) / (best - E)) ** power - 1.0, loss=abs(float(bent) / level - 1.0)
    )


def repetition(law: Assumed, parameters: float, tokens: float, corpus_tokens: float) -> Repetition:
    """D' = U + U·R*·(1 − e^(−R/R*)), R = D/U − 1 (Muennighoff et al. 2023, equation 5); the model is taken as fed."""
    spread = np.exp(R_DATA[1] * np.random.default_rng(0).standard_normal(len(law.constants)))
    spread[0] = 1.0
    R_star = R_DATA[0] * spread
    repeats = max(0.0, tokens / corpus_tokens - 1.0)
    unique = min(tokens, corpus_tokens)
    effective = unique * (1.0 + R_star * -np.expm1(-repeats / R_star))
    fresh = law.loss(parameters, tokens)
    E, A, B, alpha, beta = law.constants.T
    repeated = E + A * parameters**-alpha + B * effective**-beta
    return Repetition(
        tokens=tokens,
        corpus_tokens=corpus_tokens,
        epochs=max(1.0, tokens / corpus_tokens) if tokens >= corpus_tokens else tokens / corpus_tokens,
        effective_tokens=range_of(effective),
        excess_loss=range_of(repeated / fresh - 1.0),
        missing=max(0.0, tokens - corpus_tokens),
    )


def _loss(constants: Floats, N: Floats, D: Floats) -> Floats:
    E, A, B, alpha, beta = constants.T
    return np.asarray(E + A * N**-alpha + B * D**-beta)
