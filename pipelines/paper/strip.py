"""Draw published values, one column per arm, next to the panels of our runs.

A pale bar is a range, with a triangle at the end where a run arrives in it; a hollow diamond is one number.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.panels import arm_styles
from pipelines.paper.published import Published, in_words
from pipelines.report.panels import PAPER, Axis, add_labels, add_title, arm_encodings

SLOT = 22  # px of one arm
SCHEMA = {
    "arm": pl.String(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "end": pl.Float64(),
    "shape": pl.String(),
    "paper": pl.String(),
}
SHAPES = {"high": "triangle-up", "low": "triangle-down"}


def draw_strip(
    reported: Sequence[Published], keys: Sequence[str], axis: Axis, *, title: str = "paper", labels: bool = False
) -> Any:
    """On `axis`, which the panels to the left share; labels: written out, for an axis of its own."""
    rows = pl.DataFrame(
        [
            (value.arm, value.low, value.high, getattr(value, value.ends), SHAPES[value.ends], in_words(value))
            if value.ends
            else (value.arm, value.low, value.high, None, None, in_words(value))
            for value in reported
            if value.arm in keys
        ],
        schema=SCHEMA,
        orient="row",
    )
    arms = arm_styles(keys)
    shown, color = add_labels(rows, arms), arm_encodings(arms)["color"]
    labels_shown = [arm.label for arm in arms if arm.key in set(rows["arm"])]
    x = alt.X("label:N", sort=labels_shown, axis=None)
    ranged, single = pl.col("low") < pl.col("high"), pl.col("low") == pl.col("high")

    def drawn(part: pl.DataFrame, column: str) -> Any:
        return alt.Chart(part).encode(x=x, y=axis.y(column, labels=labels), color=color, tooltip="paper:N")

    layers = [drawn(shown.filter(ranged), "low").mark_rule(strokeWidth=SLOT * 0.5, opacity=0.45).encode(y2="high:Q")]
    for shape in SHAPES.values():
        arrived = drawn(shown.filter(pl.col("shape") == shape), "end")
        layers.append(arrived.mark_point(shape=shape, size=80, filled=True, opacity=1))
    # Filled with paper, so that grid lines do not run through it.
    hollow = {"shape": "diamond", "size": 90, "filled": False, "fill": PAPER, "strokeWidth": 2.2, "opacity": 1}
    layers.append(drawn(shown.filter(single), "low").mark_point(**hollow))
    return add_title(title, *layers, width=SLOT * max(2, len(labels_shown)))
