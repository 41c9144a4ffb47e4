"""How diagnostics change with model size: exponents and ratios with intervals over seeds.

    width    value = c N^b over `Sizes.widths`, N the weights of the decoder projections: b is the least-squares slope
             of log value on log N, fitted to each seed's sizes
    others   value at the size of `Sizes.ratios` / value of core

Every estimate is one number per seed; the intervals are Student's over seeds (`intervals.student_interval`), of the
logarithm for ratios. `misfit` is the largest |log value - fit| over the three points of a seed.

Not measured: whether a power law holds. Three sizes within a factor of 16 of weights fit almost any smooth curve, the
sizes pass their gates at different steps and accuracies, and their bases differ in learning rate: an exponent describes
these sizes and says nothing about 8B.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.intervals import student_interval
from pipelines.statistics.samples import arm_rows, rows_at_share, weighted_mean
from pipelines.studies.story import Sizes, Story


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A mean over projection matrices at a share of the run, in one view."""

    words: str
    table: str
    value: pl.Expr
    view: str
    where: pl.Expr | None = None
    at: float = 1.0
    weight: str | None = None


def _in_view(view: str) -> tuple[Quantity, ...]:
    norm, input_side = pl.col("stable_rank"), pl.col("side") == "input"
    return (
        Quantity(
            words="unchanged weights", table="update_support", value=pl.col("unchanged"), view=view, weight="numel"
        ),
        Quantity(words="rotation, input side", table="rotation", value=pl.col("mean_deg"), view=view, where=input_side),
        Quantity(words="relative norm of the update", table="update_norm", value=pl.col("relative_norm"), view=view),
        Quantity(words="stable rank of the update", table="update_norm", value=norm, view=view),
        Quantity(
            words="stable rank over that of noise of its shape",
            table="update_norm",
            value=norm / pl.col("iid_stable_rank"),
            view=view,
        ),
        *(
            Quantity(
                words=f"Sim_16 to the final step at {percent} %",
                table="locking",
                value=pl.col("similarity"),
                view=view,
                where=input_side & (pl.col("k") == 16),
                at=percent / 100,
            )
            for percent in (10, 25)
        ),
    )


QUANTITIES = (*_in_view("bf16"), *(q for q in _in_view("master") if q.table != "update_support"))


def arm_of(size: str, arm: str) -> str:
    return f"{size}-{arm}" if size else arm


def scaling_rows(study: str, tables: Mapping[str, pl.LazyFrame], sizes: Sizes) -> pl.DataFrame:
    """One row per arm, quantity and factor that has its sizes, with the schema of the table `scaling`."""
    named = dict.fromkeys(("", *sizes.widths, *sizes.ratios.values()))
    arms = [arm_of(size, arm) for size in named for arm in sizes.arms]
    weights = _weights(tables, arms)
    plans = [_plan_sizes(quantity, tables, arms) for quantity in QUANTITIES]
    rows = []
    for quantity, frame in zip(QUANTITIES, pl.collect_all(plans), strict=True):
        values = {(row["arm"], row["seed"]): row["value"] for row in frame.iter_rows(named=True)}
        for arm in sizes.arms:
            estimates = {"width": _slopes(values, weights, [arm_of(size, arm) for size in sizes.widths])}
            estimates |= {factor: _ratios(values, size, arm) for factor, size in sizes.ratios.items()}
            for factor, by_seed in estimates.items():
                if by_seed:
                    rows.append(
                        {"study": study, "metric": quantity.words, "view": quantity.view, "arm": arm}
                        | _row(factor, by_seed)
                    )
    return pl.DataFrame(rows, schema=TABLES["scaling"].schema, orient="row")


def _plan_sizes(quantity: Quantity, tables: Mapping[str, pl.LazyFrame], arms: list[str]) -> pl.LazyFrame:
    frame = arm_rows(tables, quantity.table, arms).filter(pl.col("view") == quantity.view)
    if quantity.where is not None:
        frame = frame.filter(quantity.where)
    rows = (
        rows_at_share(quantity.table, frame, quantity.at).with_columns(measured=quantity.value).drop_nulls("measured")
    )
    return (
        rows.group_by("arm", "seed").agg(value=weighted_mean("measured", "matrix", quantity.weight)).sort("arm", "seed")
    )


def _weights(tables: Mapping[str, pl.LazyFrame], arms: list[str]) -> dict[str, int]:
    """Weights of the decoder projections by arm."""
    rows = arm_rows(tables, "update_support", arms).filter(pl.col("scope") == "projection").unique(["arm", "matrix"])
    return dict(rows.group_by("arm").agg(pl.col("numel").sum()).collect().iter_rows())


def _slopes(
    values: dict[tuple[str, int], float], weights: dict[str, int], names: list[str]
) -> dict[int, tuple[float, float]]:
    """Seed to (slope, largest residual) of log value on log N."""
    slopes = {}
    for seed in sorted({seed for _, seed in values}):
        seed_values = [values.get((name, seed)) for name in names]
        if any(value is None or value <= 0 for value in seed_values):
            continue
        x = [math.log(weights[name]) for name in names]
        y = [math.log(value) for value in seed_values if value is not None]
        centre, height = sum(x) / len(x), sum(y) / len(y)
        slope = sum((a - centre) * (b - height) for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)
        left = max(abs(b - height - slope * (a - centre)) for a, b in zip(x, y, strict=True))
        slopes[seed] = slope, left
    return slopes


def _ratios(values: dict[tuple[str, int], float], size: str, arm: str) -> dict[int, tuple[float, float]]:
    """Seed to (log ratio, 0)."""
    ratios = {}
    for seed in sorted({seed for _, seed in values}):
        numerator, denominator = values.get((arm_of(size, arm), seed)), values.get((arm, seed))
        if numerator and denominator and numerator > 0 and denominator > 0:
            ratios[seed] = math.log(numerator / denominator), 0.0
    return ratios


def _row(factor: str, by_seed: dict[int, tuple[float, float]]) -> dict[str, object]:
    over = student_interval([value for value, _ in by_seed.values()])
    ends = (over.mean, over.low, over.high)
    if factor != "width":
        ends = tuple(None if end is None else math.exp(end) for end in ends)
    return {
        "factor": factor,
        "value": ends[0],
        "low": ends[1],
        "high": ends[2],
        "misfit": max(left for _, left in by_seed.values()) if factor == "width" else None,
        "seeds": over.n,
    }


def format_grid(rows: pl.DataFrame, sizes: Sizes, story: Story) -> list[list[str]]:
    """`scaling` as text: a heading row, then a row per factor, metric and view: `estimate [interval]` by arm."""
    cells = {(r["factor"], r["metric"], r["view"], r["arm"]): r for r in rows.iter_rows(named=True)}
    lines = [["factor", "metric", *map(story.label, sizes.arms)]]
    for factor in (name for name in sizes.titles if name in set(rows["factor"])):
        for metric, view in rows.filter(factor=factor).select("metric", "view").unique(maintain_order=True).iter_rows():
            keys = [(factor, metric, view, arm) for arm in sizes.arms]
            estimates = [_cell(cells[key]) if key in cells else "-" for key in keys]
            lines.append([sizes.titles[factor], f"{metric}, {view}", *estimates])
    return lines


def _cell(row: dict[str, Any]) -> str:
    value = f"{row['value']:+.2f}" if row["factor"] == "width" else f"{row['value']:.2f}"
    return value if row["low"] is None else f"{value} [{row['low']:.2f}, {row['high']:.2f}]"
