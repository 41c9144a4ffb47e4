"""Block maps of a matrix, an arm a row and a mask a column, above dots with the same quantities over all matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.blocks import MAPS
from pipelines.paper.palette import style
from pipelines.paper.panels import Axis, apart, level, looks, named, styled
from pipelines.paper.published import DENSITY, LOW_MAGNITUDE, PRINCIPAL, Published, in_words, of
from pipelines.report.figures import PAPER, QUIET, told

SIDE, HEIGHT, ROOM = 165, 150, 46  # px of a map, of a panel of dots, and of the labels to their left
KINDS: dict[str, str] = dict(zip(MAPS, (DENSITY, PRINCIPAL, LOW_MAGNITUDE), strict=True))  # quantity by map


def figure(
    shown: pl.DataFrame,
    found: Mapping[str, pl.DataFrame],
    arms: Sequence[str],
    published: Sequence[Published],
    chance: float,
) -> Any:
    """shown: columns of `blocks.SCHEMA`; found: by quantity arm, value, low, high in %; chance in %."""
    rows = []
    if not shown.is_empty():
        mapped = [arm for arm in arms if arm in set(shown["arm"])]
        rows = [
            alt.hconcat(*[_map(shown, arm, kind, mapped) for kind in MAPS], spacing=10, resolve=apart("color"))
            for arm in mapped
        ]
    dots = [
        _dots(found[name], name, arms, of(published, name), chance if place else None, headed=shown.is_empty())
        for place, name in enumerate(found)
    ]
    rows.append(alt.hconcat(*dots, spacing=10))
    return styled(alt.vconcat(*rows, spacing=10, resolve=apart("color")), room=ROOM)


def _map(shown: pl.DataFrame, arm: str, kind: str, arms: Sequence[str]) -> Any:
    part = shown.filter(pl.col("arm") == arm, pl.col("map") == kind).drop_nulls("share")
    last, first = arm == arms[-1], kind == MAPS[0]
    # One legend for nine maps, at the end of the first row.
    legend = alt.Legend(orient="right", type="gradient", gradientLength=SIDE - 30)
    told = legend if arm == arms[0] and kind == MAPS[-1] else None
    scale = alt.Scale(scheme="viridis", domain=(0, 100))
    share = alt.Color("share:Q", title="share (%)", scale=scale, legend=told)
    ends = {name: [0, int(shown[f"{name}_end"].max())] for name in ("row", "column")}  # type: ignore[arg-type]
    across = alt.Axis(labels=last, ticks=last, tickCount=3, grid=False, labelFlush=True)
    down = alt.Axis(labels=first, ticks=first, tickCount=3, grid=False, labelFlush=True)
    x = alt.X(
        "column:Q",
        title="input index" if last else None,
        axis=across,
        scale=alt.Scale(domain=ends["column"], nice=False),
    )
    title = f"{style(arm).label}: output index" if first else None
    y = alt.Y("row:Q", title=title, axis=down, scale=alt.Scale(domain=ends["row"], reverse=True, nice=False))
    cell = alt.Chart(part).mark_rect().encode(x=x, x2="column_end:Q", y=y, y2="row_end:Q", color=share)
    top = {"title": KINDS[kind]} if arm == arms[0] else {}
    return cell.properties(width=SIDE, height=SIDE, **top)


def _dots(
    rows: pl.DataFrame,
    name: str,
    arms: Sequence[str],
    reported: Sequence[Published],
    chance: float | None,
    *,
    headed: bool,
) -> Any:
    """Ours filled with the interval, the paper's hollow beside it."""
    first = chance is None
    axis = Axis(title="share (%)", domain=(0, 105))
    labels = [style(arm).label for arm in arms]
    x = alt.X(
        "label:N",
        sort=labels,
        title=None,
        scale=alt.Scale(domain=labels),
        axis=alt.Axis(labelAngle=0, ticks=False, labelPadding=6),
    )
    look = looks(arms)
    quiet = {"color": look["color"].legend(None), "shape": look["shape"].legend(None)}
    ours = alt.Chart(told(named(rows))).encode(x=x)
    theirs = named(pl.DataFrame([{"arm": one.arm, "value": one.low, "told": in_words(one)} for one in reported]))
    hollow = alt.Chart(theirs.filter(pl.col("label").is_in(labels))).encode(
        x=x, y=axis.y(labels=first), description="told:N"
    )
    layers = [] if chance is None else level(chance, f"chance {chance:g} %", axis, labels=first, below=26)
    layers += [
        ours.mark_rule(strokeWidth=2.5, xOffset=-9).encode(
            y=axis.y("low", labels=first), y2="high:Q", color=quiet["color"]
        ),
        ours.mark_point(size=100, filled=True, opacity=1, xOffset=-9).encode(
            y=axis.y(labels=first), description="told:N", **quiet
        ),
        hollow.mark_point(
            shape="diamond", size=110, filled=False, fill=PAPER, stroke=QUIET, strokeWidth=2, opacity=1, xOffset=9
        ),
    ]
    return alt.layer(*layers).properties(width=SIDE, height=HEIGHT, **({"title": name} if headed else {}))
