"""When does the update reach its final leading subspace, compared with what storage alone would show? Uses only Polars.

Sim_16 between the update at a step and the run's final update, input side, averaged over the decoder's projections and
then over seeds. `null` is the same for the final update scaled to the step's norm and rounded to bf16, a direction that
never turns. If bf16 follows the null, its rise is due to rounding; the master view shows when the direction was set.
"""

import polars as pl


def locking(store: str = ".opd/store") -> pl.LazyFrame:
    """Columns recipe, step, master, bf16, null, chance. Values are fractions, null if a run has no such rows."""

    def table(name: str) -> pl.LazyFrame:
        return pl.scan_parquet(f"{store}/lake/{name}/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)

    def mean(rows: pl.LazyFrame, *columns: pl.Expr) -> pl.LazyFrame:
        by_run = rows.group_by("recipe", "seed", "step").agg(columns)
        return by_run.group_by("recipe", "step").agg(pl.all().exclude("seed").mean())

    similarity = {view: pl.col("similarity").filter(pl.col("view") == view).mean() for view in ("master", "bf16")}
    to_the_end = pl.col("step_other") == pl.col("step_other").max().over("recipe", "seed")
    rows = table("locking").filter(pl.col("side") == "input", pl.col("k") == 16, to_the_end)
    found = mean(rows, *(expr.alias(view) for view, expr in similarity.items()), pl.col("chance").mean())
    still = table("nulls").filter(pl.col("null") == "fixed_direction", pl.col("similarity_k") == 16)
    null = mean(still, pl.col("similarity_input").mean().alias("null"))
    joined = found.join(null, on=["recipe", "step"], how="left")
    return joined.select("recipe", "step", "master", "bf16", "null", "chance").sort("recipe", "step")
