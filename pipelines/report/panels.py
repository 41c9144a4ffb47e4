"""Parts of charts: axes, looks of arms, lines over training, and the house style.

A chart is a concatenation of panels in columns with one legend above. The page's script puts them one above the
other on a narrow screen, and writes out the axes that a panel leaves to its neighbour (`labels=False`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.studies.story import Arm

TEXT, WIDTH, HEIGHT = 13, 235, 190  # px: text, and a panel
INK, QUIET, GRID, PAPER = "#1a1a1a", "#555555", "#dadada", "#ffffff"
THIN, THIN_DASH = 1.4, [4, 3]
NULL = "null: final update, rescaled and rounded"
VIEW_TITLES = {"bf16": "bf16 (what is served)", "master": "master (stored dtype)"}
PROGRESS, INDEX = "progress", "index"  # columns along which lines run
ALONG = {PROGRESS: "progress (% of steps, sqrt axis)", INDEX: "index of the angle"}
SHARES = [0, 5, 10, 25, 50, 100]  # ticks, on an axis that gives the beginning room, where most happens
MARKED = (5, 10, 25, 50, 75, 100)  # shares of the run at which a line has its arm's shape
NUMBER = ".3~g"
WORDS = {PROGRESS: "% of the run", INDEX: "index", "value": "mean", "side": "side", "step": "step", "role": "role"}

alt.data_transformers.disable_max_rows()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """title: with the unit. domain: None leaves it to the data; zero: whether it reaches 0 then.

    about: the range that the data of a log axis without a domain have, which its ticks are chosen for.
    """

    title: str
    log: bool = False
    domain: tuple[float, float] | None = None
    about: tuple[float, float] | None = None
    zero: bool = False

    def y(self, column: str = "value", *, labels: bool = True) -> alt.Y:
        """The encoding of a column; labels: whether the axis has labels."""
        ticks: dict[str, Any] = {"tickCount": 4, "format": "~r"}
        if self.log and (ends := self.domain or self.about):
            ticks = {"values": decade_ticks(*ends), "format": "~e" if ends[1] < 0.1 else "~g"}
        kind = "log" if self.log else "linear"
        zero = alt.Undefined if self.log else self.zero
        scale = alt.Scale(type=kind, domain=self.domain or alt.Undefined, nice=False, zero=zero, clamp=True)
        return alt.Y(f"{column}:Q", title=self.title, scale=scale, axis=written_axis(labels, labelFlush=True, **ticks))


def written_axis(labels: bool, **options: Any) -> alt.Axis:
    """An axis; without labels and title if a neighbour shows them."""
    return alt.Axis(**options) if labels else alt.Axis(labels=False, ticks=False, title=None, **options)


def decade_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, with 2 and 5 between them where there are fewer than three; five at most."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [10.0**power for power in powers if low <= 10.0**power <= high]
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    ticks = inside if len(inside) > 2 else [tick for tick in fine if low <= tick <= high]
    return [float(f"{tick:.1g}") for tick in ticks[:: math.ceil(len(ticks) / 5) or 1]]


def progress_axis(column: str, *, labels: bool = True, last: int = 100) -> alt.X:
    """The horizontal axis of lines: progress in % or an index up to `last`."""
    if column == PROGRESS:
        scale = alt.Scale(type="sqrt", domain=(0, 100))
        axis = written_axis(labels, values=SHARES, labelOverlap="greedy")
    else:
        scale = alt.Scale(domain=(1, max(2, last)), nice=False)
        axis = written_axis(labels, tickCount=4, format="d")
    return alt.X(f"{column}:Q", title=ALONG.get(column, column), scale=scale, axis=axis)


def add_labels(rows: pl.DataFrame, arms: Sequence[Arm]) -> pl.DataFrame:
    """Replace the key by the label of the legend. The first of `arms` comes last and is drawn on top."""
    labels = {arm.key: arm.label for arm in arms}
    places = {arm.key: -place for place, arm in enumerate(arms)}
    label = pl.col("arm").replace_strict(labels, default=pl.col("arm"), return_dtype=pl.String())
    place = pl.col("arm").replace_strict(places, default=0, return_dtype=pl.Int64())
    return rows.with_columns(label=label).sort(place, maintain_order=True).drop("arm")


def arm_encodings(arms: Sequence[Arm]) -> dict[str, Any]:
    """The encodings color, shape and strokeDash of `arms`, which merge into one legend."""
    labels = [arm.label for arm in arms]
    ranges: dict[str, list[Any]] = {
        "color": [arm.color for arm in arms],
        "shape": [arm.shape for arm in arms],
        "strokeDash": [list(arm.dash) for arm in arms],
    }
    kinds = {"color": alt.Color, "shape": alt.Shape, "strokeDash": alt.StrokeDash}
    return {
        name: kinds[name]("label:N", title=None, scale=alt.Scale(domain=labels, range=ranges[name])) for name in kinds
    }


def add_tooltips(chart: alt.Chart, *keys: str, ends: str = "seeds") -> alt.Chart:
    """`chart` (columns label, value, low, high and `keys`) with its values as a tooltip. ends: names of low and
    high."""
    low, high = (f"format(datum.{end}, '{NUMBER}')" for end in ("low", "high"))
    between = f"isValid(datum.low) && datum.low < datum.high ? {low} + ' to ' + {high} : '-'"
    fields = [alt.Tooltip("label:N", title="arm")]
    for key in (*keys, "value"):
        words = WORDS.get(key, key)
        text = key in ("side", "role", "view", "kind", "point")
        fields.append(
            alt.Tooltip(f"{key}:N", title=words) if text else alt.Tooltip(f"{key}:Q", title=words, format=NUMBER)
        )
    return chart.transform_calculate(ends=between).encode(tooltip=[*fields, alt.Tooltip("ends:N", title=ends)])


def draw_curves(
    rows: pl.DataFrame,
    arms: Sequence[Arm],
    axis: Axis,
    *,
    title: str,
    x: str = PROGRESS,
    ends: str = "seeds",
    null: pl.DataFrame | None = None,
    floor: tuple[pl.DataFrame, str] | None = None,
    labels: bool = True,
    below: bool = True,
    where: str = "",
) -> Any:
    """One panel: lines along `x` with a band (columns arm, x, value, low, high), and the values as a tooltip.

    ends: names of the band's ends. null: columns arm, x, value, drawn thin and dashed; floor: a level (column value)
    and its name. labels, below: whether the axes have labels. where: a Vega expression that filters all rows.
    """

    def chart(part: pl.DataFrame) -> alt.Chart:
        return alt.Chart(part).transform_filter(where) if where else alt.Chart(part)

    look, y = arm_encodings(arms), axis.y(labels=labels)
    across = progress_axis(x, labels=below, last=int(rows[x].max() or 2))  # type: ignore[arg-type]
    whole = add_labels(rows if x == INDEX else mark_nearest(rows), arms)
    base = chart(whole).encode(x=across)
    # A wide invisible rim makes marks easier to hit with the pointer.
    point = base.mark_point(filled=True, size=42, opacity=1, stroke="transparent", strokeWidth=12)
    shown = alt.condition(alt.datum.marked, alt.value(1), alt.value(0))
    layers = [
        base.mark_area(opacity=0.2, clip=True).encode(y=axis.y("low", labels=labels), y2="high:Q", color=look["color"]),
        base.mark_line(strokeWidth=2, clip=True).encode(y=y, color=look["color"], strokeDash=look["strokeDash"]),
        add_tooltips(point, x, ends=ends).encode(y=y, color=look["color"], shape=look["shape"], fillOpacity=shown),
    ]
    if null is not None and not null.is_empty():
        few = chart(add_labels(null, arms).with_columns(series=pl.lit(NULL))).encode(x=across, y=y, color=look["color"])
        line = few.mark_line(strokeDash=THIN_DASH, strokeWidth=THIN, clip=True).encode(opacity=explain_null())
        layers += [line, few.mark_point(filled=True, size=12, opacity=1, clip=True)]
    if floor is not None:
        layers += draw_level(chart(floor[0]), floor[1], axis, labels=labels)
    return add_title(title, *layers)


def mark_nearest(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the column `marked`: whether a row is the nearest of its line to one of `MARKED`."""
    keys = [name for name in rows.columns if name not in (PROGRESS, "value", "low", "high", "seeds")]
    away = [(pl.col(PROGRESS) - share).abs() for share in MARKED]
    return rows.with_columns(marked=pl.any_horizontal(mark == mark.min().over(keys) for mark in away))


