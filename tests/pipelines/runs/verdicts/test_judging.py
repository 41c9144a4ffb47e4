"""Regimes from the lake and into it."""

import polars as pl
import pytest

from pipelines import lake
from pipelines.runs.verdicts import judging
from tests.pipelines.regimes.conftest import Planted, references, tables


@pytest.fixture
def filled(store):
    """A store with the planted references of `tiny`, one more of its runs, and an import."""
    runs = [*references(), Planted(recipe="tiny.other", kind=2.0), Planted(recipe="external.mine", kind=1.0)]
    for name, frame in tables(runs).items():
        for (recipe, seed), part in frame.collect().partition_by("recipe", "seed", as_dict=True).items():
            lake.write(store, name, part, recipe=recipe, seed=seed)
    return store


def judge(store, recipe, step=None, study="tiny", seed=0):
    return judging.judge_regime(judging.load_profiles(store, [(recipe, seed)], study), recipe, seed, study, step)


def test_measured_runs_are_known_by_recipe_and_seed(filled, store):
    known = judging.measured_recipes(filled)
    assert known["tiny.opd"] == [0, 1, 2] and known["external.mine"] == [0] and len(known) == 5


def test_an_import_is_judged_by_a_studys_references_and_kept(filled):
    judging.store_comparison(filled, judge(filled, "external.mine"))
    rows = lake.scan("regime", filled.uri).collect()
    assert set(rows["recipe"]) == {"external.mine"} and set(rows["regime"]) == {"OPD-like"}
    assert set(rows["reference"]) == {"tiny.sft", "tiny.opd", "tiny.rlvr"}


def test_other_steps_and_references_stay_and_the_same_is_replaced(filled):
    for step, study in ((None, "tiny"), (16, "tiny"), (None, "smollm"), (None, "tiny")):
        judging.store_comparison(filled, judge(filled, "external.mine", step, study))
    rows = lake.read_partition(filled, "regime", recipe="external.mine", seed=0)
    keys = ["step", "view", "budget", "diagnostic", "reference"]
    assert rows.select(keys).n_unique() == rows.height
    assert set(rows.select("step", pl.col("reference").str.head(4)).unique().rows()) == {
        (64, "tiny"),
        (16, "tiny"),
        (64, "smol"),
    }
    reasons = rows.filter(pl.col("reference").str.starts_with("smollm"))["reason"].unique().to_list()
    assert reasons == ["study smollm has fewer than 2 measured seeds of sft, opd, rlvr that moved"]


def test_a_study_is_judged_whole(filled):
    told = {(row["recipe"], row["seed"]): row for row in judging.judge_study(filled, "tiny")}
    assert len(told) == 10
    assert told["tiny.other", 0] == {
        "recipe": "tiny.other",
        "seed": 0,
        "regime": "RLVR-like",
        "bf16": "RLVR-like",
        "master": "RLVR-like",
    }
    assert all(told["tiny.sft", seed]["regime"] == "SFT-like" for seed in range(3))
    assert lake.scan("regime", filled.uri).select(pl.struct("recipe", "seed").n_unique()).collect().item() == 10


def test_a_run_that_is_not_measured_has_nothing_to_compare(filled):
    assert judge(filled, "tiny.opd", seed=9) == []
