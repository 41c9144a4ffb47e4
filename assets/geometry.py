"""The geometry tables of one run: all diagnostics of every matrix at every snapshot."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets import metadata, monitor
from assets.failures import explained
from assets.partitions import STUDIES, runs
from assets.progress import Tracker
from assets.resources import ClusterResource, StoreResource
from assets.trajectories import addressed
from opd_ops.geometry import VERSION
from opd_ops.roles import PROJECTIONS
from pipelines.lake import written
from pipelines.runs.measuring import TABLES, measure_run, measured

SHOWN = {  # the column whose mean over projections stands in an asset's metadata
    "update_support": "unchanged",
    "rotation": "mean_deg",
    "singular_shift": "nss_k",
    "spectral_drift": "nss",
    "localization": "overlap",
    "update_norm": "stable_rank",
    "update_spectrum": "effective_rank",
    "hill": "hill",
    "locking": "similarity",
    "nulls": "stable_rank",
}
SPLIT = {  # the columns beside the view that tell its rows apart
    "rotation": ["side", "k"],
    "singular_shift": ["k"],
    "localization": ["mask", "alpha"],
    "hill": ["k"],
    "locking": ["side", "k"],
    "nulls": ["null"],
}


@dg.multi_asset(
    name="geometry",
    partitions_def=runs,
    specs=[
        metadata.table_spec(table, deps=["trajectory"], group_name="geometry", code_version=str(VERSION))
        for table in TABLES
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "weights_finite", asset="update_support", description="No weight of any snapshot is NaN or infinite."
        ),
        monitor.SPEC,
    ],
)
def geometry(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> Iterator[Any]:
    """Measure one run, one Ray task per matrix, or find its tables made from these snapshots by this engine."""
    recipe, seed, opened = *addressed(context), store.open()
    tracker = Tracker(context, recipe.name, seed)
    settings = STUDIES[recipe.study].measurement
    with explained(), cluster.session(needed=not measured(opened, recipe, seed, settings)):
        problems = measure_run(
            opened,
            recipe,
            seed,
            settings,
            serial=cluster.serial,
            progress=tracker.measured,
        )
    finite = dg.AssetCheckResult(
        check_name="weights_finite",
        asset_key="update_support",
        passed=not problems,
        metadata={"problems": dg.MetadataValue.md("\n".join(problems) or "none")},
    )
    with explained():
        checks = {
            "update_support": finite,
            monitor.ASSET: monitor.within_band(opened, STUDIES[recipe.study], recipe, seed),
        }
    for table in TABLES:
        rows = written(opened, table, recipe=recipe.name, seed=seed)
        assert rows is not None
        yield dg.MaterializeResult(
            asset_key=table,
            metadata=metadata.stored(opened, table, recipe=recipe.name, seed=seed)
            | {"last_step": metadata.small_table(summary(table, rows))},
            check_results=[checks[table]] if table in checks else [],
        )


def summary(table: str, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Means over the decoder projections at the last step that has rows, by view and cut."""
    by = ["view", *SPLIT.get(table, [])]
    projections = rows.filter(pl.col("role").is_in(PROJECTIONS))
    column = SHOWN[table]
    return (
        projections.filter(pl.col("step") == pl.col("step").max())
        .group_by(by)
        .agg(pl.col("step").first(), pl.col(column).mean().alias(f"mean {column}"), pl.len().alias("matrices"))
        .sort(by)
        .to_dicts()
    )
