"""Block maps of a matrix, an arm a row and a mask a column, above dots with the same quantities over all matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.panels import ENDS, arm_styles
from pipelines.paper.published import Published, find_published, in_words
from pipelines.report.blocks import MAPS
from pipelines.report.maps import SIDE, map_panels
from pipelines.report.panels import (
    PAPER,
    QUIET,
    Axis,
    add_labels,
    add_title,
    add_tooltips,
    apply_style,
    arm_encodings,
    arrange_columns,
    draw_level,
)

HEIGHT = 150  # px of a panel of dots


def draw_maps(
    shown: pl.DataFrame,
    shares: Mapping[str, pl.DataFrame],
    arms: Sequence[str],
    published: Sequence[Published],
    chance: float,
) -> Any:
    """shown: columns of `blocks.SCHEMA`; shares: by quantity arm, value, low, high in %; chance in %."""
    panels = map_panels(shown, arm_styles(arms))
    panels += [
        _dots(shares[name], name, arms, find_published(published, name), chance if place else None)
        for place, name in enumerate(shares)
    ]
    own = alt.ScaleResolveMap(color="independent")
    return apply_style(arrange_columns(panels, len(MAPS), spacing=16, resolve=alt.Resolve(scale=own)))


def _dots(
    rows: pl.DataFrame, name: str, keys: Sequence[str], reported: Sequence[Published], chance: float | None
) -> Any:
    """Ours filled with the interval, the paper's hollow beside it."""
    first, arms = chance is None, arm_styles(keys)
    axis = Axis(title="share (%)", domain=(0, 105))
    labels = [arm.label for arm in arms]
    below = alt.Axis(labelAngle=0, ticks=False, labelPadding=6)
    x = alt.X("label:N", sort=labels, title=None, scale=alt.Scale(domain=labels), axis=below)
    look = arm_encodings(arms)
    quiet = {"color": look["color"].legend(None), "shape": look["shape"].legend(None)}
    ours = alt.Chart(add_labels(rows, arms)).encode(x=x)
    theirs = pl.DataFrame([{"arm": value.arm, "value": value.low, "paper": in_words(value)} for value in reported])
    theirs = alt.Chart(add_labels(theirs.filter(pl.col("arm").is_in(list(keys))), arms)).encode(x=x, tooltip="paper:N")
    hollow = {"shape": "diamond", "size": 90, "filled": False, "fill": PAPER, "stroke": QUIET, "strokeWidth": 2}
    layers = []
    if chance is not None:
        layers = draw_level(
            alt.Chart(pl.DataFrame({"value": [chance]})), f"chance {chance:g} %", axis, labels=first, below=24
        )
    whisker = ours.mark_rule(strokeWidth=2.5, xOffset=-9).encode(y=axis.y("low", labels=first), y2="high:Q")
    dot = add_tooltips(ours.mark_point(size=80, filled=True, opacity=1, xOffset=-9), ends=ENDS)
    layers += [
        whisker.encode(color=quiet["color"]),
        dot.encode(y=axis.y(labels=first), **quiet),
        theirs.mark_point(opacity=1, xOffset=9, **hollow).encode(y=axis.y(labels=first)),
    ]
    return add_title(f"all: {name}", *layers, width=SIDE, height=HEIGHT)
