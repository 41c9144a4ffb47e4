"""Lines over training, a row per quantity: the bf16 view, the master view, and what the paper reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.panels import ENDS, arm_styles, shared_axis
from pipelines.paper.published import Published
from pipelines.paper.strip import draw_strip
from pipelines.report.panels import VIEW_TITLES, Axis, apply_style, arrange_columns, draw_curves


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of panels. runs, null: columns arm, view, progress, value, low, high, seeds."""

    title: str  # of the axis, with the unit
    arms: tuple[str, ...]
    runs: pl.DataFrame
    null: pl.DataFrame | None = None
    reported: Sequence[Published] = ()
    log: bool = False
    floor: tuple[float, str] | None = None
    domain: tuple[float, float] | None = None  # None: what holds everything
    head: str = ""  # over the row and those after it with the same arms, for `stacked`


def arrange_grid(lines: Sequence[Line]) -> Any:
    """Rows with the same arms, one legend, and one axis along each row."""
    views, panels = present_views(lines), []
    reported = any(line.reported for line in lines)
    for line in lines:
        curves = [line.runs] if line.null is None else [line.runs, line.null]
        axis = shared_axis(line.title, curves, line.reported, log=line.log)
        if line.domain is not None:
            axis = Axis(title=line.title, log=line.log, domain=line.domain)
        for view in views:
            panels.append(_panel(line, view, axis, labels=view == views[0], below=line is lines[-1]))
        if reported:
            panels.append(draw_strip(line.reported, line.arms, axis))
    return apply_style(arrange_columns(panels, len(views) + reported))


def stack_rows(lines: Sequence[Line]) -> Any:
    """Rows with arms of their own: a legend over each block of rows, and an axis per panel, fitted to it.

    Arms that differ by percents cannot be told apart on an axis that holds bf16's beginning and the paper's levels.
    """
    views, blocks = present_views(lines), []
    for arms in dict.fromkeys(line.arms for line in lines):
        block_lines, panels = [line for line in lines if line.arms == arms], []
        reported = any(line.reported for line in block_lines)
        for line in block_lines:
            for view in views:
                axis = shared_axis(line.title, [line.runs.filter(pl.col("view") == view)], zero=False)
                panels.append(_panel(line, view, axis, labels=True, below=line is block_lines[-1]))
            if reported:
                axis = shared_axis(line.title, [], line.reported, zero=False)
                panels.append(draw_strip(line.reported, arms, axis, labels=True))
        title = alt.TitleParams(block_lines[0].head, anchor="start", fontWeight="bold")
        blocks.append(arrange_columns(panels, len(views) + reported, title=title))
    looks = alt.ScaleResolveMap(color="independent", shape="independent", strokeDash="independent")
    return apply_style(alt.vconcat(*blocks, spacing=22, resolve=alt.Resolve(scale=looks)), room=ROOM)


ROOM = 40  # px of the labels to the left of a panel that has an axis of its own


def present_views(lines: Sequence[Line]) -> list[str]:
    """The views that have rows."""
    return [view for view in VIEW_TITLES if any(view in set(line.runs["view"]) for line in lines)]


def _panel(line: Line, view: str, axis: Axis, *, labels: bool, below: bool) -> Any:
    in_view = pl.col("view") == view
    return draw_curves(
        line.runs.filter(in_view).drop("view", "seeds"),
        arm_styles(line.arms),
        axis,
        title=VIEW_TITLES[view],
        ends=ENDS,
        null=None if line.null is None else line.null.filter(in_view).drop("view", "low", "high", "seeds"),
        floor=None if line.floor is None else (pl.DataFrame({"value": [line.floor[0]]}), line.floor[1]),
        labels=labels,
        below=below,
    )
