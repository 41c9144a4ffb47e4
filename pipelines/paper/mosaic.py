"""A row of panels per arm, a column per quantity, on one axis down each column: the layout of the paper's figure 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import style
from pipelines.paper.panels import TEXT, Axis, named, shared, styled
from pipelines.paper.published import Published
from pipelines.report.figures import INK, QUIET, told

WIDTH, HEIGHT, ROOM = 150, 135, 62  # px of a panel, and of the labels to its left
SIDES = {"input": "input side (right)", "output": "output side (left)"}


@dataclass(frozen=True)
class Column:
    """data: arm, index, value, low, high, and side where `sides`. reported: drawn in the row of its arm."""

    data: pl.DataFrame
    title: str  # of the vertical axis, with the unit
    along: str
    reported: Sequence[Published]
    log: bool = False
    sides: bool = False


def panel(column: Column, arm: str, *, last: bool) -> Any:
    axis = shared(column.title, [column.data], column.reported, log=column.log)
    if not column.log:  # shifts of arms differ by orders of magnitude, and have signs
        axis = shared(column.title, [column.data.filter(pl.col("arm") == arm)])
    rows, look = column.data.filter(pl.col("arm") == arm), style(arm)
    if not column.sides:
        rows = rows.with_columns(side=pl.lit("input"))
    ends = (1, max(2, int(column.data["index"].max() or 2)))  # type: ignore[arg-type]
    x = alt.X(
        "index:Q",
        scale=alt.Scale(domain=ends, nice=False),
        title=column.along if last else None,
        axis=alt.Axis(tickCount=4, labels=last, ticks=last, format="d"),
    )
    legend = alt.Legend(symbolType="stroke", symbolSize=900, symbolStrokeWidth=2, symbolStrokeColor=INK)
    sides = alt.Scale(domain=list(SIDES.values()), range=[[1, 0], [4, 3]])
    dash = alt.StrokeDash("side:N", title=None, scale=sides, legend=legend)
    rows = rows.with_columns(pl.col("side").replace(SIDES))
    layers = [layer for one in column.reported if one.arm == arm for layer in _reported(one, axis)]
    banded = alt.Chart(rows.drop_nulls("low")).mark_area(opacity=0.2, clip=True, color=look.color)
    layers.append(banded.encode(x=x, y=axis.y("low"), y2="high:Q", detail="side:N"))
    line = alt.Chart(rows).mark_line(strokeWidth=2, color=look.color).encode(x=x, y=axis.y())
    layers.append(line.encode(strokeDash=dash) if column.sides else line)
    spots = told(named(rows), *(["side"] if column.sides else []), "index")
    layers.append(alt.Chart(spots).mark_point(size=30, opacity=0).encode(x=x, y=axis.y(), description="told:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _reported(one: Published, axis: Axis) -> list[Any]:
    """The paper's level, or its range as a band, with a word on it."""
    spot = alt.Chart(pl.DataFrame({"low": [one.low], "high": [one.high]}))
    word = spot.mark_text(text="paper", x=3, align="left", dy=-8, fontSize=TEXT - 4, color=QUIET)
    word = word.encode(y=axis.y("high"))
    if one.low == one.high:
        rule = {"stroke": QUIET, "strokeDash": [5, 3], "strokeWidth": 1.6}
        return [spot.mark_rule(**rule).encode(y=axis.y("low")), word]
    return [spot.mark_rect(color=QUIET, opacity=0.3).encode(y=axis.y("low"), y2="high:Q"), word]


def mosaic(columns: Sequence[Column], arms: Sequence[str]) -> Any:
    rows = []
    for arm in arms:
        panels = [panel(column, arm, last=arm == arms[-1]) for column in columns]
        look = style(arm)
        title = alt.TitleParams(look.label, anchor="start", fontWeight="bold", color=INK)
        rows.append(alt.hconcat(*panels, spacing=8, title=title))
    # Equal room for labels keeps a column's panels below each other.
    return styled(alt.vconcat(*rows, spacing=6), room=ROOM)
