"""Find the runs that a report excludes, from every table or from one, with the reason."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import polars as pl

from pipelines.statistics.copies import find_copies
from pipelines.statistics.metrics import RUN_TABLES
from pipelines.statistics.samples import arm_rows, last_seen

# Tables that are read at the end of a run.
ENDING = (
    *("update_support", "rotation", "spectral_drift", "localization", "update_norm", "locking"),
    *RUN_TABLES,
)


class Exclusion(NamedTuple):
    """An excluded run. table: the table it is excluded from; None is every table."""

    arm: str
    seed: int
    table: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed} {self.reason}"


def find_exclusions(tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> list[Exclusion]:
    """Copies of another seed, and runs whose rows of a table end before the last step. Sorted by arm and seed."""
    same = [
        Exclusion(arm, seed, None, f"has the same weights as seed {first}")
        for (arm, seed), first in find_copies(tables, arms).items()
    ]
    short = []
    for name, rows in zip(
        ENDING, pl.collect_all([_incomplete_runs(name, tables, arms) for name in ENDING]), strict=True
    ):
        for arm, seed, seen, end in rows.iter_rows():
            short.append(Exclusion(arm, seed, name, f"has rows of {name} up to step {seen} of {end}"))
    return sorted([*same, *short], key=lambda exclusion: (exclusion.arm, exclusion.seed, exclusion.table or ""))


def _incomplete_runs(name: str, tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> pl.LazyFrame:
    """Columns arm, seed, the last step in this table and the last step of the run."""
    rows = arm_rows(tables, name, arms)
    runs = rows.group_by("arm", "seed").agg(seen=last_seen(name), end=pl.col("run_steps").max())
    return runs.filter(pl.col("seen") < pl.col("end")).sort("arm", "seed")


def describe_exclusions(excluded: Collection[Exclusion]) -> str:
    """Describe all exclusions in one line; empty if there are none."""
    return f"left out: {'; '.join(map(str, excluded))}" if excluded else ""
