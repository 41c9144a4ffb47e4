"""The Student-t interval over seeds."""

import numpy as np
import pytest
from scipy.stats import t as student

from pipelines.report.intervals import interval


def test_agrees_with_scipy():
    values = [0.31, 0.29, 0.36, 0.33]
    found = interval(values)
    low, high = student.interval(0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2)
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 4)
    assert found.half == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval():
    found = interval([0.5])
    assert (found.mean, found.low, found.high, found.half) == (0.5, None, None, None)


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_three_seeds_cover_about_95_percent():
    draws = np.random.default_rng(0).normal(size=(2000, 3)).tolist()
    covered = [found.low <= 0 <= found.high for found in map(interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)  # three standard errors of 2000 draws
