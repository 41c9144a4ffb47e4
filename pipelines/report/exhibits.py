"""Render the figures of every study and the exhibits of a story."""

from collections.abc import Collection, Mapping, Sequence
from html import escape

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report import markup, vega, verdict_text
from pipelines.report.captions import FIGURES, Figure
from pipelines.report.figures import format_span
from pipelines.statistics import inventory
from pipelines.statistics.numbers import format_short, join_words
from pipelines.statistics.table_summaries import describe_tables
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Exhibit, Story, Tables

Numbers = Mapping[str, pl.DataFrame]  # by title of an axis, as `Figure.numbers` gives them
MAPPED = (
    "Which weights of one matrix changed, and which share of the changed ones lies in the principal mask and in the "
    "low-magnitude mask of the start."
)
NOISY = (
    "A block has a few dozen to a few thousand weights, so maps are noisy. They do not show the size of changes. "
    "The bf16 grid is finer at small weights, which favours the low-magnitude mask."
)
FOLDED = "Method, controls, numbers"


def draw_figures(story: Story, tables: Tables, decided: pl.DataFrame, arms: Sequence[str], leave_out: str = "") -> str:
    """Every figure whose tables have rows of `arms`, but for the one with the key `leave_out`."""
    measured = inventory.describe_arms(tables, arms)["arm"].to_list()
    drawn = [
        draw_figure(figure, story, tables, decided, arms, numbers, measured)
        for figure in FIGURES
        if figure.key != leave_out and (numbers := drawn_numbers(figure, story, tables, arms))
    ]
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def drawn_numbers(figure: Figure, story: Story, tables: Tables, arms: Sequence[str]) -> Numbers:
    """The numbers of a figure; empty if there are none, for example if no weight moved."""
    if not figure.is_measured(tables, arms):
        return {}
    numbers = figure.numbers(story, tables, arms)
    return numbers if any(not rows.is_empty() for rows in numbers.values()) else {}


def describe_missing_arms(numbers: Numbers, measured: Sequence[str], story: Story) -> str:
    """One line that names the measured arms without values in a figure."""
    drawn = {label for rows in numbers.values() for label in rows["arm"]}
    absent = [story.label(arm) for arm in measured if story.label(arm) not in drawn]
    return f"Not drawn, no values: {join_words(absent)}." if absent else ""


def draw_figure(
    figure: Figure,
    story: Story,
    tables: Tables,
    decided: pl.DataFrame,
    arms: Sequence[str],
    numbers: Numbers,
    measured: Sequence[str],
) -> str:
    """One figure: picture, one line of meaning, and a folded explanation."""
    picture = vega.embed_chart(figure.draw(story, tables, arms), figure.key, figure.title, figure.alt)
    more = explain_figure(figure, story, tables, decided, arms, numbers)
    absent = markup.paragraph(describe_missing_arms(numbers, measured, story), "quiet")
    return markup.figure(figure.key, figure.title, picture, figure.meaning, absent, more)


def explain_figure(
    figure: Figure, story: Story, tables: Tables, decided: pl.DataFrame, arms: Sequence[str], numbers: Numbers
) -> str:
    """The folded explanation under a figure."""
    how = " ".join([figure.how, *describe_tables([name for name in figure.needs if name != "nulls"], tables, arms)])
    notes = markup.notes(
        (
            ("Null.", figure.null_sentence(story, tables, arms) or ""),
            ("Method.", how),
            ("Caveat.", figure.caveat),
        )
    )
    return markup.details(FOLDED, notes, list_statements(decided, story, figure.needs), tabulate_figure(numbers))


def draw_lead(story: Story, tables: Tables, decided: pl.DataFrame, arms: Sequence[str]) -> str:
    """The chart of the first screen; empty if its tables have no rows."""
    figure = next((figure for figure in FIGURES if figure.key == story.lead), None)
    if figure is None or not (numbers := drawn_numbers(figure, story, tables, arms)):
        return ""
    picture = vega.embed_chart(figure.draw(story, tables, arms), "lead", figure.title, figure.alt)
    more = explain_figure(figure, story, tables, decided, arms, numbers)
    return markup.figure(f"lead-{figure.key}", figure.title, picture, figure.meaning, more, level=2)


def tabulate_figure(parts: Mapping[str, pl.DataFrame]) -> str:
    """The numbers of a figure: one table per axis title, one line per place on the other axis, or per role."""
    tables = []
    for caption, rows in parts.items():
        keys = [name for name in rows.columns if name not in ("arm", "view", "value", "low", "high")]
        views = [view for view in ("bf16", "master") if view in set(rows["view"])]
        columns = [(arm, view) for arm in rows["arm"].unique(maintain_order=True) for view in views]
        by_place = {(row["arm"], row["view"], row[keys[0]]): row for row in rows.iter_rows(named=True)}
        lines = []
        for place in rows[keys[0]].unique(maintain_order=True) if keys[0] == "role" else rows[keys[0]].unique().sort():
            cells = [by_place.get((*column, place)) for column in columns]
            values = ["-" if cell is None else format_span(cell["value"], cell["low"], cell["high"]) for cell in cells]
            lines.append((place if isinstance(place, str) else f"{place:.4g}", *values))
        heading = (keys[0], *(f"{arm}, {view}" for arm, view in columns))
        tables.append(markup.table(caption, heading, lines))
    return "".join(tables)


