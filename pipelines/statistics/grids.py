"""Tables of the suites other than core: first the reference arms of core, then one row per arm."""

from collections.abc import Mapping

import polars as pl

from pipelines.statistics import markdown as md
from pipelines.statistics.headline import ABSENT, format_cell, headline_rows
from pipelines.statistics.metrics import (
    ACCURACY,
    ACCURACY_START,
    LEAKED,
    NORM,
    NSS,
    REMOVED,
    ROTATION,
    RUN_TABLES,
    SIMILARITY,
    STABLE_RANK,
    UNCHANGED,
    Metric,
)
from pipelines.studies.story import Story, Suite

# Geometry of the weights in bf16, as served; of the update in fp32 masters, since bf16 rounding looks concentrated.
METRICS: tuple[Metric, ...] = (
    ACCURACY,
    UNCHANGED,
    NORM["bf16"],
    ROTATION["bf16"],
    NSS["bf16"],
    STABLE_RANK["master"],
    SIMILARITY["master", 25],
)
# Updates of continued arms count from the fp32 masters that they continue from.
CONTINUED: tuple[Metric, ...] = (
    ACCURACY_START,
    ACCURACY,
    LEAKED,
    REMOVED,
    NORM["master"],
    ROTATION["master"],
    STABLE_RANK["master"],
)


def grid_rows(study: str, suite: Suite, tables: Mapping[str, pl.LazyFrame], story: Story) -> pl.DataFrame:
    """Rows as in `headline.headline_rows` for the measured arms: references first, then the suite's order.

    Empty if no arm of the suite is measured. Tables that training writes do not count as measured.
    """
    metrics = CONTINUED if suite.continued else METRICS
    rows = headline_rows(study, tables, story, metrics, (*suite.references, *suite.arms))
    trained = [metric.words for metric in metrics if metric.table in RUN_TABLES]
    measured = set(rows.filter(~pl.col("metric").is_in(trained))["arm"])
    if not measured.intersection(suite.arms):
        return rows.clear()
    return rows.filter(pl.col("arm").is_in(list(measured)))


def format_grid(suite: Suite, table: pl.DataFrame, story: Story) -> list[list[str]]:
    """`rows` as text: a heading row, then one row per arm, with cells as in the headline table."""
    metrics = table["metric"].unique(maintain_order=True).to_list()
    lines = [["arm", *metrics]]
    for key in (*suite.references, *suite.arms):
        arm_rows = {row["metric"]: row for row in table.filter(pl.col("arm") == key).iter_rows(named=True)}
        if arm_rows:
            lines.append(
                [
                    story.label(key),
                    *(format_cell(arm_rows[metric]) if metric in arm_rows else ABSENT for metric in metrics),
                ]
            )
    return lines


def describe_differences(suite: Suite, table: pl.DataFrame) -> list[str]:
    """What differs, one sentence for each group of the suite that has arms in `rows`."""
    measured = set(table["arm"])
    present = {group: [arm for arm in group.arms if arm in measured] for group in suite.groups}
    return [f"{group.name} ({', '.join(arms)}): {group.differs}" for group, arms in present.items() if arms]


def render_markdown(suite: Suite, table: pl.DataFrame, story: Story) -> str:
    """The grid as a Markdown table."""
    lines = format_grid(suite, table, story)
    return md.render_table(lines, ["---"] + ["---:"] * (len(lines[0]) - 1))
