"""The Student-t interval over seeds, the bootstrap beside it, and the standardised effect."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from pipelines.statistics.intervals import EXACT, bootstrap_interval, effect_size, resamples, student_interval


def test_agrees_with_scipy():
    values = [0.31, 0.29, 0.36, 0.33]
    found = student_interval(values)
    low, high = student.interval(0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2)
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 4)
    assert found.half == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval_no_bootstrap_and_no_size():
    found = student_interval([0.5])
    assert (found.mean, found.low, found.high, found.half) == (0.5, None, None, None)
    assert bootstrap_interval([0.5]) is None and effect_size([0.5]) is None


@pytest.mark.parametrize("made", [student_interval, bootstrap_interval])
def test_no_value_is_an_error(made):
    with pytest.raises(ValueError, match="at least one"):
        made([])


def test_every_resample_of_few_values_is_taken():
    assert [tuple(row) for row in resamples(3)] == list(itertools.product(range(3), repeat=3))
    assert resamples(EXACT).shape == (46_656, EXACT)
    assert resamples(EXACT + 1).shape == (10_000, EXACT + 1)


def test_the_bootstrap_of_three_runs_from_the_smallest_to_the_largest():
    # 1 of 27 resamples is (-1, -1, -1), which is more than 2.5 %.
    assert bootstrap_interval([0.4, -1.0, 2.5]) == pytest.approx((-1.0, 2.5))


def test_the_bootstrap_of_four_by_hand():
    # Sums of four of {0, 0, 0, 1} are binomial(4, 1/4): P(0) = 0.316, P(<= 2) = 0.949, P(<= 3) = 0.996.
    assert bootstrap_interval([0.0, 1.0, 0.0, 0.0]) == (0.0, 0.75)


def test_drawn_resamples_come_near_the_enumerated_and_are_the_same_each_time():
    values = list(np.random.default_rng(5).normal(size=12))
    low, high = bootstrap_interval(values) or (0.0, 0.0)
    expected = np.mean(values) + np.array([-1.96, 1.96]) * np.std(values) / np.sqrt(12)
    # The bootstrap distribution of 12 values is close to normal, with the spread over n, not n - 1.
    assert (low, high) == pytest.approx(tuple(expected), abs=0.1)
    assert bootstrap_interval(values) == (low, high)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=4), st.floats(-10, 10), st.randoms())
def test_the_bootstrap_moves_mirrors_and_forgets_the_order(values, shift, order):
    low, high = bootstrap_interval(values) or (0.0, 0.0)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval([shift + value for value in values]) == pytest.approx(
        (low + shift, high + shift), abs=1e-9
    )
    assert bootstrap_interval([-value for value in values]) == pytest.approx((-high, -low), abs=1e-9)
    shuffled = sorted(values, key=lambda _: order.random())
    assert bootstrap_interval(shuffled) == (low, high)


@pytest.mark.parametrize(("seeds", "covered_by_bootstrap"), [(3, 0.75), (5, 0.83)])
def test_t_covers_what_it_says_and_the_bootstrap_does_not(seeds, covered_by_bootstrap):
    draws = np.random.default_rng(0).normal(size=(2000, seeds)).tolist()
    t = np.mean([found.low <= 0 <= found.high for found in map(student_interval, draws)])
    intervals = [interval for interval in map(bootstrap_interval, draws) if interval]
    percentile = np.mean([low <= 0 <= high for low, high in intervals])
    assert t == pytest.approx(0.95, abs=0.015)  # three standard errors of 2000 draws
    assert percentile == pytest.approx(covered_by_bootstrap, abs=0.03)


def test_size_is_the_mean_in_units_of_the_spread():
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert effect_size([-1.0, -2.0, -3.0]) == pytest.approx(-2.0)
    assert effect_size([0.5, 0.5]) is None


@pytest.mark.parametrize("values", [[0.1, float("nan"), 0.2], [float("inf"), float("-inf")], [0.1, float("inf"), 0.2]])
def test_values_that_are_not_finite_have_no_interval(values):
    found = student_interval(values)
    assert np.isnan(found.mean) and (found.low, found.high, found.n) == (None, None, len(values))
    assert bootstrap_interval(values) is None and effect_size(values) is None


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.3, 0.3, 0.3], None),
        ([0.1 + 0.2 - 0.3] * 3, None),
        ([0.0, 5.6e-17, 1.1e-16], 0.3),
        ([2.0, 2.0 + 1e-12], None),
    ],
)
def test_equal_values_have_no_interval(values, scale):
    found = student_interval(values, scale=scale)
    assert (found.low, found.high) == (None, None) and found.mean == pytest.approx(np.mean(values), abs=1e-15)
    assert effect_size(values, scale) is None


def test_a_small_spread_of_small_values_is_one():
    assert student_interval([1e-20, 1.1e-20, 0.9e-20]).half == pytest.approx(4.302653 * 1e-21 / np.sqrt(3))
