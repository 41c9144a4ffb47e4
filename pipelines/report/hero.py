"""The first screen: result sentence, headline table, lead chart, and counts of verdicts as links."""

from collections.abc import Mapping
from html import escape

import polars as pl

from pipelines.report import markup, verdict_text
from pipelines.statistics import inventory
from pipelines.statistics.headline import ABSENT, headline_rows, split_cell
from pipelines.statistics.numbers import join_words
from pipelines.studies.catalog import study_arg
from pipelines.studies.story import Story, Tables

ROWS = 5
BESIDE = 4  # arms of a table that has room for a picture beside it


def render_hero(
    study: str, tables: Tables, story: Story, decided: pl.DataFrame, picture: str, provenance: Mapping[str, str]
) -> str:
    """picture: HTML of the story's lead figure; may be empty."""
    numbers = headline_rows(study, tables, story, story.headline[:ROWS])
    try:
        sentences = story.lines(decided, numbers) if story.lines is not None else []
    except Exception as error:
        raise ValueError(f"Story.lines of study {study} fails: {type(error).__name__}: {error}") from error
    result = sentences[0] if sentences else verdict_text.describe_result(decided, story)
    left = "".join(filter(None, (render_table(numbers, story), render_chips(decided))))
    side = f'<div class="lead-figure">{picture}</div>' if picture else ""
    beside = "hero" if len(story.core) <= BESIDE else "hero below"
    return (
        f"{markup.paragraph(describe_run(study, tables, story, provenance), 'eyebrow')}<h1>{escape(story.title)}</h1>"
        f'{markup.paragraph(result, "lead")}<div class="{beside}"><div>{left}</div>{side}</div>'
    )


def describe_run(study: str, tables: Tables, story: Story, provenance: Mapping[str, str]) -> str:
    """Describe the runs in one line: "study tiny: 4 arms, seeds 0, 1 and 2, commit 1234"."""
    runs = inventory.describe_arms(tables, story.core)
    if runs.is_empty():
        return f"Study {study}: no run of the suite core is measured yet. opd study run {study_arg(study)}"
    seeds = sorted({seed for text in runs["seeds"] for seed in text.split(", ")}, key=int)
    arms = f"{runs.height} arm{'' if runs.height == 1 else 's'}"
    commit = f", commit {provenance['commit']}" if "commit" in provenance else ""
    return f"Study {study}: {arms}, seed{'' if len(seeds) == 1 else 's'} {join_words(seeds)}{commit}"


def render_table(numbers: pl.DataFrame, story: Story) -> str:
    """At most `ROWS` metrics by arms, with intervals, and below each the value that the source reports."""
    arms = [arm for arm in story.core if arm in set(numbers["arm"])]
    if not arms:
        return ""
    lines, most = [], numbers["seeds"].max()
    for (metric,), group in numbers.group_by("metric", maintain_order=True):
        rows = {row["arm"]: row for row in group.iter_rows(named=True)}
        lines.append((escape(str(metric)), *(headline_cell(rows.get(arm), most) for arm in arms)))
    few = numbers["seeds"].max() == 1
    caption = "One seed: no intervals." if few else "Mean and 95 % interval over seeds"
    caption += f"; below it: {story.source}" if story.reported else ""
    heading = ("", *map(story.label, arms))
    return markup.table(caption, heading, lines, raw=range(len(heading)), kind="headline", columns=len(arms))


def headline_cell(row: Mapping[str, object] | None, most: object = None) -> str:
    """HTML of a value with its interval and the value of the source below. most: number of seeds of the other cells."""
    if row is None:
        return ABSENT
    value, interval = split_cell(row)
    if most is not None and row["seeds"] != most:
        interval = f"{interval} {row['seeds']} of {most} seeds".strip()
    half = f'<span class="half">{escape(interval)}</span>' if interval else ""
    reported = f'<span class="reported">{escape(str(row["paper"]))}</span>' if row["paper"] else ""
    return f"{escape(value)}{half}{reported}"


def render_chips(decided: pl.DataFrame) -> str:
    """The counts of verdicts, each linked to its list."""
    counts = verdict_text.count_statuses(decided)
    if not counts:
        return ""
    marks = "".join(
        markup.badge(verdict_text.count_words(name, count), f"verdicts-{name.replace(' ', '-')}")
        for name, count in counts.items()
    )
    return f'<p class="chips"><span class="all">{decided.height} statements:</span>{marks}</p>'
