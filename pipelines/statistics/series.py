"""The numbers the figures draw: means over matrices per run, then the mean and the range over seeds."""

from collections.abc import Collection

import numpy as np
import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.samples import arm_rows, final_step, rows_at_largest_cut, rows_at_share, weighted_mean


def over_seeds(runs: pl.LazyFrame, *keys: str) -> pl.DataFrame:
    """Mean, lowest and highest of `value` over seeds for each arm and `keys`."""
    value = pl.col("value")
    seeds = runs.drop_nulls("value").group_by("arm", *keys)
    return (
        seeds.agg(value=weighted_mean("value", "seed"), low=value.min(), high=value.max()).sort("arm", *keys).collect()
    )


def shared_cut(name: str, frame: pl.LazyFrame, cut: str, arms: Collection[str]) -> int | None:
    """The smallest value of `cut` that the most projection matrices have; a cut that depends on the shape covers only
    some matrices."""
    counted = arm_rows({name: frame}, name, arms).group_by(cut).agg(matrices=pl.col("matrix").n_unique())
    best = counted.drop_nulls().sort("matrices", cut, descending=[True, False]).select(cut).head(1).collect()
    return None if best.is_empty() else best.item()


def progress_rows(
    name: str, frame: pl.LazyFrame, column: str, arms: Collection[str], *, weight: str | None = None
) -> pl.DataFrame:
    """`column` of every run of `arms` against the share of it: columns arm, seed, view, progress in %, value.

    Step 0 is left out. Values are means over projection matrices, weighted by `weight` if set. In a table that compares
    two steps, the later step is the last.
    """
    rows = arm_rows({name: frame}, name, arms).with_columns(final=final_step(name))
    if "step_other" in TABLES[name].schema:
        rows = rows.filter(pl.col("step_other") == pl.col("final"))
    rows = rows.filter(pl.col("step") > 0, pl.col(column).is_not_null())
    share = 100 * pl.col("step") / pl.col("final")
    keys = ("arm", "seed", "view", "progress")
    runs = rows.with_columns(progress=share).group_by(keys).agg(value=weighted_mean(column, "matrix", weight))
    return runs.drop_nulls("value").sort(keys).collect()


def align_progress(runs: pl.DataFrame) -> pl.DataFrame:
    """Interpolate `progress_rows` so that all seeds of an arm have values at the same shares of the run.

    Gated runs end at different steps. The shares are the union over seeds, up to the share that every seed reaches.
    Missing values are interpolated linearly.
    """
    aligned = [runs.head(0)]
    for _, arm in runs.group_by("arm", "view", maintain_order=True):
        seeds = [seed.sort("progress") for seed in arm.partition_by("seed")]
        first = max(seed["progress"][0] for seed in seeds)
        last = min(seed["progress"][-1] for seed in seeds)
        shares = arm["progress"].unique().sort()
        shares = shares.filter((shares >= first) & (shares <= last))
        for seed in seeds:
            values = np.interp(shares, seed["progress"], seed["value"])
            same = [pl.lit(seed[column][0], runs.schema[column]).alias(column) for column in ("arm", "seed", "view")]
            aligned.append(pl.DataFrame({"progress": shares, "value": values}).select(*same, "progress", "value"))
    return pl.concat(aligned)


def pool_seeds(runs: pl.DataFrame) -> pl.DataFrame:
    """`progress_rows` over seeds (columns arm, view, progress, value, low, high)."""
    return over_seeds(align_progress(runs).lazy(), "view", "progress")


def angle_profile(rotation: pl.LazyFrame, arms: Collection[str]) -> pl.DataFrame:
    """Final principal angles by index (columns arm, view, index from 1, value, low, high in degrees), input side.

    The dimension k is the largest with the fewest missing rows; per run the mean over projection matrices.
    """
    rows = rows_at_share(
        "rotation", arm_rows({"rotation": rotation}, "rotation", arms).filter(pl.col("side") == "input"), 1.0
    )
    rows = rows_at_largest_cut(rows, "k", "mean_deg").filter(pl.col("angles_deg").list.len() > 0)
    angles = rows.with_columns(index=pl.int_ranges(1, pl.col("angles_deg").list.len() + 1)).explode(
        "angles_deg", "index"
    )
    runs = angles.group_by("arm", "seed", "view", "index").agg(value=weighted_mean("angles_deg", "matrix"))
    return over_seeds(runs.filter(pl.col("value") > 0), "view", "index")


def by_role(
    name: str, frame: pl.LazyFrame, column: str, arms: Collection[str], *, weight: str | None = None
) -> pl.DataFrame:
    """The final value of `column` in the bf16 view by role (columns arm, role, value, low, high)."""
    rows = arm_rows({name: frame}, name, arms).filter(pl.col("view") == "bf16")
    if "side" in TABLES[name].schema:
        rows = rows.filter(pl.col("side") == "input")
    rows = rows_at_share(name, rows, 1.0)
    if "k" in TABLES[name].schema:
        rows = rows_at_largest_cut(rows, "k", column)
    runs = rows.drop_nulls(column).group_by("arm", "seed", "role").agg(value=weighted_mean(column, "matrix", weight))
    return over_seeds(runs, "role")
