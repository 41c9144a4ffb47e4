"""Readings: what a guard-rail looks at, one number per snapshot, view and quantity.

Means over the decoder projections where all have a value; `earlier` is the last snapshot between a quarter and half of
the steps (`opd_ops.recipe.reaction.earlier`), so that the spacing of snapshots does not decide the numbers:

    stable_rank           of W_t - W_0
    stable_rank_ratio     the same over that of `earlier`: what the seeds' starts do to the level cancels
    similarity_previous   Sim_16, input side, to `earlier`
    similarity_projected  Sim_16, input side, to the projected end (`opd_ops.geometry.projected`), which needs weights
    relative_norm         ||W_t - W_0|| / ||W_0||

In the bf16 view rounding moves all of them while the update is small; read beside master.
"""

import polars as pl

from opd_ops.recipe.reaction import earlier
from opd_ops.roles import PROJECTIONS
from pipelines.statistics.samples import RUN, weighted_mean

RANK = 16  # of the similarities
MEASURED = ("stable_rank", "stable_rank_ratio", "similarity_previous", "relative_norm")  # tables suffice for these
QUANTITIES = (*MEASURED, "similarity_projected")
READINGS = pl.Schema(
    {
        "recipe": pl.String(),
        "seed": pl.Int64(),
        "step": pl.Int64(),
        "view": pl.String(),
        "relative_norm": pl.Float64(),
        "quantity": pl.String(),
        "value": pl.Float64(),
    }
)


def read_quantities(norms: pl.DataFrame, locking: pl.DataFrame) -> pl.DataFrame:
    """The MEASURED quantities of runs, schema READINGS, from their rows of `update_norm` and `locking`."""
    rows = norms.filter(pl.col("role").is_in(PROJECTIONS), pl.col("step") > 0)
    readings = rows.group_by(*RUN, "step", "view").agg(
        relative_norm=_complete_means("relative_norm"), stable_rank=_complete_means("stable_rank")
    )
    readings = readings.join(_earlier_steps(readings), on=(*RUN, "step"))
    before = readings.select(*RUN, "view", pl.col("step").alias("earlier"), pl.col("stable_rank").alias("before"))
    pairs = locking.filter(pl.col("role").is_in(PROJECTIONS), pl.col("side") == "input", pl.col("k") == RANK)
    similar = pairs.group_by(*RUN, "view", "step", "step_other").agg(similarity_previous=_complete_means("similarity"))
    similar = similar.rename({"step": "earlier", "step_other": "step"})
    readings = readings.join(before, on=(*RUN, "view", "earlier"), how="left")
    readings = readings.join(similar, on=(*RUN, "view", "earlier", "step"), how="left")
    readings = readings.with_columns(stable_rank_ratio=pl.col("stable_rank") / pl.col("before"))
    keys = (*RUN, "step", "view", "relative_norm")
    each = [readings.select(*keys, quantity=pl.lit(name), value=pl.col(name)) for name in MEASURED]
    return order_readings(pl.concat(each))


def order_readings(readings: pl.DataFrame) -> pl.DataFrame:
    """By run, view, quantity and step."""
    return readings.sort(*RUN, "view", "quantity", "step")


def _complete_means(column: str) -> pl.Expr:
    """The mean over matrices, where every one has a value: a mean over another set would be another quantity."""
    return pl.when(pl.col(column).is_not_null().all()).then(weighted_mean(column, "matrix"))


def _earlier_steps(readings: pl.DataFrame) -> pl.DataFrame:
    """recipe, seed, step, earlier; null where there is none."""
    rows = []
    for (recipe, seed), run in readings.partition_by(RUN, as_dict=True).items():
        steps = sorted(run["step"].unique())
        rows += [(recipe, seed, step, earlier(steps, step)) for step in steps]
    kinds = {"recipe": pl.String(), "seed": pl.Int64(), "step": pl.Int64(), "earlier": pl.Int64()}
    return pl.DataFrame(rows, schema=kinds, orient="row")
