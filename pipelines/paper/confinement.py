"""Numbers of figures 6 and 8: accuracy of arms continued from an early step, free and confined, and of their parents.

A continued run counts its steps from 0: its first evaluation is where the projection starts, its last the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from pipelines.paper.item import to_run
from pipelines.paper.published import Published
from pipelines.paper.spread import over_seeds
from pipelines.paper.suites import BEGIN, INTERVENTIONS, PARENTS, SOON, SWEPT, continued_key
from pipelines.statistics.copies import tag_arms
from pipelines.studies.story import Tables

# The part of a key after the step, by its label.
KINDS = {"free": (), "16 own directions (the paper's K16)": ("own16",), "16 random directions": ("random16",)}


@dataclass(frozen=True, kw_only=True)
class Family:
    """An arm of core and the arms continued from its step `begin`: `arms` by names of KINDS."""

    parent: str
    begin: int = BEGIN

    @property
    def arms(self) -> dict[str, str]:
        return {words: continued_key(self.parent, *key, begin=self.begin) for words, key in KINDS.items()}

    def among(self, reported: Iterable[Published]) -> list[Published]:
        """What the paper reports of these arms, under their keys here."""
        keys = {
            continued_key(self.parent, *key): continued_key(self.parent, *key, begin=self.begin)
            for key in KINDS.values()
        }
        return [replace(value, arm=keys[value.arm]) for value in reported if value.arm in keys]


FAMILIES = (*(Family(parent=parent) for parent in PARENTS), *(Family(parent=parent, begin=SOON) for parent in SWEPT))
BEGUN = {arm: family.begin for family in FAMILIES for arm in family.arms.values()}  # 0 for the others
EVERY = tuple(arm for family in FAMILIES for arm in (family.parent, *family.arms.values()))


def accuracy_rows(tables: Tables) -> pl.DataFrame:
    """Accuracy in % at the first and the last evaluation: arm, temperature, point, step, value, low, high, seeds.

    step: of the parent's run, the mean over seeds (a gated parent ends at steps of its own).
    """
    rows = tag_arms(tables["evaluation"], EVERY)
    run = ("arm", "seed", "temperature")
    ends = {"start": pl.col("step").min(), "end": pl.col("step").max()}
    parts = [
        rows.filter(pl.col("step") == end.over(run)).with_columns(point=pl.lit(point)) for point, end in ends.items()
    ]
    runs = pl.concat(parts).select(*run, "point", "step", value=100 * pl.col("accuracy")).collect()
    begins = pl.col("arm").replace_strict(BEGUN, default=0, return_dtype=pl.Int64())
    steps = runs.group_by("arm", "temperature", "point").agg(pl.col("step").mean() + begins.first())
    pooled = over_seeds(runs, "temperature", "point").join(steps, on=("arm", "temperature", "point"))
    return pooled.sort("arm", "temperature", "step")


def started_families(rows: pl.DataFrame, parents: tuple[str, ...]) -> list[Family]:
    """The families with a measured continued arm."""
    measured = set(rows["arm"])
    return [family for family in FAMILIES if family.parent in parents and measured & set(family.arms.values())]


def describe_absent(tables: Tables, rows: pl.DataFrame, parents: tuple[str, ...]) -> tuple[str, ...]:
    """Sentences that name the missing continued arms, for the measured first steps, or else for BEGIN."""
    begun = {family.begin for family in started_families(rows, parents)} or {BEGIN}
    families = [family for family in FAMILIES if family.parent in parents and family.begin in begun]
    arms = [arm for family in families for arm in family.arms.values()]
    lacking = [arm for arm in arms if arm not in set(rows["arm"])]
    if not lacking:
        return ()
    return (f"Not measured: {', '.join(lacking)}; {to_run(tables, INTERVENTIONS.name, lacking)}.",)
