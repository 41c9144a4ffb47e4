"""The page of a study: complete, self-contained, well formed, short where nothing is unfolded, and nobody's own."""

import ast
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from pipelines.paper.suites import CONTROLS, INTERVENTIONS, OBJECTIVES, SOON
from pipelines.report import verdict_text
from pipelines.report.captions import FIGURES
from pipelines.report.page import render_page
from pipelines.statistics.claims import COMPARED
from pipelines.statistics.verdicts import decide_all
from pipelines.studies.catalog import find_study
from pipelines.studies.story import LEADS, Arm, Story
from tests.pipelines.planted import STORY

TINY = find_study("tiny")
PROVENANCE = {"commit": "0123abc", "command": "opd study run tiny", "store": "file:///tmp/<store>"}
VOID = {"meta", "link", "br", "img", "hr", "input"}
MOST_WORDS = 1500  # that are not folded


class Outline(HTMLParser):
    """Collects headings, ids, links, pictures, unbalanced tags, and the words that are not folded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.charts = 0
        self.words = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        self.charts += (values.get("class") or "").split()[:1] == ["chart"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        hidden = {"style", "script", "svg", "title"} & set(self.open)
        folded = "details" in self.open and "summary" not in self.open
        if not hidden and not folded:
            self.words += len(data.split())


def read(text: str) -> Outline:
    outline = Outline()
    outline.feed(text)
    return outline


@pytest.fixture(scope="module")
def text(tiny) -> str:
    return render_page(TINY, tiny, provenance=PROVENANCE)


@pytest.fixture(scope="module")
def outline(text) -> Outline:
    return read(text)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their pictures, for tests of words, which are then made in a moment."""
    monkeypatch.setattr("pipelines.report.vega.embed_chart", lambda *_, **__: '<div class="chart"></div>')


def part(text: str, key: str) -> str:
    match = re.search(rf'(?s)<section id="{key}".*?</section>', text)
    assert match is not None, key
    return match[0]


def renamed(tables, study: str, names: dict[str, str]):
    """The rows of tiny under another study and other names of arms."""
    recipes = {f"tiny.{old}": f"{study}.{new}" for old, new in names.items()}
    return {
        name: rows.with_columns(pl.col("recipe").replace(recipes), study=pl.lit(study))
        if "recipe" in rows.collect_schema()
        else rows
        for name, rows in tables.items()
    }


def foreign(study: str, names: dict[str, str], seeds=(0, 1, 2), story: Story | None = None):
    """A study of core arms with these names, as somebody else would declare it."""
    known = {recipe.arm: recipe for recipe in TINY.arms()}
    arms = tuple(replace(known[old], study=study, arm=new) for old, new in names.items())
    return replace(TINY, name=study, title="", suites={"core": arms}, seeds=seeds, anchor=None, story=story)


NAMES = {"sft": "imitate", "opd": "distill", "rlvr": "grpo", "sft-matched": "offline"}


def test_the_first_screen_has_the_result_a_table_a_picture_and_the_counts(text, tiny):
    header = text.partition("<header>")[2].partition("</header>")[0]
    decided = decide_all("tiny", tiny, STORY)
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', header)
    assert lead.startswith("SFT turns the weights 11 times as far as OPD")
    assert "tell the two apart" in lead, "the control is part of the result"
    table = header.partition("<tbody>")[2].partition("</tbody>")[0]
    assert table.count("<tr>") == 5 and header.count('class="chart"') == 1
    assert len(re.findall(r'<td data-head="OPD">', table)) == 5 and "about 1 deg" in table
    for name, count in verdict_text.count_statuses(decided).items():
        assert f'href="#verdicts-{name}">{verdict_text.count_words(name, count)}</a>' in header


def test_at_most_so_many_words_are_not_folded(every, outline, undrawn):
    assert outline.words <= MOST_WORDS
    assert read(render_page(TINY, every, provenance=PROVENANCE)).words <= MOST_WORDS


def test_every_verdict_is_there_under_its_status(text, tiny):
    for row in decide_all("tiny", tiny, STORY).iter_rows(named=True):
        folded = re.search(rf'(?s)<span id="verdicts-{verdict_text.status_word(row)}">.*?</details>', text)
        assert folded is not None
        assert f'<th scope="row">{escape(row["claim"])}</th>' in folded[0]


