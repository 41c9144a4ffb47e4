"""Error bounds relative to values: which rows count, and which are left out and counted."""

import polars as pl
import pytest

from pipelines.statistics.bounds import SCHEMA, relative_bounds
from tests.pipelines.planted import STORY


def row(table: pl.DataFrame, quantity: str) -> dict:
    return table.row(by_predicate=pl.col("quantity").str.starts_with(quantity), named=True)


def test_bounds_are_relative_and_at_the_end(tiny):
    table = relative_bounds(tiny, STORY.all_arms)
    assert table.schema == SCHEMA
    assert table["median"].to_list()[:3] == pytest.approx([1e-3, 1e-9, 1e-6])
    drift = row(table, "spectral drift")
    assert (drift["rows"], drift["vacuous"], drift["zero"]) == (12 * 3 * 2, 0, 0)  # runs x projections x views


def test_bounds_that_say_nothing_are_left_out_and_counted(tiny):
    table = relative_bounds(tiny, STORY.all_arms)
    angle, overlap = row(table, "largest angle"), row(table, "overlap")
    # Planted: one of three projections has no bound on the output side.
    assert (angle["rows"], angle["vacuous"]) == (12 * 5 * 2, 12 * 2)
    assert (overlap["rows"], overlap["vacuous"]) == (12 * 5 * 2 * 4, 12 * 2 * 4)
    assert angle["largest"] == pytest.approx(1e-3)
    assert overlap["largest"] == pytest.approx(1e-4 / (0.57 * 0.998 * 1.01))


def test_median_and_largest_differ_where_a_matrix_does(tiny):
    worse = pl.when(pl.col("role") == "gate").then(0.5 * pl.col("nss")).otherwise(pl.col("error"))
    found = relative_bounds({"spectral_drift": tiny["spectral_drift"].with_columns(error=worse)}, STORY.all_arms)
    assert found.rows() == [("spectral drift (NSS)", 72, pytest.approx(1e-9), pytest.approx(0.5), 0, 0)]


def test_a_value_of_zero_and_a_missing_bound_are_counted_apart(tiny):
    unmoved = pl.when(pl.col("role") == "q").then(0.0).otherwise(pl.col("nss"))
    unknown = pl.when(pl.col("role") != "k").then(pl.col("error"))
    frame = tiny["spectral_drift"].with_columns(nss=unmoved, error=unknown)
    found = row(relative_bounds({"spectral_drift": frame}, STORY.all_arms), "spectral drift")
    assert (found["rows"], found["vacuous"], found["zero"]) == (24, 24, 24)


def test_matrices_without_a_value_are_in_no_count(tiny):
    gone = pl.when(pl.col("role") != "k").then(pl.col("stable_rank"))
    found = row(
        relative_bounds({"update_norm": tiny["update_norm"].with_columns(stable_rank=gone)}, STORY.all_arms),
        "stable rank",
    )
    assert (found["rows"], found["vacuous"], found["zero"]) == (48, 0, 0)


def test_no_tables_have_no_bounds():
    assert relative_bounds({}, STORY.all_arms).is_empty()
