"""Draw block maps of one matrix: a row per arm, a column per mask."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from pipelines.report.blocks import MAPS, sum_masks
from pipelines.report.palette import arm_looks
from pipelines.report.panels import add_title, apply_style, arrange_columns, written_axis
from pipelines.statistics.matrices import representative_matrix
from pipelines.store.objects import Store
from pipelines.studies.story import Arm, Drawing, Story, Tables

SIDE = 190  # px of a map
KINDS: dict[str, str] = dict(
    zip(MAPS, ("changed weights", "principal-mask overlap", "low-magnitude overlap"), strict=True)
)
ALPHA = 0.5  # share of the weights that a mask holds


def draw_maps(story: Story, tables: Tables, store: Store) -> Drawing:
    """The maps of the representative matrix for the first seed of every core arm whose snapshots are in the store."""
    seeds = tables["localization"].select(pl.col("seed").min()).collect().item()
    shown = sum_masks(tables, store, story.core, ALPHA, seeds) if seeds is not None else pl.DataFrame()
    if shown.is_empty():
        return Drawing(chart=None, numbers=pl.DataFrame(), absent=("The runs' weights are not in this store.",))
    own = alt.ScaleResolveMap(color="independent")
    panels = map_panels(shown, arm_looks(story, story.core))
    chart = apply_style(arrange_columns(panels, len(MAPS), spacing=16, resolve=alt.Resolve(scale=own)))
    matrix = representative_matrix(tables, story.core)
    return Drawing(chart=chart, numbers=pl.DataFrame(), absent=(f"Shown: {matrix}, seed {seeds}.",))


def map_panels(shown: pl.DataFrame, arms: Sequence[Arm]) -> list[Any]:
    """A panel per arm and map. shown: columns of `blocks.SCHEMA`."""
    mapped = [arm for arm in arms if arm.key in set(shown["arm"])]
    return [_map(shown, arm, kind, mapped) for arm in mapped for kind in MAPS]


def _map(shown: pl.DataFrame, arm: Arm, kind: str, arms: Sequence[Arm]) -> Any:
    part = shown.filter(pl.col("arm") == arm.key, pl.col("map") == kind).drop("arm", "map").drop_nulls("share")
    # One legend for all maps, at the end of the first row.
    legend = alt.Legend(orient="right", type="gradient", gradientLength=SIDE - 30)
    legend = legend if (arm.key, kind) == (arms[0].key, MAPS[-1]) else None
    share = alt.Color("share:Q", title="%", scale=alt.Scale(scheme="yellowgreenblue", domain=(0, 100)), legend=legend)
    ends = {name: [0, int(shown[f"{name}_end"].max())] for name in ("row", "column")}  # type: ignore[arg-type]
    plain: dict[str, Any] = {"tickCount": 3, "grid": False, "labelFlush": True}
    scale = alt.Scale(domain=ends["column"], nice=False)
    x = alt.X("column:Q", title="input index", axis=written_axis(arm.key == arms[-1].key, **plain), scale=scale)
    scale = alt.Scale(domain=ends["row"], reverse=True, nice=False)
    y = alt.Y("row:Q", title="output index", axis=written_axis(kind == MAPS[0], **plain), scale=scale)
    words = [alt.Tooltip("share:Q", title="share (%)", format=".3~g"), "row:Q", "column:Q"]
    cell = alt.Chart(part).mark_rect().encode(x=x, x2="column_end:Q", y=y, y2="row_end:Q", color=share, tooltip=words)
    return add_title(f"{arm.label}: {KINDS[kind]}", cell, width=SIDE, height=SIDE)
