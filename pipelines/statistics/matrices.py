"""The matrices of a study in order, and the representative matrix."""

from collections.abc import Collection

import polars as pl

from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.samples import arm_rows, rows_at_largest_cut, rows_at_share
from pipelines.studies.story import Tables

LAYER, ROLE = 1, "o"  # the second block's output projection, which arXiv 2511.08567 shows


def order_matrices(rows: pl.LazyFrame) -> pl.LazyFrame:
    """`rows` with `place`: from 1, by layer and then by role (q k v o gate up down)."""
    role = pl.col("role").replace_strict({role: i for i, role in enumerate(PROJECTIONS)}, return_dtype=pl.Int64())
    key = pl.col("layer") * len(PROJECTIONS) + role
    return rows.with_columns(place=key.rank("dense").cast(pl.Int64()))


def representative_matrix(tables: Tables, arms: Collection[str]) -> str | None:
    """The matrix of layer 1 and role o; the first in order where a study lacks it. None without rows."""
    rows = (
        order_matrices(arm_rows(tables, "update_support", arms))
        .select("matrix", "layer", "role", "place")
        .unique()
        .collect()
    )
    exact = rows.filter(pl.col("layer") == LAYER, pl.col("role") == ROLE)
    chosen = exact if not exact.is_empty() else rows.sort("place").head(1)
    return None if chosen.is_empty() else chosen["matrix"][0]


def final_rows(tables: Tables, name: str, arms: Collection[str]) -> pl.LazyFrame:
    """The runs of `arms` at their last step in bf16, at the largest k that most rows have."""
    rows = rows_at_share(name, arm_rows(tables, name, arms).filter(pl.col("view") == "bf16"), 1.0)
    columns = {"rotation": "mean_deg", "singular_shift": "nss_k"}
    return rows_at_largest_cut(rows, "k", columns[name]) if name in columns else rows
