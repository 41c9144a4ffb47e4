"""Names that others chose stand in Markdown as they are written, whatever they are, judged by a Markdown parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.statistics.markdown import escape_markdown, render_table
from pipelines.store.names import escape_text

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://evil.example/seen.png)",
    "![a][b]",
    "<javascript:alert(1)>",
    "<!-- a",
    "</td><script>",
    "`code` ``more``",
    "a | b \\| c",
    "a\n\n# heading\n- item",
    "a\r\n| b |\u2028c",
    "*a* **b** _c_ __d__ ~~e~~",
    "&lt;b&gt; &#106;",
    "\\",
    "model.layers.0.self_attn.q_proj.weight",
    "\x1b[2J",
)


def texts(markdown, kind="inline"):
    """What the reader sees: the text tokens of every inline part; any other token there fails."""
    parts = [token.children for token in PARSER.parse(markdown) if token.type == kind]
    assert {child.type for children in parts for child in children} <= {"text", "text_special"}
    return ["".join(child.content for child in children) for children in parts]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_written(name):
    assert texts(f"x {escape_markdown(name)} y") == [f"x {escape_text(name)} y"]


@given(st.text(st.sampled_from("<>&[]()!*_~`|\\/-#:;= ax1\n"), max_size=30))
def test_whatever_its_characters_are(name):
    assert texts(f"x {escape_markdown(name)} y") == [f"x {escape_text(name)} y"]


def test_a_table_has_the_cells_that_it_was_given():
    rows = [["name", "value"], *([name, str(number)] for number, name in enumerate(HOSTILE))]
    shown = texts(render_table(rows, ["---", "---:"]))
    assert shown == [escape_text(text).strip() for row in rows for text in row]


def test_what_needs_no_escape_stays_readable():
    for text in ("update_norm.stable_rank", "> 10 deg / about 1 deg / < 0.5 deg", "1.02 ± 0.15 deg", "-21.9"):
        assert escape_markdown(text) == text
