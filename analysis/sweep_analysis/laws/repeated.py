"""Training on data seen more than once: what repeated tokens and excess parameters are still worth."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sweep_analysis.laws.base import Array, Axis, Constant, Law
from sweep_analysis.laws.chinchilla import one_ratio


class RepeatedData(Law):
    """Chinchilla's surface at effective parameters N' and tokens D' that saturate with repetition."""

    name = "RepeatedData"
    equation = (
        r"L = E + A\,N'^{-\alpha} + B\,D'^{-\beta},\quad "
        r"D' = U + U R_D^*\left(1 - e^{-R_D/R_D^*}\right),\; R_D = D/U - 1,\quad "
        r"N' = U_N + U_N R_N^*\left(1 - e^{-R_N/R_N^*}\right),\; R_N = N/U_N - 1,\; "
        r"U_N = \min(N, N_{\mathrm{opt}}(U))"
    )
    citation = "Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6, appendix A"
    use = "The corpus will be read for several epochs: how many still pay, and how large a model it feeds."
    limits = (
        "R_D* and R_N* need runs well past 4 epochs; without them they end AtBound. Does not know that very many "
        "epochs make the loss rise again."
    )
    axes = (
        Axis("parameters", "N", "parameters", levels=2),
        Axis("tokens", "D", "tokens, repeated ones counted", levels=3),
        Axis("unique_tokens", "U", "distinct tokens", levels=1),
    )
    constants = (
        Constant("E", "nats per token", "entropy floor", low=1e-6, high=1e2),
        Constant("A", "nats per token · parameters^alpha", "size of the model term"),
        Constant("B", "nats per token · tokens^beta", "size of the data term"),
        Constant("alpha", "1", "exponent of the model term", low=1e-3, high=4.0),
        Constant("beta", "1", "exponent of the data term", low=1e-3, high=4.0),
        Constant("R_D", "epochs", "repetitions worth, at most, this many times the fresh data", low=1e-2, high=1e4),
        Constant("R_N", "1", "excess parameters worth, at most, this many times the useful ones", low=1e-2, high=1e4),
    )
    floor = "E"
    basins = 8
    published: ClassVar[Mapping[str, float]] = {
        "E": 1.8691,
        "A": 520.83,
        "B": 1487.7,
        "alpha": 0.3526596,
        "beta": 0.3526596,
        "R_D": 15.387756,
        "R_N": 5.309743,
    }

    def coordinates(self, values: Mapping[str, Any], units: Mapping[str, float] | None = None) -> list[Array]:
        """Distinct tokens share the unit of tokens: their ratio is the number of epochs."""
        shared = dict(units or {})
        if "tokens" in shared:
            shared["unique_tokens"] = shared["tokens"]
        return super().coordinates(values, shared)

    def to_units(self, c: Array, units: Mapping[str, float]) -> Array:
        out = np.array(c)
        out[:, 1] = c[:, 1] * np.exp(c[:, 3] * np.log(units.get("parameters", 1.0)))
        out[:, 2] = c[:, 2] * np.exp(c[:, 4] * np.log(units.get("tokens", 1.0)))
        return out

    def evaluate(self, c: Array, x: Sequence[Array], jacobian: bool = True) -> tuple[Array, Array | None]:
        E, A, B, alpha, beta, R_D, R_N = (c[:, i, None] for i in range(7))
        n, d, u = x
        repeats = np.where(np.real(d) > np.real(u), np.exp(d - u) - 1.0, 0.0)
        left = np.exp(-repeats / R_D)
        log_data = u + np.log1p(R_D * (1.0 - left)) + np.where(np.real(d) > np.real(u), 0.0, d - u)
        # N_opt(U): where both terms of the optimum balance, alpha·A/N^alpha = beta·B/U^beta
        log_ratio = np.log(alpha * A) - np.log(beta * B)
        log_opt = (log_ratio + beta * u) / alpha
        short = np.real(log_opt) < np.real(n)
        log_useful = np.where(short, log_opt, n)
        excess = np.where(short, np.exp(n - log_useful) - 1.0, 0.0)
        kept = np.exp(-excess / R_N)
        gain = 1.0 + R_N * (1.0 - kept)
        log_model = log_useful + np.log(gain)
        model, data = np.exp(-alpha * log_model), np.exp(-beta * log_data)
        value = E + A * model + B * data
        if not jacobian:
            return value, None
        worth = 1.0 + R_D * (1.0 - left)
        d_rd = (1.0 - left - left * repeats / R_D) / worth  # d ln D' / d R_D
        d_rn = (1.0 - kept - kept * excess / R_N) / gain  # d ln N' / d R_N
        d_useful = np.where(short, 1.0 - kept * (excess + 1.0) / gain, 0.0)  # d ln N' / d ln U_N, where U_N moves
        by_model, by_data = -alpha * A * model, -beta * B * data
        moved = by_model * d_useful
        return value, np.stack(
            [
                np.ones_like(value),
                model + moved / (alpha * A),
                data - moved / (alpha * B),
                -A * log_model * model + moved * (1.0 - log_ratio - beta * u) / alpha**2,
                -B * log_data * data + moved * (u - 1.0 / beta) / alpha,
                by_data * d_rd,
                by_model * d_rn,
            ],
            axis=1,
        )

    def nodes(self, x: Sequence[Array], y: Array) -> Array:
        """Exponents on a grid; the reducible half of the loss shared between the terms."""
        level = float(np.exp(np.mean(np.log(y))))
        return np.array(
            [
                [floor * level, part * (1 - floor) * level, (1 - part) * (1 - floor) * level, alpha, beta, 10.0, 5.0]
                for floor in (0.4, 0.65, 0.85)
                for part in (0.3, 0.7)
                for alpha in (0.2, 0.35, 0.6)
                for beta in (0.2, 0.35, 0.6)
            ]
        )

    def identifies(self, values: Mapping[str, Any]) -> str | None:
        reason = super().identifies(values) or one_ratio(self.name, values)
        if reason:
            return reason
        epochs = np.asarray(values["tokens"], dtype=float) / np.asarray(values["unique_tokens"], dtype=float)
        if float(epochs.max()) < 1.5:
            return (
                f"no run repeats its data (the most is {float(epochs.max()):.2f} epochs), so what repetition is worth "
                "cannot be known: add runs of 4 epochs and more, or fit Chinchilla"
            )
        return None
