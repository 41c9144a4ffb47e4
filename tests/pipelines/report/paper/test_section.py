"""The page's part and the pictures."""

import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from pipelines.paper import section
from pipelines.paper.items import ITEMS
from pipelines.paper.png import packed
from pipelines.report.adaptive import VARIABLES, adaptive
from pipelines.report.figures import GRID, INK, PAPER, QUIET, render_png, render_svg
from pipelines.statistics.numbers import short
from pipelines.statistics.verdicts import verdicts

NOTES = [("What the controls say.", "Nothing."), ("How it was computed.", "By hand.")]


class Reader(HTMLParser):
    """Collects ids and the balance of block elements."""

    def __init__(self):
        super().__init__()
        self.ids, self.open, self.texts = Counter(), [], []

    def handle_starttag(self, tag, attrs):
        self.ids.update(value for name, value in attrs if name == "id")
        if tag in ("figure", "details", "table", "div", "figcaption", "svg"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("figure", "details", "table", "div", "figcaption", "svg"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def html(drawings):
    return "".join(section.shown(item, drawings[item.key], NOTES) for item in ITEMS)


def test_the_section_has_every_item_with_what_it_shows_and_what_not(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    assert all(count == 1 for count in reader.ids.values())
    text = " ".join(reader.texts)
    assert text.count("What the controls say.") == text.count("How it was computed.") == len(ITEMS)
    for item in ITEMS:
        assert reader.ids[f"paper-{item.key}"] == 1
        assert item.title in text and item.shows in text and item.not_shown in text
        for one in item.published:
            assert one.words in text


def test_a_study_without_runs_has_sentences_and_no_picture():
    html = section.section({}, verdicts("tiny", {}))
    assert html.count("<figure") == len(ITEMS) and "<svg" not in html
    assert html.count("Left out.") >= len(ITEMS)


def test_figures_follow_the_page_and_stand_on_white_without_one(drawings):
    svg = adaptive(render_svg(drawings["figure4"].chart))
    assert f'fill="var(--ground, {PAPER})"' in svg
    for color in (INK, QUIET, GRID, PAPER):
        assert f'"{color}"' not in svg and f"var({VARIABLES[color]}, {color})" in svg
    ElementTree.fromstring(svg)


def decoded(png):
    """Pixels [height, width, 3] of an 8-bit PNG with the filters None and Sub."""
    place, data = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, body = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height, _, color = struct.unpack(">IIBB", body[:10])
        data += body if kind == b"IDAT" else b""
        place += 12 + length
    channels = {2: 3, 6: 4}[color]
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + channels * width)
    pixels = lines[:, 1:].reshape(height, width, channels).copy()
    for line, filtered in zip(pixels, lines[:, 0], strict=True):
        assert filtered in (0, 1)
        if filtered:
            for column in range(1, width):
                line[column] += line[column - 1]
    return pixels[..., :3]


def test_packing_a_png_changes_no_pixel_and_makes_it_a_third_at_most(drawings):
    png = render_png(drawings["table1"].chart, scale=0.5)
    small = packed(png)
    assert len(small) < len(png) / 3
    assert np.array_equal(decoded(small), decoded(png))
    assert packed(small) == small


def test_every_picture_fits_the_event_database(drawings):
    from assets.metadata import PNG_LIMIT

    for key in ("table1", "figure2", "figure9"):
        png = section.picture(drawings[key])
        assert png.startswith(b"\x89PNG") and len(png) < PNG_LIMIT


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (12.3456, "12.35"), (0.05, "0.05000"), (0.001234, "1.23e-03"), (-3.0, "-3.000")]
)
def test_numbers_have_four_digits(value, text):
    assert short(value) == text


def test_each_arm_of_a_panel_is_named_once_in_its_legend(drawings):
    svg = render_svg(drawings["figure7"].chart)
    named = Counter(re.findall(r">(opd-top50|opd-stale16|opd-mix-25)</text>", svg))
    assert set(named.values()) == {1} and len(named) == 3
