"""Arms are told apart in every item, also by people who lack one kind of cones, on white and on the dark page."""

import itertools

import numpy as np
import pytest

from pipelines.paper import confinement, variants
from pipelines.paper.arms import ARMS
from pipelines.paper.curves import RUNS
from pipelines.paper.palette import arm_style
from pipelines.report.palette import COLORS, DASHES, SHAPES, arm_looks
from pipelines.report.panels import GRID, INK, PAPER, QUIET
from pipelines.studies.story import Arm, Story
from tests.pipelines.planted import STORY

EVERY = STORY.all_arms

# Machado, Oliveira and Fernandes 2009, severity 1, on linear sRGB.
VISION = {
    "all": np.eye(3),
    "without red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "without blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])
PANELS = {  # arms that one legend tells apart
    "figures 2 to 5": RUNS,
    "table 1": tuple(arm.key for arm in ARMS),
    **{f"figures 7 and 9, {group.name}": group.all_arms for group in variants.GROUPS},
    **{
        f"figures 6 and 8, {family.parent} at {family.begin}": tuple(family.arms.values())
        for family in confinement.FAMILIES
    },
}
LEAST, FAINTEST = 9.0, 3.0  # CIE Lab; contrast ratio (WCAG 2.2, 1.4.11)
# Filter Effects 1: hue-rotate(180deg), after invert(1), as `page.css` has it for a dark screen.
TURN = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])


def turned(color):
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return "#" + "".join(f"{round(value * 255):02x}" for value in np.clip(TURN @ (1 - channels), 0, 1))


PAGES = {"white": ("#ffffff", str), "dark": ("#1a2027", turned)}  # --card of page.css, and what arms become on it


def linear(color):
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    ratio = XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    light = sorted(float(XYZ[1] @ linear(color)) + 0.05 for color in (one, other))
    return light[1] / light[0]


def test_white_is_white_and_black_on_it_has_a_contrast_of_21():
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("panel", PANELS)
def test_any_two_arms_of_a_panel_differ(panel, vision, page):
    shown = PAGES[page][1]
    color = lambda arm: shown(arm_style(arm).color)
    for one, other in itertools.combinations(PANELS[panel], 2):
        assert apart(color(one), color(other), vision) >= LEAST, (one, other)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_that_a_position_gives_differ(vision, page):
    ground, shown = PAGES[page]
    for one, other in itertools.combinations(COLORS, 2):
        assert apart(shown(one), shown(other), vision) >= LEAST, (one, other)
    assert all(contrast(shown(color), ground) >= FAINTEST for color in COLORS)


def apart(one, other, vision):
    seen = [lab(np.array(VISION[vision]) @ linear(color)) for color in (one, other)]
    return np.linalg.norm(seen[0] - seen[1])


@pytest.mark.parametrize("panel", PANELS)
def test_shape_repeats_what_colour_says(panel):
    shapes = [arm_style(arm).shape for arm in PANELS[panel]]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("arm", sorted({*EVERY, *(arm for arms in PANELS.values() for arm in arms)}))
def test_a_line_shows_on_white_and_on_the_dark_page(arm, page):
    ground, shown = PAGES[page]
    assert contrast(shown(arm_style(arm).color), ground) >= FAINTEST


def test_a_dark_page_turns_lightness_over_and_keeps_the_hue():
    assert turned(PAPER) == "#000000" and turned("#000000") == "#ffffff"
    for color in (INK, QUIET, GRID):
        assert turned(color) == turned(turned(turned(color))), "grey stays grey"
    for arm in ARMS:
        (_, *hue), (_, *same) = (lab(linear(color)) for color in (arm.color, turned(arm.color)))
        assert np.dot(hue, same) > 0.85 * np.linalg.norm(hue) * np.linalg.norm(same)


def test_arms_without_a_colour_take_one_by_position_and_dash_and_shape_with_it():
    story = Story(core=tuple("abcd"), arms=(Arm(key="b", label="B", color=COLORS[0].upper(), shape="square"),))
    a, b, c, d, e = arm_looks(story, [*"abcd", "e"])
    assert b.label == "B" and b.color == COLORS[0].upper() and b.shape == "square", "as it is declared"
    assert [arm.color for arm in (a, c, d, e)] == list(COLORS[1:5]), "none that an arm declares"
    assert [arm.label for arm in (a, c, e)] == ["a", "c", "e"]
    for values in (SHAPES, DASHES):
        assert len(set(values)) == len(COLORS)
    assert arm_looks(story, ["d"]) == [d], "whichever picture it stands in"


def test_more_arms_than_colours_differ_in_dash_and_shape():
    arms = arm_looks(Story(core=tuple(map(str, range(20)))), [str(n) for n in range(20)])
    assert len({(arm.color, arm.dash, arm.shape) for arm in arms}) == 20


def test_core_arms_keep_their_look_and_every_arm_has_one():
    for arm in ARMS:
        assert arm_style(arm.key) is arm
    for key in EVERY:
        assert arm_style(key).label and arm_style(key) == arm_style(key)
        assert arm_style(key).color.lower() not in (INK, QUIET, GRID, PAPER)


def test_a_continued_arm_has_the_colour_of_its_parent_and_confinement_moves_it():
    free, own, random = (arm_style(f"opd-at20{end}").color for end in ("", "-own16", "-random16"))
    assert free == arm_style("opd").color == arm_style("opd-at5").color
    light = [float(XYZ[1] @ linear(color)) for color in (random, own, free)]
    assert light == sorted(light) and len(set(light)) == 3
    assert arm_style("sft-matched-at20-own16").color != arm_style("sft-at20-own16").color


def test_an_arm_that_nobody_listed_has_a_look_too():
    assert arm_style("something-new").label == "something-new"
    assert arm_style("something-new") == arm_style("something-new")
