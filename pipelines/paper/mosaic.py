"""A row of panels per arm, a column per quantity, on one axis down each column: the layout of the paper's figure 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import arm_style
from pipelines.paper.panels import ENDS, shared_axis
from pipelines.paper.published import Published
from pipelines.report.panels import (
    INK,
    QUIET,
    TEXT,
    Axis,
    add_labels,
    add_title,
    add_tooltips,
    apply_style,
    arrange_columns,
    written_axis,
)

WIDTH, HEIGHT = 175, 125  # px of a panel
SIDES = {"input": "input side (right)", "output": "output side (left)"}


@dataclass(frozen=True)
class Column:
    """data: arm, index, value, low, high, and side where `sides`. reported: drawn in the row of its arm."""

    data: pl.DataFrame
    title: str  # over each panel, with the unit
    along: str
    reported: Sequence[Published]
    log: bool = False
    sides: bool = False


def draw_panel(column: Column, arm: str, *, last: bool) -> Any:
    axis = shared_axis("", [column.data], column.reported, log=column.log)
    if not column.log:  # shifts of arms differ by orders of magnitude, and have signs
        axis = shared_axis("", [column.data.filter(pl.col("arm") == arm)])
    rows, look = column.data.filter(pl.col("arm") == arm), arm_style(arm)
    if not column.sides:
        rows = rows.with_columns(side=pl.lit("input"))
    rows = add_labels(rows.drop("seeds").with_columns(pl.col("side").replace(SIDES)), [look])
    ends = (1, max(2, int(column.data["index"].max() or 2)))  # type: ignore[arg-type]
    scale = alt.Scale(domain=ends, nice=False)
    x = alt.X("index:Q", scale=scale, title=column.along, axis=written_axis(last, tickCount=4, format="d"))
    layers = [layer for value in column.reported if value.arm == arm for layer in _reported(value, axis)]
    base = alt.Chart(rows).encode(x=x)
    banded = base.mark_area(opacity=0.2, clip=True, color=look.color)
    layers.append(banded.encode(y=axis.y("low"), y2="high:Q", detail="side:N"))
    line = base.mark_line(strokeWidth=2, color=look.color).encode(y=axis.y())
    if column.sides:
        symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 900, "symbolStrokeColor": INK}
        legend = alt.Legend(symbolStrokeWidth=2, **symbol)
        sides = alt.Scale(domain=list(SIDES.values()), range=[[1, 0], [4, 3]])
        line = line.encode(strokeDash=alt.StrokeDash("side:N", title=None, scale=sides, legend=legend))
    layers.append(line)
    spots = base.mark_point(size=30, opacity=0, filled=True, stroke="transparent", strokeWidth=10, color=look.color)
    layers.append(add_tooltips(spots, *(["side"] if column.sides else []), "index", ends=ENDS).encode(y=axis.y()))
    return add_title(f"{look.label}: {column.title}", *layers, width=WIDTH, height=HEIGHT)


def _reported(value: Published, axis: Axis) -> list[Any]:
    """The paper's level, or its range as a band, with a word on it."""
    spot = alt.Chart(pl.DataFrame({"low": [value.low], "high": [value.high]}))
    word = spot.mark_text(text="paper", x=3, align="left", dy=-7, fontSize=TEXT - 3, color=QUIET)
    word = word.encode(y=axis.y("high"))
    if value.low == value.high:
        rule = {"stroke": QUIET, "strokeDash": [5, 3], "strokeWidth": 1.6}
        return [spot.mark_rule(**rule).encode(y=axis.y("low")), word]
    return [spot.mark_rect(color=QUIET, opacity=0.3).encode(y=axis.y("low"), y2="high:Q"), word]


def draw_mosaic(columns: Sequence[Column], arms: Sequence[str]) -> Any:
    """Every panel says its arm and its quantity, so that none needs its row or column to be read."""
    panels = [draw_panel(column, arm, last=arm == arms[-1]) for arm in arms for column in columns]
    return apply_style(arrange_columns(panels, len(columns), spacing=10))
