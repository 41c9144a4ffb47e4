"""The geometry tables of one run: all diagnostics of every matrix at every snapshot."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets import effort, metadata, monitor
from assets.effort import Effort
from assets.failures import fail_in_one_line
from assets.models import STEPS
from assets.partitions import POOL, STUDIES, run_of, runs
from assets.progress import Tracker
from assets.resources import ClusterResource, StoreResource
from opd_ops.geometry import VERSION
from opd_ops.roles import PROJECTIONS
from pipelines.lake import TABLES as DECLARED
from pipelines.runs.geometry.measuring import TABLES, is_measured, measure_run

PREFERRED = {"update_norm": "stable_rank"}  # the value shown, where it is not a table's first
CUTS = ("side", "k", "mask", "alpha", "null")  # columns beside the view that tell a table's rows apart
DRAWN = ("mask", "alpha", "null")  # those of them that have a line each


@dg.multi_asset(
    name="geometry",
    partitions_def=runs,
    pool=POOL,
    specs=[metadata.table_spec(table, "geometry", f"engine {VERSION}", deps=["trajectory"]) for table in TABLES],
    check_specs=[
        dg.AssetCheckSpec(
            "weights_finite", asset="update_support", description="No weight of any snapshot is NaN or infinite."
        ),
        monitor.SPEC,
    ],
)
def geometry(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> Iterator[Any]:
    """Measure one run with one Ray task per matrix, or reuse its tables if they are of these snapshots and this
    engine.
    """
    recipe, seed = run_of(context.partition_key)
    opened, spent = store.open(), Effort()
    tracker = Tracker(context, recipe.name, seed)
    settings = STUDIES[recipe.study].measurement
    needed = not is_measured(opened, recipe, seed, settings)
    with fail_in_one_line(), spent.session(cluster, effort.MATRICES, needed=needed):
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
        metadata={"problems": metadata.problems(problems)},
    )
    with fail_in_one_line():
        checks = {
            "update_support": finite,
            monitor.ASSET: monitor.within_band(opened, STUDIES[recipe.study], recipe, seed),
        }
    common = effort.read_seconds(opened, recipe.name, seed, phases=effort.MEASURING) | spent.facts()
    common = metadata.report(recipe.study) | common
    for table in TABLES:
        part = metadata.part(opened, table, recipe=recipe.name, seed=seed)
        assert part is not None
        yield dg.MaterializeResult(
            asset_key=table,
            metadata=table_facts(table, part) | common,
            check_results=[checks[table]] if table in checks else [],
            data_version=part.version,
        )


def table_facts(table: str, part: metadata.Part) -> dict[str, Any]:
    """Metadata of a run's geometry table."""
    curves = metadata.curves(lines(table, part.rows), STEPS, f"{table}.{value_column(table)}{unit(table)}")
    return curves | {"last_step": metadata.small_table(summary(table, part.rows))} | part.facts()


def value_column(table: str) -> str:
    """The column whose mean over projections the metadata shows: the first floating-point column."""
    values = (name for name, dtype in DECLARED[table].schema.items() if dtype == pl.Float64 and name not in CUTS)
    return PREFERRED.get(table) or next(values)


def cuts(table: str) -> list[str]:
    """The columns besides the view that distinguish a table's rows at one step."""
    return [name for name in CUTS if name in DECLARED[table].schema]


def lines(table: str, rows: pl.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """(step, mean over the decoder projections) of the value column, one line per view and per value of `DRAWN`.

    Of several cuts k the largest with a value is taken; of sides, the input side; of pairs of steps, those with the
    last step.
    """
    value = value_column(table)
    rows = rows.drop_nulls(value)
    if "side" in rows.columns:
        rows = rows.filter(pl.col("side") == "input")
    for cut in ("k", "step_other"):
        if cut in rows.columns:
            rows = rows.filter(pl.col(cut) == pl.col(cut).max())
    by = ["view", *(name for name in cuts(table) if name in DRAWN)]
    means = rows.filter(pl.col("role").is_in(PROJECTIONS)).group_by(*by, "step").agg(pl.col(value).mean())
    parts = means.drop_nulls().sort(*by, "step").partition_by(by, as_dict=True)
    return {" ".join(map(str, key)): part.select("step", value).rows() for key, part in parts.items()}


def unit(table: str) -> str:
    """` (unit)` of the value column, or an empty text."""
    (column,) = [column for column in DECLARED[table].columns if column.name == value_column(table)]
    return f" ({column.unit})" if column.unit else ""


def summary(table: str, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Means over the decoder projections at the last step with rows, by view and cut."""
    by = ["view", *cuts(table)]
    projections = rows.filter(pl.col("role").is_in(PROJECTIONS))
    column = value_column(table)
    return (
        projections.filter(pl.col("step") == pl.col("step").max())
        .group_by(by)
        .agg(pl.col("step").first(), pl.col(column).mean().alias(f"mean {column}"), pl.len().alias("matrices"))
        .sort(by)
        .to_dicts()
    )
