"""One table or figure of the paper, and what drawing it gives.

Items import the drawing library where they draw, so that what only lists them (the asset graph) starts fast.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipelines.paper.published import Published
from pipelines.store.objects import Store

Tables = Mapping[str, pl.LazyFrame]  # lake tables of one study, by name
NUMBERS = pl.Schema(
    {
        "quantity": pl.String(),  # with its unit
        "arm": pl.String(),  # label
        "view": pl.String(),
        "value": pl.Float64(),  # mean over seeds
        "low": pl.Float64(),  # 95 % interval over seeds; null for one seed
        "high": pl.Float64(),
        "seeds": pl.Int64(),
        "paper": pl.String(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart (an altair chart), the numbers it ends in, and what it leaves out."""

    chart: Any | None  # None: nothing can be drawn, and `absent` says why
    numbers: pl.DataFrame  # columns of NUMBERS
    absent: tuple[str, ...] = ()  # sentences: which part is not there, and what would bring it


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of the paper."""

    key: str  # anchor on the page, asset and file name
    title: str
    needs: tuple[str, ...]  # tables
    shows: str  # one plain sentence
    not_shown: str  # what must not be read off it
    speaks: tuple[str, ...]  # tables whose verdicts are about it
    suite: str = "core"  # whose verdicts
    published: tuple[Published, ...]  # drawn beside our runs
    draw: Callable[[Tables, Store | None], Drawing]  # the store is asked for weights, where tables do not suffice


def nothing(*absent: str) -> Drawing:
    return Drawing(chart=None, numbers=pl.DataFrame(schema=NUMBERS), absent=absent)


def to_run(tables: Tables, suite: str, arms: Sequence[str]) -> str:
    """How to make arms of a suite: the command, where the study of `tables` has any of them, or that it has none."""
    from pipelines.studies.catalog import studies

    rows = tables.get("evaluation")
    names = [] if rows is None else rows.select(pl.col("study").unique()).collect()["study"].to_list()
    if len(names) != 1:
        return "the tables are not those of one study"
    study = studies().get(names[0])
    has = set() if study is None else {recipe.name for recipe in study.suites.get(suite, ())}
    if has.isdisjoint(f"{names[0]}.{arm}" for arm in arms):
        return f"the study {names[0]} has no such arms"
    return f"opd study run {names[0]} --suite {suite}"
