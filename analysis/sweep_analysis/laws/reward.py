"""Over-optimisation of a reward model: true reward first rises, then falls, as the policy leaves its start."""

from collections.abc import Mapping, Sequence

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law

SOURCE = "Gao, Schulman & Hilton 2022, arXiv:2210.10760"
LIMITS = "The constants belong to one pair of reward model and gold reward. A peak beyond the data is an extrapolation."


class RewardBestOfN(Law):
    """R(d) = d·(alpha − beta·d), d = sqrt(KL)."""

    name = "RewardBestOfN"
    equation = r"R(d) = d\,(\alpha - \beta d),\quad d = \sqrt{\mathrm{KL}}"
    citation = f"{SOURCE}, equation 1"
    use = "Best-of-n sampling against a learned reward: how large an n still helps. The peak is at d = alpha/(2·beta)."
    limits = LIMITS
    axes = (Axis("kl", "KL", "nats", levels=3),)
    constants = (
        Constant("alpha", "reward / nat^(1/2)", "gain at the start", False, -1e6, 1e6, scales=(("kl", -0.5),)),
        Constant("beta", "reward / nat", "what over-optimisation takes", False, -1e6, 1e6, scales=(("kl", -1.0),)),
    )
    response = "reward"
    response_unit = "gold reward"
    residual = "absolute"
    delta = float("inf")

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        d = np.exp(0.5 * x[0]) + 0 * c[:, :1]
        value = d * (c[:, 0, None] - c[:, 1, None] * d)
        return value, np.stack([d, -d * d], axis=1) if jacobian else None

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Linear least squares."""
        d = np.exp(0.5 * x[0])
        return np.asarray(np.linalg.lstsq(np.stack([d, -d * d], axis=1), y, rcond=None)[0])[None]


class RewardReinforcement(Law):
    """R(d) = d·(alpha − beta·ln d), d = sqrt(KL)."""

    name = "RewardReinforcement"
    equation = r"R(d) = d\,(\alpha - \beta \ln d),\quad d = \sqrt{\mathrm{KL}}"
    citation = f"{SOURCE}, equation 2"
    use = "Reinforcement learning against a learned reward: when to stop. The peak is at d = exp(alpha/beta − 1)."
    limits = LIMITS
    axes = (Axis("kl", "KL", "nats", levels=3),)
    constants = (
        Constant("alpha", "reward / nat^(1/2)", "gain at d = 1", positive=False, low=-1e6, high=1e6),
        Constant("beta", "reward / nat^(1/2)", "what over-optimisation takes", positive=False, low=-1e6, high=1e6),
    )
    response = "reward"
    response_unit = "gold reward"
    residual = "absolute"
    delta = float("inf")

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        shift = 0.5 * np.log(units.get("kl", 1.0))
        out = np.array(c)
        out[:, 0] = (c[:, 0] + c[:, 1] * shift) * np.exp(-shift)
        out[:, 1] = c[:, 1] * np.exp(-shift)
        return out

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        log_d = 0.5 * x[0]
        d = np.exp(log_d) + 0 * c[:, :1]
        value = d * (c[:, 0, None] - c[:, 1, None] * log_d)
        return value, np.stack([d, -d * log_d], axis=1) if jacobian else None

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Linear least squares."""
        d = np.exp(0.5 * x[0])
        return np.asarray(np.linalg.lstsq(np.stack([d, -d * 0.5 * x[0]], axis=1), y, rcond=None)[0])[None]
