"""Which layers and roles rotate most? Uses only Polars.

Mean of the 16 principal angles between the leading input subspaces of W0 and of the last snapshot in the bf16 view,
averaged over seeds. `error` is the largest bound on the error of any of these angles.
"""

import polars as pl


def rotating(store: str = ".opd/store") -> pl.LazyFrame:
    """Columns recipe, layer, role, degrees, error, runs, sorted by recipe and descending degrees."""
    rotation = pl.scan_parquet(f"{store}/lake/rotation/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)
    last = pl.col("step") == pl.col("step").max().over("recipe", "seed")
    ends = rotation.filter(last, pl.col("view") == "bf16", pl.col("side") == "input", pl.col("k") == 16)
    means = ends.group_by("recipe", "layer", "role").agg(
        pl.col("mean_deg").mean().alias("degrees"),
        pl.col("error_deg").max().alias("error"),
        pl.col("seed").n_unique().alias("runs"),
    )
    return means.sort("recipe", "degrees", "layer", "role", descending=[False, True, False, False], nulls_last=True)
