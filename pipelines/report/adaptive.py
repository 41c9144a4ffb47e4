"""SVG that follows the page it stands in: light on a light page, dark on a dark one.

Colours of the house become the variables of `page.css` with themselves as fallback, so that the same file is a figure
on white where there is no page. Colours of arms stay: they are chosen to be told apart on both.
"""

from pipelines.report.figures import GRID, INK, PAPER, QUIET

VARIABLES = {INK: "--ink", QUIET: "--quiet", GRID: "--line", PAPER: "--ground"}


def adaptive(svg: str) -> str:
    """`svg` as the renderer writes it, with colours as quoted hex, made to follow the page."""
    for color, variable in VARIABLES.items():
        svg = svg.replace(f'"{color}"', f'"var({variable}, {color})"')
    # Neighbouring cells of a map meet without a seam.
    return svg.replace('class="mark-rect', 'shape-rendering="crispEdges" class="mark-rect')
