"""Draw accuracy from the first to the last step of continued runs, a panel per parent, with the paper's values."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.confinement import EVERY, Family
from pipelines.paper.palette import arm_style
from pipelines.paper.panels import ENDS, arm_styles
from pipelines.paper.published import BENCHMARKS, Published
from pipelines.paper.strip import SLOT, draw_strip
from pipelines.report.panels import (
    HEIGHT,
    INK,
    QUIET,
    Axis,
    add_labels,
    add_title,
    add_tooltips,
    apply_style,
    arm_encodings,
    arrange_columns,
    written_axis,
)

APART = 0.03  # of the axis: between ends that are reached at one step
ACCURACY = (0.0, 100.0)  # %


def draw_resumed(
    rows: Sequence[tuple[pl.DataFrame, str]],
    families: Sequence[Family],
    reported: Sequence[Published],
    ranges: Sequence[Published] = (),
) -> Any:
    """rows: (columns of `confinement.accuracy_rows`, axis title); ranges: of the paper's axes, in a row of their
    own."""
    panels, count = [], 0
    for place, (measured, title) in enumerate(rows):
        axis = Axis(title=title, domain=ACCURACY)
        for family in families:
            last, labels = place == len(rows) - 1, family is families[0]
            panels.append(_panel(measured, family, axis, last=last, labels=labels))
            if published := family.among(reported):
                panels.append(draw_strip(published, list(family.arms.values()), axis))
        count = count or len(panels)
    chart = arrange_columns(panels, count, spacing=12)
    if ranges:
        bars = [_ranges(ranges, arm) for arm in dict.fromkeys(published_range.arm for published_range in ranges)]
        chart = alt.vconcat(chart, arrange_columns(bars, len(bars)), spacing=14)
    return apply_style(chart, legends=1)


def _panel(measured: pl.DataFrame, family: Family, axis: Axis, *, last: bool, labels: bool) -> Any:
    words = {arm: kind for kind, arm in family.arms.items()}
    arms = [arm for arm in family.arms.values() if arm in set(measured["arm"])]
    longest = float(measured["step"].max())  # type: ignore[arg-type]
    shifts = {arm: place * APART * longest for place, arm in enumerate(arms)}
    ends = (pl.col("point") == "end").cast(pl.Float64)
    shifted = pl.col("step") + ends * pl.col("arm").replace_strict(shifts, default=0.0, return_dtype=pl.Float64())
    rows = measured.with_columns(step=shifted, kind=pl.col("arm").replace_strict(words, default=None)).drop("seeds")
    scale = alt.Scale(domain=(0, longest * (1 + APART * len(words))), nice=False)
    x = alt.X("step:Q", title="step of the parent's run", scale=scale, axis=written_axis(last, tickCount=5, format="d"))
    color = arm_encodings(arm_styles(EVERY))["color"].legend(None)
    shape = alt.Shape(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=list(family.arms), range=[arm_style(arm).shape for arm in family.arms.values()]),
        legend=alt.Legend(symbolFillColor=INK, symbolStrokeColor=INK),
    )
    y = axis.y(labels=labels)
    own = add_labels(rows.filter(pl.col("arm").is_in(arms)), arm_styles(arms))
    continued = alt.Chart(own).encode(x=x, color=color)
    stop = alt.Chart(own.filter(pl.col("point") == "end")).encode(x=x, color=color)
    parent = add_labels(rows.filter(pl.col("arm") == family.parent), arm_styles([family.parent]))
    whole = alt.Chart(parent).encode(x=x, y=y, color=color)
    begin = alt.Chart(pl.DataFrame({"step": [family.begin]})).encode(x=x)
    layers = [
        begin.mark_rule(stroke=QUIET, strokeDash=[5, 3], strokeWidth=1.6),
        whole.mark_line(strokeWidth=1.2, strokeDash=[2, 3]),
        whole.transform_filter(alt.datum.point == "start").mark_point(
            shape="diamond", size=110, filled=True, opacity=1
        ),
        continued.mark_line(strokeWidth=2.2).encode(y=y),
        stop.mark_rule(strokeWidth=2.5).encode(y=axis.y("low", labels=labels), y2="high:Q"),
        add_tooltips(continued.mark_point(size=80, filled=True, opacity=1), "point", ends=ENDS).encode(
            y=y, shape=shape
        ),
    ]
    return add_title(arm_style(family.parent).label, *layers)


def _ranges(ranges: Sequence[Published], arm: str) -> Any:
    """The paper's axis ranges of one arm, a benchmark a column."""
    rows = [{"benchmark": value.quantity, "low": value.low, "high": value.high} for value in ranges if value.arm == arm]
    axis = Axis(title="paper's axis (%)", domain=ACCURACY)
    ticks = alt.Axis(labelAngle=-40, labelLimit=0)
    x = alt.X("benchmark:N", sort=list(BENCHMARKS), title=None, axis=ticks)
    bar = alt.Chart(pl.DataFrame(rows)).mark_bar(width=SLOT * 0.7, opacity=0.5, color=arm_style(arm).color)
    bar = bar.encode(x=x, y=axis.y("low"), y2="high:Q")
    return add_title(f"{arm_style(arm).label}, the paper", bar, height=HEIGHT * 7 // 10)
