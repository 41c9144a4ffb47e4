"""Read a metric from the tables: one number per run. All plans of a report are collected in one pass.

Excluded runs (`exclusions`) have no number: copies of another seed, and runs whose rows of a table end before the run.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.copies import find_copies, tag_arms
from pipelines.statistics.metrics import END, PROJECTIONS, START, Metric

# A snapshot stands for a share of the run when it is at most this far from it (share of the run's steps).
NEARBY = 0.05
RUN = ("recipe", "seed")
SAMPLED = ("stderr", "problems", "samples")  # columns of an evaluation beside its accuracy


def fill_tables(tables: Mapping[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
    """`tables` with an empty table for each absent one."""
    return {name: pl.LazyFrame(schema=table.schema) for name, table in TABLES.items()} | dict(tables)


def arm_rows(tables: Mapping[str, pl.LazyFrame], name: str, arms: Collection[str]) -> pl.LazyFrame:
    """The rows of table `name` that belong to one of `arms` and to a decoder projection; empty without such a table.

    With a column run_steps in every table: those that have none take it from update_support, null where that has none.
    """
    frame = tag_arms(tables.get(name, pl.LazyFrame(schema=TABLES[name].schema)), arms)
    if "run_steps" not in TABLES[name].schema:
        steps = tables.get("update_support", pl.LazyFrame(schema=TABLES["update_support"].schema))
        frame = frame.join(steps.group_by(RUN).agg(pl.col("run_steps").max()), on=RUN, how="left")
    return frame.filter(pl.col("role").is_in(PROJECTIONS)) if "role" in TABLES[name].schema else frame


def final_step(name: str) -> pl.Expr:
    """The last step of each run in rows of table `name`: `run_steps` of the run, else the last step in the rows."""
    return pl.coalesce(pl.col("run_steps").max(), last_seen(name)).over(RUN)


def last_seen(name: str) -> pl.Expr:
    """The last step of a run that rows of table `name` describe."""
    return pl.col("step_other" if "step_other" in TABLES[name].schema else "step").max()


def rows_at_share(name: str, frame: pl.LazyFrame, share: float) -> pl.LazyFrame:
    """The rows of each run at `share` of its steps: exact at 0 and 1, else the nearest snapshot within `NEARBY`."""
    frame = frame.with_columns(final=final_step(name))
    if "step_other" in TABLES[name].schema:
        frame = frame.filter(pl.col("step_other") == pl.col("final"))
    if share in (START, END):
        return frame.filter(pl.col("step") == (0 if share == START else pl.col("final")))
    away = (pl.col("step") / pl.col("final") - share).abs()
    near = frame.with_columns(away=away).filter(pl.col("step") > 0, pl.col("away") <= NEARBY + 1e-9)
    nearest = near.filter(pl.col("away") == pl.col("away").min().over(RUN))
    return nearest.filter(pl.col("step") == pl.col("step").min().over(RUN))


def rows_at_largest_cut(frame: pl.LazyFrame, cut: str, column: str) -> pl.LazyFrame:
    """Rows at one value of `cut`: of the values with the smallest share of nulls in `column`, the largest."""
    missing = pl.col(column).is_null().mean().over(cut)
    best = pl.col(cut).sort_by(missing, pl.col(cut), descending=[False, True]).first()
    return frame.filter(pl.col(cut) == best)


def weighted_mean(column: str, order: str, weight: str | None = None) -> pl.Expr:
    """The (weighted) mean of `column` in a group, summed in the order of `order`, so that equal rows give equal bits.

    It is a running sum, because Polars drops a sort before `mean` or `sum`. `weight` needs rows without nulls.
    """
    value = pl.col(column).sort_by(order)
    if weight is not None:
        return value.dot(pl.col(weight).sort_by(order)) / pl.col(weight).sum()
    return value.drop_nulls().cum_sum().last() / pl.col(column).count()


def plan_samples(metric: Metric, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    """`metric` of every run of `arms`, lazily: columns arm, seed, value, cut; accuracies also have the columns
    `SAMPLED`.

    Runs without a finite value are left out.
    """
    if metric.since is not None:
        end = plan_samples(replace(metric, since=None), tables, arms)
        start = plan_samples(replace(metric, since=None, at=metric.since), tables, arms)
        both = end.join(start, on=("arm", "seed"), suffix="_start")
        return both.select("arm", "seed", pl.col("value") - pl.col("value_start"), "cut")
    order = "matrix" if "matrix" in TABLES[metric.table].schema else "step"
    value = weighted_mean(metric.column, order, metric.weight)
    cut = pl.lit(None, pl.Int64()) if metric.cut is None else pl.col(metric.cut).first()
    more = [pl.col(name).first() for name in SAMPLED] if metric.table == "evaluation" else []
    rows = metric_rows(metric, tables, arms).group_by("arm", "seed").agg(*more, value=value, cut=cut)
    return rows.filter(pl.col("value").is_finite())


def metric_rows(metric: Metric, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    """The rows of `metric.table` that `metric` averages, for every run. With `since`, only the rows of later steps.

    With a weight each row has it: a table without the column takes it from update_support, by recipe and matrix.
    """
    frame = arm_rows(tables, metric.table, arms).filter(*(pl.col(key) == value for key, value in metric.where))
    if metric.table == "update_support":
        frame = frame.filter(pl.col("scope") == "projection")
    frame = rows_at_share(metric.table, frame, metric.at)
    if metric.cut is not None:
        frame = rows_at_largest_cut(frame, metric.cut, metric.column)
    frame = frame.filter(pl.col(metric.column).is_not_null())
    if metric.weight is None or metric.weight in TABLES[metric.table].schema:
        return frame
    weights = arm_rows(tables, "update_support", arms).group_by("recipe", "matrix").agg(pl.col(metric.weight).first())
    return frame.join(weights, on=("recipe", "matrix"))


def collect_samples(
    metrics: Iterable[Metric], tables: Mapping[str, pl.LazyFrame], arms: Collection[str]
) -> dict[Metric, pl.DataFrame]:
    """Values of each metric, columns as in `plan_samples`, sorted by arm and seed, without copies of another seed."""
    metrics_once = list(dict.fromkeys(metrics))
    frames = pl.collect_all([plan_samples(metric, tables, arms).sort("arm", "seed") for metric in metrics_once])
    same = find_copies(tables, arms)
    return {metric: drop_runs(frame, same) for metric, frame in zip(metrics_once, frames, strict=True)}


def drop_runs(frame: pl.DataFrame, runs: Collection[tuple[str, int]]) -> pl.DataFrame:
    """The rows of a frame (columns arm, seed, ...) without those of `runs`, in their order."""
    dropped = pl.DataFrame(list(runs), schema={"arm": pl.String(), "seed": pl.Int64()}, orient="row")
    return frame.join(dropped, on=("arm", "seed"), how="anti", maintain_order="left")
