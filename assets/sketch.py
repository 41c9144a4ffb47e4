"""A small line chart as SVG text without a drawing library, for a materialisation's own table.

The library needs half a CPU second for a chart, this module a millisecond. It draws no figure of the report.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 250, 74, 16, 34, 44  # px; the last four are margins
COLORS = ("#0072B2", "#c88500", "#009E73", "#b0309a", "#379cd0", "#D55E00")  # each at least 3 against white
DASHES = ("", "6 3", "2 2")  # a second way to tell lines apart, and what is left once the colours are used up
INK, QUIET, GRID = "#1a1a1a", "#555555", "#e3e3e3"
TICKS = 5


def sketch(lines: Mapping[str, Sequence[Point]], x: str, y: str) -> str:
    """An <svg> of `lines` (name to points, in any order) with titled axes; "" where no point is finite."""
    drawn = {name: sorted(p for p in points if all(map(math.isfinite, p))) for name, points in lines.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return ""
    across = ticks([p[0] for points in drawn.values() for p in points])
    up = ticks([p[1] for points in drawn.values() for p in points])

    def place(point: Point) -> str:
        return f"{_along(point[0], across, LEFT, WIDTH - RIGHT):.1f},{_along(point[1], up, HEIGHT - BOTTOM, TOP):.1f}"

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']
    for tick in up:
        level = _along(tick, up, HEIGHT - BOTTOM, TOP)
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 7, level + 4, f"{tick:g}", "end"))
    for tick in across:
        parts.append(_text(_along(tick, across, LEFT, WIDTH - RIGHT), HEIGHT - BOTTOM + 17, f"{tick:g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, "middle", INK))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle})">{_text(14, middle + 4, y, "middle", INK)}</g>')
    room = (WIDTH - RIGHT - LEFT) / len(drawn)
    for index, (name, points) in enumerate(drawn.items()):
        style = f'stroke="{COLORS[index % len(COLORS)]}" stroke-dasharray="{DASHES[index % len(DASHES)]}"'
        at = LEFT + index * room
        parts.append(f'<path d="M{at:.0f} 16h22" stroke-width="2.2" {style}/>{_text(at + 27, 20, name, "start", INK)}')
        parts.append(f'<polyline points="{" ".join(map(place, points))}" fill="none" stroke-width="2.2" {style}/>')
        for point in points if len(points) <= 2 * TICKS else ():
            cx, cy = place(point).split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="2.8" fill="{COLORS[index % len(COLORS)]}"/>')
    root = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'{root} font-family="sans-serif" font-size="12" role="img">{"".join(parts)}</svg>'


def ticks(values: Sequence[float]) -> list[float]:
    """Up to seven round numbers a round step apart, of which the first and the last enclose `values`."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    step = _round_step(spread / (TICKS - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is no less than `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= least * (1 - 1e-9))


def _along(value: float, scale: Sequence[float], begin: float, end: float) -> float:
    return begin + (value - scale[0]) / (scale[-1] - scale[0]) * (end - begin)


def _text(x: float, y: float, words: str, anchor: str, color: str = QUIET) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'
