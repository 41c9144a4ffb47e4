"""One table or figure of the paper, drawn from our own runs.

Items import the drawing library inside `draw`, so that listing them (in the asset graph) starts fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from pipelines.paper.arms import label
from pipelines.paper.published import Published
from pipelines.store.objects import Store
from pipelines.studies.catalog import list_studies, study_arg
from pipelines.studies.story import Drawing, Tables

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
class Item:
    """An item of the paper, an `Exhibit` of its story."""

    key: str  # anchor on the page, asset and file name
    title: str
    needs: tuple[str, ...]  # tables
    shows: str  # one plain sentence
    not_shown: str  # what must not be read off it
    suites: tuple[str, ...] = ("core",)  # of which a run must be there
    published: tuple[Published, ...]  # drawn beside our runs
    draw: Callable[[Tables, Store | None], Drawing]  # the store is asked for weights, where tables do not suffice

    @property
    def reported(self) -> str:
        """Everything the paper reports of it, in words."""
        quantities: dict[str, list[str]] = {}
        for number in self.published:
            quantities.setdefault(number.quantity, []).append(f"{label(number.arm)} {number.description}")
        return "; ".join(f"{quantity}: {', '.join(values)}" for quantity, values in quantities.items()) + "."


def draw_nothing(*absent: str) -> Drawing:
    return Drawing(chart=None, numbers=pl.DataFrame(schema=NUMBERS), absent=absent)


def to_run(tables: Tables, suite: str, arms: Sequence[str]) -> str:
    """How to make arms of a suite: the command, where the study of `tables` has any of them, or that it has none."""
    rows = tables.get("evaluation")
    names = [] if rows is None else rows.select(pl.col("study").unique()).collect()["study"].to_list()
    if len(names) != 1:
        return "the tables are not those of one study"
    study = list_studies().get(names[0])
    has = set() if study is None else {recipe.name for recipe in study.suites.get(suite, ())}
    if has.isdisjoint(f"{names[0]}.{arm}" for arm in arms):
        return f"the study {names[0]} has no such arms"
    return f"opd study run {study_arg(names[0])} --suite {suite}"
