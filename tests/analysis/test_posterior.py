"""The law that forecasts are made with, in the constants a reader knows."""

import numpy as np

from sweep_analysis.forecast import Point
from sweep_analysis.posterior import NAMES, believe


def ladder(sizes: list[float], noise: float, seed: int = 0) -> list[list[Point]]:
    generator = np.random.default_rng(seed)
    return [
        [
            Point(
                n, n * ratio, float((1.7 + 400 / n**0.34 + 1000 / (n * ratio) ** 0.33) * np.exp(noise * z)), f"{n}-{s}"
            )
            for s in range(2)
            for ratio, z in zip((10, 20, 40), generator.standard_normal(3), strict=True)
        ]
        for n in sizes
    ]


def test_constants_of_a_known_law_lie_in_their_intervals():
    sizes = [3e7, 1e8, 3e8, 1e9, 3e9]
    truth = dict(zip(NAMES, (1.7, 400.0, 1000.0, 0.34, 0.33), strict=True))
    covered = dict.fromkeys(NAMES, 0)
    for seed in range(20):
        for name, interval in believe(ladder(sizes, 0.003, seed)).constants().items():
            covered[name] += interval.low <= truth[name] <= interval.high
    assert min(covered.values()) >= 17


def test_a_young_ladder_gets_wide_but_finite_constants():
    for interval in believe(ladder([3e7], 0.003)).constants().values():
        assert 0 < interval.low < interval.value < interval.high < 1e9


def test_more_rungs_tell_more():
    short, long = (believe(ladder([3e7 * 3**i for i in range(k)], 0.003)).constants() for k in (3, 6))
    assert long["E"].high - long["E"].low < short["E"].high - short["E"].low


def test_tokens_to_serve_move_the_split_towards_a_smaller_model_of_the_same_loss():
    belief = believe(ladder([3e7, 1e8, 3e8, 1e9, 3e9], 0.001))
    law = {name: interval.value for name, interval in belief.constants().items()}

    def loss(parameters: float, tokens: float) -> float:
        return law["E"] + law["A"] / parameters ** law["alpha"] + law["B"] / tokens ** law["beta"]

    splits = [belief.split(6e21, inference_tokens=served) for served in (0.0, 1e10, 2e12, 1e14)]
    assert splits[0] == belief.split(6e21)
    sizes = [n.value for n, _ in splits]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.7 * sizes[0]
    for n, d in splits:
        assert abs(loss(n.value, d.value) / loss(splits[0][0].value, splits[0][1].value) - 1) < 1e-6
        assert n.low < n.value < n.high
        assert d.low < d.value < d.high


def test_the_split_of_a_compute_is_the_optimum_of_the_law():
    belief = believe(ladder([3e7, 1e8, 3e8, 1e9, 3e9], 0.001))
    law = {name: interval.value for name, interval in belief.constants().items()}
    flops = 6e21
    n, d = (interval.value for interval in belief.split(flops))
    assert abs(6 * n * d / flops - 1) < 1e-9

    def loss(parameters: float) -> float:
        tokens = flops / 6 / parameters
        return law["E"] + law["A"] / parameters ** law["alpha"] + law["B"] / tokens ** law["beta"]

    assert loss(n) < min(loss(n * 1.05), loss(n / 1.05))
