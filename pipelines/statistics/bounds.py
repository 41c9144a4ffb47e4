"""Stored error bounds relative to the values that they bound, at the end of training."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from pipelines.statistics.metrics import END
from pipelines.statistics.samples import arm_rows, final_step, rows_at_share


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One column with the column of its error bound. A bound of `limit` or more is vacuous."""

    words: str
    table: str
    column: str
    error: str
    limit: float | None = None


BOUNDS = (
    Bound(words="largest angle of rotation", table="rotation", column="max_deg", error="error_deg", limit=90.0),
    Bound(words="spectral drift (NSS)", table="spectral_drift", column="nss", error="error"),
    Bound(words="stable rank", table="update_norm", column="stable_rank", error="stable_rank_error"),
    Bound(words="overlap with the final step (Sim_k)", table="locking", column="similarity", error="error", limit=1.0),
)
SCHEMA = pl.Schema(
    {
        "quantity": pl.String(),
        "rows": pl.Int64(),
        "median": pl.Float64(),
        "largest": pl.Float64(),
        "vacuous": pl.Int64(),
        "zero": pl.Int64(),
    }
)


def relative_bounds(tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.DataFrame:
    """One row per quantity that has values: the median and the largest of error / value over decoder projections.

    rows: number of values used; vacuous: values left out because their bound is vacuous; zero: values left out because
    they are 0. The table `locking` contributes the rows that compare with the last step.
    """
    bounds = pl.concat(pl.collect_all([summarise_bounds(bound, tables, arms) for bound in BOUNDS]))
    return bounds.filter(pl.sum_horizontal("rows", "vacuous", "zero") > 0)


def summarise_bounds(bound: Bound, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    value, error = pl.col(bound.column).abs(), pl.col(bound.error)
    rows = arm_rows(tables, bound.table, arms)
    if bound.table == "locking":
        rows = rows.filter(pl.col("step_other") == final_step("locking"))
    else:
        rows = rows_at_share(bound.table, rows, END)
    rows = rows.filter(pl.col(bound.column).is_not_null())
    vacuous = error.is_null() if bound.limit is None else error.is_null() | (error >= bound.limit)
    zero = ~vacuous & (value == 0)
    ratio = (error / value).filter(~vacuous & ~zero)
    counts = {"vacuous": vacuous.sum(), "zero": zero.sum()}
    return rows.select(
        quantity=pl.lit(bound.words),
        rows=ratio.len().cast(pl.Int64()),
        median=ratio.median(),
        largest=ratio.max(),
        **{name: count.cast(pl.Int64()) for name, count in counts.items()},
    ).cast(SCHEMA)
