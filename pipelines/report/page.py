"""Render a study as one self-contained HTML page, which loads nothing and is complete without its script."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files

import polars as pl

from pipelines.report import exhibits, hero, markup, sections, vega
from pipelines.statistics.samples import fill_tables
from pipelines.statistics.stories import story_of
from pipelines.statistics.verdicts import decide_all
from pipelines.store.objects import Store
from pipelines.studies.story import Story
from pipelines.studies.study import Study

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render_page(
    study: Study, tables: Mapping[str, pl.LazyFrame], *, provenance: Mapping[str, str], store: Store | None = None
) -> str:
    """The page of `study`. `tables`: lake tables filtered to the study; `provenance`: label to text;
    `store`: the store with the weights for block maps.

    Every conclusion is generated from the verdict rows of the same tables.
    """
    story, tables = story_of(study), fill_tables(tables)
    decided = decide_all(study.name, tables, story)
    picture = exhibits.draw_lead(story, tables, decided, story.core)
    top = hero.render_hero(study.name, tables, story, decided, picture, provenance)
    bodies = {
        "figures": ("What the weights did", exhibits.draw_figures(story, tables, decided, story.core, story.lead)),
        "maps": ("Where the changed weights are", exhibits.draw_block_maps(story, tables, store)),
        "exhibits": ("Beside what is published", exhibits.draw_exhibits(story, tables, decided, store)),
        "verdicts": ("Every statement", sections.render_verdicts(decided, story)),
        "suites": (
            "Other suites",
            sections.render_suites(study.name, tables, story, decided)
            + sections.describe_unmeasured_suites(study.name, tuple(study.suites), tables, story),
        ),
        "details": ("Tables", _tables(study.name, tables, story, provenance)),
    }
    shown = {key: pair for key, pair in bodies.items() if pair[1]}
    main = "\n".join(markup.section(key, title, body) for key, (title, body) in shown.items())
    contents = markup.contents((key, title) for key, (title, _) in shown.items())
    return render_document(story.title, top + contents, main)


def _tables(study: str, tables: Mapping[str, pl.LazyFrame], story: Story, provenance: Mapping[str, str]) -> str:
    parts = (
        sections.render_arms(tables, story),
        sections.render_accuracy(tables, story),
        sections.render_regimes(tables["regime"], story),
        sections.render_predictions(tables["predictions"].collect()),
        sections.render_sizes(study, tables, story),
        sections.render_weightings(study, tables, story),
        sections.render_missing(tables, story),
        sections.render_exactness(tables, story),
        sections.render_limits(tables, story),
        sections.render_provenance(provenance),
    )
    return "".join(parts)


def render_document(title: str, header: str, main: str) -> str:
    """A self-contained HTML document; its policy allows inline scripts and no requests."""
    css = files("pipelines.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{css}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the figures</a>
<header>
{header}
</header>
<main id="main" tabindex="-1">
{main}
</main>
{vega.bundle_scripts()}
</body>
</html>
"""
