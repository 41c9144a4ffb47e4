"""The mean over seeds and its 95 % Student-t interval."""

import math
from collections.abc import Sequence

import polars as pl

from pipelines.paper.item import NUMBERS
from pipelines.paper.palette import arm_style
from pipelines.paper.published import Published
from pipelines.statistics.intervals import student_interval


def over_seeds(runs: pl.DataFrame, *keys: str, log: bool = False) -> pl.DataFrame:
    """`runs` (columns arm, seed, value and `keys`) over seeds: columns arm, `keys`, value, low, high, seeds.

    low and high are null for one seed. log: mean and interval are those of logarithms, and values that have none are
    left out, so that an interval on a log axis stays positive.
    """
    runs = runs.drop_nulls("value").sort("arm", *keys, "seed")
    if log:
        runs = runs.filter(pl.col("value") > 0).with_columns(pl.col("value").log())
    pooled_rows = []
    for group, rows in runs.group_by("arm", *keys, maintain_order=True):
        interval = student_interval(rows["value"].to_list())
        ends = (interval.mean, interval.low, interval.high)
        shown = tuple(None if end is None else math.exp(end) if log else end for end in ends)
        pooled_rows.append((*group, *shown, interval.n))
    kinds = {name: runs.schema[name] for name in ("arm", *keys)}
    numbers = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "seeds": pl.Int64()}
    return pl.DataFrame(pooled_rows, schema=kinds | numbers, orient="row")


def spread_numbers(pooled: pl.DataFrame, words: str, unit: str, reported: Sequence[Published]) -> pl.DataFrame:
    """Rows of `over_seeds`, with or without a column view, as rows of NUMBERS with the published values.

    unit: in words, empty for a ratio.
    """
    arms = pooled["arm"].unique().to_list()
    labels = {arm: arm_style(arm).label for arm in arms}
    published_words = {
        arm: "; ".join(published.description for published in reported if published.arm == arm) for arm in arms
    }
    return pooled.select(
        quantity=pl.lit(f"{words} ({unit})" if unit else words),
        arm=pl.col("arm").replace_strict(labels, return_dtype=pl.String()),
        view=pl.col("view") if "view" in pooled.columns else pl.lit("bf16"),
        value="value",
        low="low",
        high="high",
        seeds="seeds",
        paper=pl.col("arm").replace_strict(published_words, return_dtype=pl.String()),
    ).cast(NUMBERS)  # type: ignore[arg-type]


def at_the_end(pooled: pl.DataFrame) -> pl.DataFrame:
    """The last point of each line."""
    last = pl.col("progress") == pl.col("progress").max().over("arm", "view")
    return pooled.filter(last).drop("progress")
