"""What the law left unsaid of past runs: how it is carried to planned ones, and what stays open."""

import numpy as np
import pytest

from sweep_analysis.kriging import LARGEST, LEAST_OPEN, Kernel, Known, Places, correlation

KERNEL = Kernel()


def places(*rows):
    """(ln N, ln D, number of the run) each."""
    n, d, run = (np.array(column) for column in zip(*rows, strict=True))
    return Places(n.astype(float), d.astype(float), run)


def known(deviations, *rows, noise=0.0):
    return Known(KERNEL, places(*rows), np.array(deviations, dtype=float), np.full(len(rows), noise))


def test_any_set_of_records_has_a_positive_definite_correlation():
    rng = np.random.default_rng(0)
    anywhere = Places(rng.normal(18, 2, 80), rng.normal(22, 2, 80), rng.integers(0, 12, 80))
    matrix = correlation(KERNEL, anywhere, anywhere)
    assert np.linalg.eigvalsh(matrix).min() > 0
    np.testing.assert_array_equal(np.diag(matrix), 1.0)


def test_a_record_that_is_known_keeps_its_deviation():
    (carried,), left = known([1.7], (18, 21, 0)).carried_to(places((18, 21, 0)))
    assert carried == pytest.approx(1.7)
    assert left[0, 0] == LEAST_OPEN


def test_another_run_of_the_same_ratio_and_compute_keeps_the_share_that_runs_have_in_common():
    (carried,), left = known([1.0], (18, 21, 0)).carried_to(places((18, 21, 1)))
    assert carried == pytest.approx(KERNEL.alike)
    assert left[0, 0] == pytest.approx(1.0 - KERNEL.alike**2)


@pytest.mark.parametrize("further", [(18, 23, 1), (19, 20, 1), (20, 23, 1)])
def test_less_is_carried_to_another_ratio_or_compute(further):
    past = known([1.0], (18, 21, 0))
    (here,), (there,) = (past.carried_to(places(place))[0] for place in ((18, 21, 1), further))
    assert 0 < there < here


def test_a_checkpoint_keeps_more_of_its_own_run_than_of_another():
    (own, other), _ = known([1.0], (18, 21, 0)).carried_to(places((18, 21.5, 0), (18, 21.5, 1)))
    assert own > other


def test_seed_noise_hides_what_a_record_has_of_its_own():
    sure, unsure = (known([1.0], (18, 21, 0), noise=noise).carried_to(places((18, 21, 1))) for noise in (0.0, 4.0))
    assert unsure[0][0] == pytest.approx(sure[0][0] / 5)
    assert unsure[1][0, 0] > sure[1][0, 0]


def test_a_freak_moves_its_neighbours_no_further_than_six_deviations_would():
    freak, large = (known([z], (18, 21, 0)).carried_to(places((18, 21, 1)))[0] for z in (1e3, LARGEST))
    np.testing.assert_array_equal(freak, large)


def test_nothing_known_leaves_everything_open():
    nowhere = Places(np.empty(0), np.empty(0), np.empty(0, dtype=np.intp))
    carried, left = Known(KERNEL, nowhere, np.empty(0), np.empty(0)).carried_to(places((18, 21, 0), (19, 22, 1)))
    np.testing.assert_array_equal(carried, 0.0)
    np.testing.assert_array_equal(np.diag(left), 1.0)


def test_replicates_of_one_place_deviate_together():
    _, left = known([0.5], (18, 21, 0)).carried_to(places((19, 22, 1), (19, 22, 2)))
    assert left[0, 1] == pytest.approx(left[0, 0])
