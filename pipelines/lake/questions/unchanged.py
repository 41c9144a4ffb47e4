"""Which arms leave how many weights unchanged at the end, in bf16 and in the fp32 masters? Needs Polars alone.

Of the decoder's projections, every weight counted once, then the mean over seeds. Weights that rounding to bf16 hides
are unchanged in bf16 and changed in the master. A run that stored bf16 alone has no master: null.
"""

import polars as pl


def unchanged(store: str = ".opd/store") -> pl.LazyFrame:
    """Columns recipe, runs, bf16, master; fractions."""
    support = pl.scan_parquet(f"{store}/lake/update_support/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)
    run = ["recipe", "seed"]
    share = (pl.col("unchanged") * pl.col("numel")).sum() / pl.col("numel").sum()
    ends = support.filter(pl.col("scope") == "projection", pl.col("step") == pl.col("step").max().over(run))
    by_run = ends.group_by(*run, "view").agg(share.alias("kept"))
    views = [pl.col("kept").filter(pl.col("view") == view).mean().alias(view) for view in ("bf16", "master")]
    return by_run.group_by("recipe").agg(pl.col("seed").n_unique().alias("runs"), *views).sort("bf16", "recipe")
