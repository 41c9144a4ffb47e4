"""When is the final update's leading subspace in place, beside what storage alone would show? Needs Polars alone.

Sim_16 of the update at a step to the run's last one, input side, mean over the decoder's projections and then over
seeds. `null` is the same of the final update scaled down to the step's norm and rounded to bf16: a direction that never
turns. Where bf16 only follows the null, its rise is rounding; the master says when the direction was there.
"""

import polars as pl


def locking(store: str = ".opd/store") -> pl.LazyFrame:
    """Columns recipe, step, master, bf16, null, chance; fractions, null where a run has no such rows."""

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
