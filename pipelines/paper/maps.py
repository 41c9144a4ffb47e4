"""Block maps of a matrix, an arm a row and a mask a column, above dots with the same quantities over all matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.blocks import MAPS
from pipelines.paper.palette import style
from pipelines.paper.panels import ENDS, styles
from pipelines.paper.published import DENSITY, LOW_MAGNITUDE, PRINCIPAL, Published, in_words, of
from pipelines.report.panels import PAPER, QUIET, Axis, columns, headed, level, looks, named, styled, tips, written

SIDE, HEIGHT = 190, 150  # px of a map, of a panel of dots
KINDS: dict[str, str] = dict(zip(MAPS, (DENSITY, PRINCIPAL, LOW_MAGNITUDE), strict=True))  # quantity by map


def figure(
    shown: pl.DataFrame,
    shares: Mapping[str, pl.DataFrame],
    arms: Sequence[str],
    published: Sequence[Published],
    chance: float,
) -> Any:
    """shown: columns of `blocks.SCHEMA`; shares: by quantity arm, value, low, high in %; chance in %."""
    mapped = [arm for arm in arms if arm in set(shown["arm"])]
    panels = [_map(shown, arm, kind, mapped) for arm in mapped for kind in MAPS]
    panels += [
        _dots(shares[name], name, arms, of(published, name), chance if place else None)
        for place, name in enumerate(shares)
    ]
    own = alt.ScaleResolveMap(color="independent")
    return styled(columns(panels, len(MAPS), spacing=16, resolve=alt.Resolve(scale=own)))


def _map(shown: pl.DataFrame, arm: str, kind: str, arms: Sequence[str]) -> Any:
    part = shown.filter(pl.col("arm") == arm, pl.col("map") == kind).drop("arm", "map").drop_nulls("share")
    # One legend for nine maps, at the end of the first row.
    legend = alt.Legend(orient="right", type="gradient", gradientLength=SIDE - 30)
    legend = legend if (arm, kind) == (arms[0], MAPS[-1]) else None
    share = alt.Color("share:Q", title="%", scale=alt.Scale(scheme="yellowgreenblue", domain=(0, 100)), legend=legend)
    ends = {name: [0, int(shown[f"{name}_end"].max())] for name in ("row", "column")}  # type: ignore[arg-type]
    plain: dict[str, Any] = {"tickCount": 3, "grid": False, "labelFlush": True}
    scale = alt.Scale(domain=ends["column"], nice=False)
    x = alt.X("column:Q", title="input index", axis=written(arm == arms[-1], **plain), scale=scale)
    scale = alt.Scale(domain=ends["row"], reverse=True, nice=False)
    y = alt.Y("row:Q", title="output index", axis=written(kind == MAPS[0], **plain), scale=scale)
    words = [alt.Tooltip("share:Q", title="share (%)", format=".3~g"), "row:Q", "column:Q"]
    cell = alt.Chart(part).mark_rect().encode(x=x, x2="column_end:Q", y=y, y2="row_end:Q", color=share, tooltip=words)
    return headed(f"{style(arm).label}: {KINDS[kind]}", cell, width=SIDE, height=SIDE)


def _dots(
    rows: pl.DataFrame, name: str, keys: Sequence[str], reported: Sequence[Published], chance: float | None
) -> Any:
    """Ours filled with the interval, the paper's hollow beside it."""
    first, arms = chance is None, styles(keys)
    axis = Axis(title="share (%)", domain=(0, 105))
    labels = [arm.label for arm in arms]
    below = alt.Axis(labelAngle=0, ticks=False, labelPadding=6)
    x = alt.X("label:N", sort=labels, title=None, scale=alt.Scale(domain=labels), axis=below)
    look = looks(arms)
    quiet = {"color": look["color"].legend(None), "shape": look["shape"].legend(None)}
    ours = alt.Chart(named(rows, arms)).encode(x=x)
    theirs = pl.DataFrame([{"arm": one.arm, "value": one.low, "paper": in_words(one)} for one in reported])
    theirs = alt.Chart(named(theirs.filter(pl.col("arm").is_in(list(keys))), arms)).encode(x=x, tooltip="paper:N")
    hollow = {"shape": "diamond", "size": 90, "filled": False, "fill": PAPER, "stroke": QUIET, "strokeWidth": 2}
    layers = []
    if chance is not None:
        layers = level(
            alt.Chart(pl.DataFrame({"value": [chance]})), f"chance {chance:g} %", axis, labels=first, below=24
        )
    whisker = ours.mark_rule(strokeWidth=2.5, xOffset=-9).encode(y=axis.y("low", labels=first), y2="high:Q")
    dot = tips(ours.mark_point(size=80, filled=True, opacity=1, xOffset=-9), ends=ENDS)
    layers += [
        whisker.encode(color=quiet["color"]),
        dot.encode(y=axis.y(labels=first), **quiet),
        theirs.mark_point(opacity=1, xOffset=9, **hollow).encode(y=axis.y(labels=first)),
    ]
    return headed(f"all: {name}", *layers, width=SIDE, height=HEIGHT)
