"""Means and intervals over seeds against closed forms."""

import math

import polars as pl
import pytest

from pipelines.paper.item import NUMBERS
from pipelines.paper.published import Published
from pipelines.paper.spread import at_the_end, over_seeds, spread_numbers

T3 = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom


def runs(*values, arm="opd", view="bf16"):
    rows = [{"arm": arm, "seed": seed, "view": view, "value": value} for seed, value in enumerate(values)]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64()})


def test_the_interval_is_students():
    (row,) = over_seeds(runs(1.0, 2.0, 3.0)).iter_rows(named=True)
    half = T3 * 1.0 / math.sqrt(3)
    assert (row["value"], row["seeds"]) == (2.0, 3)
    assert (row["low"], row["high"]) == pytest.approx((2 - half, 2 + half))


def test_on_a_log_axis_mean_and_interval_are_of_logarithms():
    (row,) = over_seeds(runs(1.0, 10.0, 100.0), log=True).iter_rows(named=True)
    half = T3 * math.log(10) / math.sqrt(3)
    assert row["value"] == pytest.approx(10)
    assert (row["low"], row["high"]) == pytest.approx((10 * math.exp(-half), 10 * math.exp(half)))
    assert row["low"] > 0


def test_what_has_no_logarithm_is_left_out_of_a_log_axis():
    (row,) = over_seeds(runs(0.0, 4.0), log=True).iter_rows(named=True)
    assert row["value"] == pytest.approx(4) and (row["low"], row["seeds"]) == (None, 1)
    assert over_seeds(runs(0.0), log=True).is_empty()


def test_one_seed_has_no_interval_and_a_missing_value_is_no_seed():
    (row,) = over_seeds(runs(3.0, None)).iter_rows(named=True)
    assert row == {"arm": "opd", "value": 3.0, "low": None, "high": None, "seeds": 1}


def test_groups_are_kept_apart_and_sorted_and_the_order_of_seeds_changes_no_bit():
    both = pl.concat([runs(0.1, 0.2, 0.3, arm="sft"), runs(0.3, 0.7), runs(1.0, 2.0, view="master")])
    found = over_seeds(both, "view")
    assert found.select("arm", "view").rows() == [("opd", "bf16"), ("opd", "master"), ("sft", "bf16")]
    assert over_seeds(both.reverse(), "view").equals(found)


def test_nothing_stays_nothing_with_its_columns():
    found = over_seeds(runs(1.0).head(0), "view")
    assert found.is_empty() and found.columns == ["arm", "view", "value", "low", "high", "seeds"]


def test_numbers_carry_labels_units_and_the_papers_words():
    said = Published(arm="opd", quantity="q", low=1, high=2, words="1 to 2", known="axis")
    found = spread_numbers(over_seeds(pl.concat([runs(1.0), runs(5.0, arm="sft")]), "view"), "angle", "deg", [said])
    assert found.schema == NUMBERS
    assert found["quantity"].to_list() == ["angle (deg)"] * 2
    assert found.select("arm", "paper").rows() == [("OPD", "1 to 2 (axis ticks)"), ("SFT", "")]


def test_the_end_is_that_of_each_line():
    rows = [("opd", "bf16", 50.0, 1.0), ("opd", "bf16", 100.0, 2.0), ("opd", "master", 75.0, 3.0)]
    found = at_the_end(pl.DataFrame(rows, schema=["arm", "view", "progress", "value"], orient="row"))
    assert found.rows() == [("opd", "bf16", 2.0), ("opd", "master", 3.0)]
