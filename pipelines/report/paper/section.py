"""The paper, item by item, as HTML for the page and as PNG."""

from collections.abc import Mapping
from html import escape

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report import markup
from pipelines.report.adaptive import adaptive
from pipelines.report.arms import label
from pipelines.report.figures import render_png, render_svg
from pipelines.report.numbers import decimals, fixed
from pipelines.report.paper.item import Drawing, Item, Tables
from pipelines.report.paper.items import ITEMS
from pipelines.report.paper.png import packed
from pipelines.store.objects import Store

READING = (
    "Each table and figure of arXiv 2606.07082, drawn from the runs of this study, with what the paper reports beside "
    "it: hollow diamonds and pale bars, with a triangle at the end where a run arrives. Lines and filled marks are "
    "means over seeds, bands and whiskers their 95 % Student-t intervals, very wide for two seeds and absent for one. "
    "On log axes both are of logarithms. The views: bf16 is what is served, master the weights that were trained."
)
DIGITS = 4


def section(tables: Tables, store: Store | None = None) -> str:
    """All items as HTML. `tables`: lake tables of one study; `store`: where its weights are, for figure 3's maps."""
    figures = "\n".join(shown(item, item.draw(whole(tables), store)) for item in ITEMS)
    return f'{markup.paragraph(READING)}<div class="figures">{figures}</div>'


def picture(drawing: Drawing) -> bytes | None:
    """A drawing as PNG."""
    return None if drawing.chart is None else packed(render_png(drawing.chart, scale=1.0))


def whole(tables: Tables) -> dict[str, pl.LazyFrame]:
    """`tables` with an empty one in the place of each that is absent."""
    return {name: pl.LazyFrame(schema=table.schema) for name, table in TABLES.items()} | dict(tables)


def shown(item: Item, drawing: Drawing) -> str:
    """One item: figure, what it shows and what not, and its numbers beside the paper's."""
    key = f"paper-{item.key}"
    card = ""
    if drawing.chart is not None:
        svg = markup.inline(adaptive(render_svg(drawing.chart)), key, item.shows)
        card = f'<div class="card">{svg}</div>'
    notes = [("Shows.", item.shows), ("Does not show.", item.not_shown), ("The paper.", reported(item))]
    notes += [("Left out.", sentence) for sentence in drawing.absent]
    words = "".join(f"<p><b>{escape(lead)}</b> {escape(text)}</p>" for lead, text in notes)
    title = f"<h3>{escape(item.title)}</h3>"
    caption = f"<figcaption>{words}</figcaption>"
    return f'<figure id="{key}">{title}{card}{caption}{listed(item, drawing)}</figure>'


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
        (row["quantity"], row["arm"], row["view"], number(row["value"]), between(row), str(row["seeds"]), row["paper"])
        for row in drawing.numbers.iter_rows(named=True)
    ]
    heading = ("quantity", "arm", "view", "mean", "95 % interval", "seeds", "paper")
    table = markup.table(f"{item.title}: the numbers", heading, lines)
    return f'<details><summary>Numbers</summary><div class="numbers">{table}</div></details>'


def between(row: Mapping[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """Four significant digits, with a power of ten where a plain number would be long."""
    return f"{value:.2e}" if 0 < abs(value) < 1e-2 else fixed(value, decimals(value, DIGITS))
