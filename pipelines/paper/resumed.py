"""Accuracy from where a run is taken up again to its end, a panel per parent: free and confined, beside the paper."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.confinement import EVERY, Family
from pipelines.paper.palette import style
from pipelines.paper.panels import HEIGHT, TEXT, WIDTH, Axis, looks, named, styled
from pipelines.paper.published import BENCHMARKS, Published
from pipelines.paper.strip import SLOT, strip
from pipelines.report.figures import INK, QUIET, told

APART = 0.03  # of the axis: between ends that are reached at one step
ACCURACY = (0.0, 100.0)  # %


def figure(
    rows: Sequence[tuple[pl.DataFrame, str]],
    families: Sequence[Family],
    reported: Sequence[Published],
    ranges: Sequence[Published] = (),
) -> Any:
    """rows: (columns of `confinement.measured`, axis title); ranges: of the paper's axes, in a row of their own."""
    stacks = []
    for place, (found, title) in enumerate(rows):
        axis = Axis(title=title, domain=ACCURACY)
        panels = []
        for family in families:
            headed, last = place == 0, place == len(rows) - 1
            panels.append(_panel(found, family, axis, headed=headed, last=last, labels=family is families[0]))
            if mine := family.among(reported):
                panels.append(strip(mine, list(family.arms.values()), axis))
        stacks.append(alt.hconcat(*panels, spacing=12))
    if ranges:
        stacks.append(alt.hconcat(*[_ranges(ranges, arm) for arm in dict.fromkeys(one.arm for one in ranges)]))
    return styled(alt.vconcat(*stacks, spacing=14), columns=1)


def _panel(found: pl.DataFrame, family: Family, axis: Axis, *, headed: bool, last: bool, labels: bool) -> Any:
    words = {arm: kind for kind, arm in family.arms.items()}
    arms = [arm for arm in family.arms.values() if arm in set(found["arm"])]
    longest = float(found["step"].max())  # type: ignore[arg-type]
    shifts = {arm: place * APART * longest for place, arm in enumerate(arms)}
    own = pl.col("arm").is_in(arms)
    ends = (pl.col("point") == "end").cast(pl.Float64)
    shifted = pl.col("step") + ends * pl.col("arm").replace_strict(shifts, default=0.0, return_dtype=pl.Float64())
    rows = found.with_columns(step=shifted, kind=pl.col("arm").replace_strict(words, default=None))
    scale = alt.Scale(domain=(0, longest * (1 + APART * len(words))), nice=False)
    ticks = alt.Axis(tickCount=5, labels=last, ticks=last, format="d")
    x = alt.X("step:Q", title="step of the parent's run" if last else None, scale=scale, axis=ticks)
    color = looks(EVERY)["color"].legend(None)
    legend = alt.Legend(symbolFillColor=INK, symbolStrokeColor=INK)
    shape = alt.Shape(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=list(family.arms), range=[style(arm).shape for arm in family.arms.values()]),
        legend=legend,
    )
    y = axis.y(labels=labels)
    continued = alt.Chart(told(named(rows.filter(own), arms), "point")).encode(x=x, y=y, color=color)
    stop = alt.Chart(named(rows.filter(own, pl.col("point") == "end"), arms)).encode(x=x, color=color)
    whole = alt.Chart(named(rows.filter(pl.col("arm") == family.parent))).encode(x=x, y=y, color=color)
    begin = alt.Chart(pl.DataFrame({"step": [family.begin]})).encode(x=x)
    layers = [
        begin.mark_rule(stroke=QUIET, strokeDash=[5, 3], strokeWidth=1.6),
        whole.mark_line(strokeWidth=1.2, strokeDash=[2, 3]),
        whole.transform_filter(alt.datum.point == "start").mark_point(
            shape="diamond", size=130, filled=True, opacity=1
        ),
        continued.mark_line(strokeWidth=2.2),
        stop.mark_rule(strokeWidth=2.5).encode(y=axis.y("low", labels=labels), y2="high:Q"),
        continued.mark_point(size=90, filled=True, opacity=1).encode(shape=shape, description="told:N"),
    ]
    title = {"title": style(family.parent).label} if headed else {}
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, **title)


def _ranges(ranges: Sequence[Published], arm: str) -> Any:
    """The paper's axis ranges of one arm, a benchmark a column."""
    rows = [{"benchmark": one.quantity, "low": one.low, "high": one.high} for one in ranges if one.arm == arm]
    axis = Axis(title="paper's axis (%)", domain=ACCURACY)
    ticks = alt.Axis(labelAngle=-40, labelLimit=0)
    x = alt.X("benchmark:N", sort=list(BENCHMARKS), title=None, axis=ticks)
    bar = alt.Chart(pl.DataFrame(rows)).mark_bar(width=SLOT * 0.7, opacity=0.5, color=style(arm).color)
    bar = bar.encode(x=x, y=axis.y("low"), y2="high:Q")
    title = alt.TitleParams(f"{style(arm).label}, the paper", fontSize=TEXT)
    return bar.properties(width=WIDTH, height=HEIGHT * 0.7, title=title)
