"""Every kind of bad input is answered with its one line, and nothing is lost or changed."""

import re
from pathlib import Path

import pytest

from tests.refusals.bringing import bring
from tests.refusals.lines import LINES
from tests.refusals.rows import rows

ROWS = rows()
LEAST = 60  # kinds


def test_the_table_names_every_kind_once_and_has_a_line_for_each():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= LEAST
    assert set(LINES) == set(names)
    groups = {"command line", "recipe", "study", "store", "checkpoint", "manifest", "snapshot", "run record", "table"}
    assert groups | {"resume state", "partition", "monitor", "export", "gc", "environment"} <= {r.group for r in ROWS}


def test_the_page_of_promises_counts_them():
    page = (Path(__file__).parents[2] / "pipelines/store/README.md").read_text()
    assert re.findall(r"`python -m tests.refusals`: (\d+) kinds", page) == [str(len(ROWS))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_is_answered_with_its_line_and_nothing_is_lost(row, tmp_path):
    found = bring(row, tmp_path)
    expected = ".*".join(map(re.escape, row.line.split("*")))
    assert re.fullmatch(expected, found.line), found.line
    assert found.line.isprintable() and found.code == row.code
    assert found.changed == () or row.writes
