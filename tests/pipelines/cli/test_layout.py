"""Text that fits the terminal: nothing is wider than it, and nothing is lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli import layout

WORDS = st.lists(st.text("abcdef,.()", min_size=1, max_size=12), min_size=1, max_size=30).map(" ".join)
CELL = st.text("abc123", min_size=1, max_size=14)


def words(text):
    return sorted(text.split())


@given(rows=st.lists(st.tuples(CELL, CELL, WORDS), min_size=1, max_size=5), columns=st.integers(60, 140))
def test_a_table_keeps_every_word_of_its_last_column(rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        table = layout.fit_table([list(row) for row in rows])
    assert max(map(len, table.splitlines())) <= columns
    assert words(table) == sorted(word for row in rows for cell in row for word in cell.split())


@given(rows=st.lists(st.lists(CELL, min_size=9, max_size=9), min_size=1, max_size=5), columns=st.integers(60, 140))
def test_columns_beyond_the_width_stand_below_behind_the_first(rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        blocks = layout.stack_table(rows, keys=1).split("\n\n")
    assert max(len(line) for block in blocks for line in block.splitlines()) <= columns
    cells = [[line.split() for line in block.splitlines()] for block in blocks]
    assert [[row[0], *(cell for block in cells for cell in block[place][1:])] for place, row in enumerate(rows)] == rows


@given(text=WORDS, width=st.integers(10, 60))
def test_a_cut_text_ends_in_a_mark_and_has_whole_words(text, width):
    cut = layout.shorten_text(text, width)
    assert len(cut) <= width
    assert cut == text or cut.endswith(layout.MORE)
    whole = cut.removesuffix(layout.MORE).split()[:-1]
    assert text.split()[: len(whole)] == whole


def test_a_sentence_is_one_line_where_the_output_is_no_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    sentence = "left the band " * 40
    assert "\n" not in layout.wrap_text(sentence) and layout.terminal_width() == layout.OF_FILES
    monkeypatch.setenv("COLUMNS", "80")
    lines = layout.wrap_text(sentence, "note: ").splitlines()
    assert max(map(len, lines)) <= 80 and all(re.match(" {6}l?", line) for line in lines[1:])
