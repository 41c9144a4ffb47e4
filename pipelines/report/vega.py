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
from itertools import groupby
from typing import Any

import vl_convert

DIGITS = 4  # of every number in a page
SNIPPET = "window.vegaEmbed = vegaEmbed;"
IDS, LINKS = re.compile(r'\bid="([^"]+)"'), re.compile(r'(url\(|href=")#([^")]+)')
NOISE = re.compile(r' (?:class|role|aria-[a-z]+)="[^"]*"')  # what the renderer says of the parts of a picture
FINE = re.compile(r"-?\d+\.\d{2,}")

Row = Mapping[str, Any]


def embed(chart: Any, key: str, title: str, alt: str) -> str:
    """One chart as HTML: the still picture and the spec. key: unique on the page; alt: what the picture shows.

    The numbers belong in a table beside it: neither form has all of them for readers who do not see it.
    """
    spec = chart.to_dict()
    still = picture(json.dumps(spec), key, alt)
    del spec["$schema"]
    spec["datasets"] = {name: packed(rows) for name, rows in spec.get("datasets", {}).items()}
    spec["description"] = alt
    text = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="chart" role="group" aria-label="{escape(title)}: picture">{still}'
        f'<script type="application/json">{text}</script></div>'
    )


@lru_cache(1)
def bundle() -> str:
    """The script elements that make charts live, once a page, at its end: Vega (deflated), and `page.js`."""
    vega = base64.b64encode(zlib.compress(vl_convert.javascript_bundle(SNIPPET).encode(), 9)).decode()
    script = files("pipelines.report").joinpath("page.js").read_text(encoding="utf-8")
    return f'<script type="text/plain" id="vega">{vega}</script>\n<script>\n{script}</script>'


def packed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows that follow each other with the same texts as one object: what they share once, the rest as lists."""
    series = []
    for _, group in groupby(rows, key=_texts):
        alike = list(group)
        columns = {name: [rounded(row[name]) for row in alike] for name in alike[0]}
        series.append({name: values[0] if len(set(values)) == 1 else values for name, values in columns.items()})
        if len(alike) > 1 and not any(isinstance(value, list) for value in series[-1].values()):
            series[-1] = columns  # equal rows
    return series


def _texts(row: Row) -> list[tuple[str, Any]]:
    return [(name, value if isinstance(value, str) else value is None) for name, value in row.items()]


def rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) and not value.is_integer() else value


def picture(spec: str, key: str, alt: str) -> str:
    """`spec` as one <svg> of a page: ids unique by `key` and the same from run to run, places to a tenth of a px."""
    svg = NOISE.sub("", vl_convert.vegalite_to_svg(spec))
    svg = FINE.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), svg)
    # The renderer numbers ids through all that one process draws, so that they would differ from run to run.
    numbers = {name: f"{key}-{place}" for place, name in enumerate(dict.fromkeys(IDS.findall(svg)))}
    svg = IDS.sub(lambda found: f'id="{numbers[found[1]]}"', svg)
    svg = LINKS.sub(lambda found: f"{found[1]}#{numbers[found[2]]}", svg)
    return svg.replace("<svg", f'<svg class="still" role="img" aria-label="{escape(alt)}"', 1)
