"""Embed charts in a page that loads nothing: an SVG, and the Vega-Lite spec that the page's script draws.

The script (`page.js`) draws a chart when it scrolls near the window: with tooltips, fields to select by (Vega's bound
parameters) and, on a narrow screen, stacked panels. Print and readers without script have the SVG: 56 kB on average in
the demo; a sharp PNG has 72 kB.

Vega compiles expressions with `eval`, which the page's policy would have to allow. The page uses Vega's interpreter,
which is in the bundle, so `script-src 'unsafe-inline'` is enough and a spec cannot run code.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import vl_convert

from pipelines.report.figures import at_first

DIGITS = 4  # of every number in a page
SNIPPET = "window.vegaEmbed = vegaEmbed;"
IDS, LINKS = re.compile(r'\bid="([^"]+)"'), re.compile(r'(url\(|href=")#([^")]+)')
NOISE = re.compile(r' (?:class|role|aria-[a-z]+)="[^"]*"')  # attributes that the renderer adds to parts of a chart
WIDTH, WIDE = re.compile(r'width="(\d+)"'), 700  # px: more than half a page
TAG, FINE = re.compile(r"<[^>]*>"), re.compile(r"-?\d+\.\d{2,}")  # text between tags is text of axes


def embed_chart(chart: Any, key: str, title: str, alt: str) -> str:
    """One chart as HTML: the SVG and the spec. key: unique on the page; alt: description of the chart.

    The spec is JSON, its rows (`datasets`) are columns, deflated: a twelfth of their bytes. The page also has
    the numbers as a table, for readers who do not see the chart.
    """
    spec = chart.to_dict(validate=False)  # a third of the time; tests validate what they draw
    still = render_svg_element(at_first(spec), key, alt)
    del spec["$schema"]
    rows = json.dumps(
        {name: in_columns(rows) for name, rows in spec.pop("datasets", {}).items()}, separators=(",", ":")
    )
    spec |= {"description": alt, "usermeta": {"rows": deflate(rows)}}
    text = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    width = WIDTH.search(still)
    kind = "chart wide" if width and int(width[1]) > WIDE else "chart"
    return (
        f'<div class="{kind}" role="group" aria-label="{escape(title)}: picture">{still}'
        f'<script type="application/json">{text}</script></div>'
    )


@lru_cache(1)
def bundle_scripts() -> str:
    """The script elements that draw the charts, once at the end of a page: Vega (0.41 MB, 0.90 inflated), `page.js`."""
    library = deflate(vl_convert.javascript_bundle(SNIPPET))
    script = files("pipelines.report").joinpath("page.js").read_text(encoding="utf-8")
    return f'<script type="text/plain" id="vega">{library}</script>\n<script>\n{script}</script>'


def deflate(text: str) -> str:
    """Compress `text` as zlib data in base64, which the page's script inflates."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def in_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Convert rows with equal keys to one list per key, with numbers rounded to `DIGITS` digits."""
    return {name: [round_numbers(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def round_numbers(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def render_svg_element(spec: dict[str, Any], key: str, alt: str) -> str:
    """Render `spec` as one <svg>. Ids start with `key` and are reproducible; coordinates are rounded to 0.1 px."""
    svg = vl_convert.vegalite_to_svg(spec).replace('class="mark-rect', 'shape-rendering="crispEdges" class="mark-rect')
    svg = NOISE.sub("", svg)
    svg = TAG.sub(lambda tag: FINE.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag[0]), svg)
    # The renderer numbers ids over all charts of a process; number them anew, so that the page is reproducible.
    numbers = {name: f"{key}-{place}" for place, name in enumerate(dict.fromkeys(IDS.findall(svg)))}
    svg = IDS.sub(lambda match: f'id="{numbers[match[1]]}"', svg)
    svg = LINKS.sub(lambda match: f"{match[1]}#{numbers[match[2]]}", svg)
    return svg.replace("<svg", f'<svg class="still" role="img" aria-label="{escape(alt)}"', 1)
