"""Charts in a page that asks for nothing: a still picture, and the Vega-Lite spec that the page's script makes live.

The script (`page.js`) draws a chart when it comes near the window, with values under the pointer, fields to choose with
(Vega's bound parameters) and, on a narrow screen, one panel above the other. Paper and readers without script have the
still picture, an <svg>: 56 kB on average in the demo, where a sharp PNG has 72.

Vega compiles expressions with `eval`, which a page's policy has to allow. Here they go through its interpreter, which
is in the bundle, so `script-src 'unsafe-inline'` is enough: what a spec says can compute, and cannot run.
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
NOISE = re.compile(r' (?:class|role|aria-[a-z]+)="[^"]*"')  # what the renderer says of the parts of a picture
WIDTH, WIDE = re.compile(r'width="(\d+)"'), 700  # px: more than half a page
TAG, FINE = re.compile(r"<[^>]*>"), re.compile(r"-?\d+\.\d{2,}")  # what stands between tags is text of axes


def embed_chart(chart: Any, key: str, title: str, alt: str) -> str:
    """One chart as HTML: the still picture and the spec. key: unique on the page; alt: what the picture shows.

    The spec is JSON, its rows (`datasets`) are columns, deflated: a twelfth of their bytes. The numbers belong in a
    table beside it: neither form has all of them for readers who do not see it.
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
    """The script elements that make charts live, once a page, at its end: Vega (0.41 MB, 0.90 inflated), `page.js`."""
    library = deflate(vl_convert.javascript_bundle(SNIPPET))
    script = files("pipelines.report").joinpath("page.js").read_text(encoding="utf-8")
    return f'<script type="text/plain" id="vega">{library}</script>\n<script>\n{script}</script>'


def deflate(text: str) -> str:
    """`text` as the page's script inflates it: zlib's format in base64."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def in_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows with equal keys as a list per key, numbers to `DIGITS` digits."""
    return {name: [round_numbers(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def round_numbers(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def render_svg_element(spec: dict[str, Any], key: str, alt: str) -> str:
    """`spec` as one <svg> of a page: ids unique by `key` and the same from run to run, places to a tenth of a px."""
    svg = vl_convert.vegalite_to_svg(spec).replace('class="mark-rect', 'shape-rendering="crispEdges" class="mark-rect')
    svg = NOISE.sub("", svg)
    svg = TAG.sub(lambda tag: FINE.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag[0]), svg)
    # The renderer numbers ids through all that one process draws, so that they would differ from run to run.
    numbers = {name: f"{key}-{place}" for place, name in enumerate(dict.fromkeys(IDS.findall(svg)))}
    svg = IDS.sub(lambda match: f'id="{numbers[match[1]]}"', svg)
    svg = LINKS.sub(lambda match: f"{match[1]}#{numbers[match[2]]}", svg)
    return svg.replace("<svg", f'<svg class="still" role="img" aria-label="{escape(alt)}"', 1)
