"""The pieces that figures are put together from: axes, the looks of arms, and lines over training.

Panels of one figure get the same arms, so that they share one legend. Solid marks are our runs; the paper's are pale
bars and hollow diamonds (`strip.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import style
from pipelines.paper.published import Published
from pipelines.report.figures import GRID, INK, NULL, PAPER, QUIET, SHARES, THIN, THIN_DASH, explained, told

TEXT = 17  # px; 8 px or more when a figure is shown at half its width
WIDTH, HEIGHT = 215, 185  # px of a panel
PERCENT_OF_RUN = "progress (%, sqrt axis)"
MARKED = (5, 10, 25, 50, 75, 100)  # shares of the run at which a line has its arm's shape


@dataclass(frozen=True, kw_only=True)
class Axis:
    """title: with the unit. domain: None leaves it to the data; `shared` makes one for several panels."""

    title: str
    log: bool = False
    domain: tuple[float, float] | None = None

    def y(self, column: str = "value", *, labels: bool = True) -> alt.Y:
        """The encoding of a column; labels: whether the axis is written out."""
        ticks: dict[str, Any] = {"tickCount": 4, "format": "~r"}
        if self.log and self.domain is not None:
            ticks = {"values": decades(*self.domain), "format": "~e" if self.domain[1] < 0.1 else "~g"}
        axis = alt.Axis(labels=labels, ticks=labels, labelFlush=True, **ticks)
        kind = "log" if self.log else "linear"
        scale = alt.Scale(type=kind, domain=self.domain or alt.Undefined, nice=False, zero=False, clamp=True)
        return alt.Y(f"{column}:Q", title=self.title if labels else None, scale=scale, axis=axis)


def decades(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, with 2 and 5 between them where there are fewer than three; five at most."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [10.0**power for power in powers if low <= 10.0**power <= high]
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = inside if len(inside) > 2 else [tick for tick in fine if low <= tick <= high]
    return [float(f"{tick:.1g}") for tick in found[:: math.ceil(len(found) / 5) or 1]]


def shared(
    title: str,
    frames: Sequence[pl.DataFrame],
    reported: Sequence[Published] = (),
    *,
    log: bool = False,
    zero: bool = True,
) -> Axis:
    """An axis that holds our means, the intervals of three seeds or more, and what the paper shows; 0 where `zero`.

    Two seeds have intervals six times as wide as their spread (t = 12.7), which are cut off where they leave the axis.
    """
    values = [end for one in reported for end in (one.low, one.high)]
    for frame in frames:
        steady = frame.filter(pl.col("seeds") > 2)
        values += [*frame["value"], *steady["low"], *steady["high"]]
    values = [value for value in values if value is not None and (value > 0 or not log)]
    if not values:
        return Axis(title=title, log=log)
    low, high = min(values), max(values)
    if log:
        return Axis(title=title, log=True, domain=(low / 1.3, high * 1.3))
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low or abs(high) or 1.0)
    return Axis(title=title, domain=(low - room * (low != 0 or not zero), high + room * (high != 0)))


def named(data: pl.DataFrame, arms: Sequence[str] = ()) -> pl.DataFrame:
    """With the labels that legends show, and rows such that the first of `arms` is drawn last, on top."""
    labels = {arm: style(arm).label for arm in data["arm"].unique()}
    found = data.with_columns(label=pl.col("arm").replace_strict(labels, return_dtype=pl.String()))
    places = {arm: -place for place, arm in enumerate(arms)}
    return found.sort(pl.col("arm").replace_strict(places, default=0, return_dtype=pl.Int64()), maintain_order=True)


def looks(arms: Sequence[str]) -> dict[str, Any]:
    """The encodings color, shape and strokeDash of `arms`, which merge into one legend."""
    styles = [style(arm) for arm in arms]
    labels = [one.label for one in styles]
    ranges: dict[str, list[Any]] = {
        "color": [one.color for one in styles],
        "shape": [one.shape for one in styles],
        "strokeDash": [list(one.dash) for one in styles],
    }
    kinds = {"color": alt.Color, "shape": alt.Shape, "strokeDash": alt.StrokeDash}
    return {
        name: kinds[name]("label:N", title=None, scale=alt.Scale(domain=labels, range=ranges[name])) for name in kinds
    }


def curves(
    data: pl.DataFrame,
    arms: Sequence[str],
    axis: Axis,
    *,
    title: str = "",
    null: pl.DataFrame | None = None,
    floor: tuple[float, str] | None = None,
    labels: bool = True,
    along: bool = True,
) -> Any:
    """Lines over progress with a band over seeds (columns arm, progress, value, low, high).

    null: columns arm, progress, value, drawn thin and dashed; floor: a level and its name. labels, along: whether the
    axes are written out, which one panel of a row and of a column does.
    """
    look, y = looks(arms), axis.y(labels=labels)
    ticks = alt.Axis(values=SHARES, labelOverlap="greedy", labels=along, ticks=along)
    scale = alt.Scale(type="sqrt", domain=(0, 100))
    x = alt.X("progress:Q", scale=scale, axis=ticks, title=PERCENT_OF_RUN if along else None)
    base = alt.Chart(named(data, arms)).encode(x=x)
    banded = alt.Chart(named(data.drop_nulls("low"), arms)).mark_area(opacity=0.2, clip=True)
    marked = alt.Chart(told(named(marks(data), arms), "view", "progress")).mark_point(size=55, filled=True, opacity=1)
    layers = [
        banded.encode(x=x, y=axis.y("low", labels=labels), y2="high:Q", color=look["color"]),
        base.mark_line(strokeWidth=2.2).encode(y=y, color=look["color"], strokeDash=look["strokeDash"]),
        marked.encode(x=x, y=y, color=look["color"], shape=look["shape"], description="told:N"),
    ]
    if null is not None and not null.is_empty():
        dashed = alt.Chart(named(null).with_columns(series=pl.lit(NULL))).encode(x=x, y=y, color=look["color"])
        layers.append(dashed.mark_line(strokeDash=THIN_DASH, strokeWidth=THIN, clip=True).encode(opacity=explained()))
    if floor is not None:
        layers += level(*floor, axis, labels=labels)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, **({"title": title} if title else {}))


def marks(data: pl.DataFrame) -> pl.DataFrame:
    """Of each arm the rows nearest to `MARKED`."""
    away = [(pl.col("progress") - share).abs() for share in MARKED]
    return data.filter(pl.any_horizontal(one == one.min().over("arm") for one in away))


def level(value: float, word: str, axis: Axis, *, labels: bool = True, below: int = 11) -> list[Any]:
    """A horizontal dotted rule with its name so many px under it."""
    spot = alt.Chart(pl.DataFrame({"value": [value]})).encode(y=axis.y(labels=labels))
    name = spot.mark_text(text=word, x="width", align="right", dx=-2, dy=below, fontSize=TEXT - 3, color=QUIET)
    return [spot.mark_rule(stroke=QUIET, strokeDash=[1, 3]), name]


def styled(chart: Any, *, columns: int = 4, room: int | None = None) -> Any:
    """`chart` itself in the house look, with text for half width.

    columns: of the legend above; room: px for the labels of every vertical axis, which keeps panels below each other.
    """
    text: dict[str, Any] = {"titleFontSize": TEXT, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK}
    legend: dict[str, Any] = {
        "orient": "top",
        "columns": columns,
        "labelLimit": 0,
        "symbolSize": 110,
        "symbolOpacity": 1,
        "columnPadding": 22,
    }
    # Set at once: every call of configure_* copies the whole chart, panel by panel.
    chart.config = alt.Config(
        background=PAPER,
        padding=8,
        font="sans-serif",
        axis=alt.AxisConfig(labelFontSize=TEXT - 2, gridColor=GRID, domainColor=QUIET, tickColor=QUIET, **text),
        axisY=alt.Undefined if room is None else alt.AxisConfig(minExtent=room, maxExtent=room),
        title=alt.TitleConfig(fontSize=TEXT, fontWeight="normal", color=INK),
        legend=alt.LegendConfig(labelFontSize=TEXT, symbolStrokeWidth=0, **legend, **text),
        view=alt.ViewConfig(stroke=None),
    )
    return chart


def apart(*channels: str) -> alt.Resolve:
    """Scales of their own, and legends, for the parts of a chart."""
    scales: dict[str, Any] = dict.fromkeys(channels, "independent")
    return alt.Resolve(scale=alt.ScaleResolveMap(**scales))