def add_title(title: str, *layers: Any, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """Layers as one panel with a title. The title is a text mark: Vega's own title moves up if an axis has labels."""
    words = alt.Chart(alt.Data(values=[{"at": 0}])).mark_text(
        text=title, x=0, y=-8, align="left", baseline="bottom", fontSize=TEXT, color=INK
    )
    return alt.layer(*layers, words, width=width, height=height)


def draw_level(chart: alt.Chart, word: str, axis: Axis, *, labels: bool = True, below: int = 9) -> list[Any]:
    """A horizontal dotted rule at the `value` of the row of `chart`, with its name below."""
    spot = chart.encode(y=axis.y(labels=labels))
    name = spot.mark_text(text=word, x="width", align="right", dx=-2, dy=below, fontSize=TEXT - 2, color=QUIET)
    return [spot.mark_rule(stroke=QUIET, strokeDash=[1, 3]), name]


def explain_null() -> alt.Opacity:
    """Full opacity for the null, with a legend entry below the panels."""
    symbol: Mapping[str, Any] = {"symbolType": "stroke", "symbolSize": 900, "symbolDash": THIN_DASH}
    legend = alt.Legend(
        orient="bottom", offset=4, labelLimit=0, symbolStrokeColor=INK, symbolStrokeWidth=THIN, **symbol
    )
    return alt.Opacity("series:O", scale=alt.Scale(domain=[NULL], range=[1]), title=None, legend=legend)


def arrange_columns(panels: Sequence[Any], count: int, *, spacing: int = 14, **more: Any) -> Any:
    """Panels in rows of `count`. more: options of the concatenation; setting them later would copy all panels."""
    return alt.ConcatChart(concat=list(panels), columns=count, spacing=spacing, **more)


def apply_style(chart: Any, *, legends: int = 4, room: int | None = None) -> Any:
    """Set the house style in place. legends: entries per row of the legend; room: px for the labels of every vertical
    axis, which aligns panels."""
    text: dict[str, Any] = {"titleFontSize": TEXT, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK}
    legend: dict[str, Any] = {"orient": "top", "columns": legends, "labelLimit": 220, "symbolSize": 100}
    # Set at once: every call of configure_* copies the whole chart, panel by panel.
    chart.config = alt.Config(
        background="transparent",
        padding=6,
        font="sans-serif",
        axis=alt.AxisConfig(labelFontSize=TEXT - 1, gridColor=GRID, domainColor=QUIET, tickColor=QUIET, **text),
        axisY=alt.Undefined if room is None else alt.AxisConfig(minExtent=room, maxExtent=room),
        title=alt.TitleConfig(fontSize=TEXT, fontWeight="normal", color=INK),
        legend=alt.LegendConfig(
            labelFontSize=TEXT, symbolOpacity=1, symbolStrokeWidth=0, columnPadding=18, **legend, **text
        ),
        view=alt.ViewConfig(stroke=None),
    )
    return chart
