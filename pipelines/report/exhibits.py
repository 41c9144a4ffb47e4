"""The page's tables and figures: headline numbers, charts, the other suites, weightings, accuracy, what is missing."""

from collections.abc import Collection, Mapping, Sequence
from html import escape

import polars as pl

from pipelines.paper.suites import Suite
from pipelines.report import findings, grids, markup, prose
from pipelines.report.adaptive import adaptive
from pipelines.report.arms import BY_KEY, CORE
from pipelines.report.captions import FIGURES, Figure
from pipelines.report.claims import NORMED, Section
from pipelines.report.figures import render_svg, role_numbers, spanned
from pipelines.statistics import beside, means, power
from pipelines.statistics.headline import grid
from pipelines.statistics.numbers import PLUS_MINUS, quantity
from pipelines.statistics.samples import table as rows_of

MEANS = f"Mean {PLUS_MINUS} half-width of the 95 % interval over seeds; the mean alone for one seed, or for equal ones"
OUTCOMES = {
    "holds": "What holds",
    "fails": "What fails",
    "undecided": "What these seeds do not decide",
    **{words: f"What rests on {words}, and gets no verdict" for words in prose.FEW.values()},
}
WHOSE: dict[Section, str] = {"paper": "What the paper says of them", "ours": "What is asked here besides"}


def numbers(table: pl.DataFrame) -> str:
    heading, *lines = grid(table)
    return f'<div class="numbers">{markup.table(MEANS, heading, lines)}</div>'


def drawings(
    tables: Mapping[str, pl.LazyFrame],
    figures: Sequence[Figure] = FIGURES,
    arms: Collection[str] = CORE,
    *,
    level: int = 3,
) -> str:
    """Every one of `figures` whose tables have rows of `arms`."""
    drawn = []
    for figure in figures:
        if any(rows_of(tables, name, arms).head(1).collect().is_empty() for name in figure.needs):
            continue
        taken = figure.takes(tables)
        null = None if figure.null is None else figure.null(*taken, arms)
        told = None if null is None else beside.sentence(null, *figure.told)
        notes, alt = [("What it means.", figure.meaning), ("How it was computed.", figure.how)], figure.alt
        if told is not None:
            notes.insert(1, ("Beside a null.", told))
        if null is not None and not null.null.is_empty():
            alt += " Thin dashed in bf16: the null, one line per arm."
        card = markup.card(adaptive(render_svg(figure.draw(*taken, arms))), figure.key, figure.title, alt)
        notes.append(("Careful.", figure.caveat))
        if figure.choice is None:
            form, numbers = "", role_numbers(tables, arms)
        else:
            rows, first = figure.choice.rows(tables, arms), figure.choice.starts(tables, arms)
            form, numbers = figure.choice.form(figure.key, rows, first), figure.choice.numbers(rows, first)
        more = markup.details(f"Numbers of: {figure.title}", numbered(numbers))
        drawn.append(markup.figure(figure.key, figure.title, form + card, notes, more, level=level))
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def numbered(parts: Mapping[str, pl.DataFrame]) -> str:
    """What a figure draws, as a table per axis title: a line for each place along the other axis, or each role."""
    found = []
    for caption, rows in parts.items():
        keys = [name for name in rows.columns if name not in ("arm", "view", "value", "low", "high")]
        views = [view for view in ("bf16", "master") if view in set(rows["view"])]
        columns = [(arm, view) for arm in rows["arm"].unique(maintain_order=True) for view in views]
        known = {(row["arm"], row["view"], row[keys[0]]): row for row in rows.iter_rows(named=True)}
        lines = []
        for place in rows[keys[0]].unique(maintain_order=True) if keys[0] == "role" else rows[keys[0]].unique().sort():
            cells = [known.get((*column, place)) for column in columns]
            words = ["-" if cell is None else spanned(cell["value"], cell["low"], cell["high"]) for cell in cells]
            lines.append((place if isinstance(place, str) else f"{place:.4g}", *words))
        heading = (keys[0], *(f"{arm}, {view}" for arm, view in columns))
        found.append(f'<div class="numbers suite">{markup.table(caption, heading, lines)}</div>')
    return "".join(found)


