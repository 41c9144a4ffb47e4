"""Headline metrics of each run by weighting, role and layer: the table `means` and its text form."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.headline import METRICS as HEADLINE
from pipelines.statistics.intervals import student_interval
from pipelines.statistics.metrics import END, PARAMETERS, PROJECTIONS, Metric, Unit
from pipelines.statistics.numbers import format_quantity
from pipelines.statistics.samples import metric_rows, weighted_mean
from pipelines.studies.story import Story

# At the end of training, except overlaps with the end, which are read at earlier steps.
METRICS: tuple[Metric, ...] = tuple(
    metric
    for metric in HEADLINE
    if metric.with_other_weighting() is not None and (metric.at == END or metric.table == "locking")
)
UNITS: dict[str, Unit] = {metric.words: metric.unit for metric in METRICS}
WEIGHTINGS: dict[str, str | None] = {"unweighted": None, "parameters": PARAMETERS}
GROUPINGS = ((), ("role",), ("layer",))
ABSENT = "-"


def mean_rows(study: str, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.DataFrame:
    """Rows with the schema of table `means`, of every arm that is measured, sorted; empty where none is.

    unweighted: sum of values / number of matrices that have one; parameters: sum of n value / sum of n over the same
    matrices, n their number of weights. Matrices of one role have one size, so the two agree per role.
    """
    rows = pl.collect_all([plan_metric(metric, tables, arms) for metric in METRICS])
    schema = TABLES["means"].schema
    return pl.concat(rows).with_columns(study=pl.lit(study)).select(schema.names()).cast(dict(schema))


def plan_metric(metric: Metric, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    """One metric: per weighting arms and seeds in order, each with all matrices, then roles, then layers."""
    frame = metric_rows(replace(metric, weight=PARAMETERS), tables, arms)
    cut = pl.lit(None, pl.Int64()) if metric.cut is None else pl.col(metric.cut).first()
    parts = []
    for keys in GROUPINGS:
        values = {name: weighted_mean(metric.column, "matrix", weight) for name, weight in WEIGHTINGS.items()}
        means = frame.group_by("arm", "seed", *keys).agg(matrices=pl.len().cast(pl.Int64()), cut=cut, **values)
        absent = {"role": pl.lit(None, pl.String()), "layer": pl.lit(None, pl.Int64())}
        parts.append(means.with_columns(**{name: null for name, null in absent.items() if name not in keys}))
    whole = pl.concat(parts, how="diagonal").unpivot(
        list(WEIGHTINGS),
        index=["arm", "seed", "role", "layer", "matrices", "cut"],
        variable_name="weighting",
        value_name="value",
    )
    ending = pl.lit("") if metric.cut is None else pl.format(f", {metric.cut}={{}}", pl.col("cut"))
    return whole.with_columns(
        metric=pl.lit(metric.words), view=pl.lit(metric.view), address=pl.lit(metric.address()) + ending
    ).sort("arm", "seed", "weighting", "role", "layer", descending=[False, False, True, False, False])


def compare_weightings(table: pl.DataFrame, story: Story) -> list[list[str]]:
    """Unweighted beside parameter-weighted: a heading, then two rows per metric, a column per arm of core."""
    whole = table.filter(pl.col("role").is_null(), pl.col("layer").is_null())
    arms = present_metrics(whole, story)
    lines = [["metric", "weighting", *map(story.label, arms)]]
    for metric in METRICS:
        for weighting in WEIGHTINGS:
            metric_rows = whole.filter(pl.col("metric") == metric.words, pl.col("weighting") == weighting)
            if not metric_rows.is_empty():
                lines.append([metric.words, weighting, *format_cells(metric_rows, arms, metric.unit)])
    return lines


def split_by_key(table: pl.DataFrame, metric: Metric, key: str, story: Story) -> list[list[str]]:
    """One metric by `key` ("role" or "layer"), unweighted: a heading, then one row per value; only a heading if there
    are none."""
    metric_rows = table.filter(
        pl.col("metric") == metric.words, pl.col("weighting") == "unweighted", pl.col(key).is_not_null()
    )
    arms = present_metrics(metric_rows, story)
    values = list(PROJECTIONS) if key == "role" else sorted(set(metric_rows[key]))
    key_rows = [value for value in values if value in set(metric_rows[key])]
    return [
        [key, *map(story.label, arms)],
        *(
            [str(value), *format_cells(metric_rows.filter(pl.col(key) == value), arms, metric.unit)]
            for value in key_rows
        ),
    ]


def present_metrics(table: pl.DataFrame, story: Story) -> list[str]:
    return [arm for arm in story.core if arm in set(table["arm"])]


def format_cells(rows: pl.DataFrame, arms: Sequence[str], unit: Unit) -> list[str]:
    """Mean and half-width over seeds of each arm."""
    cells = []
    for arm in arms:
        values = rows.filter(pl.col("arm") == arm)["value"].to_list()
        interval = student_interval(values) if values else None
        cells.append(ABSENT if interval is None else format_quantity(interval.mean, unit, interval.half))
    return cells
