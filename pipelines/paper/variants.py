"""Numbers of figures 7 and 9: the arms of the suite objectives that the paper also has, by group, with OPD."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipelines.paper.item import to_run
from pipelines.paper.published import HILL, NORM, STABLE_RANK, Published
from pipelines.paper.spread import over_seeds
from pipelines.paper.suites import OBJECTIVES
from pipelines.statistics import null_values
from pipelines.statistics.series import align_progress, progress_rows
from pipelines.studies.story import Tables

if TYPE_CHECKING:
    from pipelines.paper.grid import Line


@dataclass(frozen=True, kw_only=True)
class Varied:
    """One row of panels: a group and its reference arms."""

    name: str  # of the group in `suites.OBJECTIVES`
    references: tuple[str, ...]  # arms that its arms are put beside
    arms: tuple[str, ...]

    @property
    def all_arms(self) -> tuple[str, ...]:
        return (*self.references, *self.arms)


# opd-pg and alpha = 0 are the ends of the mixes, as far as they are trained.
REFERENCES = {
    "Token selection": ("opd",),
    "Rollout source": ("opd",),
    "Mixing": ("opd", "opd-pg", "opd-mix-00", "rlvr"),
}
GROUPS = tuple(
    Varied(name=group.name, references=REFERENCES[group.name], arms=group.arms)
    for group in OBJECTIVES.groups
    if group.name in REFERENCES
)
ARMS = tuple(dict.fromkeys(arm for group in GROUPS for arm in group.all_arms))


def measure_variants(tables: Tables, quantity: str) -> pl.DataFrame:
    """A quantity, by its name in `published`, over training: arm, view, progress, value, low, high, seeds."""
    if quantity == HILL:
        runs = null_values.hill_beside_null(tables["hill"], tables["nulls"], ARMS).measured
    else:
        column = {STABLE_RANK: "stable_rank", NORM: "frobenius"}[quantity]
        runs = progress_rows("update_norm", tables["update_norm"], column, ARMS)
    return over_seeds(align_progress(runs), "view", "progress")


def started_groups(rows: pl.DataFrame) -> list[Varied]:
    """The groups with at least one measured arm."""
    return [group for group in GROUPS if set(group.arms) & set(rows["arm"])]


def draw_row(group: Varied, rows: pl.DataFrame, title: str, reported: Sequence[Published]) -> "Line":
    """The row of panels of a group, with its measured arms."""
    from pipelines.paper.grid import Line

    arms = tuple(arm for arm in group.all_arms if arm in set(rows["arm"]))
    runs = rows.filter(pl.col("arm").is_in(arms))
    return Line(title=title, arms=arms, runs=runs, reported=reported, head=group.name)


def describe_absent(tables: Tables, rows: pl.DataFrame) -> tuple[str, ...]:
    """One sentence per group that names its missing arms."""
    measured = set(rows["arm"])
    lacking = {group.name: [arm for arm in group.arms if arm not in measured] for group in GROUPS}
    return tuple(
        f"{name}: {', '.join(arms)} {'is' if len(arms) == 1 else 'are'} not measured; "
        f"{to_run(tables, OBJECTIVES.name, arms)}."
        for name, arms in lacking.items()
        if arms
    )
