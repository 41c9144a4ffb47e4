"""One study as a self-contained HTML page: no script, no request, readable on paper, a phone or a wide screen."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import polars as pl

from pipelines.report import beside, bounds, inventory, markup, objectives, prose
from pipelines.report.arms import ARMS, BY_KEY
from pipelines.report.captions import FIGURES
from pipelines.report.figures import render_svg
from pipelines.report.headline import grid, headline
from pipelines.report.numbers import PLUS_MINUS, change, quantity
from pipelines.report.samples import table as rows_of
from pipelines.report.verdicts import verdicts

SECTIONS = (
    ("findings", "Findings"),
    ("headline", "Headline numbers"),
    ("figures", "Figures"),
    ("objectives", "Objectives"),
    ("verdicts", "Every verdict"),
    ("evaluation", "Accuracy before and after"),
    ("missing", "Values that do not exist"),
    ("bounds", "How exact the numbers are"),
    ("limits", "How to read this, and limits"),
    ("provenance", "Provenance"),
)
MEANS = f"Mean {PLUS_MINUS} half-width of the 95 % interval over seeds; the mean alone for one seed"
LIMITS = """\
Intervals are 95 % Student-t intervals over seeds, paired by seed where two arms are compared. They are not corrected
for the number of statements: about one in twenty would exclude zero by chance.

A verdict holds if its interval lies wholly on the claimed side, fails if wholly on the other, and is undecided
otherwise. Undecided is not evidence of equality.

Means are over the matrices that have a value. A matrix without one (see the table of missing values) is left out, which
can differ between arms.

Every projection matrix of the decoder counts once, whatever its size; the paper's trajectories use attention matrices
only. The share of unchanged weights is weighted by parameter count.

The bf16 view is what would be served; the master view has the precision that was trained. Rounding alone can imitate a
falling stable rank and a gradual locking.

The models are far smaller than the paper's 8B and train for far fewer steps: orders are compared, not levels.
"""


def page(study: str, tables: Mapping[str, pl.LazyFrame], *, provenance: Mapping[str, str]) -> str:
    """The page of `study`. `tables`: lake tables filtered to the study; `provenance`: what to state, as label to text.

    Every conclusion is generated from the verdict rows of the same tables.
    """
    decided = verdicts(study, tables)
    bodies = {
        "findings": findings(decided),
        "headline": numbers(headline(study, tables)),
        "figures": drawings(tables),
        "objectives": varied(objectives.objectives(study, tables)),
        "verdicts": ledger(decided),
        "evaluation": accuracy(inventory.evaluations(tables)),
        "missing": missing(inventory.missing(tables)),
        "bounds": exactness(bounds.relative(tables)),
        "limits": markup.items(" ".join(text.split()) for text in LIMITS.split("\n\n")),
        "provenance": "<dl>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in provenance.items())
        + "</dl>",
    }
    title = f"Weight geometry of SFT, OPD and RLVR: study {study}"
    shown = [(key, name) for key, name in SECTIONS if bodies[key]]
    main = "\n".join(markup.section(key, name, bodies[key]) for key, name in shown)
    css = files("pipelines.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{css}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the findings</a>
<header>
<h1>{escape(title)}</h1>
{introduction(tables, provenance, shown)}
</header>
<main id="main">
{main}
</main>
</body>
</html>
"""


def introduction(
    tables: Mapping[str, pl.LazyFrame], provenance: Mapping[str, str], sections: Sequence[tuple[str, str]]
) -> str:
    """What was run: a paragraph, the sections, and a table of the arms."""
    nav = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name in sections)
    contents = f'<nav aria-label="Sections"><ul>{nav}</ul></nav>'
    ran, same = inventory.runs(tables), inventory.starts(tables)
    if ran.is_empty():
        told = "The tables hold no runs of the arms that are put beside the paper: " + prose.listed(
            [arm.label for arm in ARMS], ", "
        )
        return markup.paragraph(f"{told}.", "lead") + contents
    names = [f"{BY_KEY[row['arm']].label} ({row['run_steps']} steps)" for row in ran.iter_rows(named=True)]
    arms = prose.listed(names, ", ")
    seeds = prose.listed(sorted({seed for text in ran["seeds"] for seed in text.split(", ")}, key=int), ", ")
    plural = "seed" if seeds.isdigit() else "seeds"
    commit = f" at commit {provenance['commit']}" if "commit" in provenance else ""
    lead = (
        f"{arms} were trained with {plural} {seeds}{commit}, and every weight matrix was compared with its start. "
        "This page puts the result beside the 8B runs of arXiv 2606.07082."
    )
    heading = ("arm", "what it is", "same start as OPD", "seeds", "steps", "learning rate", "optimizer")
    lines = [
        (
            BY_KEY[row["arm"]].label,
            BY_KEY[row["arm"]].meaning,
            {True: "yes", False: "no", None: "not known"}[same.get(row["arm"])],
            row["seeds"],
            row["run_steps"],
            row["learning_rate"],
            row["optimizer"],
        )
        for row in ran.iter_rows(named=True)
    ]
    arms_table = markup.table("The arms of this study", heading, lines)
    return markup.paragraph(lead, "lead") + contents + f'<div class="arms">{arms_table}</div>'