def varied(suite: Suite, table: pl.DataFrame, decided: pl.DataFrame) -> str:
    """The arms of a suite, what differs and what was tested about them; nothing where none is measured."""
    if table.is_empty():
        return ""
    heading, *lines = grids.grid(suite, table)
    parts = [
        markup.paragraph(suite.told),
        markup.items(grids.differences(suite, table)),
        f'<div class="numbers suite">{markup.table(MEANS, heading, lines)}</div>',
    ]
    for whose, heading in WHOSE.items():
        told = prose.outcomes(decided, whose, suite.name)
        if told:
            parts.append(f"<h3>{escape(heading)}</h3>")
        for status, sentences in told.items():
            parts.append(
                markup.details(f"{OUTCOMES[status]} ({len(sentences)})", markup.items(sentences), open=whose == "paper")
            )
    normed = [pair for pair in prose.of_suite(decided, suite.name) if pair[0] in NORMED and pair[0].kind == "differs"]
    if normed:
        caption = "What is left between OPD and RLVR once their updates are equally large"
        parts.append(findings.apart(decided, normed, caption))
    return "\n".join(parts)


def weightings(table: pl.DataFrame, decided: pl.DataFrame) -> str:
    """Unweighted beside parameter-weighted means of the core arms, and each metric per role and layer, folded."""
    heading, *lines = means.weighed(table)
    if not lines:
        return ""
    parts = [
        markup.paragraph(prose.weighting(decided)),
        f'<div class="numbers">{markup.table(MEANS, heading, lines)}</div>',
        markup.paragraph("Per role and per layer, every matrix counting once:"),
    ]
    for metric in means.METRICS:
        tables = []
        for key in ("role", "layer"):
            heading, *lines = means.split(table, metric, key)
            if lines:
                tables.append(f'<div class="numbers">{markup.table(f"{metric.words}, by {key}", heading, lines)}</div>')
        if tables:
            parts.append(markup.details(metric.words, *tables))
    return "\n".join(parts)


def accuracy(scores: pl.DataFrame, powers: pl.DataFrame) -> str:
    """Scores before and after, and how small a difference they could show."""
    lines = [
        (
            BY_KEY[row["arm"]].label,
            "greedy" if row["temperature"] == 0 else f"T={row['temperature']:g}",
            "-" if row["before"] is None else f"{100 * row['before']:.1f} %",
            quantity(row["after"], "percent", row["half"]),
            "-" if row["stderr"] is None else f"{100 * row['stderr']:.1f} points",
            f"{row['n']} ({row['problems']} x {row['samples']})",
            str(row["seeds"]),
        )
        for row in scores.iter_rows(named=True)
    ]
    heading = ("arm", "sampling", "before", "after", "s.e. of one run", "n (problems x samples)", "seeds")
    caption = f"Exact-match accuracy; after: mean over seeds {PLUS_MINUS} half-width of the 95 % interval"
    parts = [f'<div class="numbers">{markup.table(caption, heading, lines)}</div>']
    if not powers.is_empty():
        heading, *lines = power.grid(powers)
        told = (
            "How narrow that is at T=1, in points. Every run answers the same problems, so differences between arms "
            "carry little of the problems' spread, and more seeds do not make an accuracy on the whole task more "
            "certain than its problems allow. The last column is the smallest difference from OPD that these "
            "seeds would show at 5 % in 80 % of cases, from the spread of the paired differences and the errors over "
            "samples and problems."
        )
        caption = "Half-widths of 95 % intervals of the final accuracy, in points: as run, and with more seeds"
        parts += [
            "<h3>Power</h3>",
            markup.paragraph(told),
            f'<div class="numbers suite">{markup.table(caption, heading, lines)}</div>',
        ]
    return "\n".join(parts)


def missing(absent: pl.DataFrame) -> str:
    if absent.is_empty():
        return markup.paragraph("Every value exists.")
    lines = [
        (row["table"], row["view"], row["reason"], f"{row['rows']} of {row['of']}")
        for row in absent.iter_rows(named=True)
    ]
    return markup.table("Rows with a value missing, by reason", ("table", "view", "reason", "rows"), lines)


def exactness(table: pl.DataFrame) -> str:
    """The algorithms' error bounds at the end of training, relative to the values they bound."""
    if table.is_empty():
        return markup.paragraph("The tables hold no error bounds.")
    told = (
        "Each value counted here is stored with a bound on the error of the algorithm that computed it. These are the "
        "bounds at the end of training, divided by the values, over matrices, views, sides, cuts and runs. They say "
        "nothing about the spread over seeds."
    )
    lines = [
        (
            row["quantity"],
            str(row["rows"]),
            *("-" if row[name] is None else quantity(row[name], "") for name in ("median", "largest")),
            str(row["vacuous"]),
            str(row["zero"]),
        )
        for row in table.iter_rows(named=True)
    ]
    heading = ("quantity", "values", "median bound / value", "largest", "left out: bound says nothing", "value is 0")
    caption = "Stored error bound relative to the value, at the end of training"
    return markup.paragraph(told) + f'<div class="numbers">{markup.table(caption, heading, lines)}</div>'
