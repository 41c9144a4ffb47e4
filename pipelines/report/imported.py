"""One imported trajectory as a self-contained HTML page: its regime first, its figures beside the references."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import polars as pl

from pipelines.paper.items import ITEMS
from pipelines.paper.palette import IMPORTED
from pipelines.paper.section import BY_HAND, whole
from pipelines.regimes.diagnostics import BY_NAME
from pipelines.regimes.judging import CANNOT_TELL, Comparison, overall
from pipelines.regimes.references import ARMS
from pipelines.regimes.rows import natural
from pipelines.regimes.words import sentence
from pipelines.report import computed, exhibits, markup
from pipelines.report.arms import label
from pipelines.report.captions import FIGURES
from pipelines.report.page import LIMITS, document
from pipelines.statistics.numbers import quantity, short

UNJUDGED = (
    "No regime: this store holds no study with measured runs of SFT, OPD and RLVR over two seeds or more. "
    "opd study run tiny makes one; then opd report {recipe} writes this page again."
)
HELD = (
    "Each diagnostic where the run and every reference had moved their weights equally far. Distance is in units of "
    "the references' spread over seeds. A verdict needs the nearest reference to stand out in every view."
)
SECTIONS = (
    ("verdict", "Which regime it is in"),
    ("diagnostics", "Its diagnostics beside the references"),
    ("band", "Beside the band it is held against"),
    ("figures", "Figures"),
    ("limits", "How to read this, and limits"),
    ("provenance", "Provenance"),
)
READ = (0, 2, 3, 4)  # of page.LIMITS: those that are not about verdicts on arms


def page(
    recipe: str,
    tables: Mapping[str, pl.LazyFrame],
    judged: Mapping[str, Sequence[Comparison]],
    *,
    provenance: Mapping[str, str],
) -> str:
    """The page of the import `recipe` (external.NAME).

    tables: lake tables with its rows and, where `judged` is not empty, those of the first study in it. judged: by study
    of references, the run beside them (`runs.judging.judge`).
    """
    mine = f"{recipe.removeprefix('external.')}{IMPORTED}"
    shown = {name: _renamed(rows, recipe, mine) for name, rows in whole(tables).items()}
    arms = (mine, *(ARMS if judged else ()))
    bodies = {
        "verdict": _verdict(recipe, judged),
        "diagnostics": "".join(_beside(study, found) for study, found in judged.items()),
        "band": _band(whole(tables)["monitor"].filter(pl.col("recipe") == recipe).collect()),
        "figures": _figures(shown, mine, arms),
        "limits": markup.items(
            " ".join(text.split()) for place, text in enumerate(LIMITS.split("\n\n")) if place in READ
        ),
        "provenance": markup.facts(provenance),
    }
    there = [(key, title) for key, title in SECTIONS if bodies[key]]
    main = "\n".join(markup.section(key, title, bodies[key]) for key, title in there)
    return document(f"Weight geometry of {recipe}", _introduction(shown, mine) + markup.contents(there), main)


def _renamed(rows: pl.LazyFrame, recipe: str, mine: str) -> pl.LazyFrame:
    """The import under a name that no arm of a study has."""
    if "recipe" not in rows.collect_schema():
        return rows
    return rows.with_columns(pl.col("recipe").replace({recipe: f"external.{mine}"}))


def _introduction(tables: Mapping[str, pl.LazyFrame], mine: str) -> str:
    known = [
        rows.filter(pl.col("recipe") == f"external.{mine}").select("matrix", "step").unique()
        for name, rows in tables.items()
        if name in ("update_norm", "update_support", "rotation", "hill", "spectral_drift")
    ]
    rows = pl.concat(known).collect()
    steps = sorted(set(rows["step"]) - {0})
    counted = f"{rows['matrix'].n_unique()} weight matrices at {len(steps)} step{'' if len(steps) == 1 else 's'}"
    ends = "" if not steps else f" ({steps[0]})" if len(steps) == 1 else f" ({steps[0]} to {steps[-1]})"
    told = f"A trajectory that was trained elsewhere: {counted}{ends}, each compared with the weights it began with."
    return markup.paragraph(told, "lead")


def _verdict(recipe: str, judged: Mapping[str, Sequence[Comparison]]) -> str:
    if not judged:
        return markup.paragraph(UNJUDGED.format(recipe=recipe), "lead")
    parts = []
    for study, found in judged.items():
        verdict = overall(found)
        kind = "undecided" if verdict == CANNOT_TELL else "holds"
        badge = f'<span class="badge {kind}">{escape(verdict)}</span>'
        parts.append(f'<p class="lead">{badge} beside the runs of study {escape(study)}.</p>')
        parts.append(markup.paragraph(sentence(found)))
    return "".join(parts)


def _beside(study: str, found: Sequence[Comparison]) -> str:
    """A table per view at matched norm."""
    parts = [markup.paragraph(HELD)]
    for one in found:
        if one.budget != "norm" or one.beside is None or one.point is None:
            continue
        lines = []
        for name in one.beside.names:
            values = [one.point.values, *(one.centres[arm] for arm in ARMS)]
            shown = [quantity(natural(name, value[name]), "") for value in values]
            lines.append((BY_NAME[name].words, *shown, *(f"{one.distances[arm][name]:.2g}" for arm in ARMS)))
        far = (f"{one.combined[arm]:.2g}" for arm in ARMS)
        lines.append(("root mean square", *["-"] * (1 + len(ARMS)), *far))
        names = [label(arm) for arm in ARMS]
        heading = ("diagnostic", "this run", *names, *(f"to {name}" for name in names))
        caption = f"{one.run.view}, study {study}, at a relative norm of {one.norm:.3g}: {one.verdict}"
        parts.append(f'<div class="numbers suite">{markup.table(caption, heading, lines)}</div>')
        parts += [
            markup.paragraph(f"Left out: {BY_NAME[name].words}, since {why}.", "quiet")
            for name, why in one.left_out.items()
        ]
    return "".join(parts) if len(parts) > 1 else ""


def _band(rows: pl.DataFrame) -> str:
    """The latest reading of every quantity that `opd monitor` holds against a band; nothing where none is kept."""
    if rows.is_empty():
        return ""
    last = rows.filter(pl.col("step") == pl.col("step").max()).sort("view", "quantity")
    lines = [
        (f"{row['quantity']}, {row['view']}", *(_or_dash(row[name]) for name in ("value", "low", "high")), _inside(row))
        for row in last.iter_rows(named=True)
    ]
    caption = f"At step {last['step'][0]}"
    return f'<div class="numbers">{markup.table(caption, ("quantity", "run", "from", "to", "band"), lines)}</div>'


def _inside(row: Mapping[str, Any]) -> str:
    return {True: "inside", False: "outside", None: "no band"}[row["inside"]]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else short(value)


def _figures(tables: Mapping[str, pl.LazyFrame], mine: str, arms: tuple[str, ...]) -> str:
    """What one trajectory allows of each item of the paper."""
    parts = []
    for item in ITEMS:
        figures = [figure for figure in FIGURES if figure.item == item.key and _there(figure.needs, tables, mine)]
        if not figures:
            continue
        how = computed.computed([name for name in item.needs if name != "nulls"], tables, (mine,))
        notes = "".join(f"<p>{escape(sentence)}</p>" for sentence in how)
        heading = f'<h3 id="of-{item.key}">As in {escape(item.title)}</h3>'
        drawn = exhibits.drawings(tables, figures, arms, level=4)
        parts.append(f'<div class="item">{heading}{drawn}<div class="quiet">{notes}</div></div>')
    return markup.paragraph(BY_HAND, "by-hand") + "".join(parts) if parts else ""


def _there(names: Sequence[str], tables: Mapping[str, pl.LazyFrame], mine: str) -> bool:
    return all(
        not tables[name].filter(pl.col("recipe") == f"external.{mine}").head(1).collect().is_empty() for name in names
    )
