"""The suite objectives beside OPD and RLVR: one row per arm, with the headline's numbers. No difference is tested."""

from collections.abc import Mapping

import polars as pl

from pipelines.report.arms import BY_KEY, GROUPS, OBJECTIVES
from pipelines.report.headline import ABSENT, cell, headline, marked
from pipelines.report.metrics import ACCURACY, NORM, NSS, ROTATION, SIMILARITY, STABLE_RANK, UNCHANGED, Metric
from pipelines.report.numbers import aligned

REFERENCES = ("opd", "rlvr")
# The weights' own geometry as it would be served; of the update's, the masters, since rounding imitates concentration.
METRICS: tuple[Metric, ...] = (
    ACCURACY,
    UNCHANGED,
    NORM["bf16"],
    ROTATION["bf16"],
    NSS["bf16"],
    STABLE_RANK["master"],
    SIMILARITY["master", 25],
)


def objectives(study: str, tables: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """Rows as those of `headline`, of the arms that are measured, in the suite's order after `REFERENCES`.

    Empty where no arm of the suite is measured; an accuracy alone does not count, it is there before.
    """
    found = headline(study, tables, METRICS, (*REFERENCES, *OBJECTIVES))
    measured = set(found.filter(pl.col("metric") != ACCURACY.words)["arm"])
    if not measured.intersection(OBJECTIVES):
        return found.clear()
    return found.filter(pl.col("arm").is_in(list(measured)))


def grid(table: pl.DataFrame) -> list[list[str]]:
    """`objectives` as text: a heading row, then one row per arm, with cells as in the headline table."""
    metrics = table["metric"].unique(maintain_order=True).to_list()
    lines = [["arm", *metrics]]
    for key in (*REFERENCES, *OBJECTIVES):
        mine = {row["metric"]: row for row in table.filter(pl.col("arm") == key).iter_rows(named=True)}
        if mine:
            label = BY_KEY[key].label if key in BY_KEY else key
            lines.append([label, *(cell(mine[metric]) if metric in mine else ABSENT for metric in metrics)])
    return lines


def differences(table: pl.DataFrame) -> list[str]:
    """What differs from OPD, one sentence for each group that has arms in `objectives`."""
    measured = set(table["arm"])
    present = {group: [arm for arm in group.arms if arm in measured] for group in GROUPS}
    return [f"{group.name} ({', '.join(arms)}): {group.differs}" for group, arms in present.items() if arms]


def terminal(table: pl.DataFrame) -> str:
    """The grid in aligned columns."""
    return aligned(grid(table))


def markdown(table: pl.DataFrame) -> str:
    """The grid as a Markdown table."""
    lines = grid(table)
    return marked(lines, ["---"] + ["---:"] * (len(lines[0]) - 1))
