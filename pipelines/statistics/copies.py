"""Find copies: runs of one arm with different seeds and the same weights.

A run's fingerprint is one column over all matrices at its last step, of the first table of `FINGERPRINTS` that has it.
Two runs of one arm are copies if their fingerprints are equal up to rounding and not all zero. The tolerance also finds
the same weights measured on another machine. Runs of two different arms may be equal and are not compared.
"""

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.intervals import ROUNDING

FINGERPRINTS = {"update_norm": "frobenius", "spectral_drift": "nss", "training": "loss"}
Run = tuple[str, int]  # arm and seed


def find_copies(tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> dict[Run, int]:
    """Map each copy (arm, seed) to the smallest seed with the same weights."""
    prints = pl.collect_all([_plan_values(name, tables, arms) for name in FINGERPRINTS])
    fingerprints: dict[Run, tuple[tuple[str, ...], np.ndarray]] = {}
    for rows in prints:
        for arm, seed, places, values in rows.sort("arm", "seed").iter_rows():
            if any(values):
                fingerprints.setdefault((arm, seed), (tuple(places), np.array(values)))
    originals: dict[Run, int] = {}
    for (arm, seed), (places, values) in sorted(fingerprints.items()):
        for (other, first), (where, other_values) in sorted(fingerprints.items()):
            earlier = other == arm and first < seed and (other, first) not in originals
            if earlier and where == places and np.allclose(values, other_values, rtol=ROUNDING, atol=0.0):
                originals[arm, seed] = first
                break
    return originals


def tag_arms(frame: pl.LazyFrame, keys: Collection[str]) -> pl.LazyFrame:
    """`frame` with a column `arm`, the recipe without its study; rows of recipes outside `keys` are dropped."""
    arm = pl.col("recipe").str.replace(r"^[^.]*\.", "")
    return frame.with_columns(arm=arm).filter(pl.col("arm").is_in(list(keys)))


def _plan_values(name: str, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    """Columns arm, seed, place (list of matrix and view, or steps) and value (list)."""
    schema, value = TABLES[name].schema, pl.col(FINGERPRINTS[name])
    place = pl.format("{} {}", "matrix", "view") if "matrix" in schema else pl.col("step").cast(pl.String())
    rows = tag_arms(tables.get(name, pl.LazyFrame(schema=schema)), arms).filter(value.is_finite())
    if "matrix" in schema:
        rows = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    rows = rows.select("arm", "seed", place=place, value=value).sort("place")
    return rows.group_by("arm", "seed").agg("place", "value")
