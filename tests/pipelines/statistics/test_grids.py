"""The suites beside core as tables: which arms, in which order, with which numbers and words."""

from typing import Any

import polars as pl
import pytest

from opd_ops.recipe import Mix, Opd, SnapshotOf
from pipelines.paper.suites import CONTROLS, INTERVENTIONS, OBJECTIVES, SOON, SUITES
from pipelines.statistics.grids import METRICS, describe_differences, format_grid, grid_rows, render_markdown
from pipelines.statistics.headline import SCHEMA, headline_rows
from pipelines.statistics.metrics import ACCURACY
from pipelines.studies import tiny as study
from pipelines.studies.smollm import study as smollm_study
from tests.pipelines.planted import STORY


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_arms_are_those_of_the_suite_in_its_studies(suite):
    with_it = [one for one in (study.study(), smollm_study()) if suite.name in one.suites]
    arms = tuple(recipe.arm for one in with_it for recipe in one.arms(suite.name))
    assert sorted(arms) == sorted(suite.arms)
    assert suite is INTERVENTIONS or arms == suite.arms  # which are sorted by what they continue


def test_core_is_that_of_the_study_and_no_arm_is_in_two_suites():
    assert tuple(recipe.arm for recipe in study.study().arms("core")) == STORY.core
    assert len({arm for suite in SUITES for arm in suite.arms}) == sum(len(suite.arms) for suite in SUITES)


def objectives(tables):
    return grid_rows("tiny", OBJECTIVES, tables, STORY)


def test_there_is_one_row_an_arm_after_opd_and_rlvr(varied):
    lines = format_grid(OBJECTIVES, objectives(varied), STORY)
    assert [line[0] for line in lines] == ["arm", "OPD", "RLVR", *OBJECTIVES.arms]
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
    table = objectives(varied)
    assert table.schema == SCHEMA
    again = headline_rows("tiny", varied, STORY).filter(pl.col("arm").is_in(["opd", "rlvr"]))
    mine = table.filter(pl.col("arm").is_in(["opd", "rlvr"]))
    assert mine.join(again, on=mine.columns, how="anti", nulls_equal=True).is_empty() and mine.height == 2 * 7
    turned = table.filter(pl.col("metric").str.starts_with("rotation"))
    size = dict(zip(turned["arm"], turned["value"], strict=True))
    assert [size[arm] for arm in OBJECTIVES.arms] == pytest.approx(
        [1.0 + 0.1 * place for place in range(len(OBJECTIVES.arms))]
    )
    assert (turned["low"] < turned["value"]).all() and set(turned["seeds"]) == {3}


def test_what_is_not_measured_has_no_row_and_no_words(plant):
    table = objectives(plant(more=("opd-stale16", "opd-top25"), drop=("rlvr",)))
    assert [line[0] for line in format_grid(OBJECTIVES, table, STORY)] == ["arm", "OPD", "opd-top25", "opd-stale16"]
    assert [told.partition(":")[0] for told in describe_differences(OBJECTIVES, table)] == [
        "Token selection (opd-top25)",
        "Rollout source (opd-stale16)",
    ]


def test_a_number_that_is_absent_is_a_dash(plant):
    tables = plant(more=("opd-pg",))
    tables["locking"] = tables["locking"].filter(pl.col("recipe") != "tiny.opd-pg")
    (line,) = [line for line in format_grid(OBJECTIVES, objectives(tables), STORY) if line[0] == "opd-pg"]
    assert line[-1] == "-" and line.count("-") == 1


def test_without_an_arm_of_the_suite_there_is_nothing(tiny, smollm):
    for name, tables in (("tiny", tiny), ("smollm", smollm), ("tiny", {})):
        for suite in SUITES:
            found = grid_rows(name, suite, tables, STORY)
            assert found.is_empty() and found.schema == SCHEMA and describe_differences(suite, found) == []


def test_an_arm_that_is_trained_and_not_measured_is_not_there_yet(plant, tiny):
    scores = plant(more=("opd-pg",))["evaluation"]
    assert objectives({**tiny, "evaluation": scores}).is_empty()
    assert ACCURACY in METRICS


