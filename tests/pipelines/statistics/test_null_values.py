"""What the null shows beside the measured series, and the sentence about it."""

import polars as pl
import pytest

from pipelines.statistics import null_values
from pipelines.statistics.series import pool_seeds
from tests.pipelines.planted import STORY


def both(study, name, table):
    return getattr(null_values, name)(study[table], study["nulls"], STORY.core)


def test_the_null_is_the_one_that_never_turns_in_bf16(tiny):
    found = both(tiny, "stable_rank", "update_norm")
    assert found.null["view"].unique().to_list() == ["bf16"]
    assert set(found.measured["view"]) == {"bf16", "master"}
    opd = found.null.filter(pl.col("arm") == "opd", pl.col("seed") == 0)
    assert opd["progress"].to_list() == [5, 10, 25, 50, 100]
    assert opd["value"].to_list() == pytest.approx([4.2 * (1 + 0.4 * (1 - p / 100)) for p in opd["progress"]])


def test_hill_is_compared_at_the_cut_of_the_measured_series(tiny):
    null = pool_seeds(both(tiny, "hill_beside_null", "hill").null)
    first = null.filter(pl.col("progress") == 5)
    assert first["value"].to_list() == pytest.approx([2.38] * 4)  # k = 16, which all shapes have
    one = {**tiny, "hill": tiny["hill"].filter(pl.col("k") == 32)}
    assert pool_seeds(both(one, "hill_beside_null", "hill").null)["value"].max() == pytest.approx(2.76)


def test_the_last_step_is_not_compared_with_itself(tiny):
    found = both(tiny, "locking_beside_null", "locking")
    assert found.null["progress"].max() == found.measured["progress"].max() == 50


def test_the_sentence_has_both_numbers_of_every_arm(tiny, smollm):
    told = null_values.describe_null(both(tiny, "stable_rank", "update_norm"), STORY, 5, 100)
    assert told is not None
    assert "At 5 % and 100 % of the run it shows SFT 7.45 and 5.40 (measured 3.20 and 5.40); OPD 5.80 and" in told
    assert "sft-matched" in told
    other = null_values.describe_null(both(smollm, "locking_beside_null", "locking"), STORY, 10, 25)
    assert other is not None and "At 10 % and 25 %" in other and "sft-matched" not in other


def test_every_run_is_read_at_its_own_nearest_snapshot(tiny):
    moved = pl.when(pl.col("step") == 10, pl.col("seed") == 1).then(14).otherwise(pl.col("step")).cast(pl.Int64)
    moving = {name: tiny[name].with_columns(step=moved) for name in ("nulls", "update_norm")}
    whole = null_values.describe_null(both(tiny, "stable_rank", "update_norm"), STORY, 10, 100)
    assert null_values.describe_null(both({**tiny, **moving}, "stable_rank", "update_norm"), STORY, 10, 100) == whole
    assert null_values.describe_null(both(tiny, "stable_rank", "update_norm"), STORY, 60, 100) is None


def test_an_arm_without_both_shares_is_not_told(tiny):
    late = tiny["nulls"].filter((pl.col("recipe") != "tiny.sft") | (pl.col("step") > 50))
    told = null_values.describe_null(both({**tiny, "nulls": late}, "stable_rank", "update_norm"), STORY, 5, 100)
    assert told is not None and "SFT" not in told and "OPD 5.80 and 4.20" in told


@pytest.mark.parametrize(
    ("name", "table"),
    [("stable_rank", "update_norm"), ("hill_beside_null", "hill"), ("locking_beside_null", "locking")],
)
def test_without_a_null_nothing_is_said(tiny, name, table):
    found = both({**tiny, "nulls": tiny["nulls"].head(0)}, name, table)
    assert found.null.is_empty() and not found.measured.is_empty()
    assert null_values.describe_null(found, STORY, 5, 100) is None