def test_a_verdict_has_its_interval_its_control_the_published_values_and_how_it_was_decided(text):
    line = re.search(r'<tr><th scope="row">unchanged weights, bf16: SFT &lt; OPD</th>.*?</tr>', text)
    assert line is not None
    effect, control, paper, how = re.findall(r"<td [^>]*>(.*?)</td>", line[0])
    assert effect.startswith("SFT 0.600 %, OPD 4.90 %; difference -4.30") or "difference" in effect
    assert control.startswith("not seen once matched: ") and "sft-matched in SFT" in control
    assert paper == "8.1 % / 51.6 %" and "bootstrap" in how and "80 % power" in how and "3 seeds" in how


def test_the_page_asks_for_nothing(text):
    outside = re.sub(r'(?s)<script type="text/plain".*?</script>', "", text)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", outside).replace("http-equiv", "")
    assert "http" not in outside
    assert not re.search(r"<(link|iframe)\b|<script[^>]*\bsrc\b|@import|url\((?!#)|fetch\(|import\(", outside)
    assert "default-src 'none'" in text, "and may not ask"


def test_tags_balance_ids_are_unique_and_links_land(outline):
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith("#") for link in outline.links)
    assert {link[1:] for link in outline.links} <= set(outline.ids)


def test_headings_descend_one_level_at_a_time(outline):
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))


def test_every_cell_knows_its_head_for_narrow_pages_and_every_table_its_caption(text):
    assert not re.search(r"<td(?! data-head=)", text)
    assert text.count("<table") == text.count("<caption>")


def test_provenance_is_stated_and_escaped(text):
    assert "commit 0123abc" in text
    assert "file:///tmp/&lt;store&gt;" in text and "<store>" not in text


def test_tables_of_scores_missing_values_and_bounds_are_there(text):
    assert "400 (100 x 4)" in text and "zero update" in text and "48 of 288" in text
    line = re.search(r'<tr><th scope="row">largest angle of rotation</th>.*?</tr>', text)
    assert line is not None
    assert re.findall(r"<td [^>]*>(.*?)</td>", line[0]) == ["120", "1.00e-3", "1.00e-3", "24", "0"]


def test_the_nulls_are_told_beside_three_figures_and_only_where_there_are_any(text, tiny, undrawn):
    folded = text.count("<b>Null.</b>")
    assert folded == 3
    bare = render_page(TINY, {name: rows for name, rows in tiny.items() if name != "nulls"}, provenance=PROVENANCE)
    assert "<b>Null.</b>" not in bare


def test_the_words_change_with_the_numbers(plant, text, undrawn):
    assert 'id="verdicts-fails"' not in text
    assert 'id="verdicts-fails"' in render_page(TINY, plant(rlvr={"unchanged": 0.01}), provenance=PROVENANCE)


def test_one_seed_decides_nothing_and_says_so(smollm, undrawn):
    text = render_page(find_study("smollm"), smollm, provenance={})
    assert 'id="verdicts-one-seed"' in text and 'id="verdicts-holds"' not in text
    assert "3 arms, seed 0" in text and "One seed: no intervals" in text


def test_runs_that_are_left_out_are_named(plant, undrawn):
    short = pl.col("recipe").eq("tiny.opd") & pl.col("seed").eq(1) & pl.col("step").gt(50)
    tables = plant()
    tables["rotation"] = tables["rotation"].filter(~short)
    assert "left out: opd seed 1 has rows of rotation up to step 50 of 100." in render_page(TINY, tables, provenance={})


def test_empty_and_partial_studies_do_not_crash(tiny, undrawn):
    empty = render_page(TINY, {}, provenance={})
    assert "no run of the suite core is measured yet. opd study run tiny" in empty
    assert 'class="chart"' not in empty and read(empty).open == []
    partial = {name: frame.filter(pl.col("recipe") == "tiny.opd") for name, frame in tiny.items() if name != "verdicts"}
    assert "Study tiny: 1 arm, seeds 0, 1 and 2" in render_page(TINY, partial, provenance={})


def test_the_same_tables_give_the_same_page(tiny, text):
    assert render_page(TINY, tiny, provenance=PROVENANCE) == text


def test_suites_have_a_folded_table_where_measured_and_one_line_with_a_command_where_not(every, text, undrawn):
    assert "Not measured yet: opd study run tiny --suite objectives" in text
    whole = render_page(TINY, every, provenance=PROVENANCE)
    for suite in (OBJECTIVES, INTERVENTIONS, CONTROLS):
        folded = re.search(rf'(?s)<span id="suite-{suite.name}">.*?</details>', whole)
        assert folded is not None and f'id="suite-{suite.name}"' not in text
        arms = [arm for arm in suite.arms if f"-at{SOON}" not in arm]
        assert all(f'<tr><th scope="row">{arm}</th>' in folded[0] for arm in arms)
    outline = read(whole)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)


