"""Runs that do not count are named where a report is read: copies of another seed, and runs whose rows end early."""

import polars as pl

from pipelines.statistics.exclusions import describe_exclusions, find_exclusions
from pipelines.statistics.headline import headline_rows
from pipelines.statistics.power import power_rows
from tests.pipelines.planted import STORY


def copied(tables, arm):
    """Seed 1 of an arm replaced by its seed 0."""
    mine = pl.col("recipe") == f"tiny.{arm}"
    again = {
        name: f.filter(mine, pl.col("seed") == 0).with_columns(seed=pl.lit(1, pl.Int64())) for name, f in tables.items()
    }
    return {
        name: pl.concat([frame.filter(~(mine & (pl.col("seed") == 1))), again[name]]) for name, frame in tables.items()
    }


def test_honest_runs_are_none(tiny, every):
    assert (
        find_exclusions(tiny, STORY.all_arms) == find_exclusions(every, STORY.all_arms) == []
        and describe_exclusions([]) == ""
    )


def test_a_copy_is_named_and_leaves_the_headline_and_the_power_table(tiny):
    tables = copied(tiny, "opd")
    assert (
        describe_exclusions(find_exclusions(tables, STORY.all_arms))
        == "left out: opd seed 1 has the same weights as seed 0"
    )
    counts = dict(headline_rows("tiny", tables, STORY).group_by("arm").agg(pl.col("seeds").max()).iter_rows())
    assert counts == {"sft": 3, "opd": 2, "rlvr": 3, "sft-matched": 3}
    assert dict(power_rows(tables, STORY.all_arms, "opd").select("arm", "seeds").iter_rows()) == counts


def test_a_run_that_ends_early_is_named_by_table_with_both_steps(tiny):
    short = pl.col("recipe").eq("tiny.rlvr") & pl.col("seed").eq(2) & pl.col("step").gt(50)
    tables = tiny | {name: tiny[name].filter(~short) for name in ("rotation", "evaluation")}
    assert list(map(str, find_exclusions(tables, STORY.all_arms))) == [
        "rlvr seed 2 has rows of evaluation up to step 0 of 100",
        "rlvr seed 2 has rows of rotation up to step 50 of 100",
    ]
    table = headline_rows("tiny", tables, STORY).filter(arm="rlvr")
    seeds = dict(table.select("metric", "seeds").iter_rows())
    assert seeds["rotation, input side, bf16, k 16"] == 2 and seeds["final accuracy at T=1"] == 2
    assert seeds["relative norm of the update, bf16"] == 3 and seeds["starting accuracy at T=1"] == 3
