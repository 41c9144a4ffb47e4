"""Format numbers as text with the digits that the interval supports, and the unit after the number."""

import math
from collections.abc import Iterable, Sequence

from pipelines.statistics.metrics import Unit

PLUS_MINUS = "\u00b1"
SUFFIX: dict[Unit, str] = {"percent": " %", "deg": " deg", "": ""}
STEPS: dict[Unit, str] = {"percent": " points", "deg": " deg", "": ""}
DIGITS_ALONE = 3


def format_quantity(value: float, unit: Unit, half: float | None = None) -> str:
    """`value`, with `half` (the interval's half-width) if given: "4.9 +- 0.3 %", "(3.31 +- 0.12)e-3", "0.014 deg".

    A share whose interval would leave 0 to 100 % has its ends within it: "3 [0, 43] %".
    """
    scale, power = choose_scale(value, unit)
    shown = value * scale
    tail = f"e{power}" if power else ""
    if half is None:
        return f"{format_fixed(shown, decimals_for(shown, DIGITS_ALONE))}{tail}{SUFFIX[unit]}"
    places = supported_decimals(half * scale) if half else decimals_for(shown, DIGITS_ALONE)
    body = f"{format_fixed(shown, places)} {PLUS_MINUS} {format_fixed(half * scale, places)}"
    if unit == "percent" and not half <= value <= 1 - half:
        ends = (max(0.0, value - half), min(1.0, value + half))
        body = f"{format_fixed(shown, places)} [{', '.join(format_fixed(end * scale, places) for end in ends)}]"
    return f"({body}){tail}{SUFFIX[unit]}" if tail else f"{body}{SUFFIX[unit]}"


def format_change(effect: float, low: float | None, high: float | None, unit: Unit) -> str:
    """A difference with its interval: "-4.3 [-4.6, -4.0] points"."""
    ends = [effect] if low is None or high is None else [effect, low, high]
    scale, power = choose_scale(max(ends, key=abs), unit)
    half = 0.0 if low is None or high is None else (high - low) / 2
    places = supported_decimals(half * scale) if half else decimals_for(effect * scale, DIGITS_ALONE)
    first, *rest = (format_signed(end * scale, places) for end in ends)
    body = f"{first} [{', '.join(rest)}]" if rest else first
    if not power:
        return body + STEPS[unit]
    return f"({body})e{power}{STEPS[unit]}" if rest else f"{body}e{power}{STEPS[unit]}"


def format_signed(value: float, places: int) -> str:
    """A number with its sign; no sign if it rounds to zero."""
    text = f"{value:+.{places}f}"
    return text if float(text) else text[1:]


def choose_scale(value: float, unit: Unit) -> tuple[float, int]:
    """(factor, power): percents are shown times 100; plain numbers below 0.01, percents below 0.001, with a power."""
    factor, least = (100.0, 0.001) if unit == "percent" else (1.0, 0.01)
    if unit != "deg" and 0 < abs(factor * value) < least:
        power = math.floor(math.log10(abs(factor * value)))
        return factor * 10.0**-power, power
    return factor, 0


def decimals_for(size: float, digits: int) -> int:
    """Places after the point that show `size` with `digits` significant digits."""
    return 0 if size == 0 else min(12, max(0, digits - 1 - math.floor(math.log10(abs(size)))))


def supported_decimals(half: float) -> int:
    """Places after the point for a half-width: two significant digits if it leads with 1 or 2, else one."""
    leading = half / 10 ** math.floor(math.log10(half))
    return decimals_for(half, 2 if leading < 3 else 1)


def format_fixed(value: float, places: int) -> str:
    return f"{value:.{places}f}"


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Rows of text cells in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def join_words(words: Iterable[str], comma: str = ", ") -> str:
    """ "a, b and c" """
    *rest, last = words
    return f"{comma.join(rest)} and {last}" if rest else last


def format_short(value: float) -> str:
    """Four significant digits, with a power of ten where a plain number would be long."""
    return f"{value:.2e}" if 0 < abs(value) < 1e-2 else format_fixed(value, decimals_for(value, 4))
