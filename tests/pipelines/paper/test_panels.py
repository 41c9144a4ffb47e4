"""Axes, marks and the strip of the paper's values."""

import polars as pl
import pytest

from pipelines.paper.panels import arm_styles, shared_axis
from pipelines.paper.published import Published
from pipelines.paper.strip import draw_strip
from pipelines.report.panels import Axis, decade_ticks, draw_curves, mark_nearest


def lines(*values, seeds=3, spread=0.5):
    rows = [("opd", 100.0 * i / len(values), v, v - spread, v + spread, seeds) for i, v in enumerate(values, 1)]
    return pl.DataFrame(rows, schema=["arm", "progress", "value", "low", "high", "seeds"], orient="row")


def said(low, high, ends=None):
    return Published(arm="opd", quantity="q", low=low, high=high, words="", known="axis", ends=ends)


def domain(*drawn, **options):
    ends = shared_axis(*drawn, **options).domain
    assert ends is not None
    return ends


def test_an_axis_holds_means_intervals_and_the_papers_values():
    low, high = domain("q", [lines(2.0, 4.0)], [said(1.0, 9.0)])
    assert low == 0.0 and high == pytest.approx(9 * 1.06)
    low, high = domain("q", [lines(2.0, 4.0)], [said(1.0, 9.0)], log=True)
    assert low == pytest.approx(1 / 1.3) and high == pytest.approx(9 * 1.3)
    low, high = domain("q", [lines(2.0, 4.0)], zero=False)
    assert low == pytest.approx(1.5 - 0.06 * 3) and high == pytest.approx(4.5 + 0.06 * 3)
    low, high = domain("q", [lines(-2.0, 4.0)])
    assert low < -2.5 and high > 4.5


def test_intervals_of_two_seeds_do_not_stretch_an_axis():
    assert shared_axis("q", [lines(2.0, 4.0, seeds=2, spread=50.0)]).domain == pytest.approx((0, 4 * 1.06))


def test_an_axis_of_nothing_is_left_to_the_renderer():
    assert shared_axis("q", [lines(1.0).head(0)]) == Axis(title="q")


@pytest.mark.parametrize(
    ("domain", "ticks"),
    [((1.5, 97), [2, 5, 10, 20, 50]), ((1e-4, 5), [1e-4, 1e-3, 1e-2, 0.1, 1]), ((0.9, 1.1), [1])],
)
def test_ticks_of_a_log_axis_are_round(domain, ticks):
    assert decade_ticks(*domain) == ticks


def test_marks_stand_nearest_to_the_named_shares_of_every_line():
    shares = [3.0, 6.0, 9.0, 26.0, 49.0, 60.0, 76.0, 100.0]
    data = pl.DataFrame({"arm": ["opd"] * 8 + ["sft"], "progress": [*shares, 3.0], "value": [*shares, 1.0]})
    assert mark_nearest(data).filter("marked")["progress"].to_list() == [6.0, 9.0, 26.0, 49.0, 76.0, 100.0, 3.0]


def test_the_first_arm_is_drawn_on_top():
    data = pl.concat([lines(1.0, 2.0), lines(3.0).with_columns(arm=pl.lit("rlvr"))]).drop("seeds")
    line = draw_curves(data, arm_styles(["opd", "rlvr"]), Axis(title="q (no unit)"), title="bf16").layer[1]
    assert line.data["label"].to_list() == ["RLVR", "OPD", "OPD"]


def test_the_strip_tells_ranges_arrivals_and_numbers_apart():
    other = Published(arm="sft", quantity="q", low=7, high=7, words="", known="stated")
    bars, up, down, hollow = draw_strip([said(1, 2, "high"), other], ["sft", "opd"], Axis(title="q")).layer[:4]
    assert bars.data.select("label", "low", "high").rows() == [("OPD", 1.0, 2.0)]
    assert up.data["end"].to_list() == [2.0] and down.data.is_empty()
    assert hollow.data["label"].to_list() == ["SFT"]
    assert draw_strip([said(1, 2)], ["sft"], Axis(title="q")).layer[0].data.is_empty()  # an arm that is not drawn
