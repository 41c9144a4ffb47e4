"""What is in the tables."""

import polars as pl
import pytest

from pipelines.statistics.inventory import accuracy_rows, compare_starts, count_missing, describe_arms
from tests.pipelines.planted import STORY


def test_runs_list_seeds_and_steps(tiny):
    table = describe_arms(tiny, STORY.core)
    assert table["arm"].to_list() == ["sft", "opd", "rlvr", "sft-matched"]
    assert table["seeds"].unique().to_list() == ["0, 1, 2"]
    assert table["run_steps"].to_list() == ["200", "100", "100", "100"]


def test_starts_are_told_apart_by_the_norm_of_w0(tiny, smollm):
    assert compare_starts(tiny, STORY.core, "opd") == {"sft": False, "opd": True, "rlvr": True, "sft-matched": True}
    assert compare_starts(smollm, STORY.core, "opd") == {"sft": True, "opd": True, "rlvr": True}
    assert compare_starts({}, STORY.core, "opd") == {}


def test_evaluations_go_from_before_to_after(tiny):
    table = accuracy_rows(tiny, STORY.core)
    row = table.row(by_predicate=(pl.col("arm") == "rlvr") & (pl.col("temperature") == 1.0), named=True)
    assert (row["before"], row["after"], row["n"], row["seeds"]) == (pytest.approx(0.52), pytest.approx(0.70), 400, 3)
    assert row["half"] > 0
    assert table["temperature"].to_list() == [1.0] * 4 + [0.0] * 4


def test_an_arm_without_a_start_has_no_before(tiny):
    late = {"evaluation": tiny["evaluation"].filter(pl.col("step") > 0)}
    assert accuracy_rows(late, STORY.core)["before"].is_null().all()


def test_missing_values_are_counted_by_reason(tiny):
    table = count_missing(tiny, STORY.all_arms)
    row = table.row(by_predicate=(pl.col("table") == "update_norm") & (pl.col("view") == "bf16"), named=True)
    assert (row["reason"], row["rows"], row["of"]) == ("zero update", 48, 288)  # 12 runs x 4 matrices, of 6 steps
    assert set(table["table"]) == {"update_norm", "hill"}
    assert count_missing({}, STORY.all_arms).is_empty()
