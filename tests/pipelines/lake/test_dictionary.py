"""The data dictionary says what the schemas say, and the one beside them is that of these schemas."""

import re
from pathlib import Path

import pytest

from pipelines import lake
from pipelines.lake import TABLES
from pipelines.lake.dictionary import render_dictionary

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", render_dictionary(), re.M | re.S))


def cells(text):
    """Rows of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [
        [cell.strip().replace("\\|", "|").replace("&lt;", "<") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_there_once_with_type_unit_and_meaning(table):
    said = {row[0].strip("`"): row[1:] for row in cells(SECTIONS["Shared columns"]) + cells(SECTIONS[table])}
    listed = re.findall(r"`(\w+)`", SECTIONS[table].partition("[Shared](#shared-columns): ")[2])
    own = [row[0].strip("`") for row in cells(SECTIONS[table])]
    assert sorted(own + listed) == sorted(TABLES[table].schema)
    for column in TABLES[table].columns:
        assert said[column.name] == [str(column.dtype), column.unit, column.meaning]
    assert TABLES[table].meaning in SECTIONS[table]


def test_the_file_beside_the_schemas_is_generated_from_them():
    file = ROOT / "pipelines" / "lake" / "DICTIONARY.md"
    assert file.read_text() == render_dictionary(), "opd tables --dictionary > pipelines/lake/DICTIONARY.md"


def test_its_index_leads_to_every_table():
    anchors = re.findall(r"\]\(#([\w-]+)\)", render_dictionary())
    assert set(TABLES) <= set(anchors) <= {title.lower().replace(" ", "-") for title in SECTIONS}


def test_it_is_reached_from_the_readme_and_the_door():
    assert "pipelines/lake/DICTIONARY.md" in (ROOT / "README.md").read_text()
    assert "DICTIONARY.md" in (lake.__doc__ or "")
