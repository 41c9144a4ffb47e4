"""Dots with intervals, one line per arm, beside the paper's values."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import arm_style
from pipelines.paper.panels import ENDS, arm_styles
from pipelines.paper.published import Published, in_words
from pipelines.report.panels import PAPER, QUIET, add_labels, add_tooltips, apply_style, arm_encodings

LINE, WIDTH = 24, 420  # px
THEIRS = "hollow: the paper's; filled: ours"


def draw_beside(
    rows: pl.DataFrame,
    keys: Sequence[str],
    published: Sequence[Published],
    others: Sequence[str],
    title: str,
    domain: tuple[float, float],
) -> Any:
    """Our values filled with intervals, the paper's hollow; one line per arm, then one per name of `others` (paper
    only)."""
    arms = arm_styles(keys)
    order = [*(arm.label for arm in arms), *others]
    # Apart from the panel, so that a mark at 0 does not touch its name.
    left = alt.Axis(labelLimit=0, ticks=False, domain=False, offset=10)
    y = alt.Y("label:N", sort=order, title=None, scale=alt.Scale(domain=order), axis=left)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=title, scale=alt.Scale(domain=domain))

    look = arm_encodings(arms)
    quiet = {"color": look["color"].legend(None), "shape": look["shape"].legend(None)}
    ours = alt.Chart(add_labels(rows, arms)).encode(y=y)
    words = [
        {"label": _name(value.arm, keys), "value": value.low, "whose": THEIRS, "paper": in_words(value)}
        for value in published
    ]
    theirs = alt.Chart(pl.DataFrame(words)).encode(y=y, tooltip="paper:N")
    legend = alt.Legend(symbolStrokeColor=QUIET, symbolStrokeWidth=2, symbolFillColor="transparent")
    whose = alt.Shape("whose:N", title=None, scale=alt.Scale(domain=[THEIRS], range=["diamond"]), legend=legend)
    hollow = {"size": 100, "filled": True, "fill": PAPER, "stroke": QUIET, "strokeWidth": 2, "opacity": 1}
    dot = add_tooltips(ours.mark_point(size=90, filled=True, opacity=1), ends=ENDS)
    chart = alt.layer(
        ours.mark_rule(strokeWidth=2.5).encode(x=x("low"), x2="high:Q", color=quiet["color"]),
        theirs.mark_point(**hollow).encode(x=x("value"), shape=whose),
        dot.encode(x=x("value"), **quiet),
    ).resolve_scale(shape="independent")
    return apply_style(chart.properties(width=WIDTH, height=LINE * len(order)))


def _name(arm: str, keys: Sequence[str]) -> str:
    return arm_style(arm).label if arm in keys or arm in ("sft", "opd", "rlvr") else arm
