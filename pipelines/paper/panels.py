"""Additions to `report.panels` for the paper's figures: axes that include published values, and arms by key.

Solid marks are our runs; the paper's are pale bars and hollow diamonds (`strip.py`). Bands are 95 % intervals.
"""

from collections.abc import Sequence

import polars as pl

from pipelines.paper.palette import arm_style
from pipelines.paper.published import Published
from pipelines.report.panels import Axis
from pipelines.studies.story import Arm

ENDS = "95 % interval"


def arm_styles(keys: Sequence[str]) -> list[Arm]:
    return [arm_style(key) for key in keys]


def shared_axis(
    title: str,
    frames: Sequence[pl.DataFrame],
    reported: Sequence[Published] = (),
    *,
    log: bool = False,
    zero: bool = True,
) -> Axis:
    """An axis that includes our means, intervals of three or more seeds, and the paper's values; 0 if `zero`.

    Two seeds have intervals six times as wide as their spread (t = 12.7), which are cut off where they leave the axis.
    """
    values = [end for published in reported for end in (published.low, published.high)]
    for frame in frames:
        steady = frame.filter(pl.col("seeds") > 2)
        values += [*frame["value"], *steady["low"], *steady["high"]]
    values = [value for value in values if value is not None and (value > 0 or not log)]
    if not values:
        return Axis(title=title, log=log)
    low, high = min(values), max(values)
    if log:
        return Axis(title=title, log=True, domain=(low / 1.3, high * 1.3))
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low or abs(high) or 1.0)
    return Axis(title=title, domain=(low - room * (low != 0 or not zero), high + room * (high != 0)))
