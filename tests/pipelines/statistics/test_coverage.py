"""The simulated coverage of intervals: what their module says of them, on fewer draws."""

import numpy as np
import polars as pl
import pytest

from pipelines.statistics import intervals
from pipelines.statistics.coverage import FAMILIES, SCHEMA, format_table, measure_coverage, simulate_statistics
from pipelines.statistics.intervals import student_interval


@pytest.fixture(scope="module")
def table():
    return pl.DataFrame(list(measure_coverage(20_000, seeds=(3,))), schema=SCHEMA, orient="row")


def cells(table, name, family):
    return table.row(by_predicate=(pl.col("interval") == name) & (pl.col("family") == family), named=True)


@pytest.mark.parametrize(
    ("family", "covered", "high", "low"),
    [
        ("normal", 0.949, 0.026, 0.025),
        ("binomial", 0.952, 0.024, 0.024),
        ("discrete", 1.0, 0.0, 0.0),
        ("skewed", 0.885, 0.109, 0.006),
    ],
)
def test_students_t_does_at_three_seeds_what_its_module_says(table, family, covered, high, low):
    found = cells(table, "t", family)
    # Four standard errors of 20,000 draws.
    assert (found["covered"], found["too_high"], found["too_low"]) == pytest.approx((covered, high, low), abs=0.009)
    assert found["power"] == pytest.approx(0.80, abs=0.011)
    assert f"{100 * covered:.1f}" in str(intervals.__doc__) and f"{100 * high:.1f}" in str(intervals.__doc__)


@pytest.mark.parametrize(
    ("name", "high", "power"), [("hall", 0.082, 0.61), ("johnson", 0.075, 0.51), ("t99", 0.035, 0.28)]
)
def test_no_candidate_mends_skewed_differences_without_losing_normal_ones(table, name, high, power):
    found = cells(table, name, "skewed")
    assert (found["too_high"], found["power"]) == pytest.approx((high, power), abs=0.015)
    assert found["too_high"] > 0.03 and found["power"] < 0.65


@pytest.mark.parametrize("family", FAMILIES)
def test_the_simulation_decides_as_the_interval_does(family):
    draws = FAMILIES[family](np.random.default_rng(1), (200, 3))
    value, critical = simulate_statistics(draws)["t"]
    for values, one in zip(draws.tolist(), value, strict=True):
        found = student_interval(values)
        high, low = (False, False) if found.low is None else (found.low > 0, found.high < 0)
        assert (high, low) == (one > critical, one < -critical)


def test_every_row_is_told(table):
    assert len(format_table(table).splitlines()) == 1 + table.height == 1 + 4 * len(FAMILIES)
