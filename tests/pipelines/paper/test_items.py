"""What holds for every item: it is drawn, names its axes, keeps its colours, shows the paper, says what is missing."""

import re

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper import published
from pipelines.paper.item import NUMBERS
from pipelines.paper.items import ITEMS
from pipelines.paper.palette import arm_style
from pipelines.statistics.samples import fill_tables
from tests.pipelines.planted import STORY
from tests.pipelines.report.test_figures import render_svg

KEYS = [item.key for item in ITEMS]
BY_KEY = {item.key: item for item in ITEMS}


def encodings(spec, parts, *channels):
    return [
        (channel, part["encoding"][channel])
        for part in parts(spec)
        if isinstance(part.get("encoding"), dict)
        for channel in channels
        if channel in part["encoding"]
    ]


def test_the_items_are_the_papers_table_and_figures_in_its_order():
    assert ["table1", *(f"figure{number}" for number in range(2, 10))] == KEYS
    for item in ITEMS:
        assert set(item.needs) <= set(TABLES)
        assert item.shows.endswith(".") and item.not_shown.endswith(".")


@pytest.mark.parametrize("key", KEYS)
def test_an_item_renders_with_the_colours_of_its_arms(drawings, key):
    svg = render_svg(drawings[key].chart).lower()
    assert svg.startswith("<svg")
    core = {"figure6": ["opd", "sft"], "figure7": ["opd", "rlvr"], "figure9": ["opd", "rlvr"]}
    for arm in core.get(key, ["sft", "opd", "rlvr"]):
        assert arm_style(arm).color.lower() in svg


@pytest.mark.parametrize("key", KEYS)
def test_the_drawn_text_names_every_arm_of_an_item(drawings, key):
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", render_svg(drawings[key].chart)))
    named = {"figure6": ["SFT", "OPD"], "figure8": ["SFT", "OPD", "RLVR", "sft-matched"]}  # the others are of these
    for label in named.get(key, set(drawings[key].numbers["arm"])):
        assert re.search(rf"(^|[ :]){re.escape(label)}($|[ :])", words), label


@pytest.mark.parametrize("key", KEYS)
def test_an_arm_has_one_colour_dash_and_shape_in_all_items(specs, parts, key):
    arms = {arm_style(arm).label: arm_style(arm) for arm in _arms()}
    seen = set()
    for channel, encoding in encodings(specs[key], parts, "color", "shape", "strokeDash"):
        scale = encoding.get("scale") or {}
        if encoding.get("field") != "label" or "range" not in scale:
            continue
        for label, look in zip(scale["domain"], scale["range"], strict=True):
            arm = arms[label]
            wanted = {"color": arm.color, "shape": arm.shape, "strokeDash": list(arm.dash)}[channel]
            assert look == wanted, (label, channel)
            seen.add(label)
    assert seen or key == "figure2"  # whose rows are arms, each drawn in one colour


@pytest.mark.parametrize("key", KEYS)
def test_every_axis_that_is_written_out_has_a_title_with_its_unit(specs, parts, key):
    quantities, words = 0, ("(", "index", "matrix", "step")
    heads = [part["text"] for part in parts(specs[key]) if part.get("type") == "text" and part.get("y") == -8]
    for channel, encoding in encodings(specs[key], parts, "x", "y"):
        axis = encoding.get("axis")
        if encoding.get("type") != "quantitative" or (axis is None and "axis" in encoding):
            continue
        if (axis or {}).get("labels") is False:
            continue
        quantities += 1
        titles = [encoding["title"]] if encoding["title"] else heads  # which stand over every panel
        assert all(any(word in title for word in words) for title in titles), (channel, encoding)
    assert quantities


@pytest.mark.parametrize("key", KEYS)
def test_everything_the_paper_reports_is_drawn_and_told(specs, parts, key):
    item = BY_KEY[key]
    assert item.published
    values = (value for part in parts(specs[key]["datasets"]) for value in part.values())
    drawn = {value for value in values if isinstance(value, float | int)}
    for one in item.published:
        if key != "figure5":  # of which the paper's axis is known, the same for every arm
            assert one.low in drawn and one.high in drawn, one
        assert one.words in item.reported


