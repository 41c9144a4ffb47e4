"""Render one imported trajectory as a self-contained HTML page: numbers, regime and figures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import polars as pl

from pipelines.regimes.diagnostics import BY_NAME
from pipelines.regimes.judging import CANNOT_TELL, Comparison, agree_views
from pipelines.regimes.rows import to_measured_scale
from pipelines.regimes.verdict_text import describe_verdict
from pipelines.report import exhibits, markup, palette, sections
from pipelines.report.hero import headline_cell
from pipelines.report.page import render_document
from pipelines.statistics.headline import headline_rows
from pipelines.statistics.metrics import NORM, NSS, ROTATION, STABLE_RANK, UNCHANGED
from pipelines.statistics.numbers import format_quantity, format_short
from pipelines.statistics.samples import fill_tables
from pipelines.statistics.stories import story_of
from pipelines.statistics.verdicts import decide_all
from pipelines.studies.catalog import find_study
from pipelines.studies.story import Arm, Story

IMPORTED = " (imported)"  # ends the key of a trajectory from elsewhere
UNJUDGED = (
    "No regime: this store holds no study whose arms are measured over two seeds or more. "
    "opd study run tiny makes one; then opd report {recipe} writes this page again."
)
HELD = (
    "Each diagnostic where the run and every reference had moved their weights equally far. Distance is in units of "
    "the references' spread over seeds. A verdict needs the nearest reference to stand out in every view."
)
HEADLINE = (UNCHANGED, ROTATION["bf16"], NSS["bf16"], NORM["bf16"], STABLE_RANK["master"])


def render_import(
    recipe: str,
    tables: Mapping[str, pl.LazyFrame],
    judged: Mapping[str, Sequence[Comparison]],
    *,
    provenance: Mapping[str, str],
) -> str:
    """The page of the import `recipe` (external.NAME).

    tables: lake tables with its rows and, if `judged` is not empty, the rows of the first study in it. judged: the
    comparisons of the run by study of references.
    """
    name = recipe.removeprefix("external.")
    own_key = f"{name}{IMPORTED}"
    shown = {table: _rename_import(rows, recipe, own_key) for table, rows in fill_tables(tables).items()}
    story = _story(own_key, name, next(iter(judged), None))
    nothing = decide_all("external", {}, story)
    bodies = {
        "regime": ("Which regime it is in", _verdict(recipe, judged)),
        "figures": ("What the weights did", exhibits.draw_figures(story, shown, nothing, story.core, story.lead)),
        "details": (
            "Tables",
            "".join(_render_distances(study, comparisons) for study, comparisons in judged.items())
            + _render_bands(shown["monitor"].filter(pl.col("recipe") == f"external.{own_key}").collect())
            + sections.render_exactness(shown, story)
            + sections.render_limits(shown, story)
            + sections.render_provenance(provenance),
        ),
    }
    measured = {key: pair for key, pair in bodies.items() if pair[1]}
    main = "\n".join(markup.section(key, title, body) for key, (title, body) in measured.items())
    return render_document(story.title, _render_hero(shown, story, own_key, nothing), main)


def _story(key: str, name: str, study: str | None) -> Story:
    """A story with the import first, then the reference arms of `study` in their own look."""
    own = None if study is None else story_of(find_study(study))
    references = [] if own is None else palette.arm_looks(own, tuple(own.references))
    arms = (Arm(key=key, label=name, meaning="imported", shape="cross"), *references)
    return Story(title=f"Weight geometry of {name}", arms=arms, core=tuple(arm.key for arm in arms), claims=())


def _rename_import(rows: pl.LazyFrame, recipe: str, key: str) -> pl.LazyFrame:
    """Rename the import to a key that no arm of a study has."""
    if "recipe" not in rows.collect_schema():
        return rows
    return rows.with_columns(pl.col("recipe").replace({recipe: f"external.{key}"}))


def _render_hero(tables: Mapping[str, pl.LazyFrame], story: Story, own_key: str, nothing: pl.DataFrame) -> str:
    """The first screen: what was measured, the numbers of the import and the references, and one chart."""
    weights = [
        rows.filter(pl.col("recipe") == f"external.{own_key}").select("matrix", "step").unique()
        for name, rows in tables.items()
        if name in ("update_norm", "update_support", "rotation", "hill", "spectral_drift")
    ]
    rows = pl.concat(weights).collect()
    steps = sorted(set(rows["step"]) - {0})
    ends = "" if not steps else f" ({steps[0]})" if len(steps) == 1 else f" ({steps[0]} to {steps[-1]})"
    counted = f"{rows['matrix'].n_unique()} weight matrices at {len(steps)} step{'' if len(steps) == 1 else 's'}{ends}"
    picture = exhibits.draw_lead(story, tables, nothing, story.core)
    side = f'<div class="lead-figure">{picture}</div>' if picture else ""
    return (
        f"<h1>{escape(story.title)}</h1>"
        f"{markup.paragraph(f'{counted}, each compared with the weights it began with.', 'lead')}"
        f'<div class="hero"><div>{_numbers(tables, story, own_key)}</div>{side}</div>'
    )


def _numbers(tables: Mapping[str, pl.LazyFrame], story: Story, own_key: str) -> str:
    numbers = headline_rows("external", tables, story, HEADLINE)
    arms = [arm for arm in story.core if arm in set(numbers["arm"])]
    if own_key not in arms:
        return ""
    lines = []
    for (metric,), group in numbers.group_by("metric", maintain_order=True):
        rows = {row["arm"]: row for row in group.iter_rows(named=True)}
        lines.append((escape(str(metric)), *(headline_cell(rows.get(arm)) for arm in arms)))
    beside = ", beside the reference runs' means with 95 % intervals over seeds" if len(arms) > 1 else ""
    heading = ("", *map(story.label, arms))
    caption = f"At the last step{beside}"
    return markup.table(caption, heading, lines, raw=range(len(heading)), kind="headline", columns=len(arms))


def _verdict(recipe: str, judged: Mapping[str, Sequence[Comparison]]) -> str:
    if not judged:
        return markup.paragraph(UNJUDGED.format(recipe=recipe))
    parts = []
    for study, comparisons in judged.items():
        verdict = agree_views(comparisons)
        kind = "undecided" if verdict == CANNOT_TELL else "holds"
        badge = f'<span class="badge {kind}">{escape(verdict)}</span>'
        parts.append(f"<p>{badge} beside the runs of study {escape(study)}.</p>")
        parts.append(markup.details("Why", markup.paragraph(describe_verdict(comparisons)), markup.paragraph(HELD)))
    return "".join(parts)


def _render_distances(study: str, comparisons: Sequence[Comparison]) -> str:
    """One table of distances per view at matched norm."""
    parts = []
    for comparison in comparisons:
        if comparison.budget != "norm" or comparison.beside is None or comparison.point is None:
            continue
        labels, lines = comparison.labels, []
        for name in comparison.beside.names:
            values = [comparison.point.values, *(comparison.centres[arm] for arm in labels)]
            cells = [format_quantity(to_measured_scale(name, value[name]), "") for value in values]
            lines.append((BY_NAME[name].words, *cells, *(f"{comparison.distances[arm][name]:.2g}" for arm in labels)))
        far = (f"{comparison.combined[arm]:.2g}" for arm in labels)
        lines.append(("root mean square", *["-"] * (1 + len(labels)), *far))
        heading = ("diagnostic", "this run", *labels.values(), *(f"to {label}" for label in labels.values()))
        caption = (
            f"{comparison.run.view}, study {study}, at a relative norm of {comparison.norm:.3g}: {comparison.verdict}"
        )
        parts.append(markup.table(caption, heading, lines))
        parts += [
            markup.paragraph(f"Left out: {BY_NAME[name].words}, since {why}.", "quiet")
            for name, why in comparison.left_out.items()
        ]
    return markup.details(f"Its diagnostics beside study {study}", *parts) if parts else ""


def _render_bands(rows: pl.DataFrame) -> str:
    """The latest reading of every quantity that `opd monitor` compares with a band; empty without readings."""
    if rows.is_empty():
        return ""
    last = rows.filter(pl.col("step") == pl.col("step").max()).sort("view", "quantity")
    lines = [
        (
            f"{row['quantity']}, {row['view']}",
            *(_or_dash(row[name]) for name in ("value", "low", "high")),
            _describe_inside(row),
        )
        for row in last.iter_rows(named=True)
    ]
    table = markup.table(f"At step {last['step'][0]}", ("quantity", "run", "from", "to", "band"), lines)
    return markup.details("Beside the band it is held against", table)


def _describe_inside(row: Mapping[str, Any]) -> str:
    return {True: "inside", False: "outside", None: "no band"}[row["inside"]]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else format_short(value)
