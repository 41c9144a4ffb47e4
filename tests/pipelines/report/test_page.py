"""The page: complete, self-contained, escaped and well formed."""

import re
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser

import polars as pl
import pytest

from pipelines.paper.suites import CONTROLS, INTERVENTIONS, OBJECTIVES, SOON
from pipelines.report import prose
from pipelines.report.adaptive import VARIABLES
from pipelines.report.captions import FIGURES
from pipelines.report.page import page
from pipelines.statistics.verdicts import verdicts
from tests.pipelines.planted import STORY

DRAWN = ("table1", "figure2", "figure3", "figure4", "figure5")  # items of the paper that core runs allow
PROVENANCE = {"commit": "0123abc", "command": "opd study run tiny", "store": "file:///tmp/<store>"}
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Collects headings, ids, attributes and unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.svgs: list[Mapping[str, str | None]] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "svg":
            self.svgs.append(found)
        if tag == "a":
            self.links.append(str(found["href"]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(tiny) -> str:
    return page("tiny", tiny, provenance=PROVENANCE)


@pytest.fixture(scope="module")
def outline(text) -> Outline:
    parser = Outline()
    parser.feed(text)
    return parser


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their figures, for tests of words, which are then made in a moment."""
    monkeypatch.setattr("pipelines.report.page.section", lambda *_: "<p>figures</p>")


def part(text: str, key: str) -> str:
    found = re.search(rf'(?s)<section id="{key}".*?</section>', text)
    assert found is not None, key
    return found[0]


def test_every_verdict_is_there_with_its_word(text, tiny):
    for row in verdicts("tiny", tiny, STORY).iter_rows(named=True):
        line = re.search(rf'<tr><th scope="row">{re.escape(escape(row["claim"]))}</th>.*?</tr>', text)
        assert line is not None
        assert f">{prose.status(row)}</span>" in line[0]


def test_the_page_asks_for_nothing(text):
    names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).replace('const SVG = "http://www.w3.org/2000/svg"', "")
    assert "http" not in names.replace("http-equiv", "")
    assert not re.search(r"<(link|iframe|img)\b|<script[^>]*\bsrc\b|@import|url\((?!#)|fetch\(|import\(", text)
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


def test_figures_have_words_for_those_who_do_not_see_them(outline):
    assert len(outline.svgs) == len(FIGURES) + len(DRAWN)
    for svg in outline.svgs:
        assert svg["role"] == "img"
        assert svg["aria-label"]
        assert "width" not in svg  # the page decides


def test_provenance_is_stated_and_escaped(text):
    assert "at commit 0123abc" in text
    assert "file:///tmp/&lt;store&gt;" in text
    assert "<store>" not in text


def test_tables_of_scores_and_missing_values_are_there(text):
    assert "400 (100 x 4)" in text
    assert "zero update" in text
    assert "48 of 288" in text


def test_the_nulls_are_told_beside_three_figures_and_only_where_there_are_any(text, tiny):
    assert text.count("<b>Beside a null.</b>") == 3
    assert "a direction that never turns. At 5 % and 100 % of the run it shows SFT 7.45 and 5.40 (measured" in text
    bare = page("tiny", {name: rows for name, rows in tiny.items() if name != "nulls"}, provenance=PROVENANCE)
    assert "Beside a null" not in bare and bare.count("<svg") == text.count("<svg")


def test_error_bounds_are_stated_with_what_they_leave_out(text):
    line = re.search(r'<tr><th scope="row">largest angle of rotation</th>.*?</tr>', text)
    assert line is not None
    assert re.findall(r"<td>(.*?)</td>", line[0]) == ["120", "1.00e-3", "1.00e-3", "24", "0"]


def test_the_words_change_with_the_numbers(plant, text, undrawn):
    assert "What does not reproduce" not in text
    turned = page("tiny", plant(rlvr={"unchanged": 0.01}), provenance=PROVENANCE)
    assert "What does not reproduce" in turned


def test_one_seed_and_no_control(smollm, undrawn):
    text = page("smollm", smollm, provenance={})
    assert "no matched offline control" in text
    assert ">one seed</span>" in text
    assert ">holds</span>" not in text
    assert "with seed 0" in text


def test_runs_that_are_left_out_are_named(plant, undrawn):
    short = pl.col("recipe").eq("tiny.opd") & pl.col("seed").eq(1) & pl.col("step").gt(50)
    tables = plant()
    tables["rotation"] = tables["rotation"].filter(~short)
    assert "Left out: opd seed 1 has rows of rotation up to step 50 of 100." in page("tiny", tables, provenance={})


def test_empty_and_partial_studies_do_not_crash(tiny):
    empty = page("tiny", {}, provenance={})
    assert "no runs of the arms that are put beside the paper: SFT, OPD, RLVR and sft-matched." in empty
    assert 'href="#headline"' in empty and 'id="objectives"' not in empty
    partial = {name: frame.filter(pl.col("recipe") == "tiny.opd") for name, frame in tiny.items() if name != "verdicts"}
    assert "OPD (100 steps) were trained" in page("tiny", partial, provenance={})


def test_the_same_tables_give_the_same_page(tiny, text):
    assert page("tiny", tiny, provenance=PROVENANCE) == text


def test_arms_of_the_suite_objectives_have_a_section_where_one_is_measured(varied, text, undrawn):
    found = page("tiny", varied, provenance=PROVENANCE)
    assert 'href="#objectives"' in found and 'id="objectives"' not in text
    section = re.search(r'(?s)<section id="objectives".*?</section>', found)
    assert section is not None
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>', section[0])
    assert rows[: 2 + len(OBJECTIVES.arms)] == ["OPD", "RLVR", *OBJECTIVES.arms]
    assert section[0].partition("<table>")[0].count("<li>") == len(OBJECTIVES.groups)
    outline = Outline()
    outline.feed(found)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert all(link[1:] in outline.ids for link in outline.links)


def test_figures_verdicts_and_the_headline_are_about_core_arms(varied, text, undrawn):
    found = page("tiny", varied, provenance=PROVENANCE)
    for key in ("findings", "headline", "arms"):
        assert part(found, key) == part(text, key), key
    for key in ("verdicts", "evaluation"):  # which have tables of their own for the other arms
        first, other = (part(page, key).partition("<table>")[2].partition("</table>")[0] for page in (found, text))
        assert first == other, key


def test_missing_values_and_bounds_are_counted_over_every_arm_on_the_page(varied, undrawn):
    found = page("tiny", varied, provenance=PROVENANCE)
    runs = 3 * (4 + len(OBJECTIVES.arms))
    assert f"{4 * runs} of {6 * 4 * runs}" in found
    line = re.search(r'<tr><th scope="row">spectral drift \(NSS\)</th><td>(\d+)</td>', found)
    assert line is not None and int(line[1]) == runs * 3 * 2


def test_figures_follow_a_dark_page(text):
    drawn = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    assert drawn and all('fill="var(--ground, #ffffff)"' in svg for svg in drawn)
    assert not any(f'"{color}"' in svg for svg in drawn for color in VARIABLES)


def test_interventions_and_controls_have_sections_where_measured(every, text, undrawn):
    found = page("tiny", every, provenance=PROVENANCE)
    for suite in (INTERVENTIONS, CONTROLS):
        assert f'id="{suite.name}"' not in text and f'href="#{suite.name}"' in found
        section = part(found, suite.name)
        arms = [arm for arm in suite.arms if f"-at{SOON}" not in arm]
        assert all(f'<tr><th scope="row">{arm}</th>' in section for arm in arms)
        assert "What holds (" in section and "What is asked here besides" in section
    assert "What the paper says of them" in part(found, "interventions")
    assert "What is left between OPD and RLVR once their updates are equally large" in part(found, "controls")
    assert "a random basis in place of its own" in part(found, "interventions")
    outline = Outline()
    outline.feed(found)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))


def test_the_ledger_has_both_intervals_the_control_and_the_power(text):
    line = re.search(r'<tr><th scope="row">unchanged weights, bf16: SFT &lt; OPD</th>.*?</tr>', text)
    assert line is not None
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", line[0])]
    verdict, effect, control, paper, boot, size, power, seeds, weighted, *_ = cells
    assert (verdict, seeds, weighted) == ("holds", "3", "yes")
    assert control.endswith(
        ": not seen (sft-matched in SFT&#x27;s place: OPD&#x27;s start, learning rate, steps and batch)"
    )
    assert paper == "8.1 % / 51.6 %" and float(size) < -100
    assert all(words.endswith("points") for words in (effect, boot, power))
    assert "covers the mean in 75 % of cases" in part(text, "verdicts")


def test_weightings_stand_side_by_side_and_roles_and_layers_are_folded(text):
    section = part(text, "means")
    assert section.count("<td>unweighted</td>") == section.count("<td>parameters</td>") == 17
    assert section.count("<details>") == 17 and section.count("by role</caption>") == 17
    assert "33 have a difference of the same sign" in section


def test_power_is_printed_with_the_accuracies(text, smollm, undrawn):
    section = part(text, "evaluation")
    assert "difference from OPD found with 80 % power" in section and "both, 10 seeds" in section
    assert "<td>100 x 4</td>" in section
    assert "Power" in part(page("smollm", smollm, provenance={}), "evaluation")


def test_a_page_of_the_suite_objectives_alone_is_whole(plant, undrawn):
    core = ("sft", "opd", "rlvr", "sft-matched")
    found = page("tiny", plant(drop=core, more=("opd-pg",)), provenance=PROVENANCE)
    assert "no runs of the arms that are put beside the paper" in found
    section = re.search(r'(?s)<section id="objectives".*?</section>', found)
    assert section is not None and re.findall(r'<tr><th scope="row">(.*?)</th>', section[0])[0] == "opd-pg"
