"""The headline table, numeric and as text."""

import polars as pl
import pytest

from pipelines.statistics.headline import SCHEMA, format_grid, headline_rows, render_markdown
from tests.pipelines.planted import STORY


def test_values_intervals_and_paper_stand_side_by_side(tiny):
    table = headline_rows("tiny", tiny, STORY)
    assert table.schema == SCHEMA
    row = table.row(by_predicate=(pl.col("metric") == "unchanged weights, bf16") & (pl.col("arm") == "opd"), named=True)
    assert row["value"] == pytest.approx(0.049)
    assert row["low"] < 0.049 < row["high"]
    assert (row["seeds"], row["paper"], row["unit"]) == (3, "51.6 %", "percent")


def test_the_paper_has_no_master_view_and_no_control(tiny):
    table = headline_rows("tiny", tiny, STORY)
    unpublished = table.filter(pl.col("metric").str.contains("master") | (pl.col("arm") == "sft-matched"))
    assert unpublished["paper"].is_null().all()


def test_one_seed_has_values_but_no_intervals(smollm):
    table = headline_rows("smollm", smollm, STORY)
    assert table["value"].null_count() == 0
    assert table.select(pl.col("low", "high").is_null().all()).row(0) == (True, True)
    lines = format_grid(table, STORY)
    assert lines[0] == ["metric", "SFT", "OPD", "RLVR", "paper, 8B: SFT / OPD / RLVR"]
    assert lines[1][1:4] == ["89.3 %", "91.6 %", "92.5 %"]
    assert any(line[0] == "rotation, input side, bf16, k 64" for line in lines)


def test_the_texts_hold_every_cell(tiny):
    table = headline_rows("tiny", tiny, STORY)
    lines, marked = format_grid(table, STORY), render_markdown(table, STORY)
    for text in (text for line in lines for text in line):
        assert text in marked
    assert len(marked.splitlines()) == len(lines) + 1
    assert len({line.count("|") for line in marked.splitlines()}) == 1


def test_no_tables_give_no_rows():
    assert headline_rows("tiny", {}, STORY).is_empty()
    assert format_grid(headline_rows("tiny", {}, STORY), STORY) == [["metric"]]