@pytest.mark.parametrize("key", KEYS)
def test_the_numbers_have_their_columns_and_no_value_without_seeds(drawings, key):
    numbers = drawings[key].numbers
    assert numbers.schema == NUMBERS
    assert not numbers.is_empty()
    assert numbers["value"].null_count() == 0 and (numbers["seeds"] == 3).all()
    assert (numbers["low"] <= numbers["value"]).all() and (numbers["value"] <= numbers["high"]).all()


@pytest.mark.parametrize("key", ["table1", "figure2", "figure3", "figure4", "figure5", "figure6"])
def test_the_papers_words_stand_in_the_row_of_their_arm(drawings, key):
    found = {(row["arm"], row["paper"]) for row in drawings[key].numbers.iter_rows(named=True)}
    for one in BY_KEY[key].published:
        if one.arm in _arms():
            assert any(arm == arm_style(one.arm).label and one.description in paper for arm, paper in found), one


@pytest.mark.parametrize("key", ["figure6", "figure8"])
def test_arms_that_nobody_trained_leave_the_item_out_and_name_the_command(core, key):
    drawing = BY_KEY[key].draw(core, None)
    assert drawing.chart is None and drawing.numbers.is_empty()
    (sentence,) = drawing.absent
    assert "opd-at20-own16" in sentence and "opd study run tiny --suite interventions" in sentence


@pytest.mark.parametrize("key", ["figure7", "figure9"])
def test_a_suite_that_nobody_ran_leaves_its_items_out(core, key):
    drawing = BY_KEY[key].draw(core, None)
    assert drawing.chart is None
    assert len(drawing.absent) == 3  # groups
    assert all("opd study run tiny --suite objectives" in sentence for sentence in drawing.absent)


@pytest.mark.parametrize("key", ["figure6", "figure7", "figure8", "figure9"])
def test_a_study_without_such_arms_names_no_command(core, key):
    """A command that the study cannot run would be a remedy that fails as printed."""
    renamed = {
        name: table.with_columns(study=pl.lit("mine")) if "study" in table.collect_schema() else table
        for name, table in core.items()
    }
    for sentence in BY_KEY[key].draw(renamed, None).absent:
        assert "the study mine has no such arms" in sentence and "opd study run" not in sentence


def test_an_arm_that_is_missing_is_named_and_the_others_are_drawn(plant):
    tables = fill_tables(plant(more=("opd-top50", "opd-random25", "opd-mix-50")))
    drawing = BY_KEY["figure7"].draw(tables, None)
    token, rollout, mixing = drawing.absent
    assert "opd-random50, opd-top25" in token and "opd-top50" not in token
    assert "opd-teacher-rollouts, opd-stale16" in rollout
    assert "opd-mix-75, opd-mix-25, opd-mix-05, opd-mix-01" in mixing
    arms = set(drawing.numbers["arm"])
    assert arms == {"OPD", "RLVR", "opd-top50", "opd-random25", "opd-mix-50"}


@pytest.mark.parametrize("key", KEYS)
def test_a_study_without_runs_gives_a_sentence(key):
    drawing = BY_KEY[key].draw(fill_tables({}), None)
    assert drawing.chart is None and drawing.absent


def test_a_study_without_a_matched_control_has_no_such_line_in_the_table(smollm):
    drawing = BY_KEY["table1"].draw(fill_tables(smollm), None)
    assert drawing.numbers["arm"].to_list() == ["OPD", "RLVR", "SFT"]
    assert drawing.numbers["low"].null_count() == 3  # one seed


def test_the_papers_pairs_stand_beside_the_arms_that_take_their_part():
    values = {one.arm: one.low for one in published.FIGURE6}
    assert values == {"opd-at20": 63.3, "opd-at20-own16": 64.2, "sft-at20": 55.5, "sft-at20-own16": 45.6}


def _arms():
    return STORY.all_arms