def findings(decided: pl.DataFrame) -> str:
    """What reproduces, what does not and what the control shows, in sentences made from the verdict rows."""
    parts = [markup.paragraph(prose.summary(decided), "lead")]
    for standing, heading in prose.HEADINGS.items():
        sentences = prose.bullets(decided, standing)
        if sentences:
            parts += [f"<h3>{escape(heading)}</h3>", markup.items(sentences)]
    split = prose.split_views(decided)
    if split:
        words = (
            "These come out differently on bf16 weights and on master weights, so storage precision has a part in them."
        )
        parts += ["<h3>What depends on the view</h3>", markup.paragraph(words), markup.items(split)]
    parts += ["<h3>What the matched control shows</h3>", markup.paragraph(prose.control(decided))]
    controlled = prose.section(decided, "control")
    if controlled:
        lines = [
            (
                claim.metric.words,
                quantity(row["left_value"], claim.metric.unit),
                quantity(row["right_value"], claim.metric.unit),
                change(row["effect"], row["low"], row["high"], claim.metric.unit),
                prose.scale(decided, claim.metric),
                markup.badge(
                    {"holds": "differs", "undecided": "not told apart"}.get(prose.status(row), prose.status(row))
                ),
            )
            for claim, row in controlled
        ]
        heading = ("metric", "OPD", "control", "OPD - control [95 %]", "OPD - RLVR, for scale", "verdict")
        caption = "OPD beside offline cross-entropy with the same start, learning rate, steps and batch"
        parts.append(f'<div class="numbers">{markup.table(caption, heading, lines, raw=(5,))}</div>')
    scored = prose.section(decided, "accuracy")
    if scored:
        parts += [
            "<h3>Accuracy</h3>",
            markup.items(f"{c.text}: {prose.status(r)}. {prose.evidence(c, r)}." for c, r in scored),
        ]
    return "\n".join(parts)


def numbers(table: pl.DataFrame) -> str:
    heading, *lines = grid(table)
    return f'<div class="numbers">{markup.table(MEANS, heading, lines)}</div>'


def drawings(tables: Mapping[str, pl.LazyFrame]) -> str:
    """Every figure whose tables have rows."""
    drawn = []
    for figure in FIGURES:
        if any(rows_of(tables, name).head(1).collect().is_empty() for name in figure.needs):
            continue
        taken = figure.takes(tables)
        notes = [("What it means.", figure.meaning), ("How it is computed.", figure.how), ("Careful.", figure.caveat)]
        told, alt = None if figure.null is None else beside.sentence(figure.null(*taken), *figure.told), figure.alt
        if told is not None:
            notes.insert(1, ("Beside a null.", told))
            alt += " Thin dashed in bf16: the null, one line per arm."
        drawn.append(markup.figure(figure.key, figure.title, render_svg(figure.draw(*taken)), alt, notes))
    return (
        f'<div class="figures">{"".join(drawn)}</div>'
        if drawn
        else markup.paragraph("The tables hold nothing to draw.")
    )


def varied(table: pl.DataFrame) -> str:
    """The arms of the suite objectives beside OPD and RLVR; nothing where none is measured."""
    if table.is_empty():
        return ""
    told = (
        "Arms with OPD's start, learning rate and steps that differ from it in their objective or in whose responses "
        "they read. No difference is tested here: compare the intervals."
    )
    heading, *lines = objectives.grid(table)
    return (
        markup.paragraph(told)
        + markup.items(objectives.differences(table))
        + f'<div class="numbers objectives">{markup.table(MEANS, heading, lines)}</div>'
    )


def ledger(decided: pl.DataFrame) -> str:
    lines = [
        (
            row["claim"],
            markup.badge(prose.status(row)),
            change(row["effect"], row["low"], row["high"], claim.metric.unit),
            str(row["seeds"]),
            row["paper"],
            row["metric"],
            row["note"],
        )
        for name in ("paper", "control", "accuracy")
        for claim, row in prose.section(decided, name)
    ]
    heading = ("claim", "verdict", "difference [95 %]", "seeds", "paper", "numbers from", "how to read it")
    return (
        f'<div class="verdicts">{markup.table("Every statement that could be tested", heading, lines, raw=(1,))}</div>'
    )


def accuracy(scores: pl.DataFrame) -> str:
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
    return f'<div class="numbers">{markup.table(caption, heading, lines)}</div>'


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
