"""The plan of a launch: what waits for what, that nothing is done twice, and what it costs."""

import dataclasses

import pytest

from assets.partitions import STUDIES, anchor_key, run_key
from assets.plan import Item, cost, outlook, plan
from opd_ops.recipe import AdamW, Guard, Reaction
from pipelines.runs.geometry.measuring import measure_run
from tests.assets.conftest import everything, named

TINY = STUDIES["tiny"]
OPD = TINY.every_arm()[1]


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_an_item_needs_earlier_items_only_and_the_comparison_all(study, store):
    items = everything(store, study)
    for index, item in enumerate(items):
        assert set(item.needs) <= {earlier.name for earlier in items[:index]}
    made = {item.name for item in items if not item.compares}
    assert [set(item.needs) for item in items if item.compares] == [made, made], "the comparison and the figures"
    assert len(named(items)) == len(items)


def test_the_plan_is_models_anchors_runs_and_the_comparison(store):
    items = everything(store)
    grid = [(recipe.name, seed) for recipe in TINY.arms() for seed in TINY.seeds]
    assert [item.job for item in items] == [
        "models", "teachers", *3 * ["anchors"], *len(grid) * ["runs"], "comparison", "exhibits"
    ]  # fmt: skip
    assert {item.partition for item in items if item.job == "models"} == {"tiny"}
    assert [item.partition for item in items[:2]] == ["tiny", "tiny"]
    assert {i.partition for i in items if i.job == "anchors"} == {anchor_key("tiny", seed) for seed in TINY.seeds}
    assert {i.partition for i in items if i.job == "runs"} == {run_key(*run) for run in grid}


def test_a_run_waits_for_the_models_and_the_anchor_of_its_seed(store):
    items = named(everything(store))
    assert items["tiny.opd, seed 1"].needs == ("tiny anchor, seed 1", "tiny.teacher")
    assert items["tiny.rlvr, seed 2"].needs == ("tiny anchor, seed 2",)
    assert items["tiny.teacher"].needs == items["tiny anchor, seed 0"].needs == ("tiny.base",)
    assert items["tiny.sft, seed 0"].needs == ("tiny.base", "tiny anchor, seed 0")


def test_every_run_is_trained_once_and_measured_once(store):
    items = everything(store)
    trained = [(item.run[0].name, item.run[1]) for item in items if item.trains]
    assert len(set(trained)) == len(trained) == 2 + 12
    assert not named(items)["tiny.sft, seed 0"].trains and named(items)["tiny anchor, seed 0"].trains
    assert {item.job for item in items if item.measures} == {"runs"}
    assert sum(item.measures for item in items) == 12


def test_what_is_asked_for_alone_brings_what_it_needs(store):
    items = plan(store, TINY, [OPD], [2])
    assert [item.name for item in items] == [
        "tiny.base", "tiny.teacher", "tiny anchor, seed 2", "tiny.opd, seed 2", "comparison", "figures"
    ]  # fmt: skip


def test_what_a_guard_reads_is_measured_before(store):
    guard = Guard(quantity="similarity", reference="tiny.sft")
    watched = dataclasses.replace(OPD, arm="watched", reaction=Reaction(guard=guard, action="none"))
    items = named(plan(store, TINY, [watched], [1]))
    measured = {f"tiny.sft, seed {seed}" for seed in guard.seeds}
    assert measured <= set(items["tiny.watched, seed 1"].needs)
    assert all(items[name].measures for name in measured)


def test_costs_are_positive_and_follow_the_work_that_is_left(store, settle):
    before = named(everything(store))
    assert all(item.cost > 0 for item in before.values())
    settle(store, OPD, 0)
    trained = named(everything(store))
    measure_run(store, OPD, 0, TINY.measurement, serial=True)
    done = named(everything(store))
    costs = [found["tiny.opd, seed 0"].cost for found in (before, trained, done)]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 3 and costs[-1] == 1
    assert [f["tiny.opd, seed 0"].trains for f in (before, trained, done)] == [True, False, False]
    assert [f["tiny.opd, seed 0"].measures for f in (before, trained, done)] == [True, True, False]
    assert before["tiny.opd, seed 1"].cost == done["tiny.opd, seed 1"].cost == costs[0]


def test_the_dearest_arms_start_first(store):
    costs = [item.cost for item in everything(store) if item.job == "runs" and item.trains]
    assert costs == sorted(costs, reverse=True)
    assert cost(OPD) > cost(TINY.arms()[2]) > cost(TINY.arms()[3])


def test_a_changed_recipe_is_refused_by_its_fields(store, settle):
    settle(store, OPD, 1)
    arms = [dataclasses.replace(OPD, optimizer=AdamW(learning_rate=0.5))]
    with pytest.raises(ValueError, match=r"runs/tiny\.opd/seed-1 .*optimizer\.learning_rate: 3e-05 -> 0\.5") as caught:
        plan(store, TINY, arms, [0, 1])
    assert "\n" not in str(caught.value)


def test_the_time_is_promised_where_the_pace_is_known(store):
    items = everything(store)
    assert outlook(dataclasses.replace(TINY, pace=None), items) == "14 runs to train, 12 to measure"
    assert outlook(TINY, items).startswith("14 runs to train, 12 to measure: about ")
    item = Item("o", "runs", "p", "locking", cost=3.0, run=(OPD, 0), trains=True)
    weights = Item("w", "models", "p", "teacher", cost=100.0)
    told = outlook(dataclasses.replace(TINY, pace=10.0), [item, weights])
    assert told == "1 runs to train, 0 to measure: about 15 s on 2 free cores"
