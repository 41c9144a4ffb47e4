"""Which arms leave how many weights unchanged at the end, in bf16 and in the fp32 masters? Uses only Polars.

The fraction over all weights of the decoder's projections, averaged over seeds. A change that rounding to bf16 hides
counts as unchanged in bf16 and as changed in the master. master is null for runs that stored only bf16.
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
