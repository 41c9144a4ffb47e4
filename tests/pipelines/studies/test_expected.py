"""The tables under "Expected numbers" are readable, name metrics and arms that exist, and agree with a finished store.

Set OPD_EXPECTED_STORE to the store of a finished run (`opd study run tiny`: .opd/store) to compare it with the pages.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.runs.verdicts import comparing
from pipelines.statistics.headline import METRICS, headline_rows
from pipelines.statistics.stories import story_of
from pipelines.store.objects import Store, normalise
from pipelines.studies.catalog import find_study

FOLDER = Path(__file__).resolve().parents[3] / "pipelines" / "studies"
PAGES = {
    "tiny/README.md": "tiny",
    "tiny/controls.md": "tiny",
    "tiny/objectives.md": "tiny",
    "smollm.md": "smollm",
}
CELL = re.compile(r"\(?(?P<mean>[\d.]+) ± (?P<half>[\d.]+)\)?(?:e(?P<power>-?\d+))?(?: (?P<unit>%|deg))?")
ARMS = {"SFT": "sft", "OPD": "opd", "RLVR": "rlvr"}
# Seeds share one base and one teacher, so their interval does not hold how these differ between machines.
SLACK = 2.0


@dataclass(frozen=True)
class Expected:
    """A cell: the mean over seeds and half of its 95 % interval, percents as fractions."""

    arm: str
    metric: str
    mean: float
    half: float


def read_cell(text: str) -> tuple[float, float] | None:
    match = CELL.fullmatch(text)
    if match is None:
        return None
    scale = 10.0 ** int(match["power"] or 0) * (0.01 if match["unit"] == "%" else 1.0)
    return float(match["mean"]) * scale, float(match["half"]) * scale


def expected_values(page: str) -> Iterator[Expected]:
    """The cells of the page's first table under "Expected numbers"; rows are metrics or arms."""
    section = (FOLDER / page).read_text().partition("## Expected numbers\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for first, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            if column.startswith("paper"):
                continue
            value = read_cell(cell)
            assert value is not None, f"{page}: {first}, {column}: {cell!r} is no mean with its half-width"
            arm, metric = (column, first) if head[0] == "metric" else (first.split("`")[1], column)
            yield Expected(ARMS.get(arm, arm), metric, *value)


@pytest.mark.parametrize("page", PAGES)
def test_the_table_names_arms_and_metrics_that_exist(page):
    arms = {recipe.arm for suite in find_study(PAGES[page]).suites.values() for recipe in suite}
    metrics = {metric.words for metric in METRICS}
    values = list(expected_values(page))
    assert len(values) > 20
    assert [value for value in values if value.arm not in arms] == []
    assert [value for value in values if re.sub(r", k \d+$", "", value.metric) not in metrics] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_finished_store_agrees_with_the_table(page):
    uri = os.environ.get("OPD_EXPECTED_STORE")
    if not uri:
        pytest.skip("no finished store: OPD_EXPECTED_STORE names none")
    study, store = find_study(PAGES[page]), Store(normalise(uri))
    values = list(expected_values(page))
    tables, arms = comparing.read_tables(store, study), list(dict.fromkeys(value.arm for value in values))
    rows = headline_rows(study.name, tables, story_of(study), arms=arms).iter_rows(named=True)
    measured = {(row["arm"], row["metric"]): row for row in rows if row["low"] is not None}
    compared = [value for value in values if (value.arm, value.metric) in measured]
    if not compared:
        pytest.skip(f"{uri} has no runs of {page} over several seeds")
    wrong = []
    for value in compared:
        row = measured[value.arm, value.metric]
        if abs(row["value"] - value.mean) > SLACK * (value.half + (row["high"] - row["low"]) / 2):
            wrong.append(f"{value} but {row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]")
    assert wrong == []
