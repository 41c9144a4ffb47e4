"""Words, verdicts, borders and focus stand out from the page, light, dark and printed (WCAG 2.2, AA)."""

import re
from importlib.resources import files

import pytest

CSS = files("pipelines.report").joinpath("page.css").read_text(encoding="utf-8")
TEXT, MARK = 4.5, 3.0
WORDS = [("--ink", "--ground"), ("--quiet", "--ground"), ("--link", "--ground"), ("--ground", "--ink")]
WORDS += [(f"--{kind}-ink", f"--{kind}") for kind in ("holds", "fails", "open", "none")]


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-fA-F]+);", block))


def themes() -> dict[str, dict[str, str]]:
    light, rest = CSS.split("@media screen and (prefers-color-scheme: dark)", 1)
    dark, rest = rest.split("\n}\n", 1)
    printed = rest.split("@media print", 1)[1]
    return {
        "light": variables(light),
        "dark": variables(light) | variables(dark),
        "print": variables(light) | variables(printed),
    }


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize(("front", "back"), WORDS)
def test_words_stand_out(theme, front, back):
    found = themes()[theme]
    assert contrast(found[front], found[back]) >= TEXT


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("front", ["--edge", "--link", "--quiet"])
def test_fields_focus_and_rules_stand_out(theme, front):
    found = themes()[theme]
    assert contrast(found[front], found["--ground"]) >= MARK


def test_dark_is_for_screens_and_nothing_moves():
    assert "@media (prefers-color-scheme" not in CSS, "paper is white"
    assert not re.search(r"\b(transition|animation|scroll-behavior)\b", CSS), (
        "nothing to ask prefers-reduced-motion about"
    )
    assert ":focus-visible { outline: 3px" in CSS and not re.search(r"outline:\s*(0|none)", CSS)
