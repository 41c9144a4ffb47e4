"""Numbers as text."""

import pytest

from pipelines.statistics.numbers import PLUS_MINUS, format_change, format_quantity


@pytest.mark.parametrize(
    ("value", "unit", "half", "text"),
    [
        (0.04931, "percent", 0.0031, "4.9 +- 0.3 %"),
        (0.04931, "percent", 0.0012, "4.93 +- 0.12 %"),
        (0.00331, "", 0.00012, "(3.31 +- 0.12)e-3"),
        (1.2, "deg", 0.09, "1.20 +- 0.09 deg"),
        (250.0, "", 40.0, "250 +- 40"),
        (0.0143, "deg", None, "0.0143 deg"),
        (0.0000143, "", None, "1.43e-5"),
        (0.916, "percent", None, "91.6 %"),
        (0.0, "", None, "0"),
        (0.52, "percent", 0.0, "52.0 +- 0.0 %"),
        (4.1e-14, "percent", 4e-15, "(4.1 +- 0.4)e-12 %"),
        (2e-6, "percent", None, "2.00e-4 %"),
    ],
)
def test_quantity(value, unit, half, text):
    assert format_quantity(value, unit, half) == text.replace("+-", PLUS_MINUS)


@pytest.mark.parametrize(
    ("effect", "low", "high", "unit", "text"),
    [
        (-0.0433, -0.0461, -0.0405, "percent", "-4.33 [-4.61, -4.05] points"),
        (0.0006, 0.0005, 0.0007, "", "(+6.0 [+5.0, +7.0])e-4"),
        (1e-17, -0.01, 0.01, "deg", "0.000 [-0.010, +0.010] deg"),
        (-0.0232, None, None, "percent", "-2.32 points"),
        (0.0, 0.0, 0.0, "", "0 [0, 0]"),
        (2e-6, 1e-6, 3e-6, "percent", "(+2.0 [+1.0, +3.0])e-4 points"),
    ],
)
def test_change(effect, low, high, unit, text):
    assert format_change(effect, low, high, unit) == text


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.03, 0.4, "3 [0, 43] %"),
        (0.987, 0.05, "99 [94, 100] %"),
        (0.5, 0.9, "50 [0, 100] %"),
        (2e-6, 3e-6, "(2 [0, 5])e-4 %"),
    ],
)
def test_a_share_stays_within_what_is_possible(value, half, text):
    assert format_quantity(value, "percent", half) == text
