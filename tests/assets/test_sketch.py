"""A sketch is well-formed SVG whose points lie where its axes say."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import sketch
from assets.sketch import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks

SVG = "{http://www.w3.org/2000/svg}"
FINITE = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-12)


def drawn(lines, x="step", y="value"):
    root = ElementTree.fromstring(sketch.sketch(lines, x, y))
    points = [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in root.iter(SVG + "polyline")
    ]
    return points, [text.text for text in root.iter(SVG + "text")]


def test_the_ends_of_the_axes_are_the_corners_of_the_panel():
    (line,), words = drawn({"only": [(100, 2.0), (0, 1.0)]})
    assert line == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]
    assert {"0", "25", "50", "75", "100", "1", "1.25", "1.5", "1.75", "2", "step", "value", "only"} == set(words)


def test_lines_share_their_axes_and_are_told_apart_by_colour_and_dash():
    svg = sketch.sketch({"a": [(0, 0), (1, 1)], "b": [(0, 0.5), (1, 0.5)], "c": [(0, 1), (1, 0)]}, "x", "y")
    lines = list(ElementTree.fromstring(svg).iter(SVG + "polyline"))
    assert len({line.get("stroke") for line in lines}) == len({line.get("stroke-dasharray") for line in lines}) == 3
    (_, (first, second), _), _ = drawn({"a": [(0, 0), (1, 1)], "b": [(0, 0.5), (1, 0.5)], "c": [(0, 1), (1, 0)]})
    assert first[1] == second[1] == (TOP + HEIGHT - BOTTOM) / 2


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [(0, math.nan), (1, math.inf)]}])
def test_nothing_finite_is_nothing(lines):
    assert sketch.sketch(lines, "x", "y") == ""


def test_what_is_not_finite_is_left_out_and_names_are_escaped():
    (line,), words = drawn({"a < b": [(0, 1.0), (1, math.nan), (2, 3.0)], "gone": [(0, math.inf)]}, y="&")
    assert len(line) == 2
    assert "a < b" in words and "&" in words and "gone" not in words


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_ticks_are_few_even_and_enclose_the_values(values):
    found = ticks(values)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 7
    assert found[0] <= min(values) + 1e-6 * step and found[-1] >= max(values) - 1e-6 * step
    assert all(math.isclose(b - a, step, rel_tol=1e-6) for a, b in pairwise(found))
