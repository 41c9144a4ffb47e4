"""The headline table: metrics by arms, numeric in long form, and as text for a terminal, Markdown or the page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from pipelines.statistics import markdown as md
from pipelines.statistics.intervals import student_interval
from pipelines.statistics.metrics import (
    ACCURACY,
    ACCURACY_START,
    FROBENIUS,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK,
    STABLE_RANK_EARLY,
    UNCHANGED,
    Metric,
    Unit,
)
from pipelines.statistics.numbers import PLUS_MINUS, format_quantity
from pipelines.statistics.samples import collect_samples
from pipelines.studies.story import Story

SCHEMA = pl.Schema(
    {
        "study": pl.String(),
        "metric": pl.String(),
        "unit": pl.String(),
        "arm": pl.String(),
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "seeds": pl.Int64(),
        "paper": pl.String(),
    }
)
METRICS: tuple[Metric, ...] = (
    UNCHANGED,
    *ROTATION.values(),
    *NSS.values(),
    *NORM.values(),
    *FROBENIUS.values(),
    LOW_MAGNITUDE,
    PRINCIPAL,
    *(metric for view in STABLE_RANK for metric in (STABLE_RANK_EARLY[view], STABLE_RANK[view])),
    *SIMILARITY.values(),
    ACCURACY_START,
    ACCURACY,
    replace(ACCURACY, words="final accuracy, greedy", where=(("temperature", 0.0),)),
)
ABSENT = "-"


def headline_rows(
    study: str,
    tables: Mapping[str, pl.LazyFrame],
    story: Story,
    metrics: Iterable[Metric] = METRICS,
    arms: Sequence[str] | None = None,
) -> pl.DataFrame:
    """One row per metric and arm with a value, with the columns of `SCHEMA`. arms: core by default.

    value: mean over seeds; low, high: 95 % Student-t interval over seeds, of fractions within [0, 1]; null for one
    seed, and for seeds that are equal. Fractions stay fractions (unit "percent" says how to show them); paper: what
    the story's source reports for that arm, null for the view master, which published checkpoints do not have.
    """
    rows, arms = [], story.core if arms is None else arms
    for metric, frame in collect_samples(metrics, tables, arms).items():
        for arm in arms:
            samples = frame.filter(pl.col("arm") == arm)
            if samples.is_empty():
                continue
            interval = student_interval(samples["value"].to_list())
            low, high = interval.low, interval.high
            if metric.unit == "percent" and low is not None and high is not None:
                low, high = max(0.0, low), min(1.0, high)
            cut = "" if metric.cut is None or samples["cut"][0] is None else f", {metric.cut} {samples['cut'][0]}"
            rows.append(
                {
                    "study": study,
                    "metric": metric.words + cut,
                    "unit": metric.unit,
                    "arm": arm,
                    "value": interval.mean,
                    "low": low,
                    "high": high,
                    "seeds": interval.n,
                    "paper": None
                    if metric.view == "master"
                    else story.reported.get(metric.family or metric.words, {}).get(arm),
                }
            )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def format_grid(table: pl.DataFrame, story: Story) -> list[list[str]]:
    """`headline` as text: a heading row, then one row per metric; arms without any row have no column.

    A cell is "mean +- half-width of the 95 % interval". A share whose interval leaves 0 to 100 % is "mean [low, high]".
    Without an interval (one seed, or equal seeds) the cell is the mean.
    """
    arms = [arm for arm in story.core if arm in set(table["arm"])]
    reported_arms = [arm for arm in arms if any(arm in values for values in story.reported.values())]
    lines = [["metric", *map(story.label, arms)]]
    if reported_arms:
        lines[0].append(f"{story.source}: {' / '.join(map(story.label, reported_arms))}")
    for (metric,), group in table.group_by("metric", maintain_order=True):
        rows = {row["arm"]: row for row in group.iter_rows(named=True)}
        line = [str(metric), *(format_cell(rows[key]) if key in rows else ABSENT for key in arms)]
        if reported_arms:
            values = [rows.get(key, {}).get("paper") for key in reported_arms]
            line.append(" / ".join(text or ABSENT for text in values) if any(values) else ABSENT)
        lines.append(line)
    return lines


def format_cell(row: Mapping[str, object]) -> str:
    value, low, high, unit = row["value"], row["low"], row["high"], row["unit"]
    assert isinstance(value, float)
    half = max(high - value, value - low) if isinstance(low, float) and isinstance(high, float) else None
    shown: Unit = "percent" if unit == "percent" else "deg" if unit == "deg" else ""
    return format_quantity(value, shown, half)


def split_cell(row: Mapping[str, object]) -> tuple[str, str]:
    """The cell as its value and its interval, each with what it needs to be read alone: "11.6 deg" and "\u00b1 0.3"."""
    text = format_cell(row)
    if match := re.fullmatch(rf"\(?(\S+) {PLUS_MINUS} ([\d.]+)\)?(e\S+)?(.*)", text):
        value, half, power, unit = match.groups(default="")
        return f"{value}{power}{unit}", f"{PLUS_MINUS} {half}{power}"
    if match := re.fullmatch(r"(\S+) (\[.*\])(.*)", text):
        return f"{match[1]}{match[3]}", match[2]
    return text, ""


def render_markdown(table: pl.DataFrame, story: Story) -> str:
    """The grid as a Markdown table."""
    lines = format_grid(table, story)
    return md.render_table(lines, ["---"] + ["---:"] * (len(lines[0]) - 1))