def test_every_group_says_what_differs_from_opd(varied):
    told = describe_differences(OBJECTIVES, objectives(varied))
    assert len(told) == len(OBJECTIVES.groups)
    for group, sentence in zip(OBJECTIVES.groups, told, strict=True):
        assert sentence.startswith(f"{group.name} ({', '.join(group.arms)}): ")
        assert "in place of" in sentence and sentence.endswith(".")
    (mixing,) = [sentence for sentence in told if "alpha" in sentence]
    mix, rlvr, pg = study.mix(0.5), study.rlvr(), study.objectives()[0]
    shape = lambda recipe: f"{recipe.rollout.prompts} x {recipe.rollout.samples}"
    assert mix.rollout == rlvr.rollout and pg.arm == "opd-pg"
    assert shape(rlvr) == "8 x 8" and "RLVR's batch of 8 prompts x 8 samples" in mixing
    assert f"beside opd-pg the batch ({shape(pg)}) and the normaliser differ" in mixing
    assert isinstance(mix.objective, Mix) and isinstance(pg.objective, Opd)
    assert mix.objective.opd.normaliser != pg.objective.normaliser
    assert mix.objective.rlvr == rlvr.objective and "RLVR is their alpha = 0" in mixing


def test_the_texts_hold_every_cell(varied):
    table = objectives(varied)
    marked = render_markdown(OBJECTIVES, table, STORY)
    assert all(cell in marked for line in format_grid(OBJECTIVES, table, STORY) for cell in line)
    assert marked.splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def test_the_headline_the_claims_and_the_counts_of_core_arms_do_not_change(varied, tiny):
    assert headline_rows("tiny", varied, STORY).equals(headline_rows("tiny", tiny, STORY))


def test_continued_arms_stand_by_what_they_continue_with_their_accuracy_before_and_after(every):
    lines = format_grid(INTERVENTIONS, grid_rows("tiny", INTERVENTIONS, every, STORY), STORY)
    assert lines[0][1:3] == ["starting accuracy at T=1", "final accuracy at T=1"]
    names = [line[0] for line in lines[1:]]
    assert names[:5] == ["opd-at20", "opd-at20-own16", "opd-at20-random16", "opd-at20-start16", "opd-at20-sft16"]
    parents = [name.partition("-at")[0] for name in names]
    assert parents == sorted(parents, key=["opd", "sft", "sft-matched", "rlvr"].index)
    assert len(names) == len(INTERVENTIONS.arms) - 6 == 36, "six are smollm's"
    leaks = {line[0]: line[3] for line in lines[1:]}
    assert lines[0][3] == "leaked share of the update"
    assert (leaks["opd-at20"], leaks["opd-at20-own16"][:4]) == ("-", "30.0")


def test_controls_stand_after_the_arms_that_they_are_twins_of(every):
    lines = format_grid(CONTROLS, grid_rows("tiny", CONTROLS, every, STORY), STORY)
    assert [line[0] for line in lines[1:4]] == ["SFT", "OPD", "RLVR"]
    assert [line[0] for line in lines[4:]] == list(CONTROLS.arms)


def test_the_words_about_the_other_suites_are_those_of_their_recipes(every):
    told = " ".join(describe_differences(CONTROLS, grid_rows("tiny", CONTROLS, every, STORY)))
    recipes = {recipe.arm: recipe for recipe in study.study().arms("controls")}
    shape = lambda arm: f"{recipes[arm].rollout.prompts} x {recipes[arm].rollout.samples}"
    assert shape("rlvr-32x8") == shape("opd-8x8").replace("8", "32", 1) == "32 x 8"
    assert "32 prompts x 8 samples, and OPD on RLVR's batch, 8 prompts x 8." in told
    assert recipes["sft-slow"].optimizer == study.opd().optimizer
    assert recipes["opd-fast"].optimizer.learning_rate == study.sft().optimizer.learning_rate
    continued: dict[str, Any] = {recipe.arm: recipe for recipe in study.study().arms("interventions")}
    assert continued["opd-at20-own16"].constraint.mode == "gradient" and continued["opd-at20"].constraint is None
    assert continued["opd-at20"].start.step == 20 and "step, the number in their names" in INTERVENTIONS.meaning
    starts = [recipe.start for recipe in smollm_study().arms("interventions")]
    assert {start.step for start in starts if isinstance(start, SnapshotOf)} == {SOON}
    assert continued["sft-at20-opd16"].constraint.basis.recipe == "tiny.opd"
