"""Runs that end at different steps are brought to the same shares before they are averaged."""

import polars as pl
import pytest

from pipelines.statistics.series import align_progress, pool_seeds

COLUMNS = ["arm", "seed", "view", "progress", "value"]


def frame(*rows):
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def seed(number, *points, arm="sft"):
    return [(arm, number, "bf16", progress, value) for progress, value in points]


def test_seeds_with_the_same_shares_stay_as_they_are():
    runs = frame(*seed(0, (5.0, 1.0), (100.0, 2.0)), *seed(1, (5.0, 3.0), (100.0, 5.0)))
    assert align_progress(runs).equals(runs)


def test_a_seed_is_read_off_the_line_between_its_own_points():
    runs = frame(*seed(0, (10.0, 1.0), (50.0, 5.0), (100.0, 10.0)), *seed(1, (20.0, 0.0), (100.0, 8.0)))
    found = align_progress(runs)
    # Shares that both reach: 20, 50 and 100; each seed lies on a straight line.
    assert found.filter(pl.col("seed") == 0)["value"].to_list() == pytest.approx([2.0, 5.0, 10.0])
    assert found.filter(pl.col("seed") == 1)["value"].to_list() == pytest.approx([0.0, 3.0, 8.0])


def test_every_mean_is_over_all_seeds_and_a_straight_line_stays_straight():
    runs = frame(
        *seed(0, *((100 * i / 9, i / 9) for i in range(1, 10))),
        *seed(1, *((100 * i / 8, 2 + i / 8) for i in range(1, 9))),
    )
    found = pool_seeds(runs)
    assert (found["high"] - found["low"]).to_list() == pytest.approx([2.0] * found.height)
    assert found["value"].to_list() == pytest.approx([1 + share / 100 for share in found["progress"]])


def test_arms_and_views_are_apart_and_nothing_stays_nothing():
    runs = frame(*seed(0, (50.0, 1.0)), *seed(0, (60.0, 2.0), arm="opd"))
    assert align_progress(runs).height == 2
    assert align_progress(runs.head(0)).equals(runs.head(0))
