"""Coefficients against scipy's, resamples against repeated data, and permutations that move whole clusters."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from pipelines.regimes.prediction.correlation import (
    _correlation,
    bootstrap_interval,
    permutation_p,
    spearman_and_pearson,
)

ARMS = np.repeat(np.arange(6), 3)
SEEDS = np.tile(np.arange(3), 6)


@pytest.mark.parametrize(("coefficient", "known"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_coefficients_are_scipys_ties_included(coefficient, known):
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.normal(size=12), rng.integers(0, 4, 12).astype(float)
        assert spearman_and_pearson(x, y, coefficient) == pytest.approx(known(x, y).statistic)


@pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
def test_a_weight_is_so_many_copies(coefficient):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=8), rng.normal(size=8)
    weight = np.array([[0, 2, 1, 3, 0, 1, 1, 4]])
    copies = np.repeat(np.arange(8), weight[0])
    found = _correlation(x, y, weight.astype(float), coefficient)
    assert found[0] == pytest.approx(spearman_and_pearson(x[copies], y[copies], coefficient))


@pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
def test_a_side_that_does_not_vary_has_no_correlation(coefficient):
    assert np.isnan(spearman_and_pearson(np.arange(5.0), np.full(5, 0.1), coefficient))
    assert bootstrap_interval(np.arange(18.0), np.full(18, 0.1), ARMS, SEEDS, coefficient) is None


def test_a_perfect_line_has_a_perfect_interval_and_the_smallest_p():
    x = ARMS + 0.1 * SEEDS
    assert bootstrap_interval(x, 2 * x, ARMS, SEEDS, "pearson") == pytest.approx((1.0, 1.0))
    # 720 orders of six arms, of which this one correlates best.
    assert permutation_p(x, 2 * x, ARMS, SEEDS, "pearson") == pytest.approx(1 / 720, abs=2e-3)


def test_copies_of_an_arm_are_no_evidence():
    rng = np.random.default_rng(1)
    x = rng.normal(size=6)
    y = rng.normal(size=6)
    thrice = permutation_p(np.repeat(x, 3), np.repeat(y, 3), ARMS, SEEDS, "pearson")
    once = permutation_p(x, y, np.arange(6), np.zeros(6), "pearson")
    assert thrice == pytest.approx(once, abs=0.03)


def test_three_seeds_cannot_say_more_than_one_in_six():
    rng = np.random.default_rng(1)
    start = np.array([0.0, 1.0, 3.0])
    x = start[SEEDS] + 1e-3 * rng.normal(size=18)
    assert spearman_and_pearson(x, start[SEEDS], "pearson") > 0.999
    assert permutation_p(x, start[SEEDS], SEEDS, ARMS, "pearson") == pytest.approx(1 / 6, abs=0.02)


def test_units_are_exchanged_with_those_that_have_the_same_cells_only():
    units, cells = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    x = np.array([0.0, 0.0, 1.0, 1.0, 5.0])
    assert permutation_p(x, x, units, cells, "pearson") == pytest.approx(1 / 2, abs=0.02)


def test_unrelated_numbers_have_uniform_p_and_intervals_that_hold_zero():
    p, held = [], 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        x, y = (rng.normal(size=6)[ARMS] + 0.3 * rng.normal(size=18) for _ in range(2))
        p.append(permutation_p(x, y, ARMS, SEEDS, "pearson"))
        interval = bootstrap_interval(x, y, ARMS, SEEDS, "pearson")
        assert interval is not None
        low, high = interval
        held += low <= 0 <= high
    assert np.mean(np.array(p) < 0.25) == pytest.approx(0.25, abs=0.15)  # 60 trials: standard error 0.056
    assert held >= 51  # 95 % of 60 is 57, and six arms are few


def test_the_same_data_give_the_same_numbers():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=18), rng.normal(size=18)
    for coefficient in ("pearson", "spearman"):
        assert bootstrap_interval(x, y, ARMS, SEEDS, coefficient) == bootstrap_interval(x, y, ARMS, SEEDS, coefficient)
        assert permutation_p(x, y, ARMS, SEEDS, coefficient) == permutation_p(x, y, ARMS, SEEDS, coefficient)
