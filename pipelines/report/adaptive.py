"""SVG that follows the page it stands in: light on a light page, dark on a dark one.

Colours of the house become the variables of `page.css`, and colours of arms variables of their own (`tones`), with
themselves as fallback, so that the same file is a figure on white where there is no page.
"""

import re

from pipelines.report.figures import GRID, INK, PAPER, QUIET
from pipelines.report.tone import lifted

VARIABLES = {INK: "--ink", QUIET: "--quiet", GRID: "--line", PAPER: "--ground"}
HEX, TONE = re.compile(r'"(#[0-9a-fA-F]{6})"'), re.compile(r"--tone-([0-9a-f]{6})")


def adaptive(svg: str) -> str:
    """`svg` as the renderer writes it, with colours as quoted hex, made to follow the page."""
    svg = HEX.sub(lambda found: f'"{painted(found[1])}"', svg)
    # Neighbouring cells of a map meet without a seam.
    return svg.replace('class="mark-rect', 'shape-rendering="crispEdges" class="mark-rect')


def painted(color: str) -> str:
    """A colour as CSS: the variable that the page sets."""
    return f"var({VARIABLES.get(color, f'--tone-{color[1:].lower()}')}, {color})"


def tones(page: str) -> str:
    """CSS for a dark screen of every arm's colour that occurs on a page."""
    found = sorted(set(TONE.findall(page)))
    if not found:
        return ""
    set_to = " ".join(f"--tone-{color}: {lifted(f'#{color}')};" for color in found)
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {set_to} }} }}\n"
