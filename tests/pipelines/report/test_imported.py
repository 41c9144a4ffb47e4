"""The page of an imported trajectory: its regime first, then its figures beside the references."""

import re

import polars as pl
import pytest

from pipelines.report.imported import render_import
from pipelines.runs.verdicts import judging
from pipelines.statistics.samples import fill_tables
from tests.pipelines import planted
from tests.pipelines.regimes.conftest import Planted, references, tables
from tests.pipelines.report.test_page import Outline

RECIPE = "external.my.run"


@pytest.fixture(scope="module")
def imported():
    """Rows of tiny's OPD as an import of one seed, with nothing of a study."""
    found = {}
    for name, rows in planted.plant_study("tiny").items():
        mine = rows.filter(pl.col("recipe") == "tiny.opd", pl.col("seed") == 0)
        found[name] = mine.with_columns(recipe=pl.lit(RECIPE), study=pl.lit("external"))
    return found


@pytest.fixture(scope="module")
def alone(imported):
    return render_import(RECIPE, imported, {}, provenance={"base": "s3://b/<base>"})


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


def test_its_own_numbers_come_first(alone):
    header = alone.partition("<header>")[2].partition("</header>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', header)[:2] == [
        "unchanged weights, bf16",
        "rotation, input side, bf16, k 16",
    ]
    assert '<td data-head="my.run">' in header


def test_without_references_it_says_so_and_how_to_get_them(alone):
    assert re.findall(r'<section id="(\w+)"', alone) == ["regime", "figures", "details"]
    assert "No regime: this store holds no study whose arms are measured" in alone
    assert "opd report external.my.run writes this page again" in alone


def test_it_is_well_formed_escaped_and_named(alone):
    found = outline(alone)
    assert found.open == [] and len(found.ids) == len(set(found.ids))
    assert found.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.levels, found.levels[1:], strict=False))
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert "4 weight matrices at 5 steps (5 to 100)" in alone
    assert "s3://b/&lt;base&gt;" in alone and "Weight geometry of my.run" in alone


def test_figures_are_those_of_the_tables_that_are_there(imported, alone):
    assert {"unchanged", "stable-rank", "lead-locking", "angles"} <= set(outline(alone).ids)
    few = {name: rows for name, rows in imported.items() if name in ("update_norm", "hill")}
    found = outline(render_import(RECIPE, few, {}, provenance={}))
    assert {"stable-rank", "norm", "hill"} <= set(found.ids) and "locking" not in found.ids


def test_the_same_tables_give_the_same_page(imported):
    few = {"update_norm": imported["update_norm"]}
    assert render_import(RECIPE, few, {}, provenance={}) == render_import(RECIPE, few, {}, provenance={})


def test_its_regime_comes_first_with_the_distances_beside_it():
    run = Planted(recipe=RECIPE, kind=1.0)
    from pipelines.regimes.profile import read_profiles

    known = tables([*references(), run])
    found = read_profiles(fill_tables(known), [(RECIPE, 0), *((one.recipe, one.seed) for one in references())])
    judged = {"tiny": judging.judge_regime(found, RECIPE, 0, "tiny")}
    text = render_import(
        RECIPE, {"update_norm": known["update_norm"].filter(pl.col("step") < 0)}, judged, provenance={}
    )
    assert re.findall(r'<section id="(\w+)"', text)[0] == "regime"
    assert ">OPD-like</span> beside the runs of study tiny." in text
    assert text.count("root mean square</th>") == 2, "a table per view"


def test_readings_against_a_band_are_told_at_the_last_step(imported):
    row = {"study": "external", "recipe": RECIPE, "seed": 0, "view": "bf16", "quantity": "stable_rank", "value": 4.0}
    from pipelines.lake.schemas import TABLES

    rows = [row | {"step": 50, "inside": True}, row | {"step": 100, "inside": False, "low": 5.0, "high": 6.0}]
    band = pl.DataFrame(rows, schema=TABLES["monitor"].schema).lazy()
    text = render_import(RECIPE, {"monitor": band}, {}, provenance={})
    assert (
        re.findall(r">(?:[456]\.000|outside)<", text) == [">4.000<", ">5.000<", ">6.000<", ">outside<"]
        and "inside</td>" not in text
    )
