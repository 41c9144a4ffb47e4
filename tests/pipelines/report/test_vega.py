"""A chart in a page: a still picture, the whole spec, and nothing that a page could trip over."""

import base64
import json
import re
import zlib

import altair as alt
import polars as pl
import pytest

from pipelines.report import vega
from pipelines.report.captions import FIGURES
from pipelines.report.palette import arm_looks
from pipelines.statistics.samples import fill_tables
from tests.pipelines.planted import STORY


def chart(label: str = "a", value: float = 1 / 3):
    rows = pl.DataFrame({"label": [label, "b"], "value": [value, 2.0], "end": [None, 3]})
    return alt.Chart(rows).mark_point(clip=True).encode(x="value:Q", y="label:N")


def read(html: str) -> tuple[dict, dict]:
    """The spec in a page, and its rows by data set."""
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    spec = json.loads(text)
    return spec, json.loads(zlib.decompress(base64.b64decode(spec["usermeta"]["rows"])))


def test_the_spec_and_every_row_are_in_the_page():
    spec, rows = read(vega.embed_chart(chart(), "here", "A title", "What is seen"))
    assert spec["description"] == "What is seen" and spec["encoding"] == chart().to_dict()["encoding"]
    assert rows == {spec["data"]["name"]: {"label": ["a", "b"], "value": [0.3333, 2.0], "end": [None, 3]}}


def test_texts_end_neither_the_script_nor_the_label():
    html = vega.embed_chart(chart("</script><b>"), "here", 'a "title" <b>', 'seen "so" </script>')
    assert html.count("</script>") == 1 and "<b>" not in html.replace("&lt;b&gt;", "")
    spec, rows = read(html)
    assert spec["description"] == 'seen "so" </script>'
    assert "</script><b>" in next(iter(rows.values()))["label"]


def test_ids_are_of_the_chart_and_the_same_from_run_to_run():
    first, second = (vega.embed_chart(chart(), "here", "t", "a") for _ in range(2))
    assert first == second, "the renderer counts up"
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert ids and all(name.startswith("here-") for name in ids)
    assert set(re.findall(r"url\(#([^)]+)\)", first)) <= set(ids)
    assert set(re.findall(r'\bid="([^"]+)"', vega.embed_chart(chart(), "there", "t", "a"))).isdisjoint(ids)


def test_the_still_picture_has_a_name_and_asks_for_nothing():
    html = vega.embed_chart(chart(), "here", "t", "What is seen")
    still = html[html.index("<svg") : html.index("</svg>")]
    assert still.startswith('<svg class="still" role="img" aria-label="What is seen"')
    assert "http" not in still.replace("http://www.w3.org/", "")
    assert not re.search(r"\d\.\d\d", still), "a tenth of a px is enough"


def test_the_still_picture_shows_the_first_choice_and_the_page_has_all(tiny):
    (norm,) = (figure for figure in FIGURES if figure.key == "norm")
    html = vega.embed_chart(norm.draw(STORY, fill_tables(tiny), STORY.core), "norm", "t", "a")
    spec, rows = read(html)
    assert {param["name"] for param in spec["params"]} == {"pick_role", "pick_layer"}
    assert any({"all", "q", "k", "gate"} <= set(columns.get("role", ())) for columns in rows.values())
    for arm in arm_looks(STORY, STORY.core):
        lines = re.findall(f'stroke="{arm.color}"', html, re.IGNORECASE)
        assert len(lines) == 3, "a line a panel, and the legend's"


def test_the_library_is_there_once_whole_and_asks_for_nothing():
    html = vega.bundle_scripts()
    library, script = re.findall(r"<script[^>]*>(.*?)</script>", html, re.S)
    code = zlib.decompress(base64.b64decode(library)).decode()
    assert "window.vegaEmbed" in code and "cdn" not in code
    assert vega.bundle_scripts() is html
    assert len(html) < 450_000 and len(script.splitlines()) < 90
    assert "fetch(" not in script and "eval" not in script


@pytest.mark.parametrize(("value", "shown"), [(1 / 3, 0.3333), (123456.0, 123500.0), (1e-7 / 3, 3.333e-8), (7, 7)])
def test_numbers_have_four_digits(value, shown):
    assert vega.round_numbers(value) == shown
