"""Block maps of one matrix: the share of changed weights, and the share of these inside the masks of W0 (D4).

    changed         #{changed in block} / #{weights in block}
    principal       #{changed and in the mask} / #{changed}, over the block; ties of the mask count by their share
    low_magnitude   the same for the other mask

Over the whole matrix these are density and overlaps of the table `localization`. Tables hold no masks, so weights are
read: one matrix, its start and its end, in bf16. Masks are those of the base cache where it has them.
Not measured: the size of a change. A block has a few dozen to a few thousand weights, so maps are noisy.
"""

from collections.abc import Collection

import numpy as np
import polars as pl

from pipelines.statistics.matrices import final_rows, representative_matrix
from pipelines.store import integrity
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.story import Tables

BLOCKS, SMALLEST = 32, 8  # most blocks a side; fewest weights a side of a block
MAPS = ("changed", "principal", "low_magnitude")
SCHEMA = pl.Schema(
    {
        "arm": pl.String(),
        "map": pl.String(),  # one of MAPS
        "row": pl.Int64(),  # output index at which the block begins
        "row_end": pl.Int64(),
        "column": pl.Int64(),  # input index
        "column_end": pl.Int64(),
        "share": pl.Float64(),  # %; null in a block where nothing changed
    }
)


def block_edges(length: int) -> np.ndarray:
    """Where blocks begin, and the end: at most `BLOCKS` of nearly equal size."""
    count = max(1, min(BLOCKS, length // SMALLEST))
    return np.linspace(0, length, count + 1).round().astype(int)


def block_sums(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums of [m, n] over blocks."""
    return np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=0), columns[:-1], axis=1)


def sum_masks(tables: Tables, store: Store, arms: Collection[str], alpha: float, seed: int) -> pl.DataFrame:
    """The maps of the representative matrix, for each of `arms` whose snapshots are in the store: columns of SCHEMA."""
    matrix, maps = representative_matrix(tables, arms), []
    runs = final_rows(tables, "localization", arms).filter(pl.col("seed") == seed, pl.col("matrix") == matrix)
    for arm, recipe, step in runs.select("arm", "recipe", "step").unique().sort("arm").collect().iter_rows():
        trajectory = Trajectory(store, recipe, seed)
        if {0, step} <= set(trajectory.steps()):
            maps.append(_map_run(trajectory, f"{matrix}.weight", step, alpha, arm))
    return pl.concat([pl.DataFrame(schema=SCHEMA), *maps])


def _map_run(trajectory: Trajectory, name: str, step: int, alpha: float, arm: str) -> pl.DataFrame:
    import torch

    from opd_ops.geometry.suite import Settings, Start
    from opd_ops.geometry.support import compare_weights
    from pipelines.store.bases import BaseCache

    start, end = (integrity.verified_refs(trajectory, at)[name].read() for at in (0, step))
    served = start.to(torch.bfloat16)
    masks = Start(served, Settings(), BaseCache(trajectory.store), "cpu").masks
    bits = compare_weights(start, end, "bf16").bits
    assert bits is not None
    shape = tuple(start.shape)
    changed = bits.to_bool().reshape(shape).numpy()
    rows, columns = (block_edges(length) for length in shape)
    count = block_sums(changed.astype(float), rows, columns)
    shares = {"changed": count / block_sums(np.ones(shape), rows, columns)}
    for mask in (mask for mask in masks if mask.alpha == alpha):
        members = mask.members.inside.to_bool().double() + mask.members.share * mask.members.tied.to_bool().double()
        caught = block_sums(members.reshape(shape).numpy() * changed, rows, columns)
        shares[mask.name] = np.divide(caught, count, out=np.full(count.shape, np.nan), where=count > 0)
    down, across = np.meshgrid(np.arange(len(rows) - 1), np.arange(len(columns) - 1), indexing="ij")
    place = {"row": rows[down], "row_end": rows[down + 1], "column": columns[across], "column_end": columns[across + 1]}
    flat = {key: values.ravel() for key, values in place.items()}
    return pl.concat(
        [
            pl.DataFrame({"arm": arm, "map": kind} | flat | {"share": 100 * share.ravel()}, nan_to_null=True)
            .select(SCHEMA.names())
            .cast(SCHEMA)  # type: ignore[arg-type]
            for kind, share in shares.items()
        ]
    )
