"""What the paper reports, an arm a column, beside the panels of our runs.

A pale bar is a range, with a triangle at the end where a run arrives in it; a hollow diamond is one number.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import style
from pipelines.paper.panels import HEIGHT, Axis, looks, named
from pipelines.paper.published import Published, in_words
from pipelines.report.figures import PAPER

SLOT = 20  # px of one arm
SCHEMA = {
    "arm": pl.String(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "end": pl.Float64(),
    "shape": pl.String(),
    "told": pl.String(),
}
SHAPES = {"high": "triangle-up", "low": "triangle-down"}


def strip(
    reported: Sequence[Published], arms: Sequence[str], axis: Axis, *, title: str = "paper", labels: bool = False
) -> Any:
    """On `axis`, which the panels to the left share; labels: written out, for an axis of its own."""
    found = pl.DataFrame(
        [
            (one.arm, one.low, one.high, getattr(one, one.ends), SHAPES[one.ends], in_words(one))
            if one.ends
            else (one.arm, one.low, one.high, None, None, in_words(one))
            for one in reported
            if one.arm in arms
        ],
        schema=SCHEMA,
        orient="row",
    )
    rows, color = named(found), looks(arms)["color"]
    scale = alt.Scale(domain=[style(arm).label for arm in arms], range=[style(arm).color for arm in arms])
    outline = alt.Stroke("label:N", scale=scale, legend=None)  # a pale bar alone does not stand out enough
    columns = [style(arm).label for arm in arms if arm in set(found["arm"])]
    x = alt.X("label:N", sort=columns, axis=None)
    ranged, single = pl.col("low") < pl.col("high"), pl.col("low") == pl.col("high")

    def drawn(part: pl.DataFrame, column: str) -> Any:
        return alt.Chart(part).encode(x=x, y=axis.y(column, labels=labels), color=color, description="told:N")

    layers = [
        drawn(rows.filter(ranged), "low")
        .mark_bar(width=SLOT * 0.5, fillOpacity=0.4)
        .encode(y2="high:Q", stroke=outline)
    ]
    for shape in SHAPES.values():
        arrived = drawn(rows.filter(pl.col("shape") == shape), "end")
        layers.append(arrived.mark_point(shape=shape, size=90, filled=True, opacity=1))
    # Filled with paper, so that grid lines do not run through it.
    hollow = {"shape": "diamond", "size": 110, "filled": False, "fill": PAPER, "strokeWidth": 2.2, "opacity": 1}
    layers.append(drawn(rows.filter(single), "low").mark_point(**hollow))
    return alt.layer(*layers).properties(width=SLOT * max(2, len(columns)), height=HEIGHT, title=title)
