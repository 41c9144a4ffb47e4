"""List what the tables contain: runs, accuracy before and after training, and missing values."""

from collections.abc import Mapping, Sequence

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.copies import tag_arms
from pipelines.statistics.intervals import student_interval
from pipelines.statistics.samples import arm_rows, final_step

# ||W0||_F is computed as frobenius / relative_norm. Two runs from one start agree to far below this tolerance.
SAME_START = 1e-6


def describe_arms(tables: Mapping[str, pl.LazyFrame], arms: Sequence[str]) -> pl.DataFrame:
    """One row per arm: seeds, steps, objective, optimizer, learning_rate, weight_decay (distinct values as text)."""
    recipes = ("objective", "optimizer", "learning_rate", "weight_decay", "run_steps")
    frame = arm_rows(tables, "update_support", arms).select("arm", "seed", *recipes).unique().collect()
    rows = []
    for arm in arms:
        rows_of_arm = frame.filter(pl.col("arm") == arm)
        if rows_of_arm.is_empty():
            continue
        seeds = ", ".join(str(seed) for seed in sorted(set(rows_of_arm["seed"])))
        rows.append({"arm": arm, "seeds": seeds, **{name: distinct_values(rows_of_arm[name]) for name in recipes}})
    return pl.DataFrame(rows, schema={name: pl.String() for name in ("arm", "seeds", *recipes)}, orient="row")


def distinct_values(values: pl.Series) -> str:
    return ", ".join(
        f"{value:g}" if isinstance(value, float) else str(value) for value in values.drop_nulls().unique().sort()
    )


def compare_starts(tables: Mapping[str, pl.LazyFrame], arms: Sequence[str], reference: str) -> dict[str, bool]:
    """Whether each arm starts from the same W0 as `reference`, judged by ||W0||_F of every matrix and shared seed."""
    norm = pl.col("frobenius") / pl.col("relative_norm")
    rows = arm_rows(tables, "update_norm", arms).filter(pl.col("view") == "bf16", pl.col("relative_norm") > 0)
    frame = rows.group_by("arm", "seed", "matrix").agg(norm=norm.first()).collect()
    other = frame.filter(pl.col("arm") == reference).select("seed", "matrix", reference="norm")
    away = (pl.col("norm") / pl.col("reference") - 1).abs().max()
    judged = frame.join(other, on=("seed", "matrix")).group_by("arm").agg(same=away < SAME_START)
    return dict(judged.select("arm", "same").iter_rows())


def accuracy_rows(tables: Mapping[str, pl.LazyFrame], arms: Sequence[str]) -> pl.DataFrame:
    """Accuracy at the start and at the end: one row per arm and temperature.

    before, after: mean over seeds; half: half-width of the 95 % interval of `after` over seeds, null for one seed;
    stderr: mean over seeds of the standard error over problems; n: samples (problems x samples) of one evaluation.
    """
    frame = arm_rows(tables, "evaluation", arms).with_columns(final=final_step("evaluation")).collect()
    rows = []
    for (key, temperature), scores in frame.group_by("arm", "temperature"):
        first = scores.filter(pl.col("step") == 0)["accuracy"].drop_nulls().to_list()
        last = scores.filter(pl.col("step") == pl.col("final"), pl.col("step") > 0).drop_nulls("accuracy")
        if last.is_empty():
            continue
        after = student_interval(last["accuracy"].to_list())
        rows.append(
            {
                "arm": key,
                "temperature": temperature,
                "before": student_interval(first).mean if first else None,
                "after": after.mean,
                "half": after.half,
                "stderr": last["stderr"].mean(),
                "problems": last["problems"][0],
                "samples": last["samples"][0],
                "n": last["n"][0],
                "seeds": after.n,
            }
        )
    order = {arm: place for place, arm in enumerate(arms)}
    rows.sort(key=lambda row: (-row["temperature"], order[row["arm"]]))
    return pl.DataFrame(rows, schema=EVALUATIONS, orient="row")


EVALUATIONS = pl.Schema(
    {
        "arm": pl.String(),
        "temperature": pl.Float64(),
        "before": pl.Float64(),
        "after": pl.Float64(),
        "half": pl.Float64(),
        "stderr": pl.Float64(),
        "problems": pl.Int64(),
        "samples": pl.Int64(),
        "n": pl.Int64(),
        "seeds": pl.Int64(),
    }
)
MISSING = pl.Schema(
    {"table": pl.String(), "view": pl.String(), "reason": pl.String(), "rows": pl.Int64(), "of": pl.Int64()}
)


def count_missing(tables: Mapping[str, pl.LazyFrame], arms: Sequence[str]) -> pl.DataFrame:
    """Rows with a reason for a missing value, counted by table, view and reason; `of` is the table's rows in that
    view."""
    counts = []
    for name, declared in TABLES.items():
        if "reason" not in declared.schema or name not in tables:
            continue
        counted = tag_arms(tables[name], arms).group_by("view", "reason").agg(rows=pl.len().cast(pl.Int64()))
        total = counted.with_columns(of=pl.col("rows").sum().over("view"), table=pl.lit(name))
        counts.append(total.filter(pl.col("reason").is_not_null()).select(*MISSING).sort("view", "reason"))
    return pl.concat(pl.collect_all(counts)) if counts else pl.DataFrame(schema=MISSING)
