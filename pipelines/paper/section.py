"""The paper, item by item, as HTML for the page and as PNG."""

from collections.abc import Mapping

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.paper.arms import label
from pipelines.paper.item import Drawing, Item, Tables
from pipelines.paper.items import ITEMS
from pipelines.paper.png import packed
from pipelines.report import exhibits, markup
from pipelines.report.adaptive import adaptive
from pipelines.report.captions import FIGURES
from pipelines.report.computed import computed
from pipelines.report.controls import controls
from pipelines.report.figures import render_png, render_svg
from pipelines.statistics.numbers import short
from pipelines.store.objects import Store

READING = (
    "Each table and figure of arXiv 2606.07082, drawn from the runs of this study, with what the paper reports beside "
    "it: hollow diamonds and pale bars, with a triangle at the end where a run arrives. Lines and filled marks are "
    "means over seeds, bands and whiskers their 95 % Student-t intervals, very wide for two seeds and absent for one. "
    "On log axes both are of logarithms. The views: bf16 is what is served, master the weights that were trained. "
    "Under each stand the same quantities with the matched control, where bands run from the lowest to the highest "
    "seed."
)
BY_HAND = (
    "Point at a mark, or move to a picture with the Tab key and along its marks with the arrow keys, to read its "
    "value. Roles, layers and cuts can be chosen where a figure has them. Without scripts the numbers stand under each "
    "figure."
)
INTERVALS = "Means over seeds with 95 % Student-t intervals."


def section(tables: Tables, decided: pl.DataFrame, store: Store | None = None) -> str:
    """All items as HTML, with the figures of `captions.FIGURES` that belong to each.

    tables: lake tables of one study; decided: its verdicts; store: where its weights are, for figure 3's maps.
    """
    found = whole(tables)
    parts = [
        shown(item, item.draw(found, store), explained(item, tables, decided), drawings(item, tables)) for item in ITEMS
    ]
    return markup.paragraph(READING) + markup.paragraph(BY_HAND, "by-hand") + "\n".join(parts)


def picture(drawing: Drawing) -> bytes | None:
    """A drawing as PNG."""
    return None if drawing.chart is None else packed(render_png(drawing.chart, scale=1.0))


def whole(tables: Tables) -> dict[str, pl.LazyFrame]:
    """`tables` with an empty one in the place of each that is absent."""
    return {name: pl.LazyFrame(schema=table.schema) for name, table in TABLES.items()} | dict(tables)


def explained(item: Item, tables: Tables, decided: pl.DataFrame) -> list[tuple[str, str]]:
    """What the controls say of an item, and how its numbers were computed."""
    how = computed([name for name in item.needs if name != "nulls"], tables)
    notes = [("What the controls say.", " ".join(controls(decided, item.speaks, item.suite)))]
    return notes + ([("How it was computed.", " ".join([*how, INTERVALS]))] if how else [])


def drawings(item: Item, tables: Tables) -> str:
    """The figures of the page about the same quantities."""
    return exhibits.drawings(tables, [figure for figure in FIGURES if figure.item == item.key], level=4)


def shown(item: Item, drawing: Drawing, notes: list[tuple[str, str]], figures: str = "") -> str:
    """One item: picture, what it means, what must not be read off it, `notes`, its numbers, and `figures` below."""
    key = f"paper-{item.key}"
    card = ""
    if drawing.chart is not None:
        card = markup.card(adaptive(render_svg(drawing.chart)), key, item.title, item.shows)
    told = [("What it means.", item.shows), *notes, ("What it does not show.", item.not_shown)]
    told += [("The paper.", reported(item)), *(("Left out.", sentence) for sentence in drawing.absent)]
    body = markup.figure(key, item.title, card, told, listed(item, drawing))
    return f'<div class="item">{body}{figures}</div>'


def reported(item: Item) -> str:
    """Everything the paper reports of an item, in words."""
    quantities: dict[str, list[str]] = {}
    for one in item.published:
        quantities.setdefault(one.quantity, []).append(f"{label(one.arm)} {one.told}")
    return "; ".join(f"{quantity}: {', '.join(values)}" for quantity, values in quantities.items()) + "."


def listed(item: Item, drawing: Drawing) -> str:
    """The numbers that the figure ends in, folded away."""
    if drawing.numbers.is_empty():
        return ""
    lines = [
        (row["quantity"], row["arm"], row["view"], short(row["value"]), between(row), str(row["seeds"]), row["paper"])
        for row in drawing.numbers.iter_rows(named=True)
    ]
    heading = ("quantity", "arm", "view", "mean", "95 % interval", "seeds", "paper")
    table = markup.table(f"{item.title}: the numbers", heading, lines)
    return markup.details(f"Numbers of {item.title.partition(':')[0]}", f'<div class="numbers">{table}</div>')


def between(row: Mapping[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    return "-" if low is None or high is None else f"{short(low)} to {short(high)}"