def list_statements(
    decided: pl.DataFrame, story: Story, names: Collection[str], suites: Sequence[str] = ("core",)
) -> str:
    """The claims that use the tables `names`, one line each with verdict and control."""
    lines = []
    for row in decided.iter_rows(named=True):
        claim = story.claim_by_text[row["claim"]]
        if claim.metric.table in names and claim.suite in suites:
            control = verdict_text.describe_control(claim, row)
            says = "" if control == "-" else f" Control: {control}."
            text = f"{claim.text}: {verdict_text.describe_evidence(claim, row, story)}.{says}"
            lines.append(f"<li>{markup.badge(verdict_text.status_word(row))} {escape(text)}</li>")
    return f'<ul class="statements">{"".join(lines)}</ul>' if lines else ""


def draw_block_maps(story: Story, tables: Tables, store: Store | None) -> str:
    """Block maps of one matrix, if the weights are in the store and the story has no exhibits of its own."""
    if store is None or story.exhibits:
        return ""
    from pipelines.report.maps import draw_maps

    drawing = draw_maps(story, tables, store)
    if drawing.chart is None:
        return ""
    picture = vega.embed_chart(drawing.chart, "block-maps", MAPPED, MAPPED)
    notes = markup.notes((("Shown.", " ".join(drawing.absent)), ("Caveat.", NOISY)))
    more = markup.details("What the maps show", notes)
    return f'<div class="figures">{markup.figure("blocks", "One matrix in blocks", picture, MAPPED, more)}</div>'


def draw_exhibits(story: Story, tables: Tables, decided: pl.DataFrame, store: Store | None) -> str:
    """The exhibits of a story whose suites have a measured run."""
    parts = [
        draw_exhibit(exhibit, exhibit.draw(tables, store), story, tables, decided)
        for exhibit in story.exhibits
        if has_measured_run(exhibit, story, tables)
    ]
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def has_measured_run(exhibit: Exhibit, story: Story, tables: Tables) -> bool:
    """Whether a table that the exhibit needs has a run of one of its suites."""
    arms = {suite.name: suite.arms for suite in story.suites} | {"core": story.core}
    keys = [arm for suite in exhibit.suites for arm in arms.get(suite, ())]
    for name in exhibit.needs:
        if name in tables and "recipe" in TABLES[name].schema and name != "training":
            recipes = tables[name].select(pl.col("recipe").unique()).collect()["recipe"].to_list()
            if not {recipe.partition(".")[2] for recipe in recipes}.isdisjoint(keys):
                return True
    return False


def draw_exhibit(exhibit: Exhibit, drawing: Drawing, story: Story, tables: Tables, decided: pl.DataFrame) -> str:
    """One exhibit: picture and meaning; folded: limits, numbers and source."""
    if drawing.chart is None:
        return ""
    key = f"exhibit-{exhibit.key}"
    picture = vega.embed_chart(drawing.chart, key, exhibit.title, exhibit.shows)
    how = describe_tables([name for name in exhibit.needs if name != "nulls"], tables, story.all_arms)
    notes = markup.notes(
        (
            ("Method.", " ".join([*how, "Means over seeds with 95 % Student-t intervals."])),
            ("What it does not show.", exhibit.not_shown),
            (f"{story.source}.", exhibit.reported),
            ("Missing.", " ".join(drawing.absent)),
        )
    )
    more = markup.details(
        FOLDED,
        notes,
        list_statements(decided, story, exhibit.needs, exhibit.suites),
        tabulate_exhibit(drawing.numbers, story),
    )
    return markup.figure(key, exhibit.title, picture, exhibit.shows, more)


def tabulate_exhibit(numbers: pl.DataFrame, story: Story) -> str:
    """The numbers of an exhibit as a table."""
    if numbers.is_empty():
        return ""
    lines = [
        (
            row["quantity"],
            row["arm"],
            row["view"],
            format_short(row["value"]),
            _between(row),
            str(row["seeds"]),
            row["paper"],
        )
        for row in numbers.iter_rows(named=True)
    ]
    heading = ("quantity", "arm", "view", "mean", "95 % interval", "seeds", story.source)
    return markup.table("Numbers", heading, lines)


def _between(row: Mapping[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    return "-" if low is None or high is None else f"{format_short(low)} to {format_short(high)}"
