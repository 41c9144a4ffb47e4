"""Dots with intervals, one line per arm, beside the paper's values."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.palette import style
from pipelines.paper.panels import looks, named, styled
from pipelines.paper.published import Published, in_words
from pipelines.report.figures import PAPER, QUIET, told

LINE, WIDTH = 25, 420  # px


def beside(
    found: pl.DataFrame,
    arms: Sequence[str],
    published: Sequence[Published],
    others: Sequence[str],
    title: str,
    domain: tuple[float, float],
) -> Any:
    """Ours filled with intervals, the paper's hollow; a line per arm, then per name of `others`, which we lack."""
    names = [style(arm).label for arm in arms]
    order = [*names, *others]
    y = alt.Y(
        "label:N", sort=order, title=None, scale=alt.Scale(domain=order), axis=alt.Axis(labelLimit=0, ticks=False)
    )

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=title, scale=alt.Scale(domain=domain))

    look = looks(arms)
    quiet = {"color": look["color"].legend(None), "shape": look["shape"].legend(None)}
    ours = alt.Chart(told(named(found))).encode(y=y)
    rows = [
        {"label": _name(one.arm, arms), "value": one.low, "whose": THEIRS, "told": in_words(one)} for one in published
    ]
    theirs = alt.Chart(pl.DataFrame(rows)).encode(y=y)
    whose = alt.Shape("whose:N", title=None, scale=alt.Scale(domain=[THEIRS], range=["diamond"]))
    chart = alt.layer(
        ours.mark_rule(strokeWidth=2.5).encode(x=x("low"), x2="high:Q", color=quiet["color"]),
        theirs.mark_point(size=120, filled=True, fill=PAPER, stroke=QUIET, strokeWidth=2, opacity=1).encode(
            x=x("value"), shape=whose, description="told:N"
        ),
        ours.mark_point(size=110, filled=True, opacity=1).encode(x=x("value"), description="told:N", **quiet),
    ).resolve_scale(shape="independent")
    return styled(chart.properties(width=WIDTH, height=LINE * len(order)))


THEIRS = "hollow: the paper's; filled: ours"


def _name(arm: str, arms: Sequence[str]) -> str:
    return style(arm).label if arm in arms or arm in ("sft", "opd", "rlvr") else arm