def test_the_headline_is_about_core_arms(every, text, undrawn):
    numbers = [part.partition("</tbody>")[0] for part in (text, render_page(TINY, every, provenance=PROVENANCE))]
    assert numbers[0].partition("<tbody>")[2] == numbers[1].partition("<tbody>")[2]


def test_exhibits_stand_where_their_suites_are_measured(text, every, undrawn):
    assert len(re.findall(r'id="exhibit-(\w+)"', text)) == 5, "Table 1 and Figures 2 to 5"
    whole = render_page(TINY, every, provenance=PROVENANCE)
    assert set(re.findall(r'id="exhibit-(\w+)"', whole)) == {exhibit.key for exhibit in STORY.exhibits}


def test_an_arm_by_another_name_has_as_many_charts_and_verdicts(tiny, undrawn):
    same = {arm: arm for arm in NAMES}
    pages = [
        render_page(foreign(study, names), renamed(tiny, study, names), provenance={})
        for study, names in (("tiny", same), ("mine", NAMES))
    ]
    charts = [read(text).charts for text in pages]
    rows = [len(re.findall(r'<th scope="row">[^<]* differs from ', text)) for text in pages]
    assert charts[0] == charts[1] == len(FIGURES)
    assert rows[0] == rows[1] == 6 * (len(COMPARED) + 1)
    assert all(f">{name}<" in pages[1] for name in NAMES.values())
    assert not re.search(r"\b(SFT|RLVR|sft-matched|2606\.07082)\b", pages[1])


def test_a_declared_control_is_read_beside_what_it_controls(tiny, undrawn):
    story, names = Story(arms=(Arm(key="distill", label="Distilled", control="offline"),)), dict(NAMES)
    names.pop("sft")  # of three arms the first sentence names every pair
    rows = {
        name: table.filter(pl.col("recipe") != "tiny.sft") if "recipe" in table.collect_schema() else table
        for name, table in tiny.items()
    }
    text = render_page(foreign("mine", names, story=story), renamed(rows, "mine", names), provenance={})
    assert "Distilled differs from offline (its matched control) in" in text
    assert "offline in the place of Distilled" in text


def test_two_arms_two_seeds_and_no_anchor_make_a_page(tiny, undrawn):
    names = {"opd": "distill", "rlvr": "grpo"}
    rows = {
        name: table.filter(pl.col("recipe").is_in(["tiny.opd", "tiny.rlvr"]), pl.col("seed") < 2)
        if "recipe" in table.collect_schema()
        else table
        for name, table in tiny.items()
    }
    text = render_page(foreign("mine", names, seeds=(0, 1)), renamed(rows, "mine", names), provenance={})
    assert "A verdict takes three seeds; two seeds are measured." in text
    assert f"{len(COMPARED) + 1} with two seeds" in text
    assert read(text).charts == len(FIGURES) and "Not measured yet" not in text


@pytest.mark.parametrize("room", ["report", "statistics", "regimes"])
def test_no_room_below_the_story_knows_an_arm_or_a_paper(room):
    """No text in the code names an arm of tiny or the paper; docstrings and objectives (`kind`) are not texts."""
    root = Path(__file__).parents[3] / "pipelines" / room
    named = re.compile(r"\b(SFT|OPD|RLVR|sft-matched|2606\.07082|paper)\b")
    guilty = []
    for file in root.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                text = node.value
                if named.search(text) and text != "paper":  # the column and the section of that name
                    guilty.append(f"{file.name}:{node.lineno} {text[:60]}")
    assert guilty == []


def test_a_story_leads_with_a_figure_that_there_is():
    assert set(LEADS) == {figure.key for figure in FIGURES}


def test_an_arm_that_never_moved_is_named_where_it_is_not_drawn(plant, undrawn):
    tables = plant()
    still = pl.col("recipe") == "tiny.rlvr"
    for name, column in (("update_norm", "stable_rank"), ("update_norm", "frobenius")):
        tables[name] = tables[name].with_columns(pl.when(still).then(None).otherwise(column).alias(column))
    text = render_page(TINY, tables, provenance={})
    assert text.count("Not drawn, no values: RLVR.") == 2


def test_a_constant_is_called_what_its_claim_says(tiny, undrawn):
    claim = replace(STORY.default_claims[0], right=0.5, text="mine", left="distill")
    story = Story(claims=(claim, replace(claim, text="of chance", constant="chance")))
    text = render_page(foreign("mine", NAMES, story=story), renamed(tiny, "mine", NAMES), provenance={})
    assert "distill 4.90 %, 50.0 %; difference" in text and "distill 4.90 %, chance 50.0 %; difference" in text
