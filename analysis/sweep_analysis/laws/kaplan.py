"""Kaplan et al. 2020: loss as a power of one resource, of size and data, of size and steps; and when data run short.

N counts non-embedding parameters in these laws. Nothing here has an irreducible loss: every one of them goes to zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law

SOURCE = "Kaplan et al. 2020, arXiv:2001.08361"
NO_FLOOR = "It has no floor, and so promises too much far beyond the data."
WIDE = 1e60  # N_c is where the loss would be 1 nat: with a small exponent it lies absurdly far away
EXPONENTS = (0.04, 0.08, 0.15, 0.3)


class OnePower(Law):
    """L = (x_c / x)^alpha on one axis; the laws below differ in what x is."""

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        xc, alpha = c[:, 0, None], c[:, 1, None]
        distance = np.log(xc) - x[0]
        value = np.exp(alpha * distance)
        if not jacobian:
            return value, None
        return value, np.stack([alpha / xc * value, distance * value], axis=1)

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """The least-squares line through (ln x, ln y)."""
        u, v = x[0] - x[0].mean(), np.log(y)
        alpha = float(np.clip(-(u @ v) / max(float(u @ u), 1e-300), 2e-3, 3.0))
        at = float(np.clip(v.mean() / alpha + x[0].mean(), -130.0, 130.0))
        return np.array([[np.exp(at), alpha]])


class KaplanParameters(OnePower):
    """L(N) = (N_c/N)^alpha_N."""

    name = "KaplanParameters"
    equation = r"L(N) = (N_c / N)^{\alpha_N}"
    citation = f"{SOURCE}, equation 1.1"
    use = "Models of several sizes, each trained to convergence on data without end."
    limits = NO_FLOOR + " Says nothing of runs that stopped early or ran out of data."
    axes = (Axis("parameters", "N", "non-embedding parameters"),)
    constants = (
        Constant(
            "N_c", "parameters", "size at which the loss would be 1", True, 1e-9, WIDE, scales=(("parameters", 1.0),)
        ),
        Constant("alpha_N", "1", "exponent of size", low=1e-3, high=4.0),
    )
    published: ClassVar[Mapping[str, float]] = {"N_c": 8.8e13, "alpha_N": 0.076}


class KaplanTokens(OnePower):
    """L(D) = (D_c/D)^alpha_D."""

    name = "KaplanTokens"
    equation = r"L(D) = (D_c / D)^{\alpha_D}"
    citation = f"{SOURCE}, equation 1.2"
    use = "One large model trained on data sets of several sizes, each stopped at its lowest validation loss."
    limits = NO_FLOOR + " Holds only while the model is too large to matter."
    axes = (Axis("tokens", "D", "tokens"),)
    constants = (
        Constant("D_c", "tokens", "data at which the loss would be 1", True, 1e-9, WIDE, scales=(("tokens", 1.0),)),
        Constant("alpha_D", "1", "exponent of data", low=1e-3, high=4.0),
    )
    published: ClassVar[Mapping[str, float]] = {"D_c": 5.4e13, "alpha_D": 0.095}


class KaplanCompute(OnePower):
    """L(C) = (C_c/C)^alpha_C."""

    name = "KaplanCompute"
    equation = r"L(C) = (C_c / C)^{\alpha_C}"
    citation = f"{SOURCE}, equation 1.3"
    use = "The best run of each compute budget, as a first look with three points or more."
    limits = NO_FLOOR + " SaturatingCompute has a floor and needs one scale more."
    axes = (Axis("flops", "C", "FLOPs"),)
    constants = (
        Constant("C_c", "FLOPs", "compute at which the loss would be 1", True, 1e-9, WIDE, scales=(("flops", 1.0),)),
        Constant("alpha_C", "1", "exponent of compute", low=1e-3, high=4.0),
    )
    published: ClassVar[Mapping[str, float]] = {"C_c": 3.1e8 * 8.64e19, "alpha_C": 0.050}  # stated in PF-days


class KaplanParametersTokens(Law):
    """L(N, D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D."""

    name = "KaplanParametersTokens"
    equation = r"L(N, D) = \left[(N_c/N)^{\alpha_N/\alpha_D} + D_c/D\right]^{\alpha_D}"
    citation = f"{SOURCE}, equation 1.5; the over-fitting rule is equation 4.4"
    use = "Sizes and data sets varied together, each stopped at its lowest validation loss: how much data a size needs."
    limits = NO_FLOOR + " D is the size of the data set, not the tokens seen: runs of one epoch are another law."
    axes = (Axis("parameters", "N", "non-embedding parameters", levels=3), Axis("tokens", "D", "tokens", levels=2))
    constants = (
        Constant(
            "N_c", "parameters", "size at which the loss would be 1", True, 1e-9, WIDE, scales=(("parameters", 1.0),)
        ),
        Constant("D_c", "tokens", "data at which the loss would be 1", True, 1e-9, WIDE, scales=(("tokens", 1.0),)),
        Constant("alpha_N", "1", "exponent of size", low=1e-3, high=4.0),
        Constant("alpha_D", "1", "exponent of data", low=1e-3, high=4.0),
    )
    basins = 8
    published: ClassVar[Mapping[str, float]] = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        Nc, Dc, aN, aD = (c[:, i, None] for i in range(4))
        n, d = x
        q = aN / aD
        far = np.log(Nc) - n
        model = np.exp(q * far)
        data = Dc * np.exp(-d)
        total = model + data
        value = np.exp(aD * np.log(total))
        if not jacobian:
            return value, None
        share = value * aD / total
        by_ratio = share * model * far  # derivative in q
        return value, np.stack(
            [
                share * model * q / Nc,
                share * data / Dc,
                by_ratio / aD,
                value * np.log(total) - by_ratio * aN / aD**2,
            ],
            axis=1,
        )

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Both exponents on a grid, the loss at the centre shared between the terms in three ways."""
        level = float(np.exp(np.mean(np.log(y))))
        out = []
        for aN in EXPONENTS:
            for aD in EXPONENTS:
                for part in (0.2, 0.5, 0.8):
                    total = np.log(level) / aD
                    log_nc = (np.log(part) + total) * aD / aN
                    log_dc = np.log1p(-part) + total
                    out.append([np.exp(np.clip(log_nc, -20, 130)), np.exp(np.clip(log_dc, -20, 130)), aN, aD])
        return np.array(out)


class KaplanParametersSteps(Law):
    """L(N, S) = (N_c/N)^alpha_N + (S_c/S)^alpha_S."""

    name = "KaplanParametersSteps"
    equation = r"L(N, S_{\min}) = (N_c/N)^{\alpha_N} + (S_c/S_{\min})^{\alpha_S}"
    citation = f"{SOURCE}, equation 1.6"
    use = "Learning curves of several sizes at one batch: when a run of more steps beats a larger model."
    limits = (
        NO_FLOOR + " S is the number of steps at a batch far above the critical one; other steps are first turned into "
        "such by S/(1 + B_crit/B). Curves before the schedule's end read too high."
    )
    axes = (Axis("parameters", "N", "non-embedding parameters", levels=2), Axis("steps", "S", "steps", levels=3))
    constants = (
        Constant(
            "N_c", "parameters", "size at which its term would be 1", True, 1e-12, WIDE, scales=(("parameters", 1.0),)
        ),
        Constant("S_c", "steps", "steps at which their term would be 1", True, 1e-12, WIDE, scales=(("steps", 1.0),)),
        Constant("alpha_N", "1", "exponent of size", low=1e-3, high=4.0),
        Constant("alpha_S", "1", "exponent of steps", low=1e-3, high=4.0),
    )
    basins = 8
    published: ClassVar[Mapping[str, float]] = {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76}

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        Nc, Sc, aN, aS = (c[:, i, None] for i in range(4))
        n, s = np.log(Nc) - x[0], np.log(Sc) - x[1]
        model, steps = np.exp(aN * n), np.exp(aS * s)
        if not jacobian:
            return model + steps, None
        return model + steps, np.stack([aN / Nc * model, aS / Sc * steps, n * model, s * steps], axis=1)

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Both exponents on a grid, the loss at the centre shared between the terms in three ways."""
        level = float(np.exp(np.mean(np.log(y))))
        out = []
        for aN in (*EXPONENTS, 0.6):
            for aS in (0.15, 0.3, 0.6, 1.0):
                for part in (0.5, 0.8, 0.95):
                    log_nc, log_sc = np.log(part * level) / aN, np.log((1 - part) * level) / aS
                    out.append([np.exp(np.clip(log_nc, -25, 130)), np.exp(np.clip(log_sc, -25, 130)), aN, aS])
        return np.array(out)


def tokens_against_overfitting(parameters: Any, *, coefficient: float = 5e3, exponent: float = 0.74) -> Any:
    """Tokens of data below which over-fitting costs more than noise: D ≥ 5·10³ · N^0.74 (Kaplan et al., eq. 4.4)."""
    return coefficient * np.asarray(parameters, dtype=float) ** exponent


def overfitting(constants: Mapping[str, float], parameters: Any, tokens: Any) -> Any:
    """Relative excess of loss for having only `tokens` of data, by constants of KaplanParametersTokens.

    delta L = (1 + (N/N_c)^(alpha_N/alpha_D) · D_c/D)^alpha_D − 1 (Kaplan et al. 2020, equation 4.3).
    """
    q = constants["alpha_N"] / constants["alpha_D"]
    N, D = np.asarray(parameters, dtype=float), np.asarray(tokens, dtype=float)
    return (1.0 + (N / constants["N_c"]) ** q * constants["D_c"] / D) ** constants["alpha_D"] - 1.0
