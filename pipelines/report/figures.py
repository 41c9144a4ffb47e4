"""Draw the charts of a study from its tables, and render them to PNG without a browser.

Lines are means over seeds of the mean over projection matrices; bands and whiskers span the lowest and highest seed.
The look of an arm is the same in every chart (`palette.arm_looks`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from pipelines.report.choices import Quantity, Tables, bind_field, filter_expression
from pipelines.report.palette import arm_looks
from pipelines.report.panels import (
    INK,
    PAPER,
    VIEW_TITLES,
    Axis,
    add_labels,
    add_tooltips,
    apply_style,
    arrange_columns,
    draw_curves,
)
from pipelines.report.panels import arm_encodings as encodings
from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.numbers import format_short
from pipelines.statistics.series import by_role
from pipelines.studies.story import Story

BARS = {"unchanged": "unchanged weights (%)", "rotation": "mean rotation (degrees)"}


def draw_lines(quantity: Quantity, story: Story, tables: Tables, arms: Sequence[str]) -> Any:
    """A panel per view on one axis, a line per arm; role, layer and cuts are bound to fields of the page."""
    rows, first = quantity.rows(tables, arms), quantity.starts(tables, arms)
    drawn = arm_looks(story, [arm for arm in arms if arm in set(rows["arm"])])
    shown = quantity.numbers(rows, first)["value"].to_list()
    about = (min(shown), max(shown)) if quantity.log and shown else None
    axis = Axis(title=quantity.title, log=quantity.log, domain=quantity.domain, about=about, zero=not quantity.log)
    views = [view for view in VIEW_TITLES if view in set(rows["view"])]
    floors = rows.filter(~pl.col("null")).drop_nulls("floor").group_by(quantity.axes, maintain_order=True)
    floor = floors.agg(value=pl.col("floor").first(), levels=pl.col("floor").round(9).n_unique())
    floor = floor.filter(pl.col("levels") == 1).drop("levels")  # arms of other shapes have another chance
    panels = []
    for view in views:
        view_rows = rows.filter(pl.col("view") == view).drop("view", "floor")
        panel = draw_curves(
            view_rows.filter(~pl.col("null")).drop("null"),
            drawn,
            axis,
            title=VIEW_TITLES[view],
            x=quantity.x,
            null=view_rows.filter("null").drop("null", "low", "high"),
            floor=None if floor.is_empty() else (floor, "chance"),
            labels=view == views[0],
            where=filter_expression(quantity.axes),
        )
        panels.append(panel)
    offered = {name: rows[name].unique(maintain_order=True) for name in quantity.axes}
    fields = [bind_field(name, values, first[name]) for name, values in offered.items()]
    shared = alt.Resolve(scale=alt.ScaleResolveMap(y="shared"))
    return apply_style(arrange_columns(panels, len(panels), resolve=shared, params=[field.param for field in fields]))


def line_numbers(quantity: Quantity, story: Story, tables: Tables, arms: Sequence[str]) -> dict[str, pl.DataFrame]:
    """The numbers that `draw_lines` shows first, by the title of its axis: arm (label), view, place, value, low,
    high."""
    rows = quantity.numbers(quantity.rows(tables, arms, every=False), quantity.starts(tables, arms))
    return {quantity.title: _add_labels(rows, story)}


def draw_roles(story: Story, tables: Tables, arms: Sequence[str]) -> Any:
    """Final unchanged share and mean rotation in the bf16 view, by role of the matrix."""
    parts = _by_role(tables, arms)
    drawn = arm_looks(story, [arm for arm in arms if any(arm in set(rows["arm"]) for rows in parts.values())])
    return apply_style(arrange_columns([_bars(rows, title, drawn) for title, rows in parts.items()], 2))


def role_numbers(story: Story, tables: Tables, arms: Sequence[str]) -> dict[str, pl.DataFrame]:
    """The numbers of `draw_roles`, by title: columns arm (label), view, role, value, low, high."""
    return {title: _add_labels(rows, story) for title, rows in _by_role(tables, arms).items()}


def _by_role(tables: Tables, arms: Sequence[str]) -> dict[str, pl.DataFrame]:
    unchanged = by_role("update_support", tables["update_support"], "unchanged", arms, weight="numel")
    parts = {
        BARS["unchanged"]: unchanged.with_columns(pl.col("value", "low", "high") * 100),
        BARS["rotation"]: by_role("rotation", tables["rotation"], "mean_deg", arms),
    }
    order = {role: place for place, role in enumerate(PROJECTIONS)}
    sort = pl.col("role").replace_strict(order, return_dtype=pl.Int64())
    return {title: rows.with_columns(view=pl.lit("bf16")).sort(sort, "arm") for title, rows in parts.items()}


def _bars(rows: pl.DataFrame, title: str, arms: Sequence[Any]) -> Any:
    """Grouped bars by role, one per arm, whiskers from the lowest to the highest seed."""
    x = alt.X("role:N", sort=list(PROJECTIONS), title="role of the matrix", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("label:N", sort=[arm.label for arm in arms])
    base = alt.Chart(add_labels(rows.drop("view"), arms)).encode(x=x, xOffset=offset)
    bar = add_tooltips(base.mark_bar(), "role").encode(y=alt.Y("value:Q", title=title), color=encodings(arms)["color"])
    whisker = base.mark_rule(color=INK).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    return alt.layer(bar, whisker, width=250, height=190)


def _add_labels(rows: pl.DataFrame, story: Story) -> pl.DataFrame:
    return rows.with_columns(pl.col("arm").map_elements(story.label, return_dtype=pl.String()))


def format_span(value: float, low: float | None, high: float | None) -> str:
    """ "4.21 [4.10 to 4.30]", or only the value if both ends are equal."""
    if low is None or high is None or low == high:
        return format_short(value)
    return f"{format_short(value)} [{format_short(low)} to {format_short(high)}]"


def at_first(spec: Mapping[str, Any]) -> dict[str, Any]:
    """`spec` with only the rows of the first choice, which makes rendering three times as fast."""
    picked = {
        param["name"].removeprefix("pick_"): param["value"] for param in spec.get("params", ()) if "bind" in param
    }
    datasets = {
        name: [row for row in rows if all(row.get(field, value) == value for field, value in picked.items())]
        for name, rows in spec.get("datasets", {}).items()
    }
    return {**spec, "datasets": datasets}


def render_png(chart: Any, scale: float = 2.0) -> bytes:
    """`chart` on white as PNG bytes, `scale` device pixels per px."""
    spec = at_first(chart.to_dict(validate=False))
    white = {**spec, "config": {**spec.get("config", {}), "background": PAPER}}
    return vl_convert.vegalite_to_png(white, scale=scale)
