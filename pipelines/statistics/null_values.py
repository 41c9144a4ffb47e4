"""Series of the update and of its null: the final update, rescaled to the norm at each step and rounded to bf16.

The direction of the null never changes, so its changes in bf16 come from rounding alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean

import polars as pl

from pipelines.statistics.numbers import format_quantity
from pipelines.statistics.samples import NEARBY
from pipelines.statistics.series import progress_rows, shared_cut
from pipelines.studies.story import Story

SIMILARITY_K = 16


@dataclass(frozen=True, kw_only=True)
class SeriesWithNull:
    """The measured series and its null, both as in `series.progress_rows`. The null has only the bf16 view and may be
    empty."""

    measured: pl.DataFrame
    null: pl.DataFrame


def unturned_null(nulls: pl.LazyFrame) -> pl.LazyFrame:
    return nulls.filter(pl.col("null") == "fixed_direction", pl.col("view") == "bf16")


def stable_rank(update_norm: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str]) -> SeriesWithNull:
    return SeriesWithNull(
        measured=progress_rows("update_norm", update_norm, "stable_rank", arms),
        null=progress_rows("nulls", unturned_null(nulls), "stable_rank", arms),
    )


def hill_beside_null(hill: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str]) -> SeriesWithNull:
    """At the smallest k that all matrices of `arms` share."""
    cut = pl.lit(shared_cut("hill", hill, "k", arms), pl.Int64())
    null = unturned_null(nulls).explode("hill_k", "hill").filter(pl.col("hill_k") == cut)
    return SeriesWithNull(
        measured=progress_rows("hill", hill.filter(pl.col("k") == cut), "hill", arms),
        null=progress_rows("nulls", null, "hill", arms),
    )


def locking_beside_null(locking: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str]) -> SeriesWithNull:
    """Sim_16 of the input side to the last step. The last step itself is left out: there Sim_16 is 1 by definition."""
    rows = locking.filter(pl.col("side") == "input", pl.col("k") == SIMILARITY_K)
    alike = unturned_null(nulls).filter(pl.col("similarity_k") == SIMILARITY_K)
    null = progress_rows("nulls", alike, "similarity_input", arms)
    return SeriesWithNull(
        measured=progress_rows("locking", rows, "similarity", arms), null=null.filter(pl.col("progress") < 100)
    )


def describe_null(both: SeriesWithNull, story: Story, early: int, late: int) -> str | None:
    """Null and measured value of each arm at two shares of the run (%), as a sentence; None without a null."""
    pairs = both.null.join(both.measured, on=("arm", "seed", "view", "progress"), suffix="_measured")
    phrases = []
    arms = set(pairs["arm"])
    for key in (*sorted(arms - set(story.core)), *(arm for arm in story.core if arm in arms)):
        arm_values = pairs.filter(pl.col("arm") == key)
        ends = [point for share in (early, late) if (point := compare_at(arm_values, share)) is not None]
        if len(ends) == 2:
            null, seen = (
                " and ".join(format_quantity(value, "") for value in both_ends) for both_ends in zip(*ends, strict=True)
            )
            phrases.append(f"{story.label(key)} {null} (measured {seen})")
    if not phrases:
        return None
    return (
        "Thin dashed, in bf16: the final update, rescaled to its size at each step and rounded again, so its direction "
        f"never turns. At {early} % and {late} % of the run it shows {'; '.join(phrases)}. "
        "Where the two agree, rounding alone explains the bf16 curve."
    )


def compare_at(pairs: pl.DataFrame, share: int) -> tuple[float, float] | None:
    """Null and measured value at a share of the run (%): as in `samples.at`, each run's nearest snapshot, averaged."""
    away = (pl.col("progress") - share).abs()
    near = pairs.filter(away <= 100 * NEARBY + 1e-9).sort("seed", away, "progress").unique("seed", keep="first")
    if near.is_empty():
        return None
    return fmean(near.sort("seed")["value"]), fmean(near.sort("seed")["value_measured"])
