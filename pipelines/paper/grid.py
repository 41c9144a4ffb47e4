"""Lines over training, a row per quantity: the bf16 view, the master view, and what the paper reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from pipelines.paper.panels import Axis, apart, curves, shared, styled
from pipelines.paper.published import Published
from pipelines.paper.strip import strip
from pipelines.report.figures import VIEW_TITLES


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of panels. runs, null: columns arm, view, progress, value, low, high, seeds."""

    title: str  # of the axis, with the unit
    arms: tuple[str, ...]
    runs: pl.DataFrame
    null: pl.DataFrame | None = None
    reported: Sequence[Published]
    log: bool = False
    floor: tuple[float, str] | None = None
    domain: tuple[float, float] | None = None  # None: what holds everything
    head: str = ""  # over the row and those after it with the same arms, for `stacked`


def grid(lines: Sequence[Line]) -> Any:
    """Rows with the same arms, one legend, and one axis along each row."""
    views = viewed(lines)
    rows = []
    for line in lines:
        known = [line.runs] if line.null is None else [line.runs, line.null]
        axis = shared(line.title, known, line.reported, log=line.log)
        if line.domain is not None:
            axis = Axis(title=line.title, log=line.log, domain=line.domain)
        first, last = line is lines[0], line is lines[-1]
        panels = [_panel(line, view, axis, first, last, labels=view == views[0]) for view in views]
        panels.append(strip(line.reported, line.arms, axis, title="paper" if first else ""))
        rows.append(alt.hconcat(*panels, spacing=14))
    return styled(alt.vconcat(*rows, spacing=12))


def stacked(lines: Sequence[Line]) -> Any:
    """Rows with arms of their own: a legend over each block of rows, and an axis per panel, fitted to it.

    Arms that differ by percents cannot be told apart on an axis that holds bf16's beginning and the paper's levels.
    """
    views = viewed(lines)
    blocks = []
    for arms in dict.fromkeys(line.arms for line in lines):
        mine = [line for line in lines if line.arms == arms]
        rows = []
        for line in mine:
            first, last = line is mine[0], line is mine[-1]
            panels = []
            for view in views:
                axis = shared(line.title, [line.runs.filter(pl.col("view") == view)], zero=False)
                panels.append(_panel(line, view, axis, first, last, labels=True))
            axis = shared(line.title, [], line.reported, zero=False)
            panels.append(strip(line.reported, arms, axis, title="paper" if first else "", labels=True))
            rows.append(alt.hconcat(*panels, spacing=14))
        title = alt.TitleParams(mine[0].head, anchor="start", fontWeight="bold")
        blocks.append(alt.vconcat(*rows, spacing=12, title=title))
    return styled(alt.vconcat(*blocks, spacing=22, resolve=apart("color", "shape", "strokeDash")), room=ROOM)


ROOM = 40  # px of the labels to the left of a panel that has an axis of its own


def viewed(lines: Sequence[Line]) -> list[str]:
    """The views that have rows."""
    return [view for view in VIEW_TITLES if any(view in set(line.runs["view"]) for line in lines)]


def _panel(line: Line, view: str, axis: Axis, first: bool, last: bool, *, labels: bool) -> Any:
    mine = pl.col("view") == view
    return curves(
        line.runs.filter(mine),
        line.arms,
        axis,
        title=VIEW_TITLES[view] if first else "",
        null=None if line.null is None else line.null.filter(mine),
        floor=line.floor,
        labels=labels,
        along=last,
    )
