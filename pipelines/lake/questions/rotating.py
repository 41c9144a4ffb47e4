"""Which layers and roles rotate most? Needs Polars alone.

Mean of the 16 principal angles between the leading input subspaces of W0 and the last snapshot as it is served (bf16),
mean over seeds. `error` is the largest bound on the error of any of these angles.
"""

import polars as pl


def rotating(store: str = ".opd/store") -> pl.LazyFrame:
    """Columns recipe, layer, role, degrees, error, runs; the most rotated of each arm first, degrees."""
    rotation = pl.scan_parquet(f"{store}/lake/rotation/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)
    last = pl.col("step") == pl.col("step").max().over("recipe", "seed")
    ends = rotation.filter(last, pl.col("view") == "bf16", pl.col("side") == "input", pl.col("k") == 16)
    found = ends.group_by("recipe", "layer", "role").agg(
        pl.col("mean_deg").mean().alias("degrees"),
        pl.col("error_deg").max().alias("error"),
        pl.col("seed").n_unique().alias("runs"),
    )
    return found.sort("recipe", "degrees", "layer", "role", descending=[False, True, False, False], nulls_last=True)
