"""The suite objectives beside OPD and RLVR: which arms, in which order, with which numbers and words."""

import polars as pl
import pytest

from pipelines.report.arms import CORE, GROUPS, OBJECTIVES
from pipelines.report.headline import SCHEMA, headline
from pipelines.report.metrics import ACCURACY
from pipelines.report.objectives import METRICS, differences, grid, markdown, objectives, terminal
from pipelines.studies import tiny as study


def test_the_arms_are_those_of_the_suite_in_its_order():
    assert tuple(recipe.arm for recipe in study.study().arms("objectives")) == OBJECTIVES
    assert tuple(recipe.arm for recipe in study.study().arms("core")) == CORE


def test_there_is_one_row_an_arm_after_opd_and_rlvr(varied):
    lines = grid(objectives("tiny", varied))
    assert [line[0] for line in lines] == ["arm", "OPD", "RLVR", *OBJECTIVES]
    assert lines[0][1:] == [
        "final accuracy at T=1",
        "unchanged weights, bf16",
        "relative norm of the update, bf16",
        "rotation, input side, bf16, k 16",
        "spectral drift (NSS), bf16",
        "stable rank of the update, master",
        "Sim_16 to the final step at 25 %, master",
    ]
    assert all(cell != "-" for line in lines for cell in line)


def test_numbers_are_those_of_the_headline_and_of_each_arm(varied):
    table = objectives("tiny", varied)
    assert table.schema == SCHEMA
    again = headline("tiny", varied).filter(pl.col("arm").is_in(["opd", "rlvr"]))
    mine = table.filter(pl.col("arm").is_in(["opd", "rlvr"]))
    assert mine.join(again, on=mine.columns, how="anti", nulls_equal=True).is_empty() and mine.height == 2 * 7
    turned = table.filter(pl.col("metric").str.starts_with("rotation"))
    size = dict(zip(turned["arm"], turned["value"], strict=True))
    assert [size[arm] for arm in OBJECTIVES] == pytest.approx([1.0 + 0.1 * place for place in range(len(OBJECTIVES))])
    assert (turned["low"] < turned["value"]).all() and set(turned["seeds"]) == {3}


def test_what_is_not_measured_has_no_row_and_no_words(plant):
    table = objectives("tiny", plant(more=("opd-stale16", "opd-top25"), drop=("rlvr",)))
    assert [line[0] for line in grid(table)] == ["arm", "OPD", "opd-top25", "opd-stale16"]
    assert [told.partition(":")[0] for told in differences(table)] == [
        "Token selection (opd-top25)",
        "Rollout source (opd-stale16)",
    ]


def test_a_number_that_is_absent_is_a_dash(plant):
    tables = plant(more=("opd-pg",))
    tables["locking"] = tables["locking"].filter(pl.col("recipe") != "tiny.opd-pg")
    (line,) = [line for line in grid(objectives("tiny", tables)) if line[0] == "opd-pg"]
    assert line[-1] == "-" and line.count("-") == 1


def test_without_an_arm_of_the_suite_there_is_nothing(tiny, smollm):
    for name, tables in (("tiny", tiny), ("smollm", smollm), ("tiny", {})):
        found = objectives(name, tables)
        assert found.is_empty() and found.schema == SCHEMA and differences(found) == []


def test_an_arm_that_is_trained_and_not_measured_is_not_there_yet(plant, tiny):
    scores = plant(more=("opd-pg",))["evaluation"]
    assert objectives("tiny", {**tiny, "evaluation": scores}).is_empty()
    assert ACCURACY in METRICS


def test_every_group_says_what_differs_from_opd(varied):
    told = differences(objectives("tiny", varied))
    assert len(told) == len(GROUPS)
    for group, sentence in zip(GROUPS, told, strict=True):
        assert sentence.startswith(f"{group.name} ({', '.join(group.arms)}): ")
        assert "in place of" in sentence and sentence.endswith(".")
    (mixing,) = [sentence for sentence in told if "alpha" in sentence]
    mix, rlvr, pg = study.mix(0.5), study.rlvr(), study.objectives()[0]
    shape = lambda recipe: f"{recipe.rollout.prompts} x {recipe.rollout.samples}"
    assert mix.rollout == rlvr.rollout and pg.arm == "opd-pg"
    assert shape(rlvr) == "8 x 8" and "RLVR's batch of 8 prompts x 8 samples" in mixing
    assert f"beside opd-pg the batch ({shape(pg)}) and the normaliser differ" in mixing
    assert mix.objective.opd.normaliser != pg.objective.normaliser
    assert mix.objective.rlvr == rlvr.objective and "RLVR is their alpha = 0" in mixing


def test_the_texts_hold_every_cell(varied):
    table = objectives("tiny", varied)
    told, marked = terminal(table), markdown(table)
    assert all(cell in told and cell in marked for line in grid(table) for cell in line)
    assert marked.splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def test_the_headline_the_claims_and_the_counts_of_core_arms_do_not_change(varied, tiny):
    assert headline("tiny", varied).equals(headline("tiny", tiny))
